"""The JSON reader: its fast way equals its exact way, and both equal RapidJSON's rules."""

from __future__ import annotations

import json
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving import json_reader, json_writer
from serving.errors import ServingError
from serving.json_reader import Object, number, parse

SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.floats(allow_nan=False)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


def exact(data: bytes) -> object:
    return json_reader._Parser(data).document()


def outcome(read: object, data: bytes) -> str:
    try:
        return repr(read(data))  # type: ignore[operator]
    except ServingError as error:
        return str(error)


def plain(value: object) -> object:
    """As Python's json gives it."""
    if isinstance(value, Object):
        return {plain(key): plain(item) for key, item in reversed(value)}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.encode("latin-1").decode("utf-8") if isinstance(value, str) else value


@given(VALUES, st.booleans())
@settings(max_examples=300, deadline=None)
def test_json_is_read_as_python_reads_it(value: object, ascii_only: bool) -> None:
    try:
        text = json.dumps(value, ensure_ascii=ascii_only).encode()
    except UnicodeEncodeError:  # a lone surrogate, which no UTF-8 has
        return
    if "\\ud" in text.decode().lower():
        return  # lone surrogates are errors here
    got = plain(parse(text))
    wanted = json.loads(text)
    assert close(got, wanted)


def close(a: object, b: object) -> bool:
    """Equal, but for the last digit of doubles, and for denormals, which are zero here."""
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-15, abs_tol=2.3e-308)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(close(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(close(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and a == b


PIECES = st.sampled_from(
    ["{", "}", "[", "]", ",", ":", '"a"', '"\\n"', '"\\u00e9"', '"\\ud83e\\udd9c"', "1", "-0", "0.5", "1e5",
     "-1E-7", " ", "true", "false", "null", "NaN", "Inf", "-Infinity", '"', "\\", "\n", "\x00", "\x01", "01", "1.",
     "e", "\xff", "18446744073709551616", "-9223372036854775809", "123456789.123456789123456789", "1e308", "1e309",
     "9e-400"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=12).map("".join) | st.text(max_size=8))
@settings(max_examples=1500, deadline=None)
def test_the_fast_way_equals_the_exact_way(text: str) -> None:
    data = text.encode("latin-1", "replace")
    if data:
        assert outcome(parse, data) == outcome(exact, data)


def reference(text: str) -> float:
    """RapidJSON 1.1.0's conversion, digit by digit, for numbers with a fraction whose integer part is short."""
    minus, body = text[0] == "-", text.lstrip("-").lower()
    mantissa, _, exponent = body.partition("e")
    whole, _, fraction = mantissa.partition(".")
    integer, significant, scale, at = int(whole), len(whole) - 1, 0, 0
    while at < len(fraction) and integer <= 0x1FFFFFFFFFFFFF:
        integer = integer * 10 + int(fraction[at])
        scale -= 1
        significant += integer != 0
        at += 1
    value = float(integer)
    for digit in fraction[at:]:
        if significant < 17:
            value = value * 10.0 + int(digit)
            scale -= 1
            significant += value > 0.0
    power = int(exponent or 0) + scale
    tens = [float(f"1e{step}") for step in range(309)]

    def scaled(number: float, by: int) -> float:
        if by < -308:
            return 0.0
        return number * tens[by] if by >= 0 else number / tens[-by]

    value = scaled(scaled(value, -308), power + 308) if power < -308 else scaled(value, power)
    value = 0.0 if abs(value) < 2.2250738585072014e-308 else value
    return -value if minus else value


def test_numbers_are_converted_as_rapidjson_converts_them() -> None:
    source = random.Random(7)
    different = 0
    for _ in range(20000):
        whole = source.choice([0, source.randrange(10 ** source.randint(1, 17))])
        zeros = "0" * source.choice([0, 0, 3, 20])
        fraction = zeros + str(source.randrange(10 ** source.randint(1, 25)))
        exponent = source.choice(["", f"e{source.randint(-330, 280)}"])
        text = f"{source.choice(['', '-'])}{whole}.{fraction}{exponent}"
        assert number(text) == reference(text), text
        different += number(text) != float(text)
    assert different > 0, "RapidJSON's quick conversion is known not to give the nearest double always"


@pytest.mark.parametrize(
    ("text", "value"),
    [("18446744073709551615", 2**64 - 1), ("-9223372036854775808", -(2**63)), ("-0", 0), ("0", 0)],
)
def test_integers_of_64_bits(text: str, value: int) -> None:
    assert parse(text.encode()) == value
    assert type(parse(text.encode())) is int


def test_the_first_of_two_keys_counts_and_both_are_kept() -> None:
    found = parse(b'{"a": 1, "b": 2, "a": 3}')
    assert isinstance(found, Object)
    assert found.find("a") == 1
    assert list(found.keys()) == ["a", "b", "a"]
    assert found.find("c", "none") == "none"


def test_byte_order_marks_and_zero_bytes() -> None:
    assert parse(b"\xef\xbb\xbf[1]") == parse(b"\xbb\xbf[1]") == parse(b"[1]\x00 and whatever") == [1]
    with pytest.raises(ServingError, match=r"The document is empty\. at offset: 3"):
        parse(b"\xef\xbb\xbf")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1"), (1e6, "1e+06"), (0.30000000000000004, "0.3"), (float("nan"), "NaN"),
        ([0.1, 1e21, 1e20, 1e-7, 0.000001, 123.0, -0.0], None), ({}, "{}"), ([], "[]"),
        # Not the nearest digits, which Python prints.
        ([7.5659632933835345e25, -3391.5513484176386], "[\n    7.5659632933835349e25,\n    -3391.5513484176387\n]"),
        ([28869241819119542000.0, 2.0**70], "[\n    28869241819119544000.0,\n    1.1805916207174114e21\n]"),
        ("\x00\"\\/\t\x7f", '"\\u0000\\"\\\\/\\t\x7f"'), (2**64 - 1, "18446744073709551615"),
    ],
)  # fmt: skip
def test_quoting_values_in_messages(value: object, text: str | None) -> None:
    quoted = json_writer.quoted(Object() if value == {} else value)  # type: ignore[arg-type]
    if text is not None:
        assert quoted == text
    else:
        body = ["0.1", "1e21", "100000000000000000000.0", "1e-7", "0.000001", "123.0", "-0.0"]
        assert quoted == "[\n    " + ",\n    ".join(body) + "\n]"


def test_deep_documents_cost_memory_only() -> None:
    value = parse(b"[" * 200_000 + b"]" * 200_000)
    for _ in range(199_999):
        assert isinstance(value, list)
        (value,) = value
    assert value == []
    with pytest.raises(ServingError, match=r"Missing a comma or ']' after an array element\. at offset: 99999"):
        parse(b"[" * 50_000 + b"]" * 49_999 + b"}" + b" ")


def test_a_quotation_ends_before_it_fills_the_memory() -> None:
    quoted = json_writer.quoted(parse(b"[" * 50_000 + b"]" * 50_000))  # all of it would be ten gigabytes
    assert quoted.startswith("[\n    [\n        [")
    assert len(quoted) <= 1 << 23
