"""The body of a predict request: read quickly where that cannot change what is read, else exactly.

RapidJSON's own way with numbers, which `json_reader` follows digit by digit, takes seconds for some images. Numbers
that Python read are the same tensor where nobody sees their last digits: as integers, strings and bools, as float32
that is not near the middle between two float32s, and as doubles of fewer digits than a double holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from tensorflow.core.framework import types_pb2

from serving import wire
from serving.json_reader import Object, has_long_number, parse_roughly

__all__ = ["PredictBody"]

Array = npt.NDArray[Any]
_LARGE, _PER_COMMA = 4096, 64
"""Bytes from which on the quick way is worth a try, and bytes to a comma: base64 has none, and gains nothing."""
_EXPONENT = re.compile(rb"[0-9][eE]")
_DIGITS_OF_DOUBLE = b"0" * 17
# RapidJSON's numbers are within some units in the last place of the nearest double; 53 - 24 bits are cut off.
_CUT, _MIDDLE, _NEAR = (1 << 29) - 1, 1 << 28, 64


class PredictBody:
    """A predict request's JSON.

    Args:
        body: Its bytes.

    Raises:
        ServingError: INVALID_ARGUMENT where it is not JSON, or not an object, or `signature_name` is no string.
    """

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._rough = doc = _rough(body) if _has_many_numbers(body) else None
        self._exact: Object | None = None
        if doc is None:
            self._exact = doc = wire.document(body)
        self.signature = wire.signature_name(doc)

    def inputs(self, dtypes: Mapping[str, int]) -> wire.Request:
        """The tensors.

        Args:
            dtypes: The signature's inputs: alias -> DataType number.

        Raises:
            ServingError: See `wire.predict_inputs`.
        """
        if self._rough is not None:
            found = self._quick_inputs(self._rough, dtypes)
            if found is not None:
                return found
            self._rough = None
        if self._exact is None:
            self._exact = wire.document(self._body)
        return wire.predict_inputs(self._exact, dtypes, self.signature)

    def _quick_inputs(self, doc: Object, dtypes: Mapping[str, int]) -> wire.Request | None:
        row = doc.has("instances")
        if not dtypes or row == doc.has("inputs"):
            return None
        convert = {**wire.CONVERT, types_pb2.DT_FLOAT: _quick_float32, types_pb2.DT_DOUBLE: self._quick_double}
        if not row:
            found = wire.fast_columns(doc.find("inputs"), dtypes, convert)
        else:
            instances = doc.find("instances")
            if (
                type(instances) is not list
                or not instances
                or (not isinstance(instances[0], Object) and len(dtypes) > 1)
            ):
                return None
            found = wire.fast_rows(instances, dtypes, convert)
        return None if found is None else wire.Request(found, row=row)

    def _quick_double(self, flat: list[Any], _: int) -> Array | None:
        if _EXPONENT.search(self._body) or has_long_number(self._body, _DIGITS_OF_DOUBLE):
            return None
        return wire.CONVERT[types_pb2.DT_DOUBLE](flat, types_pb2.DT_DOUBLE)


def _has_many_numbers(body: bytes) -> bool:
    return len(body) >= _LARGE and body.count(b",") * _PER_COMMA >= len(body)


def _rough(body: bytes) -> Object | None:
    try:
        doc = parse_roughly(body)
    except ValueError:
        return None
    if not isinstance(doc, Object) or not isinstance(doc.find("signature_name", ""), str):
        return None
    return doc


def _quick_float32(flat: list[Any], _: int) -> Array | None:
    """Numbers to float32, where RapidJSON's last digits cannot matter."""
    if not set(map(type, flat)) <= {int, float}:
        return None
    values = np.array(flat, dtype=np.float64)
    sizes = np.abs(values)
    usual = ((sizes >= 1e-30) & (sizes <= 1e18)) | (sizes == 0)
    near = np.abs((values.view(np.int64) & _CUT) - _MIDDLE) <= _NEAR
    if not usual.all() or near.any():
        return None
    return values.astype(np.float32)
