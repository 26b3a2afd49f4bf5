"""Byte-level BPE for all words of a batch at once."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from signatures.errors import UsageError
from signatures.tokenizers.arrays import find, frozen, row_starts, sorted_keys, utf8
from signatures.tokenizers.plan import BytePairs
from signatures.tokenizers.words import Cut

__all__ = ["Bpe", "byte_alphabet"]

_NONE = np.iinfo(np.int32).max


def byte_alphabet() -> list[str]:
    """The printable character that stands for each byte in GPT-2's vocabularies.

    Printable bytes of Latin-1 stand for themselves; the others are numbered from U+0100 on.
    """
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]


class Bpe:
    """Merges pairs by rank, lowest first and then leftmost, as the library's queue does.

    A round of the loop merges, in every word, all places of the word's best pair. That equals merging them one by
    one unless a merge can bring up a pair of a better rank; such merges are marked, and only their leftmost place is
    merged in a round.
    """

    def __init__(self, model: BytePairs, name: str) -> None:
        missing = -1 if model.unknown is None else model.vocab[model.unknown]
        alphabet = byte_alphabet()
        self._inner = frozen(np.array([model.vocab.get(symbol, missing) for symbol in alphabet], np.int32))
        ending = [model.vocab.get(symbol + model.suffix, missing) for symbol in alphabet]
        self._ending = frozen(np.array(ending, np.int32))
        self._stride = max(model.vocab.values(), default=0) + 1
        ranked = _ranked(model, name)
        keys = np.array([left * self._stride + right for left, right in ranked], np.int64)
        keys, order = sorted_keys(keys)
        self._keys, self._ranks = frozen(keys), frozen(np.append(order, _NONE).astype(np.int32))
        merged = np.array([id for id, _ in ranked.values()] + [0], np.int32)
        self._merged = frozen(merged)
        self._alone = frozen(np.array(_leftmost_only(ranked), np.bool_))

    def __call__(self, cut: Cut) -> tuple[tf.Tensor, tf.Tensor]:
        """Token ids int32 [t] and the row of each."""
        ids, words = self._symbols(cut)
        count = tf.size(cut.rows)
        more = tf.size(ids) > 1

        def merge(ids: tf.Tensor, words: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            owner = words[:-1]
            key = tf.cast(ids[:-1], tf.int64) * self._stride + tf.cast(ids[1:], tf.int64)
            rank = tf.gather(
                self._ranks, find(self._keys, tf.where(owner == words[1:], key, -1)) % tf.size(self._ranks)
            )
            best = tf.gather(tf.math.unsorted_segment_min(rank, owner, count), owner)
            chosen = self._choose((rank == best) & (rank < _NONE), rank, owner)
            gone = tf.concat([[False], chosen], 0)
            chosen = tf.concat([chosen, [False]], 0)
            rank = tf.concat([rank, [0]], 0)
            ids = tf.where(chosen, tf.gather(self._merged, tf.where(chosen, rank, 0)), ids)
            ids, words = tf.boolean_mask(ids, ~gone), tf.boolean_mask(words, ~gone)
            return ids, words, tf.reduce_any(chosen) & (tf.size(ids) > 1)

        shapes = (tf.TensorShape([None]), tf.TensorShape([None]), tf.TensorShape([]))
        ids, words, _ = tf.while_loop(lambda _, __, more: more, merge, (ids, words, more), shape_invariants=shapes)
        return ids, tf.gather(cut.rows, words)

    def _symbols(self, cut: Cut) -> tuple[tf.Tensor, tf.Tensor]:
        """The ids of each word's bytes; the last byte of a word carries the suffix."""
        bytes_, mask = utf8(cut.codes)
        words = tf.boolean_mask(tf.repeat(cut.words[:, None], 4, 1), mask)
        values = tf.boolean_mask(bytes_, mask)
        last = tf.concat([row_starts(words)[1:], tf.ones_like(words[:1], tf.bool)], 0)
        ids = tf.where(last, tf.gather(self._ending, values), tf.gather(self._inner, values))
        known = ids >= 0
        return tf.boolean_mask(ids, known), tf.boolean_mask(words, known)

    def _choose(self, candidates: tf.Tensor, rank: tf.Tensor, owner: tf.Tensor) -> tf.Tensor:
        """Which candidates to merge now: not two that overlap, and one alone where the order matters."""
        place = tf.range(tf.size(candidates))
        before = tf.concat([[False], candidates], 0)[: tf.size(candidates)]
        run_start = candidates & ~(before & ~row_starts(owner))
        run = tf.cumsum(tf.cast(run_start, tf.int32))
        begin = tf.math.unsorted_segment_min(tf.where(candidates, place, _NONE), run, tf.size(candidates) + 1)
        even = tf.bitwise.bitwise_and(place - tf.gather(begin, run), 1) == 0
        leftmost = tf.math.unsorted_segment_min(
            tf.where(candidates, place, _NONE), owner, tf.reduce_max(tf.concat([[0], owner], 0)) + 1
        )
        alone = tf.gather(self._alone, tf.where(candidates, rank, 0))
        return candidates & even & (~alone | (place == tf.gather(leftmost, owner)))


def _ranked(model: BytePairs, name: str) -> dict[tuple[int, int], tuple[int, int]]:
    """(left id, right id) to (merged id, rank); of a pair that is listed twice the last place counts."""
    ranked: dict[tuple[int, int], tuple[int, int]] = {}
    for rank, (left, right) in enumerate(model.merges):
        try:
            pair, merged = (model.vocab[left], model.vocab[right]), model.vocab[left + right]
        except KeyError as error:
            raise UsageError(
                f"The tokenizer {name} merges {left!r} and {right!r}, but its vocabulary has no {error}. "
                "Mend its tokenizer.json or merges.txt."
            ) from error
        ranked[pair] = (merged, rank)
    return dict(sorted(ranked.items(), key=lambda item: item[1][1]))


def _leftmost_only(ranked: dict[tuple[int, int], tuple[int, int]]) -> list[bool]:
    """For each merge, whether its result takes part in a merge of a better rank."""
    best: dict[int, int] = {}
    for rank, pair in enumerate(ranked):
        for id in pair:
            best.setdefault(id, rank)
    return [best.get(merged, rank) < rank for rank, (merged, _) in enumerate(ranked.values())] + [False]
