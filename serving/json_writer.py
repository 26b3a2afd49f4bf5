"""JSON as TF Serving writes it: RapidJSON's pretty printer, four spaces, and its own way with decimals."""

from __future__ import annotations

import base64
import contextlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from serving import grisu
from serving.errors import ServingError, invalid_argument
from serving.json_reader import Json, Object

__all__ = ["columns", "decimals", "error_body", "quoted", "rows", "string"]

_SHORT = {0x08: "\\b", 0x0C: "\\f", 0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t", 0x22: '\\"', 0x5C: "\\\\"}
_ESCAPES = {code: f"\\u{code:04X}" for code in range(0x20)} | _SHORT
_LONGEST = 1 << 23
"""Characters of a quotation. Indentation makes deep nesting grow with its square: 200 kB of brackets are 40 GB."""
_SMALLEST = {4: np.finfo(np.float32).tiny, 8: np.finfo(np.float64).tiny}


def string(value: bytes) -> str:
    """A JSON string; bytes beyond ASCII pass through, one character (Latin-1) each."""
    return '"' + value.decode("latin-1").translate(_ESCAPES) + '"'


def decimals(values: npt.NDArray[Any]) -> list[str]:
    """Floats as text: six digits where they read back equal, else 9 (float32) or 17 (float64).

    Args:
        values: float32 or float64, any shape.

    Returns:
        One text per value, in row-major order, each with a point or an exponent, or NaN, Infinity, -Infinity.
    """
    flat = values.ravel()
    if not flat.size:
        return []
    # Where TF Serving writes JSON, denormals count as zero, of their sign.
    flat = np.where(np.abs(flat) < _SMALLEST[flat.dtype.itemsize], np.copysign(flat.dtype.type(0), flat), flat)
    numbers = flat.tolist()
    texts = (" ".join(["%g"] * len(numbers)) % tuple(numbers)).split(" ")
    with np.errstate(over="ignore"):
        again = np.array([float(text) for text in texts], dtype=flat.dtype)
    longer = "%.9g" if flat.dtype.itemsize == 4 else "%.17g"
    for at in np.flatnonzero(again != flat).tolist():
        texts[at] = longer % numbers[at]
    return [text if "." in text or "e" in text else _pointed(text) for text in texts]


def _pointed(text: str) -> str:
    return {"nan": "NaN", "-nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(text) or text + ".0"


def _texts(name: str, values: npt.NDArray[Any], indent: int) -> list[str]:
    """Every element of a tensor as JSON, in row-major order.

    Args:
        name: The output's alias; strings whose alias ends in `_bytes` become base64 objects.
        values: The tensor.
        indent: The level of the elements, for base64 objects, which span lines.
    """
    kind = values.dtype
    if kind == np.float32 or kind == np.float64:
        return decimals(values)
    if kind.kind == "O":
        encode = _base64_object(indent) if name.endswith("_bytes") else string
        return [encode(value) for value in values.ravel().tolist()]
    if kind == np.bool_:
        return ["true" if value else "false" for value in values.ravel().tolist()]
    if kind in (np.int32, np.int16, np.int8, np.uint8, np.int64, np.uint32, np.uint64):
        return [str(value) for value in values.ravel().tolist()]
    if not values.size:
        return []
    raise invalid_argument(f"Failed to write JSON value for tensor type: {_type_name(kind)}")


def _type_name(kind: np.dtype[Any]) -> str:
    return {"float16": "half"}.get(kind.name, kind.name)


def _base64_object(level: int) -> Callable[[bytes], str]:
    inner, outer = "\n" + "    " * (level + 1), "\n" + "    " * level

    def encode(value: bytes) -> str:
        return f'{{{inner}"b64": "{base64.b64encode(value).decode("ascii")}"{outer}}}'

    return encode


def _single_line(texts: Sequence[str], shape: Sequence[int]) -> Sequence[str]:
    """Folds texts into lists along all axes but the first, on one line."""
    for size in reversed(shape):
        step = size or 1
        count = len(texts) // step if size else 0
        texts = ["[" + ", ".join(texts[at * step : (at + 1) * step]) + "]" for at in range(count)]
    return texts


def rows(outputs: Mapping[str, npt.NDArray[Any]]) -> str:
    """`{"predictions": [...]}`: one element per item of the batch.

    Raises:
        ServingError: INVALID_ARGUMENT where an output is a scalar, batches differ in size, or a dtype has no JSON.
    """
    batch = _batch_size(outputs)
    if len(outputs) == 1:
        ((name, values),) = outputs.items()
        items = _items(name, values, 2 + max(values.ndim - 1, 0))
        if not items:
            return '{\n    "predictions": []\n}'
        return '{\n    "predictions": [' + ", ".join(items) + "\n    ]\n}"
    per_output = [(name, _items(name, values, 3 + max(values.ndim - 1, 0))) for name, values in outputs.items()]
    objects = []
    for at in range(batch):
        members = [f"            {string(name.encode())}: {items[at]}" for name, items in per_output]
        objects.append("\n        {\n" + ",\n".join(members) + "\n        }")
    if not objects:
        return '{\n    "predictions": []\n}'
    return '{\n    "predictions": [' + ",".join(objects) + "\n    ]\n}"


def _items(name: str, values: npt.NDArray[Any], level: int) -> Sequence[str]:
    inner = values.shape[1:]
    if 0 in inner and values.shape[0]:
        return _empty_items(values.shape)
    return _single_line(_texts(name, values, level), inner)


def _empty_items(shape: Sequence[int]) -> list[str]:
    """Items of a tensor without elements, such as shape [3, 2, 0]: `[[], []]` thrice."""

    def nested(sizes: Sequence[int]) -> str:
        return "[" + ", ".join([nested(sizes[1:])] * sizes[0] if len(sizes) > 1 else []) + "]"

    return [nested(shape[1:])] * shape[0]


def _batch_size(outputs: Mapping[str, npt.NDArray[Any]]) -> int:
    batch = -1
    for name, values in outputs.items():
        if not values.ndim:
            raise invalid_argument(f"Tensor name: {name} has no shape information ")
        if batch >= 0 and batch != values.shape[0]:
            raise invalid_argument(
                f"Tensor name: {name} has inconsistent batch size: {values.shape[0]} expecting: {batch}"
            )
        batch = values.shape[0]
    return batch


def columns(outputs: Mapping[str, npt.NDArray[Any]]) -> str:
    """`{"outputs": ...}`: whole tensors, one value per line."""
    if len(outputs) == 1:
        ((name, values),) = outputs.items()
        return '{\n    "outputs": ' + _lines(name, values, 1) + "\n}"
    members = [f"        {string(name.encode())}: {_lines(name, values, 2)}" for name, values in outputs.items()]
    return '{\n    "outputs": {\n' + ",\n".join(members) + "\n    }\n}"


def _lines(name: str, values: npt.NDArray[Any], level: int) -> str:
    texts: Sequence[str] = _texts(name, values, level + values.ndim)
    if not values.size and values.ndim:
        return _empty_lines(values.shape, level)
    for axis in reversed(range(values.ndim)):
        inner, outer = "\n" + "    " * (level + axis + 1), "\n" + "    " * (level + axis)
        step = values.shape[axis]
        texts = [
            "[" + inner + ("," + inner).join(texts[at : at + step]) + outer + "]" for at in range(0, len(texts), step)
        ]
    return texts[0]


def _empty_lines(shape: Sequence[int], level: int) -> str:
    if not shape[0]:
        return "[]"
    inner = "\n" + "    " * (level + 1)
    nested = _empty_lines(shape[1:], level + 1)
    return "[" + inner + ("," + inner).join([nested] * shape[0]) + "\n" + "    " * level + "]"


def classifications(results: Iterable[Iterable[tuple[bytes, float]]]) -> str:
    """`{"results": [[["label", score], ...], ...]}`."""
    lists = []
    for classes in results:
        pairs = list(classes)
        scores = decimals(np.array([score for _, score in pairs], dtype=np.float32))
        lists.append(
            "["
            + ", ".join(f"[{string(label)}, {score}]" for (label, _), score in zip(pairs, scores, strict=True))
            + "]"
        )
    return '{\n    "results": [' + ", ".join(lists) + "\n    ]\n}"


def regressions(values: npt.NDArray[np.float32]) -> str:
    """`{"results": [value, ...]}`."""
    return '{\n    "results": [' + ", ".join(decimals(values)) + "]\n}"


def error_body(message: str) -> bytes:
    """The body of every refusal. The message's characters beyond ASCII are written as UTF-8."""
    encoded = message.encode("utf-8", "surrogateescape")
    return ('{\n    "error": ' + string(encoded) + "\n}").encode("latin-1")


class _NotWritable(Exception):
    """RapidJSON stops where it meets NaN or an infinity inside a value that it quotes; we where it gets too long."""


def quoted(value: Json) -> str:
    """A request's JSON as messages quote it, pretty-printed; text beyond ASCII comes as surrogate escapes.

    A number on its own is written as outputs are; one inside an object or a list as RapidJSON writes doubles,
    which ends the quotation at NaN and infinities.
    """
    if isinstance(value, float):
        kind = np.float32 if -3.4028234e38 <= value <= 3.4028234e38 else np.float64
        return decimals(np.array([value], dtype=kind))[0]
    parts: list[str] = []
    with contextlib.suppress(_NotWritable):
        _quote(value, parts)
    return "".join(parts).encode("latin-1").decode("utf-8", "surrogateescape")


def _quote(root: Json, parts: list[str]) -> None:
    """Writes a value without recursion; the stack holds iterators over what is left of each container."""
    stack: list[tuple[Any, Any, bool]] = []
    value: Any = root
    length = 0

    def add(text: str) -> None:
        nonlocal length
        length += len(text)
        if length > _LONGEST:
            raise _NotWritable
        parts.append(text)

    while True:
        if isinstance(value, list) and value:
            is_object = isinstance(value, Object)
            add("{" if is_object else "[")
            stack.append((iter(value), is_object, True))
        else:
            add(_quote_scalar(value))
        while stack:
            items, is_object, first = stack[-1]
            try:
                value = next(items)
            except StopIteration:
                stack.pop()
                add("\n" + "    " * len(stack) + ("}" if is_object else "]"))
                continue
            add(("" if first else ",") + "\n" + "    " * len(stack))
            stack[-1] = (items, is_object, False)
            if is_object:
                key, value = value
                add(string(key.encode("latin-1")) + ": ")
            break
        else:
            return


def _quote_scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _double(value)
    if isinstance(value, str):
        return string(value.encode("latin-1"))
    return "{}" if isinstance(value, Object) else "[]"


def _double(value: float) -> str:
    """RapidJSON's short form: plain up to 21 digits, exponents without plus or padding beyond."""
    if not math.isfinite(value):
        raise _NotWritable
    if value == 0:
        return "-0.0" if math.copysign(1.0, value) < 0 else "0.0"
    sign = "-" if value < 0 else ""
    digits, power = grisu.digits(abs(value))
    point = len(digits) + power
    if len(digits) <= point <= 21:
        return sign + digits + "0" * (point - len(digits)) + ".0"
    if 0 < point <= 21:
        return sign + digits[:point] + "." + digits[point:]
    if -6 < point <= 0:
        return sign + "0." + "0" * -point + digits
    body = digits if len(digits) == 1 else digits[0] + "." + digits[1:]
    return f"{sign}{body}e{point - 1}"


def failure(error: ServingError) -> bytes:
    """`error_body` of a domain error."""
    return error_body(error.message)
