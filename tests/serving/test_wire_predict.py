"""The quick way of reading predict requests gives what the exact way gives, value by value and word by word."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow.core.framework import types_pb2

from serving import wire, wire_predict
from serving.errors import ServingError
from serving.wire_predict import PredictBody

DTYPES = (types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE, types_pb2.DT_INT32, types_pb2.DT_UINT8, types_pb2.DT_STRING)
MIDDLES = [
    "1.00000005960464477539",
    "16777217",
    "33554434.0",
    "0.1000000052154064178466796875",
    "3.4028235677973366e38",
]
NUMBERS = (
    st.floats(width=32).map(lambda value: json.dumps(float(value)))
    | st.floats(allow_nan=False).map(repr)
    | st.integers(-(1 << 70), 1 << 70).map(str)
    | st.sampled_from(
        [*MIDDLES, "-0", "-0.0", "1e5", "0.1e-7", "1e400", "1e-400", "9" * 320, "01", '"x"', "true", "{}"]
    )
    | st.decimals(-300, 300, places=19).map(str)
)


def read(body: bytes, dtypes: dict[str, int], quickly: bool) -> Any:
    """The tensors as comparable values, or the refusal."""
    try:
        if quickly:
            request = PredictBody(body).inputs(dtypes)
        else:
            doc = wire.document(body)
            request = wire.predict_inputs(doc, dtypes, wire.signature_name(doc))
    except ServingError as error:
        return str(error)
    tensors = {alias: (array.dtype, array.shape, array.tolist()) for alias, array in request.inputs.items()}
    return request.row, repr(tensors)


@pytest.fixture(autouse=True, scope="module")
def small_bodies_too() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire_predict, "_has_many_numbers", lambda _: True)
        yield


@given(st.lists(NUMBERS, min_size=1, max_size=4), st.sampled_from(DTYPES), st.integers(0, 5))
@settings(max_examples=200, deadline=None)
def test_the_quick_way_equals_the_exact_way(numbers: list[str], dtype: int, form: int) -> None:
    values = ",".join(numbers)
    text = (
        f'{{"instances": [{values}]}}',
        f'{{"inputs": [[{values}], [{values}]]}}',
        f'{{"inputs": {{"x": [{values}], "y": [{values}]}}, "ignored": [{values}]}}',
        f'{{"instances": [{{"x": [{values}], "y": 1}}, {{"y": 2, "x": [{values}]}}]}}',
        f'{{"instances": [{{"x": {numbers[0]}, "x": 1}}], "signature_name": {numbers[-1]}}}',
        f"[{values}]",
    )[form]
    dtypes = {"x": dtype, "y": types_pb2.DT_FLOAT} if form in (2, 3) else {"x": dtype}
    assert read(text.encode(), dtypes, True) == read(text.encode(), dtypes, False)


def test_an_image_is_read_quickly_and_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).random((1, 16, 16, 3), dtype=np.float32)
    for body in ({"instances": image.tolist()}, {"inputs": {"x": image.tolist()}}):
        data = json.dumps(body).encode()
        exactly = read(data, {"x": types_pb2.DT_FLOAT}, False)
        with monkeypatch.context() as patch:
            patch.setattr(wire, "document", None)  # the exact way is not gone
            assert read(data, {"x": types_pb2.DT_FLOAT}, True) == exactly
