"""Truncation, special tokens and padding: from flat tokens to dense [s, L] tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import tensorflow as tf

from signatures.tokenizers.arrays import lengths, starts
from signatures.tokenizers.plan import Slot

__all__ = ["Grid", "Tokens", "Truncation", "arrange", "spans", "truncate"]

Truncation = Literal["longest_first", "only_first", "only_second", "none"]
Side = Literal["left", "right"]


class Tokens(NamedTuple):
    """Tokens of rows, flat, of which each row shows a window.

    Args:
        ids: int32 [t].
        words: int32 [t], the word within its row that each token came from.
        begins: int32 [s], where each row's window starts in `ids`.
        sizes: int32 [s], how long it is.
    """

    ids: tf.Tensor
    words: tf.Tensor
    begins: tf.Tensor
    sizes: tf.Tensor

    @classmethod
    def of(cls, ids: tf.Tensor, words: tf.Tensor, rows: tf.Tensor, count: tf.Tensor) -> Tokens:
        """Windows that show everything."""
        sizes = lengths(rows, count)
        return cls(ids, words, starts(sizes)[:-1], sizes)

    def halves(self, count: tf.Tensor) -> tuple[Tokens, Tokens]:
        """The first `count` rows, and the others."""
        begins, sizes = self.begins, self.sizes
        first = self._replace(begins=begins[:count], sizes=sizes[:count])
        return first, self._replace(begins=begins[count:], sizes=sizes[count:])

    def keep(self, sizes: tf.Tensor, side: Side) -> Tokens:
        """The first `sizes` tokens of each window, or the last where `side`, which is cut away, is `left`."""
        begins = self.begins if side == "right" else self.begins + self.sizes - sizes
        return self._replace(begins=begins, sizes=sizes)


class Grid(NamedTuple):
    """Dense tokens, all int32 [s, L].

    Args:
        ids: The padding's id where there is no token.
        mask: 1 for tokens, 0 for padding.
        types: Type ids.
        words: The word of each token within its text, -1 for special tokens and padding.
        sequences: 0 for the first text, 1 for the second, -1 for special tokens and padding.
    """

    ids: tf.Tensor
    mask: tf.Tensor
    types: tf.Tensor
    words: tf.Tensor
    sequences: tf.Tensor


def truncate(
    first: Tokens, second: Tokens | None, budget: int, strategy: Truncation, side: Side
) -> tuple[Tokens, Tokens | None]:
    """Cuts texts so that they fit into `budget` tokens, special tokens not counted.

    `longest_first` is the library's rule: a text within half of the budget stays whole, and two longer ones share
    it. Under `only_first` and `only_second` the other text is never cut, so that the row may stay too long.
    """
    if strategy == "none":
        return first, second
    if second is None:
        if strategy == "only_second":
            return first, None
        return first.keep(tf.minimum(first.sizes, budget), side), None
    if strategy == "only_first":
        return first.keep(tf.clip_by_value(budget - second.sizes, 0, first.sizes), side), second
    if strategy == "only_second":
        return first, second.keep(tf.clip_by_value(budget - first.sizes, 0, second.sizes), side)
    short = tf.minimum(first.sizes, second.sizes)
    fits = first.sizes + second.sizes <= budget
    long = tf.maximum(budget - short, short)
    both = short + long > budget
    short = tf.where(fits, short, tf.where(both, budget // 2, short))
    long = tf.where(fits, tf.maximum(first.sizes, second.sizes), tf.where(both, budget - budget // 2, long))
    swap = first.sizes > second.sizes
    return (
        first.keep(tf.minimum(first.sizes, tf.where(swap, long, short)), side),
        second.keep(tf.minimum(second.sizes, tf.where(swap, short, long)), side),
    )


def spans(tokens: Tokens, room: tf.Tensor, stride: int) -> tuple[Tokens, tf.Tensor]:
    """Windows of `room` tokens that overlap by `stride` and together show everything.

    Args:
        tokens: The rows to cut.
        room: int32 [s], the length of each row's windows, more than `stride`.
        stride: How many tokens a window repeats of the one before it.

    Returns:
        The windows, a row's windows one after another, and int32 [windows], the row of each.
    """
    step = room - stride
    more = tf.maximum(tokens.sizes - room, 0)
    counts = 1 + (more + step - 1) // step
    rows = tf.repeat(tf.range(tf.size(counts)), counts)
    index = tf.range(tf.size(rows)) - tf.gather(tf.cumsum(counts, exclusive=True), rows)
    offset = index * tf.gather(step, rows)
    sizes = tf.minimum(tf.gather(tokens.sizes, rows) - offset, tf.gather(room, rows))
    return tokens._replace(begins=tf.gather(tokens.begins, rows) + offset, sizes=sizes), rows


def arrange(
    template: Sequence[Slot],
    texts: Mapping[str, Tokens],
    *,
    width: int | None,
    pad_id: int,
    pad_type: int,
    side: Side,
) -> Grid:
    """Fills the template of special tokens with texts and pads it.

    Args:
        template: The places, in order.
        texts: The texts by their place, `A` and `B`.
        width: The length L to pad to; None pads to the longest row.
        pad_id: The id that padding is written as.
        pad_type: The type id that padding is written as.
        side: Where padding goes.
    """
    count = tf.size(next(iter(texts.values())).sizes)
    sizes = [texts[slot.kind].sizes if slot.kind != "special" else tf.ones([count], tf.int32) for slot in template]
    total = tf.add_n(sizes)
    length = tf.reduce_max(tf.concat([[0], total], 0)) if width is None else tf.constant(width)
    place = tf.range(length)[None, :] - (length - total[:, None] if side == "left" else 0)
    empty = tf.zeros([count, length], tf.int32)
    ids, types, words, sequences = empty + pad_id, empty + pad_type, empty - 1, empty - 1
    begin = tf.zeros([count], tf.int32)
    for slot, size in zip(template, sizes, strict=True):
        offset = place - begin[:, None]
        here = (offset >= 0) & (offset < size[:, None])
        begin += size
        types = tf.where(here, slot.type_id, types)
        if slot.kind == "special":
            ids = tf.where(here, slot.id, ids)
            continue
        text = texts[slot.kind]
        index = tf.where(here, text.begins[:, None] + offset, 0)
        # One more element keeps the gather lawful where there are no tokens at all.
        ids = tf.where(here, tf.gather(tf.concat([text.ids, [0]], 0), index), ids)
        words = tf.where(here, tf.gather(tf.concat([text.words, [0]], 0), index), words)
        sequences = tf.where(here, 0 if slot.kind == "A" else 1, sequences)
    mask = tf.cast((place >= 0) & (place < total[:, None]), tf.int32)
    tensors = (ids, mask, types, words, sequences)
    if width is not None:
        tensors = tuple(tf.ensure_shape(tensor, [None, width]) for tensor in tensors)
    return Grid(*tensors)
