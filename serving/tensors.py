"""TensorProto <-> numpy, by the rules of TensorFlow's own `Tensor::FromProto` and `AsProtoField`.

`tf.make_ndarray` deviates: it rejects what TF Serving takes (a short list of values repeats its last one, an
excess is dropped) and it takes what TF Serving rejects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow.python.framework import dtypes

__all__ = ["FIELDS", "ParseError", "encode", "encode_content", "from_values", "parse", "type_name"]

Array = npt.NDArray[Any]

# The field that holds the values of a dtype. Half and bfloat16 are stored as their bits in half_val.
FIELDS: dict[int, str] = {
    types_pb2.DT_FLOAT: "float_val",
    types_pb2.DT_DOUBLE: "double_val",
    types_pb2.DT_INT32: "int_val",
    types_pb2.DT_INT16: "int_val",
    types_pb2.DT_INT8: "int_val",
    types_pb2.DT_UINT8: "int_val",
    types_pb2.DT_UINT16: "int_val",
    types_pb2.DT_QINT8: "int_val",
    types_pb2.DT_QUINT8: "int_val",
    types_pb2.DT_QINT32: "int_val",
    types_pb2.DT_QINT16: "int_val",
    types_pb2.DT_QUINT16: "int_val",
    types_pb2.DT_STRING: "string_val",
    types_pb2.DT_INT64: "int64_val",
    types_pb2.DT_BOOL: "bool_val",
    types_pb2.DT_COMPLEX64: "scomplex_val",
    types_pb2.DT_COMPLEX128: "dcomplex_val",
    types_pb2.DT_HALF: "half_val",
    types_pb2.DT_BFLOAT16: "half_val",
    types_pb2.DT_UINT32: "uint32_val",
    types_pb2.DT_UINT64: "uint64_val",
}
_BITS = (types_pb2.DT_HALF, types_pb2.DT_BFLOAT16)
_COMPLEX = {types_pb2.DT_COMPLEX64: np.float32, types_pb2.DT_COMPLEX128: np.float64}
_MAX_ELEMENTS = (1 << 63) - 1
# A few bytes can ask for any size; what is filled up beyond the values that came stays below this.
_MAX_FILLED = 1 << 30


class ParseError(ValueError):
    """A TensorProto does not describe a tensor."""


def type_name(dtype: int) -> str:
    """TensorFlow's short name of a DataType number, such as `float` for DT_FLOAT."""
    name = types_pb2.DataType.Name(dtype)
    short = {"DT_COMPLEX64": "complex64", "DT_COMPLEX128": "complex128"}.get(name)
    return short or name.removeprefix("DT_").lower()


def _numpy(dtype: int) -> np.dtype[Any]:
    if dtype == types_pb2.DT_STRING:
        return np.dtype(object)
    return np.dtype(dtypes.as_dtype(dtype).as_numpy_dtype)


def _shape(proto: tensor_pb2.TensorProto) -> tuple[int, ...]:
    # `unknown_rank` is not looked at, as in TensorFlow.
    if len(proto.tensor_shape.dim) > 254:
        raise ParseError("more than 254 dimensions")
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    count = 1
    for size in shape:
        count *= size
        if size < 0 or count > _MAX_ELEMENTS:
            raise ParseError("negative or huge dimension")
    return shape


def parse(proto: tensor_pb2.TensorProto) -> Array:
    """The array that a TensorProto describes.

    Returns:
        The array; strings as an object array of bytes.

    Raises:
        ParseError: No such tensor exists.
    """
    if proto.dtype not in FIELDS:
        raise ParseError(f"dtype {proto.dtype}")
    shape = _shape(proto)
    if proto.tensor_content and 0 not in shape:
        return _from_content(proto, shape)
    return from_values(proto.dtype, getattr(proto, FIELDS[proto.dtype]), shape)


def _from_content(proto: tensor_pb2.TensorProto, shape: tuple[int, ...]) -> Array:
    count = 1
    for size in shape:
        count *= size
    if proto.dtype == types_pb2.DT_STRING:
        return np.array(_string_list(proto.tensor_content, count), dtype=object).reshape(shape)
    kind = _numpy(proto.dtype)
    if len(proto.tensor_content) != count * kind.itemsize:
        raise ParseError("content length")
    if proto.dtype == types_pb2.DT_BOOL and proto.tensor_content.translate(None, b"\0\1"):
        raise ParseError("a bool that is neither 0 nor 1")
    return np.frombuffer(proto.tensor_content, dtype=kind).reshape(shape)


def _string_list(content: bytes, count: int) -> list[bytes]:
    """Strings in tensor_content: the lengths as varints, then the bytes one after another."""
    lengths, at = [], 0
    for _ in range(count):
        length, shift = 0, 0
        while True:
            if at >= len(content) or shift > 63:
                raise ParseError("string content")
            byte = content[at]
            at += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        lengths.append(length)
    if at + sum(lengths) != len(content):
        raise ParseError("string content")
    strings = []
    for length in lengths:
        strings.append(content[at : at + length])
        at += length
    return strings


def from_values(dtype: int, values: Any, shape: tuple[int, ...]) -> Array:
    """An array from the values of a `*_val` field: too few repeat the last, none are zeros, an excess is dropped.

    Args:
        dtype: A DataType number.
        values: The field's values (complex: real and imaginary parts in turn; half: bits).
        shape: The shape to fill.

    Raises:
        ParseError: An array of this shape does not fit into memory.
    """
    count = 1
    for size in shape:
        count *= size
    kind = _numpy(dtype)
    if (count - len(values)) * kind.itemsize > _MAX_FILLED:
        raise ParseError("more elements than there are values and memory for")
    if dtype == types_pb2.DT_STRING:
        return _strings(values, shape, count)
    try:
        given = _given(dtype, values, kind)
        if len(given) == count:
            return given.reshape(shape)
        if len(given) > count:
            return given[:count].reshape(shape)
        filled = np.zeros(count, kind)
        if len(given):
            filled[: len(given)] = given
            filled[len(given) :] = given[-1]
        return filled.reshape(shape)
    except (MemoryError, ValueError) as error:
        raise ParseError(str(error)) from error


def _given(dtype: int, values: Any, kind: np.dtype[Any]) -> Array:
    if dtype in _BITS:
        return np.array(values, dtype=np.int64).astype(np.uint16).view(kind)
    if dtype in _COMPLEX:
        parts = np.array(values, dtype=_COMPLEX[dtype])
        return parts[: len(parts) // 2 * 2].view(kind)
    if kind.kind in "iu" and kind.itemsize < 4:
        return np.array(values, dtype=np.int64).astype(kind)
    if kind.kind == "V" or dtypes.as_dtype(dtype).is_quantized:
        base = {1: np.int8, 2: np.int16, 4: np.int32}[kind.itemsize]
        return np.array(values, dtype=np.int64).astype(base).view(kind)
    return np.array(values, dtype=kind)


def _strings(values: Iterable[bytes], shape: tuple[int, ...], count: int) -> Array:
    given = list(values)[:count]
    try:
        array = np.empty(count, dtype=object).reshape(shape)
    except (MemoryError, ValueError) as error:
        raise ParseError(str(error)) from error
    flat = array.reshape(-1)
    flat[: len(given)] = given
    flat[len(given) :] = given[-1] if given else b""
    return array


def encode(array: Array, dtype: int, into: tensor_pb2.TensorProto | None = None) -> tensor_pb2.TensorProto:
    """A TensorProto with every value in its `*_val` field, as TF Serving answers.

    Args:
        array: The values; strings as an object array of bytes.
        dtype: Their DataType number.
        into: An empty message to fill, such as a map's entry.
    """
    proto = tensor_pb2.TensorProto() if into is None else into
    proto.dtype = dtype
    shape = proto.tensor_shape
    shape.SetInParent()
    for size in array.shape:
        shape.dim.add(size=size)
    packed = _packed(array, dtype)
    if packed is not None:
        if array.size:
            proto.MergeFromString(packed)
        return proto
    getattr(proto, FIELDS[dtype]).extend(_values(array, dtype))
    return proto


def encode_content(array: Array, dtype: int, into: tensor_pb2.TensorProto) -> tensor_pb2.TensorProto:
    """`encode`, but with the values in `tensor_content`: strings as their lengths, and then their bytes."""
    into.dtype = dtype
    into.tensor_shape.SetInParent()
    for size in array.shape:
        into.tensor_shape.dim.add(size=size)
    if dtype == types_pb2.DT_STRING:
        strings = array.ravel().tolist()
        into.tensor_content = b"".join([*(_varint(len(value)) for value in strings), *strings])
    else:
        into.tensor_content = np.ascontiguousarray(array).tobytes()
    return into


# Fixed-width fields are laid out on the wire as numpy lays them out in memory: tag, length, bytes.
_PACKED_TAGS: Mapping[int, tuple[bytes, str]] = {
    types_pb2.DT_FLOAT: (b"\x2a", "<f4"),
    types_pb2.DT_DOUBLE: (b"\x32", "<f8"),
    types_pb2.DT_BOOL: (b"\x5a", "u1"),
}


def _packed(array: Array, dtype: int) -> bytes | None:
    if dtype not in _PACKED_TAGS:
        return None
    tag, layout = _PACKED_TAGS[dtype]
    data = np.ascontiguousarray(array).astype(layout, copy=False).tobytes()
    return tag + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def _values(array: Array, dtype: int) -> Any:
    flat = np.ascontiguousarray(array).ravel()
    if dtype in _BITS:
        return flat.view(np.uint16).tolist()
    if dtype in _COMPLEX:
        return flat.view(_COMPLEX[dtype]).tolist()
    if flat.dtype.kind == "V" or (dtype != types_pb2.DT_STRING and dtypes.as_dtype(dtype).is_quantized):
        unsigned = dtype in (types_pb2.DT_QUINT8, types_pb2.DT_QUINT16)
        return flat.view(f"{'u' if unsigned else 'i'}{flat.dtype.itemsize}").tolist()
    return flat.tolist()
