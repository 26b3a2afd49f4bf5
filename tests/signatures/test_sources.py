from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from signatures import sources
from signatures.errors import UsageError, VitrinaError
from signatures.preprocessing import from_options


@pytest.fixture
def copied(tiny_vit: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_vit, tmp_path / "copy"))


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_checkpoint_becomes_a_model(tiny_vit: Path, tiny_labels: tuple[str, ...]) -> None:
    import tensorflow as tf

    model = sources.load(str(tiny_vit))
    assert model.task == "image-classification"
    assert model.labels == tiny_labels
    assert model.source.cls == "TFViTForImageClassification"
    assert model.source.revision is None
    assert {"config.json", "preprocessor_config.json"} <= set(model.files)
    pixels = tf.constant(np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32))
    raw = model.call({"pixel_values": pixels})
    assert list(raw) == ["logits"]
    np.testing.assert_array_equal(raw["logits"], model.native(pixels).logits)
    assert len(model.module.variables) == len(model.native.weights)


def test_labels_are_in_id_order_whatever_the_order_of_the_keys(copied: Path, tiny_labels: tuple[str, ...]) -> None:
    keys = list(json.loads((copied / "config.json").read_text())["id2label"])
    assert keys != sorted(keys, key=int), "the checkpoint does not show the fault"
    assert sources.load(str(copied)).labels == tiny_labels


def test_safetensors_of_pytorch_load_without_pytorch(tiny_vit: Path, copied: Path) -> None:
    """The same weights under PyTorch's names and layouts, in two shards."""
    from safetensors.numpy import load_file, save_file
    from transformers.modeling_tf_pytorch_utils import TransposeType, convert_tf_weight_name_to_pt_weight_name

    native = sources.load(str(tiny_vit)).native
    converted = {}
    for variable in native.weights:
        name, transpose = convert_tf_weight_name_to_pt_weight_name(
            variable.name, start_prefix_to_remove="", tf_weight_shape=variable.shape
        )
        value = variable.numpy()
        axes = {TransposeType.SIMPLE: (1, 0), TransposeType.CONV2D: (3, 2, 0, 1)}.get(transpose)
        converted[name] = np.ascontiguousarray(value if axes is None else value.transpose(axes))
    (copied / "model.safetensors").unlink()
    half = len(converted) // 2
    shards = {"model-00001-of-00002.safetensors": list(converted)[:half]}
    shards["model-00002-of-00002.safetensors"] = list(converted)[half:]
    for shard, names in shards.items():
        save_file({name: converted[name] for name in names}, copied / shard, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: shard for shard, names in shards.items() for name in names}}
    (copied / "model.safetensors.index.json").write_text(json.dumps(index))
    assert load_file(copied / "model-00001-of-00002.safetensors")

    loaded = sources.load(str(copied)).native
    for ours, theirs in zip(loaded.weights, native.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_bfloat16_computes_in_bfloat16_over_float32_weights(tiny_vit: Path) -> None:
    import tensorflow as tf
    import tf_keras

    model = sources.load(str(tiny_vit), dtype="bfloat16")
    assert {variable.dtype for variable in model.module.variables} == {tf.float32}
    pixels = tf.zeros([1, 3, 32, 32])
    assert model.call({"pixel_values": pixels})["logits"].dtype == tf.bfloat16
    assert tf_keras.mixed_precision.global_policy().name == "float32"


def test_oblong_images_and_configurations_without_a_size(tmp_path: Path) -> None:
    """transformers itself cannot make such models: it wants one size, for a way of saving that nothing here uses."""
    from transformers import (
        ConvNextImageProcessor,
        CvtConfig,
        TFCvtForImageClassification,
        TFViTForImageClassification,
        ViTConfig,
        ViTImageProcessor,
    )

    from signatures.sources._mended import images_of_any_size

    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    cvt = CvtConfig(embed_dim=[4, 4, 8], num_heads=[1, 1, 2], depth=[1, 2, 3])
    with pytest.raises(NotImplementedError):
        TFCvtForImageClassification(cvt)
    with images_of_any_size():
        made = [
            (TFViTForImageClassification(ViTConfig(**small, image_size=[16, 24], patch_size=8)), ViTImageProcessor()),
            (TFCvtForImageClassification(cvt), ConvNextImageProcessor()),
        ]
        for native, processor in made:
            native.build_in_name_scope()
            folder = tmp_path / type(native).__name__
            native.save_pretrained(folder, safe_serialization=True)
            processor.save_pretrained(folder)
            native.name_of_folder = folder
    for native, _ in made:
        loaded = sources.load(str(native.name_of_folder)).native
        for ours, theirs in zip(loaded.weights, native.weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    pixels = np.zeros((1, 3, 16, 24), np.float32)
    assert sources.load(str(tmp_path / "TFViTForImageClassification")).call({"pixel_values": pixels})["logits"].shape


def test_windows_of_swin_are_put_together_without_a_division() -> None:
    """TensorFlow's graph optimizer makes 49 * (1 / 49) of a quotient, which is less than 1."""
    import tensorflow as tf
    from transformers.models.swin import modeling_tf_swin

    from signatures.sources import _mended

    _mended.windows()
    picture = tf.random.stateless_uniform([3, 14, 21, 5], (0, 1))
    put = tf.function(lambda picture: modeling_tf_swin.window_reverse(window_partition(picture, 7), 7, 14, 21))
    window_partition = modeling_tf_swin.window_partition
    np.testing.assert_array_equal(put(picture), picture)
    graph = put.get_concrete_function(picture).graph.as_graph_def()
    assert "RealDiv" not in {node.op for node in graph.node}


def test_weights_of_tensorflow_in_one_file_and_in_shards(tiny_vit: Path, copied: Path) -> None:
    native = sources.load(str(tiny_vit)).native
    (copied / "model.safetensors").unlink()
    for arguments, written in (
        ({"safe_serialization": False}, "tf_model.h5"),
        ({"safe_serialization": False, "max_shard_size": "60KB"}, "tf_model.h5.index.json"),
        ({"safe_serialization": True, "max_shard_size": "60KB"}, "model.safetensors.index.json"),
    ):
        native.save_pretrained(copied, **arguments)
        assert (copied / written).is_file()
        loaded = sources.load(str(copied)).native
        for ours, theirs in zip(loaded.weights, native.weights, strict=True):
            np.testing.assert_array_equal(ours, theirs, err_msg=written)
        for path in [*copied.glob("*.h5*"), *copied.glob("*.safetensors*")]:
            path.unlink()


def test_a_hub_id_with_a_revision(tiny_vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the Hub's cache, as a download leaves it: two commits, of which a tag names the older one."""
    import huggingface_hub.constants
    from transformers.utils import hub

    older, newer = "a" * 40, "b" * 40
    repository = tmp_path / "models--someone--tiny-vit"
    for commit in (older, newer):
        shutil.copytree(tiny_vit, repository / "snapshots" / commit)
    edit(repository / "snapshots" / older / "config.json", id2label={str(i): f"old {i}" for i in range(12)})
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(newer)
    (repository / "refs" / "v1").write_text(older)
    monkeypatch.setattr(hub, "TRANSFORMERS_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))

    latest = sources.load("someone/tiny-vit")
    assert latest.source.revision == newer
    assert latest.labels[0] == "kind a"
    tagged = sources.load("someone/tiny-vit", revision="v1")
    assert (tagged.source.model, tagged.source.revision) == ("someone/tiny-vit", older)
    assert tagged.labels[0] == "old 0"
    with pytest.raises(UsageError, match="the Hub did not give it at revision v2"):
        sources.load("someone/tiny-vit", revision="v2")


def test_an_unknown_architecture_is_said(copied: Path) -> None:
    edit(copied / "config.json", architectures=["DetrForObjectDetektion"], model_type="detr")
    with pytest.raises(UsageError, match=r"DetrForObjectDetektion, for which there is no task.*--task"):
        sources.load(str(copied))
    edit(copied / "config.json", architectures=["ViTMSNForImageClassification"], model_type="vit_msn")
    with pytest.raises(UsageError, match="no TensorFlow class TFViTMSNForImageClassification"):
        sources.load(str(copied))


def test_weights_that_are_not_there_are_never_random(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    edit(copied / "config.json", id2label={**config["id2label"], "12": "one more"})
    with pytest.raises(VitrinaError, match="classifier"):
        sources.load(str(copied))
    (copied / "model.safetensors").unlink()
    with pytest.raises(VitrinaError, match=r"cannot be loaded.*tf_model.h5 or model.safetensors"):
        sources.load(str(copied))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json"])
def test_pickled_weights_are_refused(copied: Path, name: str) -> None:
    (copied / "model.safetensors").rename(copied / name)
    with pytest.raises(UsageError, match=rf"weights in {name} alone, a pickle.*Give model\.safetensors"):
        sources.load(str(copied))


def test_a_folder_that_is_no_checkpoint_is_said(tmp_path: Path, copied: Path) -> None:
    with pytest.raises(UsageError, match="There is no folder"):
        sources.load(str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="There is no folder nowhere/"):
        sources.load("nowhere/")
    with pytest.raises(UsageError, match=r"has no config\.json"):
        sources.load(str(tmp_path))
    with pytest.raises(UsageError, match=r"is a file.*Give its folder"):
        sources.load(str(copied / "config.json"))
    (copied / "preprocessor_config.json").unlink()
    with pytest.raises(UsageError, match=r"has no preprocessor_config\.json.*--size"):
        sources.load(str(copied))
    given = sources.load(str(copied), preprocessing=from_options(size=32)).preprocessing
    assert (given.processor, given.data_format) == ("options", "channels_first")
    (copied / "config.json").write_text("{not json")
    with pytest.raises(UsageError, match="is not JSON"):
        sources.load(str(copied))


def test_an_unknown_kind_or_dtype_is_said(tiny_vit: Path) -> None:
    with pytest.raises(UsageError, match=r"No model source named 'pyton'. Did you mean 'python'\?.*sources/pyton\.py"):
        sources.load("pyton:package.module:function")
    with pytest.raises(UsageError, match="float32, bfloat16"):
        sources.load(str(tiny_vit), dtype="int8")


@pytest.mark.parametrize("file", ["model.keras", "model.h5"])
@pytest.mark.parametrize("keras_name", ["keras", "tf_keras"])
def test_keras_files_of_both_generations(keras_name: str, file: str, tmp_path: Path) -> None:
    import importlib

    import tensorflow as tf

    keras = importlib.import_module(keras_name)
    layers = [keras.layers.InputLayer((8, 6, 3)), keras.layers.BatchNormalization(), keras.layers.Flatten()]
    native = keras.Sequential([*layers, keras.layers.Dense(4, activation="softmax")])
    path = tmp_path / file
    native.save(path)
    with pytest.raises(UsageError, match="never guessed"):
        sources.load(str(path))
    model = sources.load(str(path), preprocessing=from_options(size=(8, 6)))
    assert model.preprocessing.data_format == "channels_last"
    assert model.config["function_to_apply"] == "none"
    images = np.random.default_rng(0).uniform(size=(2, 8, 6, 3)).astype(np.float32)
    (raw,) = model.call({"pixel_values": tf.constant(images)}).values()
    np.testing.assert_allclose(raw, native(images), atol=1e-6)
    assert len(model.module.variables) >= len(native.weights)


@pytest.mark.parametrize("keras_name", ["keras", "tf_keras"])
def test_a_model_that_resizes_itself_needs_no_options(keras_name: str, tmp_path: Path) -> None:
    """Its first layer runs image by image; a model that does not say its range of values is not guessed."""
    import importlib

    import tensorflow as tf

    from signatures.processor import compile_processor

    keras = importlib.import_module(keras_name)
    resizing = keras.layers.Resizing(9, 7, interpolation="bicubic")
    layers = [keras.layers.InputLayer((None, None, 3)), resizing, keras.layers.Rescaling(1 / 127.5, -1)]
    native = keras.Sequential([*layers, keras.layers.Flatten(), keras.layers.Dense(4)])
    native.save(tmp_path / "model.keras")
    model = sources.load(str(tmp_path / "model.keras"))
    assert model.preprocessing.processor == "Resizing"
    process = compile_processor(model.preprocessing)
    for size in [(40, 31), (5, 90), (9, 7)]:
        image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
        pixels = process(tf.constant(image))["pixel_values"][None]
        (raw,) = model.call({"pixel_values": pixels}).values()
        np.testing.assert_allclose(raw, native(image[None].astype(np.float32)), atol=1e-5)

    silent = keras.Sequential([*layers[:2], keras.layers.Flatten(), keras.layers.Dense(4)])
    silent.save(tmp_path / "silent.keras")
    with pytest.raises(UsageError, match="never guessed"):
        sources.load(str(tmp_path / "silent.keras"))


@pytest.mark.parametrize("keras_name", ["keras", "tf_keras"])
def test_what_makes_scores_is_seen_wherever_it_is(keras_name: str) -> None:
    """By the outputs, so that probabilities from deep within or from an unknown layer are not taken for logits."""
    import importlib

    from signatures.sources._keras import wrap

    keras = importlib.import_module(keras_name)
    layers = keras.layers
    inner = keras.Sequential([layers.InputLayer((8, 8, 3)), layers.Flatten(), layers.Dense(3, activation="softmax")])
    body = [layers.InputLayer((8, 8, 3)), layers.Flatten()]
    models = {
        "nested": (keras.Sequential([layers.InputLayer((8, 8, 3)), inner]), "none"),
        "after": (keras.Sequential([*body, layers.Dense(3), layers.Softmax()]), "none"),
        "logits": (keras.Sequential([*body, layers.Dense(3)]), "softmax"),
        "labels that exclude nothing": (keras.Sequential([*body, layers.Dense(3, activation="sigmoid")]), "none"),
        "binary": (keras.Sequential([*body, layers.Dense(1, activation="sigmoid")]), "none"),
        "binary logits": (keras.Sequential([*body, layers.Dense(1)]), "sigmoid"),
    }
    for name, (native, function) in models.items():
        model = wrap(native, name=name, kind="keras", task=None, dtype="float32", preprocessing=from_options(size=8))
        assert model.config == {"function_to_apply": function}, name


@pytest.mark.parametrize("keras_name", ["keras", "tf_keras"])
def test_bfloat16_of_keras(keras_name: str) -> None:
    """Its layers compute so over the same weights; what holds grey levels and the last layer do not."""
    import importlib

    import tensorflow as tf

    from signatures.sources._keras import ARCHITECTURE, wrap

    keras = importlib.import_module(keras_name)
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    scaled = keras.layers.Rescaling(1 / 255)(image)
    middle = keras.layers.Conv2D(4, 3, activation="relu", name="middle")(scaled)
    native = keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(middle)))
    kept = {"name": "m", "kind": "keras", "task": None, "preprocessing": from_options(size=8, rescale=1.0)}
    model = wrap(native, dtype="bfloat16", **kept)
    plain = wrap(native, dtype="float32", **kept)
    assert model.dtype == "bfloat16"
    assert model.files[ARCHITECTURE] == plain.files[ARCHITECTURE], "verification is against the model as it was"
    computed = {layer.name: layer.compute_dtype for layer in model.native.layers}
    assert computed["middle"] == "bfloat16"
    assert [layer.compute_dtype for layer in model.native.layers][1::3][0] == "float32"
    assert model.native.layers[-1].compute_dtype == "float32"
    assert {variable.dtype for variable in model.module.variables} == {tf.float32}
    images = {"pixel_values": tf.constant(np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)), tf.float32)}
    (got,), (want,) = model.call(images).values(), plain.call(images).values()
    assert got.dtype == tf.float32
    distance = np.abs(np.asarray(got) - np.asarray(want)).max()
    assert 0 < distance < 0.02


def test_keras_files_that_are_not_are_said(tmp_path: Path) -> None:
    (tmp_path / "model.keras").write_text("no")
    with pytest.raises(UsageError, match=r"is not a \.keras file"):
        sources.load(str(tmp_path / "model.keras"))
    (tmp_path / "model.h5").write_text("no")
    with pytest.raises(UsageError, match=r"is not a \.h5 file"):
        sources.load(str(tmp_path / "model.h5"))
    with pytest.raises(UsageError, match="There is no file"):
        sources.load(str(tmp_path / "other.keras"))


def test_functions_that_return_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    (tmp_path / "factory_of_this_test.py").write_text(
        "import tensorflow as tf\n"
        "class Mean(tf.Module):\n"
        "    def __init__(self):\n"
        "        self.weight = tf.Variable(tf.eye(3))\n"
        "    def __call__(self, pixels):\n"
        "        return {'logits': tf.reduce_mean(pixels, [1, 2]) @ self.weight}\n"
        "def make():\n    return Mean()\n"
        "def number():\n    return 3\n"
        "def broken():\n    raise RuntimeError('no\\nweights')\n"
    )
    (tmp_path / "no_module_of_this_test.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    model = sources.load("python:factory_of_this_test:make", preprocessing=from_options(size=4))
    raw = model.call({"pixel_values": tf.ones([1, 4, 4, 3])})
    np.testing.assert_allclose(raw["logits"], [[1, 1, 1]])
    for name, says in [
        ("factory_of_this_test:number", "should return a Keras model or a tf.Module"),
        ("factory_of_this_test:missing", "cannot be imported"),
        ("no_such_module_here:make", "cannot be imported"),
        ("factory_of_this_test", "the form is python:package.module:function"),
    ]:
        with pytest.raises(UsageError, match=says):
            sources.load(f"python:{name}", preprocessing=from_options(size=4))
    for name, says in [
        ("factory_of_this_test:broken", "raised RuntimeError: no weights See the trace"),
        ("no_module_of_this_test:make", "Importing no_module_of_this_test raised ZeroDivisionError"),
    ]:
        with pytest.raises(VitrinaError, match=says) as caught:
            sources.load(f"python:{name}", preprocessing=from_options(size=4))
        assert caught.value.exit_code == 1
