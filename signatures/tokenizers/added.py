"""Finding added tokens, such as `[MASK]`, in text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from signatures.tokenizers.arrays import frozen
from signatures.tokenizers.codepoints import whitespace
from signatures.tokenizers.plan import AddedToken

__all__ = ["Finder", "Pieces", "joined"]

_MARK = b"\xff"  # in no UTF-8 text


class Pieces(NamedTuple):
    """Texts cut into pieces.

    Args:
        texts: string [p], "" where the piece is an added token.
        ids: int32 [p], the added token's id, or -1 where the piece is text.
        rows: int32 [p], the row of each piece.
        count: int32 [], how many rows there are.
    """

    texts: tf.Tensor
    ids: tf.Tensor
    rows: tf.Tensor
    count: tf.Tensor


class Finder:
    """Cuts pieces of text at added tokens: the leftmost, and of those the longest."""

    def __init__(self, tokens: Sequence[AddedToken]) -> None:
        found = {token.sought: token for token in reversed(tokens) if token.sought}
        ordered = sorted(found.items(), key=lambda item: -len(item[0]))
        self._pattern = "|".join(_pattern(token) for _, token in ordered)
        self._strip = f"^{whitespace()}+|{whitespace()}+$"
        self._contents = frozen([content for content, _ in ordered]) if ordered else None
        self._ids = frozen([token.id for _, token in ordered]) if ordered else None

    def __bool__(self) -> bool:
        """Whether there is any token to find."""
        return self._contents is not None

    def __call__(self, pieces: Pieces) -> Pieces:
        """Cuts the pieces that are text further; added tokens found before stay."""
        if self._contents is None:
            return pieces
        marked = tf.strings.regex_replace(pieces.texts, self._pattern, _MARK + rb"\0" + _MARK)
        cut = tf.strings.split(marked, _MARK)
        texts, parents = cut.values, tf.cast(cut.value_rowids(), tf.int32)
        first = tf.cast(tf.gather(cut.row_splits, parents), tf.int32)
        is_token = tf.bitwise.bitwise_and(tf.range(tf.size(texts)) - first, 1) == 1
        names = tf.strings.regex_replace(texts, self._strip, "")
        known = tf.argmax(tf.cast(names[:, None] == self._contents[None, :], tf.int32), 1, tf.int32)
        inherited = tf.gather(pieces.ids, parents)
        ids = tf.where(is_token, tf.gather(self._ids, known), inherited)
        return Pieces(tf.where(is_token, "", texts), ids, tf.gather(pieces.rows, parents), pieces.count)


def _pattern(token: AddedToken) -> str:
    before = f"{whitespace()}*" if token.lstrip else ""
    after = f"{whitespace()}*" if token.rstrip else ""
    return before + _escaped(token.sought) + after


def _escaped(text: str) -> str:
    r"""A literal for RE2, which has its own idea of escapes: only ASCII signs get a backslash."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", text)


def joined(pieces: Pieces, ids: tf.Tensor, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The tokens of the text pieces and the added tokens between them, in order.

    Args:
        pieces: What was cut.
        ids: int32 [t], the tokens of the text pieces.
        rows: int32 [t], the piece of each token, rising.

    Returns:
        int32 [t + a] ids and the row of each.
    """
    special = tf.cast(tf.where(pieces.ids >= 0)[:, 0], tf.int32)
    owners = tf.concat([rows, special], 0)
    order = tf.argsort(owners, stable=True)
    all_ids = tf.concat([ids, tf.gather(pieces.ids, special)], 0)
    return tf.gather(all_ids, order), tf.gather(pieces.rows, tf.gather(owners, order))
