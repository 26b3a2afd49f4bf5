"""The messages declared here beside those of TensorFlow and tensorflow-serving-api, byte for byte."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from serving import messages
from serving.messages import array_to_tensor, message, tensor_to_array

NUMBERS = [name for name in messages.DTYPES if name not in ("string", "bfloat16")]


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_tensors_are_those_of_tensorflow(dtype, shape):
    import tensorflow as tf

    array = (np.arange(np.prod(shape, dtype=int)) % 2).reshape(shape).astype(dtype)
    theirs = tf.make_tensor_proto(array)
    np.testing.assert_array_equal(_read(theirs), array, strict=True)
    listed = tf.make_tensor_proto(array.tolist(), dtype=dtype, shape=shape)  # small ones are written as `*_val`
    np.testing.assert_array_equal(_read(listed), array, strict=True)
    mine = type(theirs).FromString(array_to_tensor(array).SerializeToString())
    np.testing.assert_array_equal(tf.make_ndarray(mine), array, strict=True)


def test_strings_are_any_bytes():
    import tensorflow as tf

    array = np.array([[b"\xff\x00", "grün"], [b"", b"x"]], dtype=object)
    mine = tf.make_tensor_proto(["a"]).FromString(array_to_tensor(array).SerializeToString())
    assert tf.make_ndarray(mine).tolist() == [[b"\xff\x00", "grün".encode()], [b"", b"x"]]
    assert _read(tf.make_tensor_proto([[b"\xff"]])).tolist() == [[b"\xff"]]


def test_bfloat16_comes_as_the_float32_of_the_same_value():
    import tensorflow as tf

    values = tf.constant([1.0, -2.5, 3e38], tf.bfloat16)
    array = _read(tf.make_tensor_proto(values))
    assert array.dtype == np.float32
    assert array.tolist() == tf.cast(values, tf.float32).numpy().tolist()


def test_missing_values_repeat_the_last_and_none_are_zeros():
    shape = message("TensorShapeProto", dim=[message("Dim", size=3)])
    assert tensor_to_array(message("TensorProto", dtype=1, tensor_shape=shape, float_val=[4, 5])).tolist() == [4, 5, 5]
    assert tensor_to_array(message("TensorProto", dtype=1, tensor_shape=shape)).tolist() == [0, 0, 0]
    assert tensor_to_array(message("TensorProto", dtype=7, tensor_shape=shape)).tolist() == [b"", b"", b""]


@pytest.mark.parametrize("dtype", [0, 20, 99])
def test_a_dtype_without_values_is_refused(dtype):
    with pytest.raises(ValueError, match=f"dtype number {dtype}"):
        tensor_to_array(message("TensorProto", dtype=dtype))


def test_requests_are_those_of_tensorflow_serving():
    from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2

    spec = message("ModelSpec", name="m", signature_name="s", version=message("Int64Value", value=3))
    request = message("PredictRequest", model_spec=spec, inputs={"x": array_to_tensor(np.ones((1, 2), np.float32))})
    theirs = predict_pb2.PredictRequest.FromString(request.SerializeToString())
    assert (theirs.model_spec.name, theirs.model_spec.signature_name, theirs.model_spec.version.value) == ("m", "s", 3)
    assert [dim.size for dim in theirs.inputs["x"].tensor_shape.dim] == [1, 2]
    assert not theirs.model_spec.HasField("version_label")
    labelled = message("ModelSpec", name="m", version_label="live")
    asked = message("GetModelMetadataRequest", model_spec=labelled, metadata_field=["signature_def"])
    theirs = get_model_metadata_pb2.GetModelMetadataRequest.FromString(asked.SerializeToString())
    assert (theirs.model_spec.version_label, list(theirs.metadata_field)) == ("live", ["signature_def"])


def test_examples_are_those_of_tensorflow():
    import tensorflow as tf

    read = tf.train.Example.FromString(messages.example({"image/encoded": b"\xff\xd8", "other": b""}))
    assert read.features.feature["image/encoded"].bytes_list.value[:] == [b"\xff\xd8"]
    assert read.features.feature["other"].bytes_list.value[:] == [b""]


def test_the_grpc_and_http_clients_need_no_tensorflow():
    code = (
        "import sys; from serving.client import connect; from serving.async_client import connect_async\n"
        "connect('grpc://localhost:1/m'); connect('http://localhost:1/m')\n"
        "print([name for name in ('tensorflow', 'tensorflow_serving', 'transformers') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def _read(tensor):
    mine = message("TensorProto")
    mine.MergeFromString(tensor.SerializeToString())
    return tensor_to_array(mine)
