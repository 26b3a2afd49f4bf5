"""What strangers send: the decoders beside TensorFlow's own, and a short run of every fuzz target."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow.core.framework import tensor_pb2, types_pb2

from benchmarks import fuzz
from serving import tensors, wire_predict

# NumPy has no shapes of more than 2^63 bytes, though they be empty; TensorFlow has.
SHAPES = st.lists(st.sampled_from([0, 1, 1, 2, 3, -1, 1 << 40]), max_size=3).filter(
    lambda shape: shape.count(1 << 40) < 2
)
CONTENT = st.binary(max_size=24) | st.sampled_from([b"\0" * size for size in (1, 2, 4, 8, 16, 24, 48)])
INT32, FLOAT = st.integers(-(1 << 31), (1 << 31) - 1), st.floats(width=32)
VALUES = {
    "float_val": FLOAT,
    "double_val": st.floats(),
    "int_val": INT32,
    "string_val": st.binary(max_size=3),
    "scomplex_val": FLOAT,
    "int64_val": st.integers(-(1 << 63), (1 << 63) - 1),
    "bool_val": st.booleans(),
    "dcomplex_val": st.floats(),
    "half_val": st.integers(0, 70_000),
    "uint32_val": st.integers(0, (1 << 32) - 1),
    "uint64_val": st.integers(0, (1 << 64) - 1),
}


@st.composite
def protos(draw: st.DrawFn) -> tensor_pb2.TensorProto:
    """TensorProtos that may describe a tensor."""
    dtype = draw(st.sampled_from([*tensors.FIELDS, types_pb2.DT_INVALID, types_pb2.DT_FLOAT_REF]))
    proto = tensor_pb2.TensorProto(dtype=dtype)
    for size in draw(SHAPES):
        proto.tensor_shape.dim.add(size=size)
    if draw(st.booleans()):
        proto.tensor_shape.SetInParent()
    if draw(st.integers(0, 9)) == 0:
        proto.tensor_shape.unknown_rank = True
    if draw(st.integers(0, 2)) == 0:
        proto.tensor_content = draw(CONTENT)
    field = tensors.FIELDS.get(dtype, "float_val")
    getattr(proto, field).extend(draw(st.lists(VALUES[field], max_size=5)))
    return proto


@given(protos())
@settings(max_examples=300, deadline=None)
def test_tensors_are_read_as_tensorflow_reads_them(proto: tensor_pb2.TensorProto) -> None:
    if sum(dim.size >= 1 << 40 for dim in proto.tensor_shape.dim) and 0 not in [d.size for d in proto.tensor_shape.dim]:
        with pytest.raises(tensors.ParseError):  # TensorFlow would try to find the memory
            tensors.parse(proto)
        return
    try:
        wanted = tf.io.parse_tensor(proto.SerializeToString(), tf.as_dtype(proto.dtype or types_pb2.DT_FLOAT))
    except (tf.errors.InvalidArgumentError, tf.errors.InternalError, TypeError):
        with pytest.raises(tensors.ParseError):
            tensors.parse(proto)
        return
    got = tensors.parse(proto)
    assert got.shape == tuple(wanted.shape)
    if proto.dtype == types_pb2.DT_STRING:
        # Flat, for a list of 2^40 empty lists would fill the memory.
        assert got.ravel().tolist() == np.asarray(wanted.numpy(), dtype=object).ravel().tolist()
    else:
        assert got.tobytes() == wanted.numpy().tobytes()


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_a_short_run_of_every_fuzz_target(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "_has_many_numbers"  # which the target sets for good
    monkeypatch.setattr(wire_predict, name, getattr(wire_predict, name))
    assert fuzz.run(target, seconds=60, most=1000) == 1000
