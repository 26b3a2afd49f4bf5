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
    """Code points to UTF-8 string [n]."""
    splits = starts(lengths(text.rows, text.count))
    return tf.strings.unicode_encode(tf.RaggedTensor.from_row_splits(text.codes, splits, validate=False), "UTF-8")


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
