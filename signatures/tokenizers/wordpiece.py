"""WordPiece, greedy longest match first, for all words of a batch at once."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from signatures.errors import UsageError
from signatures.tokenizers.arrays import Text, encode, find, frozen, lengths, sorted_keys
from signatures.tokenizers.plan import WordPieces
from signatures.tokenizers.words import Cut

__all__ = ["WordPiece"]

_BUCKETS = 2**62


class WordPiece:
    """Each round of the loop takes the longest known piece off the front of every word.

    Pieces are found by their fingerprint and then compared, so the answer is exact without a lookup table.
    """

    def __init__(self, model: WordPieces, name: str) -> None:
        self._unknown = model.vocab[model.unknown]
        self._max_characters = model.max_characters
        starting = {piece: id for piece, id in model.vocab.items() if piece}
        continuing = {
            piece.removeprefix(model.prefix): id
            for piece, id in starting.items()
            if piece.startswith(model.prefix) and piece != model.prefix
        }
        self._starting, self._continuing = _Pieces(starting, name), _Pieces(continuing, name)

    def __call__(self, cut: Cut) -> tuple[tf.Tensor, tf.Tensor]:
        """Token ids int32 [t] and the row of each."""
        count = tf.size(cut.rows)
        words = encode(Text(cut.codes, cut.words, count))
        sizes = lengths(cut.words, count)
        fits = sizes <= self._max_characters
        todo = tf.where(fits, sizes, 0)
        ids, taken = self._starting.longest(words, tf.zeros_like(sizes), todo)

        def body(
            at: tf.Tensor, ids: tf.Tensor, owners: tf.Tensor, bad: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
            active = tf.cast(tf.where(at < todo)[:, 0], tf.int32)
            here = tf.gather(at, active)
            piece, size = self._continuing.longest(tf.gather(words, active), here, tf.gather(todo, active))
            stuck = size == 0
            after = tf.where(stuck, tf.gather(todo, active), here + size)
            return (
                tf.tensor_scatter_nd_update(at, active[:, None], after),
                tf.concat([ids, piece], 0),
                tf.concat([owners, active], 0),
                tf.tensor_scatter_nd_update(bad, active[:, None], stuck),
            )

        bad = taken == 0
        at = tf.where(bad, todo, taken)
        shapes = tuple(map(tf.TensorShape, ([None], [None], [None], [None])))
        _, ids, owners, bad = tf.while_loop(
            lambda at, *_: tf.reduce_any(at < todo),
            body,
            (at, ids, tf.range(count), bad),
            shape_invariants=shapes,
        )
        # A word that got stuck anywhere is one unknown token, in the place of its first piece.
        first = tf.range(tf.size(ids)) < count
        ids = tf.where(tf.gather(bad, owners), self._unknown, ids)
        keep = first | ~tf.gather(bad, owners)
        ids, owners = tf.boolean_mask(ids, keep), tf.boolean_mask(owners, keep)
        order = tf.argsort(owners, stable=True)
        return tf.gather(ids, order), tf.gather(cut.rows, tf.gather(owners, order))


class _Pieces:
    """Pieces of a vocabulary, without their prefix."""

    def __init__(self, pieces: dict[str, int], name: str) -> None:
        texts = np.array([piece.encode() for piece in pieces], object)
        self._empty = not pieces
        if self._empty:
            return
        with tf.init_scope(), tf.device("CPU:0"):
            hashes = tf.strings.to_hash_bucket_fast(tf.constant(texts), _BUCKETS).numpy()
        keys, order = sorted_keys(hashes)
        if (keys[1:] == keys[:-1]).any():
            raise UsageError(
                f"Two pieces in the vocabulary of {name} share a fingerprint, which this encoding cannot tell apart. "
                "Leave the text inputs to the client, and report the vocabulary."
            )
        self._keys = frozen(keys)
        self._texts = frozen(texts[order])
        self._ids = frozen(np.array(list(pieces.values()), np.int32)[order])
        self._sizes = np.array(sorted({len(piece) for piece in pieces}), np.int32)  # code points

    def longest(self, words: tf.Tensor, start: tf.Tensor, stop: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The longest piece of string [w] from `start` on within `stop`, in code points: its id, its length or 0."""
        if self._empty:
            return tf.zeros_like(start), tf.zeros_like(start)
        sizes = tf.constant(self._sizes)[None, :]
        fits = start[:, None] + sizes <= stop[:, None]
        length = tf.where(fits, sizes, 0)
        pieces = tf.strings.substr(
            tf.repeat(words[:, None], len(self._sizes), 1),
            tf.where(fits, start[:, None], 0),
            length,
            unit="UTF8_CHAR",
        )
        found = find(self._keys, tf.reshape(tf.strings.to_hash_bucket_fast(pieces, _BUCKETS), [-1]))
        place = tf.reshape(tf.maximum(found, 0), tf.shape(pieces))
        known = fits & (tf.reshape(found, tf.shape(pieces)) >= 0) & (tf.gather(self._texts, place) == pieces)
        best = tf.argmax(tf.where(known, length, 0), 1, tf.int32)[:, None]
        size = tf.gather(tf.where(known, length, 0), best, batch_dims=1)[:, 0]
        return tf.gather(self._ids, tf.gather(place, best, batch_dims=1)[:, 0]), size
