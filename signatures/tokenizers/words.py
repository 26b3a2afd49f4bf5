"""Cutting text into words: BERT's punctuation rule, and the regular expressions of CLIP and GPT-2 as vector rules.

RE2, TensorFlow's engine, has no look-ahead and its own Unicode version, so the expressions are not run but restated:
each code point has a class, and a word starts where the classes and the contractions ('s, 're, ...) say so. The
rules are checked against the library's own answers on arbitrary text.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import tensorflow as tf

from signatures.tokenizers.arrays import Table, Text, row_starts, take
from signatures.tokenizers.codepoints import NUMBER, OTHER, SPACE, bert_classes, gpt_classes
from signatures.tokenizers.plan import Words

__all__ = ["Cut", "Cutter"]

_SPACE = ord(" ")


class Cut(NamedTuple):
    """Words of texts, flat.

    Args:
        codes: int32 [c], the code points of all words.
        words: int32 [c], the word of each code point, 0, 1, 2...
        rows: int32 [w], the row of each word.
        count: int32 [], how many rows there are.
    """

    codes: tf.Tensor
    words: tf.Tensor
    rows: tf.Tensor
    count: tf.Tensor


class Cutter:
    """Cuts rows of code points into words."""

    def __init__(self, words: Words) -> None:
        self._kind: Literal["bert", "clip", "gpt2", "bytes"] = words.kind
        self._prefix_space = words.prefix_space
        self._classes = Table(bert_classes() if words.kind == "bert" else gpt_classes())

    def __call__(self, text: Text) -> Cut:
        """Cuts every row; whitespace that the rule drops is gone."""
        if self._prefix_space:
            text = _with_space(text)
        first = row_starts(text.rows)
        kinds = self._classes(text.codes)
        match self._kind:
            case "bytes":
                keep, start = tf.ones_like(first), first
            case "bert":
                keep, start = kinds != SPACE, first | (kinds != OTHER) | (_before(kinds, OTHER) != OTHER)
            case "clip":
                keep, start = kinds != SPACE, _clip_starts(text, kinds, first)
            case "gpt2":
                keep, start = tf.ones_like(first), _gpt2_starts(text, kinds, first)
        text, start = take(text, keep), tf.boolean_mask(start, keep)
        words = tf.cumsum(tf.cast(start, tf.int32)) - 1
        return Cut(text.codes, words, tf.boolean_mask(text.rows, start), text.count)


def _with_space(text: Text) -> Text:
    """A space before each row that is not empty and does not start with one."""
    need = row_starts(text.rows) & (text.codes != _SPACE)
    mask = tf.stack([need, tf.ones_like(need)], 1)
    codes = tf.stack([tf.fill(tf.shape(text.codes), _SPACE), text.codes], 1)
    rows = tf.stack([text.rows, text.rows], 1)
    return Text(tf.boolean_mask(codes, mask), tf.boolean_mask(rows, mask), text.count)


def _before(values: tf.Tensor, fill: int | bool, by: int = 1) -> tf.Tensor:
    return tf.concat([tf.fill([by], tf.cast(fill, values.dtype)), values], 0)[: tf.size(values)]


def _after(values: tf.Tensor, fill: int, by: int = 1) -> tf.Tensor:
    return tf.concat([values, tf.fill([by], tf.cast(fill, values.dtype))], 0)[by:]


def _contractions(text: Text, begins: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Where 's 't 'm 'd, and where 're 've 'll start, among the apostrophes at which a match begins."""
    same = [text.rows == _after(text.rows, -1, by) for by in (1, 2)]
    one, two = (_after(text.codes, 0, by) for by in (1, 2))
    apostrophe = begins & (text.codes == ord("'"))

    def is_(values: tf.Tensor, letters: str) -> tf.Tensor:
        return tf.reduce_any(values[:, None] == [ord(letter) for letter in letters], 1)

    short = apostrophe & same[0] & is_(one, "stmd")
    long = ((one == ord("r")) | (one == ord("v"))) & (two == ord("e")) | (one == ord("l")) & (two == ord("l"))
    return short, apostrophe & same[1] & long


def _with_contractions(short: tf.Tensor, long: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """Starts where contractions start and end, none inside them, and as given elsewhere."""
    inside = _before(short, False) | _before(long, False) | _before(long, False, 2)
    end = _before(short, False, 2) | _before(long, False, 3)
    return short | long | end | (start & ~inside)


def _clip_starts(text: Text, kinds: tf.Tensor, first: tf.Tensor) -> tf.Tensor:
    r"""`'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+`."""
    changes = first | (kinds != _before(kinds, SPACE))
    # An apostrophe after another sign belongs to that sign's run.
    short, long = _contractions(text, changes)
    return first | _with_contractions(short, long, changes | (kinds == NUMBER))


def _gpt2_starts(text: Text, kinds: tf.Tensor, first: tf.Tensor) -> tf.Tensor:
    r"""`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`."""
    changes = first | (kinds != _before(kinds, SPACE))
    last = _after(first, 1)
    space = kinds == SPACE
    # Of a run of whitespace, the last one stands apart when something follows it, and joins it if it is U+0020.
    parting = space & ~last & (_after(kinds, SPACE) != SPACE)
    joined = ~space & ~first & (_before(text.codes, 0) == _SPACE)
    start = tf.where(space, changes | parting, changes & ~joined)
    short, long = _contractions(text, changes & ~joined)
    return first | _with_contractions(short, long, start)
