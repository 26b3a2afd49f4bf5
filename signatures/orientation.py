"""Which way up a picture was taken, from EXIF or XMP, as Pillow finds it. TensorFlow ops that never raise.

EXIF is a TIFF file of its own: a directory of entries, each a tag, a type, a count and a value or where that is.
Orientation is tag 0x0112 of the first directory. Where EXIF does not have it, XMP may (`PIL.Image.Image.getexif`).
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from signatures.functions import apart
from signatures.octets import big, little, starts, take

__all__ = ["orientation", "pieces", "unhexed"]

_TAG = 0x0112
_PREFIX = b"Exif\0\0"
_MOST_PREFIXES = 8

_UNIT = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8)
"""Bytes of one value, by TIFF type; 0 for a type that Pillow passes over."""

_BYTE, _SHORT, _LONG, _FLOAT, _DOUBLE, _RATIONAL = (6,), (3, 8), (4, 9, 13, 16), (11,), (12,), (5, 10)
"""The types whose value can equal a number. For 1 to 8 their signs make no difference."""

Content = Callable[[], tf.Tensor]


def orientation(has_exif: tf.Tensor, exif: Content, has_xmp: tf.Tensor, xmp: Content) -> tf.Tensor:
    """1 to 8, from EXIF, else from XMP, else 1.

    Args:
        has_exif: bool scalar.
        exif: Its bytes, uint8 [n], with or without their prefix; called where there are some.
        has_xmp: bool scalar.
        xmp: Its bytes, likewise.

    Returns:
        int32 scalar.
    """
    absent = tf.constant(-1, tf.int64)
    value = tf.cond(has_exif, lambda: _tiff(exif()), lambda: absent)
    value = tf.cond((value < 0) & has_xmp, lambda: _xmp(xmp()), lambda: value)
    return tf.cast(tf.where((value >= 1) & (value <= 8), value, 1), tf.int32)


def pieces(octets: tf.Tensor, begins: tf.Tensor, ends: tf.Tensor) -> tf.Tensor:
    """Some parts of a file, one after another: uint8 [n].

    Args:
        octets: uint8 [size], the file.
        begins: int64 [m], where each begins.
        ends: int64 [m], one past where each ends, which may be past the file's end.
    """
    ends = tf.minimum(ends, tf.size(octets, out_type=tf.int64))
    return tf.gather(octets, tf.ragged.range(begins, tf.maximum(begins, ends)).flat_values)


def unhexed(text: tf.Tensor) -> tf.Tensor:
    """What ImageMagick's text form of a profile holds: a name and a length on lines of their own, then hex digits.

    Args:
        text: uint8 [n].

    Returns:
        uint8 [m].
    """
    newline = tf.cast(text == ord("\n"), tf.int32)
    body = tf.boolean_mask(text, tf.cumsum(newline, exclusive=True) >= 3)
    values = [-1] * 256
    for digits in ("0123456789abcdef", "0123456789ABCDEF"):
        for value, digit in enumerate(digits):
            values[ord(digit)] = value
    nibbles = tf.gather(tf.constant(values), tf.cast(body, tf.int32))
    nibbles = tf.boolean_mask(nibbles, nibbles >= 0)
    pairs = tf.reshape(nibbles[: tf.size(nibbles) // 2 * 2], [-1, 2])
    return tf.cast(pairs[:, 0] * 16 + pairs[:, 1], tf.uint8)


@apart
def _tiff(octets: tf.Tensor) -> tf.Tensor:
    """The number that the tag has, 0 where it has something else, -1 where there is none; int64 scalar."""
    # Some writers repeat the prefix; Pillow strips it as often as it comes, PNG's eXIf included.
    octets = tf.pad(octets, [[0, tf.cast(tf.size(octets) == 0, tf.int32)]])
    heads = tf.reshape(take(octets, 0, len(_PREFIX) * _MOST_PREFIXES), [_MOST_PREFIXES, len(_PREFIX)])
    prefixes = tf.reduce_sum(tf.math.cumprod(tf.cast(starts(heads, _PREFIX), tf.int64)))
    begin, end = len(_PREFIX) * prefixes, tf.size(octets, out_type=tf.int64)
    start = take(octets, begin, 8)
    intel = starts(start, b"II")

    def number(values: tf.Tensor) -> tf.Tensor:
        return tf.where(intel, little(values), big(values))

    directory = begin + number(start[4:8])
    valid = (intel | starts(start, b"MM")) & (directory + 2 <= end)
    claimed = number(take(octets, directory, 2))
    count = tf.where(valid, tf.minimum(claimed, tf.maximum((end - directory - 2) // 12, 0)), 0)
    entries = take(octets, directory + 2 + 12 * tf.range(count), 12)
    kind, many = number(entries[:, 2:4]), number(entries[:, 4:8])
    size = many * tf.gather(tf.constant(_UNIT, tf.int64), tf.where(kind < len(_UNIT), kind, 0))
    # Longer values are elsewhere. Pillow stops at the first that is not all there.
    far, place = size > 4, begin + number(entries[:, 8:12])
    broken = far & (place + size > end)
    whole = tf.math.cumprod(tf.cast(~broken, tf.int32)) > 0
    # The last entry wins, as in a dictionary.
    found = tf.where((number(entries[:, 0:2]) == _TAG) & whole & (size > 0))[-1:, 0]

    def value() -> tf.Tensor:
        i = found[0]
        data = take(octets, tf.where(far[i], place[i], directory + 2 + 12 * i + 8), 8)
        return _value(data, kind[i], intel)

    return tf.cond(tf.size(found) > 0, value, lambda: tf.constant(-1, tf.int64))


def _value(data: tf.Tensor, kind: tf.Tensor, intel: tf.Tensor) -> tf.Tensor:
    """The first number of a value: a whole one of 0 to 255, or 0.

    Args:
        data: int64 [8], its bytes.
        kind: int64 scalar, its TIFF type.
        intel: bool scalar, whether its bytes are little-endian.
    """

    def is_one_of(kinds: tuple[int, ...]) -> tf.Tensor:
        return tf.reduce_any(kind == tf.constant(kinds, tf.int64))

    def number(count: int, begin: int = 0) -> tf.Tensor:
        part = data[begin : begin + count]
        return tf.where(intel, little(part), big(part))

    def real(count: int, dtype: tf.DType) -> tf.Tensor:
        part = tf.cast(data[:count], tf.uint8)
        return tf.cast(tf.bitcast(tf.where(intel, part, part[::-1]), dtype), tf.float64)

    # The low half of eight bytes; were the high one not 0, the number would be none of 1 to 8.
    wide = tf.where(is_one_of((16,)), number(4, 4), 0)
    low, high = tf.where(intel, number(4), wide), tf.where(intel, wide, number(4))
    eight = tf.where(is_one_of((16,)), tf.where(high == 0, low, 0), number(4))
    below = number(4, 4)
    ratio = tf.cast(number(4), tf.float64) / tf.cast(tf.maximum(below, 1), tf.float64)
    ratio = tf.where(below == 0, tf.zeros([], tf.float64), ratio)
    fraction = tf.where(is_one_of(_FLOAT), real(4, tf.float32), real(8, tf.float64))
    fraction = tf.where(is_one_of(_RATIONAL), ratio, fraction)
    whole = (fraction >= 0.0) & (fraction < 256.0) & (tf.floor(fraction) == fraction)
    exact = tf.cast(tf.where(whole, fraction, tf.zeros([], tf.float64)), tf.int64)
    value = tf.where(is_one_of(_SHORT), number(2), tf.where(is_one_of(_BYTE), data[0], 0))
    value = tf.where(is_one_of(_LONG), eight, value)
    return tf.where(is_one_of(_FLOAT + _DOUBLE + _RATIONAL), exact, value)


@apart
def _xmp(text: tf.Tensor) -> tf.Tensor:
    """The digit of the first `tiff:Orientation="d` or `tiff:Orientation>d`, or 0; by bytes, for XMP may be binary."""
    name = b"tiff:Orientation"
    room = tf.maximum(tf.size(text) - len(name) - 2, 0)
    matches = tf.fill([room], True)
    for offset, letter in enumerate(name):
        matches &= text[offset : offset + room] == letter
    places = tf.cast(tf.where(matches)[:, 0], tf.int32) + len(name)
    after = tf.cast(tf.gather(tf.pad(text, [[0, 1]]), places[:, None] + tf.range(3)), tf.int64)
    attribute, element = starts(after, b'="'), starts(after, b">")
    digit = tf.where(attribute, after[:, 2], after[:, 1]) - ord("0")
    found = tf.boolean_mask(digit, (attribute | element) & (digit >= 0) & (digit <= 9))
    return tf.cond(tf.size(found) > 0, lambda: found[0], lambda: tf.constant(0, tf.int64))
