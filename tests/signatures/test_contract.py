"""One contract for every task and every kind of source: export, reload, ask in every way, verify.

A new task or source needs an entry in `ENTRIES` and nothing else here.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from signatures.sources import known
from signatures.spec import WARMUP_PATH, Card
from signatures.tasks import TASKS
from tests.signatures import architectures, checkpoints, presets

pytestmark = pytest.mark.long


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What to export, and how.

    Args:
        save: Writes a checkpoint into a folder and returns the name that `export` takes.
        task: The task that it should have.
        source: The kind of source that should load it.
        options: Further arguments of `export`.
    """

    save: Callable[[Path], str]
    task: str
    source: str = "transformers"
    options: dict[str, Any] = field(default_factory=dict)


def _keras_file(folder: Path) -> str:
    import keras

    keras.utils.set_random_seed(0)
    layers = [keras.Input((24, 20, 3)), keras.layers.Conv2D(6, 3, activation="relu"), keras.layers.BatchNormalization()]
    model = keras.Sequential([*layers, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)])
    folder.mkdir()
    model.save(folder / "model.keras")
    return str(folder / "model.keras")


def _keras_hub_preset(folder: Path) -> str:
    presets.save_classifier(folder)
    return f"keras_hub:{folder}"


def _python_function(folder: Path) -> str:
    return "python:tests.signatures.test_contract:make_model"


def make_model() -> Any:
    """What the entry for `python:` exports."""
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    image = tf_keras.Input((16, 16, 3))
    middle = tf_keras.layers.Conv2D(4, 3, activation="relu")(image)
    flat = tf_keras.layers.GlobalMaxPooling2D()(middle)
    return tf_keras.Model(image, tf_keras.layers.Dense(3, activation="softmax")(flat))


def _family(family: str, head: str) -> Callable[[Path], str]:
    return lambda folder: str(architectures.save_architecture(family, head, folder))


def _of(save: Callable[..., Path], *arguments: Any) -> Callable[[Path], str]:
    return lambda folder: str(save(folder, *arguments))


def _preprocessing(**options: Any) -> Any:
    from signatures.preprocessing import from_options

    return from_options(**options)


ENTRIES: dict[str, Entry] = {
    "classify": Entry(save=_family("ConvNext", "ForImageClassification"), task="image-classification"),
    "segment": Entry(save=_family("Segformer", "ForSemanticSegmentation"), task="image-segmentation"),
    "features": Entry(save=_family("DeiT", "Model"), task="image-feature-extraction"),
    "zero-shot": Entry(
        save=_of(checkpoints.save_clip), task="zero-shot-image-classification", options={"labels": "a cat,the photo,x"}
    ),
    "captions": Entry(save=_of(checkpoints.save_blip, "TFBlipForConditionalGeneration"), task="image-to-text"),
    "questions": Entry(save=_of(checkpoints.save_blip, "TFBlipForQuestionAnswering"), task="visual-question-answering"),
    "documents": Entry(save=_of(checkpoints.save_layoutlmv3), task="document-question-answering"),
    "masks": Entry(save=_of(checkpoints.save_sam), task="mask-generation"),
    "keras": Entry(
        save=_keras_file,
        task="image-classification",
        source="keras",
        options={"labels": "a,b,c", "preprocessing": lambda: _preprocessing(size=(24, 20), rescale=1 / 127.5)},
    ),
    "keras-hub": Entry(
        save=_keras_hub_preset, task="image-classification", source="keras_hub", options={"labels": "a,b,c"}
    ),
    "python": Entry(
        save=_python_function,
        task="image-classification",
        source="python",
        options={
            "labels": "a,b,c",
            "preprocessing": lambda: _preprocessing(size=20, crop=16, mean=[0.5] * 3, std=[0.2] * 3),
        },
    ),
}


def test_every_task_and_source_has_an_entry() -> None:
    assert {entry.task for entry in ENTRIES.values()} == set(TASKS)
    assert {entry.source for entry in ENTRIES.values()} == set(known())


@dataclass(frozen=True)
class Exported:
    name: str
    entry: Entry
    base: Path
    card: Card
    weights: list[Any]

    @property
    def version(self) -> Path:
        return self.base / "1"


@pytest.fixture(scope="module", params=list(ENTRIES))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """One entry after the other, exported."""
    from signatures import sources
    from signatures.export import write

    name = request.param
    entry, folder = ENTRIES[name], tmp_path_factory.mktemp(f"contract-{name}")
    options = {key: value() if callable(value) else value for key, value in entry.options.items()}
    loaded = sources.load(entry.save(folder / "checkpoint"), preprocessing=options.pop("preprocessing", None))
    version = folder / "base" / "1"
    write(loaded, version, verify=False, **options)
    return Exported(name, entry, folder / "base", Card.read(version), list(loaded.module.weights))


@pytest.fixture(scope="module")
def server(model: Exported, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server with it, which replays its warmup requests before it answers.

    It leaves out TensorFlow's graph optimizer, which takes more than half of the time that a signature needs before its
    first answer; the tests of each task run it.
    """
    from serving.flags import parse
    from serving.server import Server, free_port

    session = tmp_path_factory.mktemp("session") / "session.pbtxt"
    session.write_text("graph_options { rewrite_options { disable_meta_optimizer: true } }")
    ports = [f"--port={free_port()}", f"--rest_api_port={free_port()}"]
    flags = ["--model_name=m", f"--model_base_path={model.base}", f"--tensorflow_session_config_file={session}"]
    server = Server(parse([*ports, *flags]))
    server.start(timeout=300)
    yield server
    server.stop(1)


def images() -> list[bytes]:
    return checkpoints.pictures(3)[0]


def batch(model: Exported, encoded: list[bytes]) -> dict[str, Any]:
    """A request for `serving_default`, with the task's own samples for its further inputs."""
    further = TASKS[model.card.task].samples(len(encoded))
    wanted = model.card.signatures["serving_default"].inputs
    return {"image_bytes": encoded, **{name: value for name, value in further.items() if name in wanted}}


def as_described(answer: dict[str, Any], model: Exported, signature: str, count: int) -> None:
    tensors = model.card.signatures[signature].outputs
    assert set(answer) == set(tensors)
    for name, tensor in tensors.items():
        value = answer[name]
        assert len(value) == count, name
        assert value.dtype == (object if tensor.dtype == "string" else tensor.dtype), name
        assert value.ndim == len(tensor.shape), name
        assert all(want in (None, got) for want, got in zip(tensor.shape, value.shape, strict=True)), name


def same(got: Any, want: Any, name: str) -> None:
    if got.dtype == object:
        assert got.tolist() == want.tolist(), name
    else:
        np.testing.assert_allclose(got, want, atol=1e-5, rtol=1e-5, err_msg=name)


def test_the_card_and_the_files_are_whole(model: Exported) -> None:
    assert model.card.task == model.entry.task
    assert model.card.source.kind == model.entry.source
    signatures = {"serving_default", "preprocess", "pixels", "model", "from_examples"}
    if TASKS[model.card.task].classifies:
        signatures.add("classify")
    assert set(model.card.signatures) == signatures
    default = model.card.signatures["serving_default"]
    assert set(default.outputs) == {*TASKS[model.card.task].outputs, "error"}
    assert next(iter(default.inputs)) == "image_bytes"
    assert set(default.inputs) <= {"image_bytes", *TASKS[model.card.task].inputs}
    assert (model.version / WARMUP_PATH).stat().st_size > 1000


def test_only_ops_that_stock_servers_carry(model: Exported) -> None:
    """Each has a CPU kernel in TensorFlow itself and calls no Python, and the card says since which version."""
    from tensorflow.python.framework import kernels

    from signatures import runtime

    runtime.check(model.version, model.name)
    found = runtime.ops(model.version)
    assert len(found) > 50
    for op in sorted(found):
        registered = kernels.get_registered_kernels_for_op(op).kernel
        assert any(kernel.device_type in ("CPU", "DEFAULT") for kernel in registered), op
    assert model.card.extra["minimum_runtime"] == ("2.19" if found & set(runtime.NEWER_OPS) else "2.16")


def test_every_signature_shares_one_body(model: Exported) -> None:
    """Reading, preparing and answering are functions of the graph that all signatures call: they cannot differ."""
    shared = shared_functions(model.version)
    decode, answer = (next(iter(shared["serving_default"] & shared[name])) for name in ("preprocess", "pixels"))
    assert shared["preprocess"] == {decode}
    assert shared["pixels"] == {answer}
    for name in {"serving_default", "from_examples", "classify"} & set(shared):
        assert shared[name] == {decode, answer}, name


def shared_functions(version: Path) -> dict[str, set[str]]:
    """Signature -> those functions of `signatures.build` that it calls; TensorFlow names them after Python's."""
    from tensorflow.core.protobuf import saved_model_pb2

    graph = saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes()).meta_graphs[0]
    functions = {function.signature.name: function for function in graph.graph_def.library.function}

    def called(node: Any) -> set[str]:
        name = node.attr["f"].func.name if node.op == "StatefulPartitionedCall" else ""
        if not name or re.fullmatch(r"__inference_(decode|_answer_all)_\d+", name):
            return {name} - {""}
        return set().union(*map(called, functions[name].node_def))

    nodes = {node.name: node for node in graph.graph_def.node}
    return {
        name: called(nodes[next(iter(signature.outputs.values())).name.partition(":")[0]])
        for name, signature in graph.signature_def.items()
        if signature.inputs and name != "model"
    }


def test_every_signature_answers_alike_over_both_doors(model: Exported, server: Any) -> None:
    from serving.client import connect

    encoded = images()
    four = batch(model, [encoded[0], b"junk", encoded[1], encoded[2]])
    four["image_bytes"] = np.array(four["image_bytes"], object)
    one = {key: value[:1] for key, value in four.items()}
    answers = {}
    for door, target in targets(server).items():
        with connect(target, timeout=200) as client:
            answers[door] = client.call(four)
            alone = client.call(one)
        as_described(answers[door], model, "serving_default", 4)
        as_described(alone, model, "serving_default", 1)
        for key, value in alone.items():
            same(as_wide(answers[door][key][:1], value), value, f"{door} {key}")
    answer = answers["grpc"]
    assert [bool(error) for error in answer["error"]] == [False, True, False, False]
    for key, value in answer.items():
        if key != "error":
            bad = value[1:2]
            assert not (any(np.ravel(bad)) if bad.dtype == object else bad.any()), key
        same(answers["rest"][key], value, key)
    with connect(targets(server)["grpc"], timeout=200) as client:
        ask_the_others(client, model, four, answer)


def ask_the_others(client: Any, model: Exported, four: dict[str, Any], answer: dict[str, Any]) -> None:
    """The signatures besides `serving_default`, of which TensorFlow prepares each for seconds when it is first asked.

    What they share with it is shown without asking, so `from_examples` is asked where it has more to parse than the
    image's bytes, and once where it has not.
    """
    from PIL import Image

    further = {key: value[:1] for key, value in four.items() if key != "image_bytes"}
    pixels = np.asarray(Image.open(io.BytesIO(four["image_bytes"][0])).convert("RGB"))[None]
    for key, value in client.call({**further, "pixels": pixels}, signature="pixels").items():
        same(value, as_wide(answer[key][:1], value), f"pixels {key}")
    if further or model.name == "classify":
        for key, value in client.call({"examples": examples(four)}, signature="from_examples").items():
            same(value, answer[key], f"from_examples {key}")
    features = client.call({"image_bytes": four["image_bytes"]}, signature="preprocess")
    as_described(features, model, "preprocess", 4)
    assert (features["pixel_values"][0] != features["pixel_values"][2]).any()


def as_wide(value: Any, other: Any) -> Any:
    """`value` without what a larger batch has filled up behind it."""
    return value[(slice(None), *(slice(0, size) for size in other.shape[1:]))]


def targets(server: Any) -> dict[str, str]:
    ports = server.ports
    return {"grpc": f"grpc://127.0.0.1:{ports.grpc}/m", "rest": f"http://127.0.0.1:{ports.rest}/m"}


def examples(request: dict[str, Any]) -> list[bytes]:
    """Serialized tf.Examples of a request's items."""
    import tensorflow as tf

    def feature(value: Any) -> Any:
        # An object array keeps bytes as they are; NumPy's own would lose their last zeros.
        flat = np.array([value], object) if isinstance(value, bytes) else np.ravel(np.asarray(value))
        if flat.dtype.kind in "OSU":
            encoded = [item if isinstance(item, bytes) else str(item).encode() for item in flat.tolist()]
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=encoded))
        if flat.dtype.kind == "f":
            return tf.train.Feature(float_list=tf.train.FloatList(value=flat.tolist()))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=flat.tolist()))

    return [
        tf.train.Example(
            features=tf.train.Features(
                feature={
                    "image/encoded" if key == "image_bytes" else key: feature(value[index])
                    for key, value in request.items()
                }
            )
        ).SerializeToString()
        for index in range(len(request["image_bytes"]))
    ]


def test_parity_holds(model: Exported, server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`verify`, with the server's answers, which are of the saved graph and the saved weights, beside the checkpoint's.

    To load it once more would take as long as the rest of this file, and test nothing else.
    """
    import tensorflow as tf

    from serving.client import connect
    from signatures.verify import verify

    for index, data in enumerate(images()[:2]):
        (tmp_path / f"{index}.png").write_bytes(data)
    with connect(targets(server)["grpc"], timeout=200) as client:

        def asked(signature: str, **inputs: Any) -> dict[str, Any]:
            answer = client.call({key: value.numpy() for key, value in inputs.items()}, signature=signature)
            return {key: tf.constant(value) for key, value in answer.items()}

        signatures = {name: functools.partial(asked, name) for name in model.card.signatures}
        loaded = SimpleNamespace(signatures=signatures, model=SimpleNamespace(weights=model.weights))
        monkeypatch.setattr(tf.saved_model, "load", lambda path: loaded)
        report = verify(model.base, images=[tmp_path])
    assert report.holds, report.table()
    assert len(report.rows) == 2
