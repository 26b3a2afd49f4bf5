"""The few array operations that the tokenizers share, on TensorFlow's core CPU ops.

Texts travel as one flat vector of code points with the row that each belongs to, so that a batch of short texts
costs one pass of vector operations and a long text costs memory in proportion to its length only.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from signatures.tokenizers.codepoints import PAGE, Pages

__all__ = [
    "PYTHON_SPACE",
    "Table",
    "Text",
    "decode",
    "encode",
    "find",
    "frozen",
    "lengths",
    "row_starts",
    "sorted_keys",
    "starts",
    "take",
    "utf8",
]

# What str.isspace() says, as a class for RE2; all of it lies below U+3001.
PYTHON_SPACE = "[" + "".join(rf"\x{{{code:X}}}" for code in range(0x3001) if chr(code).isspace()) + "]"


class Text(NamedTuple):
    """Rows of code points.

    Args:
        codes: int32 [c], every row's code points, one row after another.
        rows: int32 [c], the row of each, rising.
        count: int32 [], how many rows there are, empty ones included.
    """

    codes: tf.Tensor
    rows: tf.Tensor
    count: tf.Tensor


def frozen(values: npt.NDArray[Any] | list[Any]) -> tf.Tensor:
    """A constant made outside any function, so that all signatures of a SavedModel share one copy of it."""
    with tf.init_scope(), tf.device("CPU:0"):
        return tf.constant(values)


class Table:
    """An int32 for each code point."""

    def __init__(self, pages: Pages) -> None:
        self._start = frozen(pages.start)
        self._values = frozen(pages.values)

    def __call__(self, codes: tf.Tensor) -> tf.Tensor:
        """int32 [c] to int32 [c]."""
        start = tf.gather(self._start, tf.bitwise.right_shift(codes, 8))
        return tf.gather(self._values, start + tf.bitwise.bitwise_and(codes, PAGE - 1))


def decode(texts: tf.Tensor) -> Text:
    """UTF-8 string [n] to code points; each byte sequence that is no UTF-8 becomes U+FFFD."""
    ragged = tf.strings.unicode_decode(texts, "UTF-8", errors="replace")
    rows = tf.cast(ragged.value_rowids(), tf.int32)
    return Text(ragged.values, rows, tf.size(texts))


def encode(text: Text) -> tf.Tensor:
    """Code points to UTF-8 string [n].

    TensorFlow's own `unicode_encode` would replace U+FFFF and the other noncharacters.
    """
    bytes_, mask = utf8(text.codes)
    rows = tf.boolean_mask(tf.repeat(text.rows[:, None], 4, 1), mask)
    signs = tf.gather(frozen([bytes([byte]) for byte in range(256)]), tf.boolean_mask(bytes_, mask))
    return tf.strings.unsorted_segment_join(signs, rows, text.count)


def utf8(codes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The UTF-8 bytes of code points, int32 [c, 4], and which of the four there are."""

    def bits(shift: int, mask: int) -> tf.Tensor:
        return tf.bitwise.bitwise_and(tf.bitwise.right_shift(codes, shift), mask)

    one, two, three = codes < 0x80, codes < 0x800, codes < 0x10000
    tail = [0x80 + bits(shift, 0x3F) for shift in (0, 6, 12)]
    lead = tf.where(
        one, codes, tf.where(two, 0xC0 + bits(6, 0x1F), tf.where(three, 0xE0 + bits(12, 0xF), 0xF0 + bits(18, 7)))
    )
    zero = tf.zeros_like(codes)
    second = tf.where(two, tail[0], tf.where(three, tail[1], tail[2]))
    third = tf.where(two, zero, tf.where(three, tail[0], tail[1]))
    bytes_ = tf.stack([lead, second, third, tail[0]], 1)
    return bytes_, tf.stack([tf.ones_like(one), ~one, ~two, ~three], 1)


def lengths(rows: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """int32 [count]: how many elements each row has."""
    return tf.math.unsorted_segment_sum(tf.ones_like(rows), rows, count)


def starts(sizes: tf.Tensor) -> tf.Tensor:
    """int32 [n + 1]: where each row starts, and the end, from the rows' lengths."""
    return tf.concat([[0], tf.cumsum(sizes)], 0)


def row_starts(rows: tf.Tensor) -> tf.Tensor:
    """Whether an element is the first of its row, bool [c]."""
    return tf.concat([tf.ones_like(rows[:1], tf.bool), rows[1:] != rows[:-1]], 0)


def take(text: Text, mask: tf.Tensor) -> Text:
    """The elements where a bool [c] mask holds."""
    return Text(tf.boolean_mask(text.codes, mask), tf.boolean_mask(text.rows, mask), text.count)


def find(keys: tf.Tensor, queries: tf.Tensor) -> tf.Tensor:
    """int32 [q]: where each int64 query stands among the sorted distinct keys [k], or -1.

    A binary search needs no lookup table, hence nothing that a server would have to initialise.
    """
    place = tf.minimum(tf.searchsorted(keys, queries), tf.size(keys) - 1)
    return tf.where(tf.gather(keys, place) == queries, place, -1)


def sorted_keys(keys: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Distinct keys in order with the order that sorted them; one impossible key where there are none."""
    if not len(keys):
        return np.array([-2], np.int64), np.array([], np.int64)
    order = np.argsort(keys, kind="stable")
    return keys[order], order
