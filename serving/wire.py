"""JSON requests to tensors, in TF Serving's two formats: rows (`instances`) and columns (`inputs`).

Whole lists are converted at once where every element fits; where one does not, the same list is walked value by
value, as TF Serving walks it, to find the first fault and its words.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tensorflow.core.framework import types_pb2

from serving import tensors
from serving.errors import Code, ServingError, invalid_argument
from serving.json_reader import Json, Object, parse
from serving.json_writer import quoted

__all__ = ["CONVERT", "Request", "document", "fast_columns", "fast_rows", "predict_inputs", "signature_name"]

Array = npt.NDArray[Any]
Inputs = dict[str, Array]
Convert = Callable[[list[Any], int], Array | None]
"""The leaves of a tensor, in order, and its dtype to an array; None where one of them does not fit."""

_INT32 = (types_pb2.DT_INT32, types_pb2.DT_INT16, types_pb2.DT_INT8, types_pb2.DT_UINT8)
_RANGES = {
    **dict.fromkeys(_INT32, (-(1 << 31), (1 << 31) - 1)),
    types_pb2.DT_INT64: (-(1 << 63), (1 << 63) - 1),
    types_pb2.DT_UINT32: (0, (1 << 32) - 1),
    types_pb2.DT_UINT64: (0, (1 << 64) - 1),
}
_FLOATS = (types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE)
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


@dataclass(frozen=True)
class Request:
    """A predict request, read.

    Args:
        inputs: The tensors by alias.
        row: Whether it came as `instances`, and is to be answered as `predictions`.
    """

    inputs: Inputs
    row: bool


def document(body: bytes) -> Object:
    """The request's JSON object.

    Raises:
        ServingError: INVALID_ARGUMENT where it is not JSON or not an object.
    """
    value = parse(body)
    if not isinstance(value, Object):
        raise format_error(value, "Is not object")
    return value


def signature_name(doc: Object) -> str:
    """The signature that a request names, or "".

    Raises:
        ServingError: INVALID_ARGUMENT where it is not a string.
    """
    value = doc.find("signature_name", "")
    if not isinstance(value, str):
        raise format_error(doc, "not formatted correctly. 'signature_name' key must be a string value.")
    return text(value)


def text(value: str) -> str:
    """A JSON string (one byte per character) as text; bytes that are not UTF-8 become surrogate escapes."""
    return value.encode("latin-1").decode("utf-8", "surrogateescape")


def predict_inputs(doc: Object, inputs: Mapping[str, int], signature: str) -> Request:
    """The tensors of a predict request.

    Args:
        doc: The request.
        inputs: The signature's inputs: alias -> DataType number.
        signature: The signature's name, for messages.

    Raises:
        ServingError: INVALID_ARGUMENT, or UNIMPLEMENTED for dtypes that JSON cannot carry.
    """
    if not inputs:
        raise invalid_argument(f"Failed to get input map for signature: {signature or 'DEFAULT'}")
    rows, columns = doc.has("instances"), doc.has("inputs")
    if not rows and not columns:
        raise invalid_argument("Missing 'inputs' or 'instances' key")
    if rows and columns:
        raise format_error(doc, "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ")
    if columns:
        return Request(_columns(doc.find("inputs"), inputs), row=False)
    instances = doc.find("instances")
    if not isinstance(instances, list) or isinstance(instances, Object):
        raise format_error(doc, "Expecting 'instances' to be an list/array")
    if not instances:
        raise format_error(doc, "No values in 'instances' array")
    return Request(_rows(instances, inputs), row=True)


def format_error(value: Json, message: str) -> ServingError:
    return invalid_argument(f"JSON Value: {quoted(value)} {message}")


def is_base64(value: Json) -> bool:
    return isinstance(value, Object) and len(value) == 1 and value[0][0] == "b64" and isinstance(value[0][1], str)


def _is_named(value: Json) -> bool:
    return isinstance(value, Object) and not is_base64(value)


def _columns(value: Json, inputs: Mapping[str, int]) -> Inputs:
    if not _is_named(value):
        if len(inputs) > 1:
            raise invalid_argument(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map"
            )
        ((alias, dtype),) = inputs.items()
        return {alias: _tensor(value, dtype)}
    assert isinstance(value, Object)
    found = {}
    for alias in sorted(inputs):
        key = _key(alias)
        if not value.has(key):
            raise invalid_argument(f"Missing named input: {alias} in 'inputs' object.")
        found[alias] = _tensor(value.find(key), inputs[alias])
    return found


def _key(alias: str) -> str:
    return alias.encode("utf-8", "surrogateescape").decode("latin-1")


def fast_columns(value: Json, inputs: Mapping[str, int], convert: Mapping[int, Convert]) -> Inputs | None:
    """The tensors of `inputs` where every element fits, else None."""
    if _is_named(value):
        assert isinstance(value, Object)
        values = {alias: value.find(key) for alias in inputs if value.has(key := _key(alias))}
    elif len(inputs) == 1:
        values = dict.fromkeys(inputs, value)
    else:
        return None
    found = {alias: _fast(item, _shape(item), inputs[alias], convert) for alias, item in values.items()}
    return _complete(found, inputs)


def _complete(found: Mapping[str, Array | None], inputs: Mapping[str, int]) -> Inputs | None:
    whole = {alias: array for alias, array in found.items() if array is not None}
    return whole if len(whole) == len(inputs) else None


def _tensor(value: Json, dtype: int) -> Array:
    """A whole tensor, whose shape is that of the first elements all the way down."""
    shape = _shape(value)
    array = _fast(value, shape, dtype, CONVERT)
    if array is not None:
        return array
    values: list[Any] = []
    _fill(value, shape, dtype, values)
    return _built(dtype, values, shape)


def _rows(instances: list[Any], inputs: Mapping[str, int]) -> Inputs:
    if not isinstance(instances[0], Object) and len(inputs) > 1:
        raise invalid_argument(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    found = fast_rows(instances, inputs, CONVERT)
    return found if found is not None else _slow_rows(instances, inputs, named=_is_named(instances[0]))


def fast_rows(instances: list[Any], inputs: Mapping[str, int], convert: Mapping[int, Convert]) -> Inputs | None:
    """The tensors of `instances`, which is not empty, where every element fits, else None."""
    if not _is_named(instances[0]):
        alias = min(inputs)
        return _complete({alias: _fast_row(instances, inputs[alias], convert)}, {alias: inputs[alias]})
    keys = {_key(alias): alias for alias in inputs}
    lists: dict[str, list[Any]] = {key: [] for key in keys}
    for item in instances:
        if not isinstance(item, Object) or len(item) != len(keys) or is_base64(item):
            return None
        for key, value in item:
            if key not in lists:
                return None
            lists[key].append(value)
    if any(len(values) != len(instances) for values in lists.values()):
        return None
    return _complete(
        {keys[key]: _fast_row(values, inputs[keys[key]], convert) for key, values in lists.items()}, inputs
    )


def _fast_row(items: list[Any], dtype: int, convert: Mapping[int, Convert]) -> Array | None:
    return _fast(items, (len(items), *_shape(items[0])), dtype, convert)


def _slow_rows(instances: list[Any], inputs: Mapping[str, int], named: bool) -> Inputs:
    builders = {alias: _Rows(dtype) for alias, dtype in inputs.items()}
    for at, item in enumerate(instances):
        if named != _is_named(item):
            raise invalid_argument(
                f"Expecting object but got list at item {at} of input list"
                if named
                else f"Expecting value/list but got object at item {at} of input list"
            )
        if not named:
            try:
                builders[min(inputs)].add(item)
            except ServingError as error:
                raise invalid_argument(
                    f"Failed to process element: {at} of 'instances' list. Error: {error}"
                ) from error
            continue
        _add_named(item, at, builders)
    # An input that never came is left out, for the session's caller to miss.
    return {alias: builder.build(len(instances)) for alias, builder in builders.items() if builder.shape is not None}


def _add_named(item: Object, at: int, builders: Mapping[str, _Rows]) -> None:
    seen = set()
    for key, value in item:
        # Names are C strings there: they end at a zero byte.
        alias = text(key.partition("\0")[0])
        seen.add(alias)
        try:
            if alias not in builders:
                raise invalid_argument(f"JSON object: does not have named input: {alias}")
            builders[alias].add(value)
        except ServingError as error:
            raise invalid_argument(
                f"Failed to process element: {at} key: {alias} of 'instances' list. Error: {error}"
            ) from error
    if seen != set(builders):
        raise invalid_argument(
            f"Failed to process element: {at} of 'instances' list. JSON object: {quoted(item)} keys must be equal "
            f"to: {','.join(sorted(builders))}"
        )


class _Rows:
    """One input's values, item by item."""

    def __init__(self, dtype: int) -> None:
        self.dtype = dtype
        self.shape: tuple[int, ...] | None = None
        self.size = 0
        self.values: list[Any] = []

    def add(self, item: Json) -> None:
        shape = _shape(item)
        before = len(self.values)
        _fill(item, shape, self.dtype, self.values)
        size = len(self.values) - before
        if self.shape is None:
            self.shape, self.size = shape, size
        elif size != self.size:
            raise invalid_argument(f"Expecting tensor size: {self.size} but got: {size}")
        elif shape != self.shape:
            raise invalid_argument(f"Expecting shape {_shape_text(self.shape)} but got: {_shape_text(shape)}")

    def build(self, count: int) -> Array:
        assert self.shape is not None
        return _built(self.dtype, self.values, (count, *self.shape))


def _shape_text(shape: tuple[int, ...]) -> str:
    return "[" + ",".join(map(str, shape)) + "]"


def _shape(value: Json) -> tuple[int, ...]:
    shape = []
    item: Any = value
    while isinstance(item, list) and not isinstance(item, Object):
        shape.append(len(item))
        if not item:
            break
        item = item[0]
    return tuple(shape)


def _built(dtype: int, values: list[Any], shape: tuple[int, ...]) -> Array:
    if len(shape) > 254:
        raise invalid_argument("tensor parsing error: shape has too many dimensions")
    if dtype == types_pb2.DT_FLOAT:
        values = float32(values)  # type: ignore[assignment]
    return tensors.from_values(dtype, values, shape)


def float32(values: list[Any]) -> Array:
    """Numbers to float32 through doubles; denormals count as zero, too large ones as infinite."""
    with np.errstate(over="ignore"):
        found = np.array(values, dtype=np.float64).astype(np.float32)
    tiny = np.abs(found) < np.finfo(np.float32).tiny
    if tiny.any():
        found[tiny] = np.copysign(np.float32(0), found[tiny])
    return found


def _fast(value: Json, shape: tuple[int, ...], dtype: int, converts: Mapping[int, Convert]) -> Array | None:
    """The tensor where all of it fits, else None."""
    flat: list[Any] = [value]
    for size in shape:
        if any(type(item) is not list or len(item) != size for item in flat):
            return None
        flat = flat[0] if len(flat) == 1 else list(itertools.chain.from_iterable(flat))
    convert = converts.get(dtype)
    if convert is None or len(shape) > 254:
        return None
    array = convert(flat, dtype)
    return None if array is None else array.reshape(shape)


def _fast_floats(flat: list[Any], dtype: int) -> Array | None:
    if not set(map(type, flat)) <= {int, float}:
        return None
    return float32(flat) if dtype == types_pb2.DT_FLOAT else np.array(flat, dtype=np.float64)


def _fast_ints(flat: list[Any], dtype: int) -> Array | None:
    if not set(map(type, flat)) <= {int}:
        return None
    low, high = _RANGES[dtype]
    if flat and (min(flat) < low or max(flat) > high):
        return None
    wide = np.uint64 if dtype == types_pb2.DT_UINT64 else np.int64
    return np.array(flat, dtype=wide).astype(_NARROW[dtype])


_NARROW = {
    types_pb2.DT_INT32: np.int32,
    types_pb2.DT_INT16: np.int16,
    types_pb2.DT_INT8: np.int8,
    types_pb2.DT_UINT8: np.uint8,
    types_pb2.DT_INT64: np.int64,
    types_pb2.DT_UINT32: np.uint32,
    types_pb2.DT_UINT64: np.uint64,
}


def _fast_bools(flat: list[Any], _: int) -> Array | None:
    return np.array(flat, dtype=np.bool_) if set(map(type, flat)) <= {bool} else None


def _fast_strings(flat: list[Any], _: int) -> Array | None:
    array = np.empty(len(flat), dtype=object)
    for at, value in enumerate(flat):
        if type(value) is str:
            array[at] = value.encode("latin-1")
        elif is_base64(value):
            decoded = decode_base64(value[0][1])
            if decoded is None:
                return None
            array[at] = decoded
        else:
            return None
    return array


CONVERT: dict[int, Convert] = {
    **dict.fromkeys(_FLOATS, _fast_floats),
    **dict.fromkeys(_RANGES, _fast_ints),
    types_pb2.DT_BOOL: _fast_bools,
    types_pb2.DT_STRING: _fast_strings,
}


def decode_base64(value: str) -> bytes | None:
    """Standard base64 with or without padding, or None where it is not."""
    data = value.encode("latin-1")
    rest = data.translate(None, _ALPHABET)
    if rest:
        plain = _unpadded(data)
        if plain is None or plain.translate(None, _ALPHABET):
            return None
        data = plain
    if len(data) % 4 == 1:
        return None
    try:
        return base64.b64decode(data + b"=" * (-len(data) % 4))
    except binascii.Error:
        return None


_SPACE = re.compile(rb"[ \t\n\v\f\r]+")


def _unpadded(data: bytes) -> bytes | None:
    """Without white space and padding, or None where the padding is of the wrong length."""
    data = _SPACE.sub(b"", data)
    body = data.rstrip(b"=.")
    padding = len(data) - len(body)
    if padding and padding != -len(body) % 4:
        return None
    return body


def _fill(value: Json, shape: tuple[int, ...], dtype: int, values: list[Any]) -> None:
    """Appends a value's leaves, in order, or raises at the first that does not fit."""
    rank = len(shape)
    stack: list[tuple[Any, int]] = [(value, 0)]
    while stack:
        item, level = stack.pop()
        if not isinstance(item, list) or isinstance(item, Object):
            if level != rank:
                raise invalid_argument(
                    f"JSON Value: {quoted(item)} found at incorrect level: {level + 1} in the JSON DOM. Expected at "
                    f"level: {rank}"
                )
            values.append(_leaf(item, dtype))
            continue
        if level >= rank:
            raise invalid_argument(f"Encountered list at unexpected level: {level} expected < {rank}")
        if len(item) != shape[level]:
            raise invalid_argument(
                f"Encountered list at unexpected size: {len(item)} at level: {level} expected size: {shape[level]}"
            )
        stack.extend((element, level + 1) for element in reversed(item))


def _leaf(value: Any, dtype: int) -> Any:
    if isinstance(value, Object):
        if dtype != types_pb2.DT_STRING:
            raise _type_error(value, dtype)
        if not is_base64(value):
            raise format_error(value, "not formatted correctly for base64 data")
        decoded = decode_base64(value[0][1])
        if decoded is None:
            raise invalid_argument("Unable to base64 decode")
        return decoded
    if dtype in _FLOATS:
        fits = type(value) in (int, float)
    elif dtype in _RANGES:
        low, high = _RANGES[dtype]
        fits = type(value) is int and low <= value <= high
    elif dtype == types_pb2.DT_BOOL:
        fits = type(value) is bool
    elif dtype == types_pb2.DT_STRING:
        fits = type(value) is str
        value = value.encode("latin-1") if fits else value
    else:
        raise ServingError(
            Code.UNIMPLEMENTED, f"Conversion of JSON Value: {quoted(value)} to type: {tensors.type_name(dtype)}"
        )
    if not fits:
        raise _type_error(value, dtype)
    return value


def _type_error(value: Json, dtype: int) -> ServingError:
    return invalid_argument(
        f"JSON Value: {quoted(value)} Type: {json_type(value)} is not of expected type: {tensors.type_name(dtype)}"
    )


def json_type(value: Json) -> str:
    """What kind of JSON a value is, in TF Serving's words."""
    if value is None or isinstance(value, bool):
        return {None: "Null", True: "True", False: "False"}[value]
    if isinstance(value, Object):
        return "Object"
    return "Array" if isinstance(value, list) else "String" if isinstance(value, str) else "Number"
