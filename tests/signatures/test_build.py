"""The signatures of a saved and reloaded servable."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from signatures.base_path import latest
from signatures.spec import WARMUP_PATH


@pytest.fixture(scope="module")
def ask(tiny_servable: Path) -> Any:
    """`ask(signature, name=value)` on the reloaded SavedModel; NumPy in, NumPy out."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(latest(tiny_servable)))

    def ask(signature: str, **inputs: Any) -> dict[str, Any]:
        answer = loaded.signatures[signature](**{name: tf.constant(value) for name, value in inputs.items()})
        return {name: value.numpy() for name, value in answer.items()}

    ask.signatures = loaded.signatures  # type: ignore[attr-defined]
    return ask


def examples(images: list[bytes]) -> list[bytes]:
    import tensorflow as tf

    def one(data: bytes) -> bytes:
        feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[data]))
        return tf.train.Example(features=tf.train.Features(feature={"image/encoded": feature})).SerializeToString()

    return [one(data) for data in images]


def test_six_signatures_under_the_contracts_names(ask: Any) -> None:
    inputs = {name: sorted(function.structured_input_signature[1]) for name, function in ask.signatures.items()}
    outputs = {name: sorted(function.structured_outputs) for name, function in ask.signatures.items()}
    assert inputs == {
        "serving_default": ["image_bytes"],
        "preprocess": ["image_bytes"],
        "pixels": ["pixels"],
        "model": ["pixel_values"],
        "from_examples": ["examples"],
        "classify": ["inputs"],
    }
    assert outputs == {
        "serving_default": ["error", "labels", "scores"],
        "preprocess": ["pixel_values"],
        "pixels": ["labels", "scores"],
        "model": ["logits"],
        "from_examples": ["error", "labels", "scores"],
        "classify": ["classes", "scores"],
    }


def test_the_file_says_what_the_card_says(tiny_servable: Path) -> None:
    from tensorflow.core.protobuf import saved_model_pb2
    from tensorflow.python.framework import dtypes

    from signatures.spec import Card

    version = latest(tiny_servable)
    card = Card.read(version)
    saved = saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes())
    definitions = dict(saved.meta_graphs[0].signature_def)
    definitions.pop("__saved_model_init_op", None)
    assert set(definitions) == set(card.signatures)
    for name, signature in card.signatures.items():
        definition = definitions[name]
        assert definition.method_name == signature.method_name
        for side, tensors in ((definition.inputs, signature.inputs), (definition.outputs, signature.outputs)):
            assert set(side) == set(tensors)
            for key, tensor in tensors.items():
                sizes = [None if dim.size == -1 else dim.size for dim in side[key].tensor_shape.dim]
                assert (dtypes.as_dtype(side[key].dtype).name, sizes) == (tensor.dtype, list(tensor.shape))
    assert definitions["classify"].method_name == "tensorflow/serving/classify"
    assert definitions["serving_default"].method_name == "tensorflow/serving/predict"


def test_a_batch_of_mixed_sizes_answers_as_one_by_one(
    ask: Any, photos: list[bytes], tiny_labels: tuple[str, ...]
) -> None:
    together = ask("serving_default", image_bytes=photos[:3])
    assert together["labels"].shape == together["scores"].shape == (3, 5)
    assert set(together["labels"].ravel()) <= {label.encode() for label in tiny_labels}
    assert together["error"].tolist() == [b""] * 3
    for index, photo in enumerate(photos[:3]):
        alone = ask("serving_default", image_bytes=[photo])
        assert alone["labels"].tolist() == together["labels"][index : index + 1].tolist()
        np.testing.assert_allclose(alone["scores"], together["scores"][index : index + 1], atol=1e-6)


def test_a_bad_image_harms_no_neighbour(ask: Any, photos: list[bytes]) -> None:
    good = ask("serving_default", image_bytes=photos[:2])
    bad = [b"", b"junk", photos[0][: len(photos[0]) // 2], photos[2][:-40]]
    mixed = ask("serving_default", image_bytes=[bad[0], photos[0], *bad[1:], photos[1]])
    assert mixed["error"][[1, 5]].tolist() == [b"", b""]
    np.testing.assert_allclose(mixed["scores"][[1, 5]], good["scores"], atol=1e-6)
    assert mixed["labels"][[1, 5]].tolist() == good["labels"].tolist()
    ill = [0, 2, 3, 4]
    assert all(mixed["error"][ill])
    assert not mixed["scores"][ill].any()
    assert not any(mixed["labels"][ill].ravel())
    assert ask("serving_default", image_bytes=[b"junk"])["error"][0]


def test_an_empty_batch_answers_empty(ask: Any) -> None:
    answer = ask("serving_default", image_bytes=np.array([], object).astype("S"))
    assert {name: value.shape for name, value in answer.items()} == {
        "labels": (0, 5),
        "scores": (0, 5),
        "error": (0,),
    }


def test_every_door_leads_to_the_same_answer(ask: Any, photos: list[bytes], tiny_labels: tuple[str, ...]) -> None:
    from PIL import Image

    answer = ask("serving_default", image_bytes=photos)
    from_examples = ask("from_examples", examples=examples(photos))
    classified = ask("classify", inputs=examples(photos))
    features = ask("preprocess", image_bytes=photos)
    logits = ask("model", **features)["logits"].astype(np.float64)
    assert from_examples["labels"].tolist() == classified["classes"].tolist() == answer["labels"].tolist()
    np.testing.assert_allclose(from_examples["scores"], answer["scores"], atol=1e-6)
    np.testing.assert_allclose(classified["scores"], answer["scores"], atol=1e-6)

    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    scores = exponentials / exponentials.sum(-1, keepdims=True)
    best = np.argsort(-scores, axis=-1)[:, :5]
    assert [[tiny_labels[id].encode() for id in row] for row in best] == answer["labels"].tolist()
    np.testing.assert_allclose(np.take_along_axis(scores, best, -1), answer["scores"], atol=1e-5)

    for index in (0, 2):
        pixels = np.asarray(Image.open(io.BytesIO(photos[index])).convert("RGB"))[None]
        decoded = ask("pixels", pixels=pixels)
        assert decoded["labels"].tolist() == answer["labels"][index : index + 1].tolist()
        np.testing.assert_allclose(decoded["scores"], answer["scores"][index : index + 1], atol=1e-6)


def test_examples_without_an_image_are_bad_items(ask: Any, photos: list[bytes]) -> None:
    import tensorflow as tf

    empty = tf.train.Example().SerializeToString()
    answer = ask("from_examples", examples=[empty, *examples(photos[:1])])
    assert answer["error"][0]
    assert not answer["error"][1]
    assert not answer["scores"][0].any()
    assert answer["scores"][1].any()


def test_warmup_requests_are_real_and_replay(ask: Any, tiny_servable: Path) -> None:
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    version = latest(tiny_servable)
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(version / WARMUP_PATH))]
    sizes = []
    for record in records:
        log = prediction_log_pb2.PredictionLog.FromString(record)
        request = log.predict_log.request
        assert request.model_spec.signature_name == "serving_default"
        inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
        assert not any(ask("serving_default", **inputs)["error"])
        sizes.append(len(inputs["image_bytes"]))
        assert {bytes(data[1:4]) for data in inputs["image_bytes"]} <= {b"\xd8\xff\xe0", b"PNG"}
    assert sizes == [1, 4]


def test_only_ops_that_any_tensorflow_server_carries(tiny_servable: Path) -> None:
    """Every op has a CPU kernel in TensorFlow itself, and none calls back into Python."""
    from tensorflow.python.framework import kernels, op_def_registry

    from signatures.runtime import NEWER_OPS, minimum, ops

    found = ops(latest(tiny_servable))
    assert {"DecodeJpeg", "Softmax", "TopKV2"} <= found
    assert not found & {"PyFunc", "PyFuncStateless", "EagerPyFunc", "XlaCallModule"}
    for op in sorted(found):
        assert op_def_registry.get(op) is not None, op
        registered = kernels.get_registered_kernels_for_op(op).kernel
        assert any(kernel.device_type in ("CPU", "DEFAULT") for kernel in registered), op
    assert minimum(latest(tiny_servable)) == ("2.19" if found & set(NEWER_OPS) else "2.16")
