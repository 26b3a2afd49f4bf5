"""A strict JSON reader with the rules, numbers and messages of the parser inside TF Serving (RapidJSON 1.1.0).

What differs from Python's `json`: the first of duplicate keys counts and all are kept; `Inf` and `-Inf` are read;
numbers are converted by RapidJSON's quick method (one multiplication or division, so the last digit may differ
from the nearest double); numbers above the largest double are errors; strings are bytes that need not be
UTF-8; lone high surrogates are errors; nesting is limited by memory alone.

The document becomes None, bool, int (within int64 or uint64), float, str, list and `Object`. A `str` here holds
one byte per character (Latin-1), so `text.encode("latin-1")` gives back the bytes that were sent.

Python's own scanner, which is written in C, reads a document first wherever it cannot deviate; whatever it
refuses is read again by the parser below, which gives the message.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Union

from serving.errors import ServingError, invalid_argument

__all__ = ["Json", "Object", "parse", "parse_roughly"]

Json = Union[None, bool, int, float, str, list[Any], "Object"]

_WHITESPACE = re.compile(rb"[ \t\r\n]*")
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_DIGITS = re.compile(rb"[0-9]*")
_HEX = re.compile(rb"[0-9A-Fa-f]{4}")
_ESCAPES = {
    0x22: '"', 0x5C: "\\", 0x2F: "/", 0x62: "\b", 0x66: "\f", 0x6E: "\n", 0x72: "\r", 0x74: "\t",
}  # fmt: skip
_LITERALS = {0x6E: (b"null", None), 0x74: (b"true", True), 0x66: (b"false", False)}
_FAST_LIMIT = (1 << 53) - 1
_SMALLEST_NORMAL = 2.2250738585072014e-308
_POW10 = [float(f"1e{exponent}") for exponent in range(309)]


class Object(list[tuple[str, Any]]):
    """A JSON object: its members in the order they were written, duplicates included."""

    __slots__ = ()

    def find(self, key: str, default: Any = None) -> Any:
        """The value of the first member with this key."""
        for name, value in self:
            if name == key:
                return value
        return default

    def has(self, key: str) -> bool:
        """Whether there is a member with this key."""
        return any(name == key for name, _ in self)

    def keys(self) -> Iterator[str]:
        """The keys as written."""
        return (name for name, _ in self)


def parse(data: bytes) -> Json:
    """Reads one JSON document.

    Args:
        data: The bytes of the request's body.

    Raises:
        ServingError: INVALID_ARGUMENT with the reason and, but for the empty document, the byte offset.
    """
    if not data:
        raise invalid_argument("JSON Parse error: The document is empty")
    if b"\\u" not in data and data[0] != 0xEF:
        try:
            return _SCANNER.decode(data.decode("latin-1"))  # type: ignore[no-any-return]
        except (ValueError, RecursionError):
            pass
    return _Parser(data).document()


# Exponents of three digits, or significands of two hundred, may be too big for a double.
_BIG_EXPONENT = re.compile(rb"[eE]\+?0*[0-9]{3}")
_BIG_NUMBER = b"0" * 200
_AS_ZEROS = bytes.maketrans(b".123456789", b"0000000000")


def parse_roughly(data: bytes) -> Json:
    """Reads one JSON document several times faster than `parse`, but for the last digits of its floats.

    Everything but the floats is as `parse` gives it, integers of more than 64 bits apart, which stay integers.

    Args:
        data: The bytes of the request's body.

    Raises:
        ValueError: Only `parse` can tell what this is.
    """
    if b"\\u" in data or data[:1] == b"\xef" or _BIG_EXPONENT.search(data) or has_long_number(data, _BIG_NUMBER):
        raise ValueError("not for quick reading")
    try:
        return _ROUGH_SCANNER.decode(data.decode("latin-1"))  # type: ignore[no-any-return]
    except RecursionError as error:
        raise ValueError("too deep for quick reading") from error


def has_long_number(data: bytes, zeros: bytes) -> bool:
    """Whether somewhere as many digits and points follow one another as there are `zeros`."""
    return zeros in data.translate(_AS_ZEROS)


def number(text: str) -> int | float:
    """A number token by RapidJSON's rules.

    Args:
        text: A token of JSON's grammar for numbers, without NaN and infinities.

    Returns:
        An int where there is neither fraction nor exponent and 64 bits suffice, else a float.

    Raises:
        OverflowError: It is too big for a double.
    """
    minus = text[0] == "-"
    body = text[1:] if minus else text
    mantissa, _, exponent = body.replace("E", "e").partition("e")
    whole, _, fraction = mantissa.partition(".")
    integer, rest = _leading_integer(whole, 1 << 63 if minus else (1 << 64) - 1)
    if not rest and not fraction and not exponent:
        return -integer if minus else integer
    value, scale = _significand(integer, rest, whole, fraction)
    value = _scaled(value, _exponent(exponent, scale) + scale)
    return -value if minus else value


def _leading_integer(digits: str, limit: int) -> tuple[int, str]:
    """The digits that fit into 64 bits, and those that do not."""
    if len(digits) < 19 or (int(digits[:20]) <= limit and len(digits) <= 20):
        return int(digits), ""
    # The first 19 digits always fit 64 unsigned bits; a 20th may.
    for length in (20, 19, 18):
        if length <= len(digits) and int(digits[:length]) <= limit:
            return int(digits[:length]), digits[length:]
    raise AssertionError(digits)


def _significand(integer: int, rest: str, whole: str, fraction: str) -> tuple[float, int]:
    """The significand as a double, and the power of ten that it has to be scaled by."""
    significant = len(whole) - 1
    scale = 0
    if rest:
        value = float(integer)
        for digit in rest:
            if value >= 1.7976931348623157e307:
                raise OverflowError
            value = value * 10 + int(digit)
        significant = len(whole) - len(rest) - 1
    else:
        digits = fraction if integer else fraction.lstrip("0")
        zeros = len(fraction) - len(digits)
        taken = _fast_digits(integer, digits)
        integer = integer * 10**taken + int(digits[:taken] or "0")
        significant += taken
        value, scale, fraction = float(integer), -(zeros + taken), digits[taken:]
    for digit in fraction:
        if significant >= 17:
            break
        value = value * 10.0 + int(digit)
        scale -= 1
        if value > 0.0:
            significant += 1
    return value, scale


def _fast_digits(integer: int, fraction: str) -> int:
    """How many digits of the fraction join the integer before it exceeds 53 bits."""
    if integer > _FAST_LIMIT:
        return 0
    sixteen = 16 - (len(str(integer)) if integer else 0)
    if len(fraction) <= sixteen:
        return len(fraction)
    return sixteen if integer * 10**sixteen + int(fraction[:sixteen] or "0") > _FAST_LIMIT else sixteen + 1


def _exponent(text: str, scale: int) -> int:
    if not text:
        return 0
    digits = text.lstrip("+-")
    if text[0] == "-":
        return -min(int(digits[-12:]) if len(digits) <= 12 else 10**9, 10**9)
    exponent = int(digits[0])
    for digit in digits[1:]:
        exponent = exponent * 10 + int(digit)
        if exponent > 308 - scale:
            raise OverflowError
    return exponent


def _scaled(value: float, power: int) -> float:
    if power < -308:
        return _flushed(_fast_path(_flushed(value / _POW10[308]), power + 308))
    return _flushed(_fast_path(value, power))


def _fast_path(value: float, power: int) -> float:
    if power < -308:
        return 0.0
    return value * _POW10[power] if power >= 0 else value / _POW10[-power]


def _flushed(value: float) -> float:
    """TF Serving's REST threads run with denormals flushed to zero."""
    return value if abs(value) >= _SMALLEST_NORMAL else 0.0


def _scan_int(text: str) -> int | float:
    return int(text) if len(text) < 19 else _scan_number(text)


def _scan_float(text: str) -> int | float:
    # Significands of 53 bits are exact, and so is dividing them by at most 10^22: the nearest double results.
    if (
        "e" not in text
        and "E" not in text
        and (len(text) < 17 or (len(text) < 20 and -_FAST_LIMIT <= int(text.replace(".", "", 1)) <= _FAST_LIMIT))
    ):
        return float(text)
    return _scan_number(text)


def _scan_number(text: str) -> int | float:
    try:
        return number(text)
    except OverflowError as error:
        raise ValueError(text) from error


_SCANNER = json.JSONDecoder(
    object_pairs_hook=Object,
    parse_float=_scan_float,
    parse_int=_scan_int,
)
_ROUGH_SCANNER = json.JSONDecoder(object_pairs_hook=Object)


class _Parser:
    """The slow, exact way: one loop with its own stack, so that nesting costs memory and nothing else."""

    def __init__(self, data: bytes) -> None:
        # A zero byte ends the document, as it ends a C string; a byte order mark is skipped byte by byte.
        self.data = data + b"\0"
        self.at = 0
        for mark in (0xEF, 0xBB, 0xBF):
            if self.data[self.at] == mark:
                self.at += 1

    def document(self) -> Json:
        self._skip()
        if self.data[self.at] == 0:
            raise self._error("The document is empty.")
        value = self._value()
        self._skip()
        if self.data[self.at] != 0:
            raise self._error("The document root must not be followed by other values.")
        return value

    def _error(self, reason: str, offset: int | None = None) -> ServingError:
        return invalid_argument(f"JSON Parse error: {reason} at offset: {self.at if offset is None else offset}")

    def _skip(self) -> None:
        match = _WHITESPACE.match(self.data, self.at)
        assert match is not None
        self.at = match.end()

    def _value(self) -> Json:
        """One value with all that is in it.

        `open_` holds the containers being filled, `keys` the member that each of its objects is at.
        """
        open_: list[Any] = []
        keys: list[str] = []
        while True:
            byte = self.data[self.at]
            value: Any
            if byte == 0x7B or byte == 0x5B:
                self.at += 1
                value = Object() if byte == 0x7B else []
                self._skip()
                if self.data[self.at] != byte + 2:  # } and ] are two after { and [
                    open_.append(value)
                    if byte == 0x7B:
                        keys.append(self._key())
                    continue
                self.at += 1
            else:
                value = self._scalar(byte)
            while True:
                if not open_:
                    return value  # type: ignore[no-any-return]
                closed = self._store(open_[-1], keys, value)
                if not closed:
                    break
                value = open_.pop()
                if isinstance(value, Object):
                    keys.pop()

    def _store(self, container: Any, keys: list[str], value: Any) -> bool:
        """Puts a value into its container and reads on to the next one; True where the container ends."""
        is_object = isinstance(container, Object)
        container.append((keys[-1], value) if is_object else value)
        self._skip()
        byte = self.data[self.at]
        if byte == 0x2C:
            self.at += 1
            self._skip()
            if is_object:
                keys[-1] = self._key()
            return False
        if byte == (0x7D if is_object else 0x5D):
            self.at += 1
            return True
        if is_object:
            raise self._error("Missing a comma or '}' after an object member.")
        raise self._error("Missing a comma or ']' after an array element.")

    def _key(self) -> str:
        if self.data[self.at] != 0x22:
            raise self._error("Missing a name for object member.")
        key = self._string()
        self._skip()
        if self.data[self.at] != 0x3A:
            raise self._error("Missing a colon after a name of object member.")
        self.at += 1
        self._skip()
        return key

    def _scalar(self, byte: int) -> Json:
        if byte == 0x22:
            return self._string()
        if byte in _LITERALS:
            word, value = _LITERALS[byte]
            self._word(word)
            return value
        return self._number()

    def _word(self, word: bytes) -> None:
        """Reads the letters of a literal; the error's offset is that of the first wrong one."""
        for letter in word:
            if self.data[self.at] != letter:
                raise self._error("Invalid value.")
            self.at += 1

    def _number(self) -> int | float:
        start = self.at
        minus = self.data[self.at] == 0x2D
        self.at += minus
        byte = self.data[self.at]
        if byte == 0x4E:
            self._word(b"NaN")
            return float("nan")
        if byte == 0x49:
            self._word(b"Inf")
            if self.data[self.at] == 0x69:
                self._word(b"inity")
            return float("-inf" if minus else "inf")
        if byte == 0x30:
            self.at += 1
        elif not self._digits():
            raise self._error("Invalid value.")
        if self.data[self.at] == 0x2E:
            self.at += 1
            if not self._digits():
                raise self._error("Miss fraction part in number.")
        if self.data[self.at] in b"eE":
            self.at += 1
            self.at += self.data[self.at] in b"+-"
            if not self._digits():
                raise self._error("Miss exponent in number.")
        try:
            return number(self.data[start : self.at].decode("ascii"))
        except OverflowError:
            raise self._error("Number too big to be stored in double.", start) from None

    def _digits(self) -> bool:
        match = _DIGITS.match(self.data, self.at)
        assert match is not None
        self.at = match.end()
        return match.end() > match.start()

    def _string(self) -> str:
        self.at += 1
        parts = []
        while True:
            match = _PLAIN.match(self.data, self.at)
            assert match is not None
            parts.append(match.group().decode("latin-1"))
            self.at = match.end()
            byte = self.data[self.at]
            if byte == 0x22:
                self.at += 1
                return "".join(parts)
            if byte == 0:
                raise self._error("Missing a closing quotation mark in string.")
            if byte != 0x5C:
                raise self._error("Invalid escape character in string.")
            parts.append(self._escape())

    def _escape(self) -> str:
        start = self.at
        byte = self.data[self.at + 1]
        if byte in _ESCAPES:
            self.at += 2
            return _ESCAPES[byte]
        if byte != 0x75:
            raise self._error("Invalid escape character in string.", start)
        code = self._hex(self.at + 2, start)
        self.at += 6
        if 0xD800 <= code <= 0xDBFF:
            low = self._hex(self.at + 2, start) if self.data[self.at : self.at + 2] == b"\\u" else 0
            if not 0xDC00 <= low <= 0xDFFF:
                raise self._error("The surrogate pair in string is invalid.", start)
            self.at += 6
            code = ((code - 0xD800) << 10 | (low - 0xDC00)) + 0x10000
        return chr(code).encode("utf-8", "surrogatepass").decode("latin-1")

    def _hex(self, at: int, start: int) -> int:
        digits = self.data[at : at + 4]
        if not _HEX.fullmatch(digits):
            raise self._error("Incorrect hex digit after \\u escape in string.", start)
        return int(digits, 16)
