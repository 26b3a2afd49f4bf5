"""Ids back to text."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from signatures.tokenizers.arrays import PYTHON_SPACE, frozen
from signatures.tokenizers.bpe import byte_alphabet
from signatures.tokenizers.plan import Detokenizer, Plan

__all__ = ["Decoder", "stripped"]

# The order matters: each replacement runs over what the one before it left.
_SIGNS = ((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"))
_SHORT = ((" 's", "'s"), (" 've", "'ve"), (" 're", "'re"))
_TIDY = (*_SIGNS, *_SHORT)
_PIECE_TIDY = (*_SIGNS, (" do not", " don't"), *_SHORT)  # the library's, inside one token


class Decoder:
    """`decode(ids, skip_special_tokens=True)` of a tokenizer.

    Each id's text is known at export, once for the first token of a row and once for the others; the graph joins
    them. Ids that the tokenizer does not know are left out.
    """

    def __init__(self, plan: Plan) -> None:
        self._settings = plan.detokenizer
        special = {token.id for token in plan.added if token.special}
        shown = {id: token for id, token in plan.tokens.items() if id not in special}
        size = max(shown, default=0) + 1
        first, rest = np.full(size, b"", object), np.full(size, b"", object)
        known = np.zeros(size, np.bool_)
        for id, (head, tail) in _pieces(shown, plan.detokenizer).items():
            first[id], rest[id], known[id] = head, tail, True
        self._first, self._rest, self._known = map(frozen, (first, rest, known))

    def __call__(self, ids: tf.Tensor) -> tf.Tensor:
        """Integer ids [n, L] to string [n]."""
        inside = (ids >= 0) & (ids < tf.size(self._known, ids.dtype))
        place = tf.where(inside, ids, 0)
        shown = inside & tf.gather(self._known, place)
        head = shown & (tf.cumsum(tf.cast(shown, tf.int32), 1) == 1)
        pieces = tf.where(head, tf.gather(self._first, place), tf.gather(self._rest, place))
        text = tf.strings.reduce_join(tf.where(shown, pieces, ""), 1)
        text = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace")
        if self._settings.end_of_word:
            text = stripped(_replace(text, self._settings.end_of_word, " "))
        for before, after in _TIDY if self._settings.tidy else ():
            text = _replace(text, before, after)
        return text


def _pieces(tokens: Mapping[int, str], settings: Detokenizer) -> dict[int, tuple[bytes, bytes]]:
    """What each token writes at the start of a text and after it."""
    if settings.kind == "bytes":
        byte = {character: number for number, character in enumerate(byte_alphabet())}
        return {id: (_bytes(token, byte),) * 2 for id, token in tokens.items()}
    return {id: _words(token, settings) for id, token in tokens.items()}


def _bytes(token: str, byte: Mapping[str, int]) -> bytes:
    # A token with any character outside the alphabet, such as an added one with a space, stands for itself.
    return bytes(byte[character] for character in token) if set(token) <= set(byte) else token.encode()


def _words(token: str, settings: Detokenizer) -> tuple[bytes, bytes]:
    head, tail = token, f" {token}"
    if settings.kind == "wordpiece" and token.startswith(settings.prefix):
        tail = token.removeprefix(settings.prefix)
    if settings.cleanup:
        for before, after in _PIECE_TIDY:
            head, tail = head.replace(before, after), tail.replace(before, after)
    return head.encode(), tail.encode()


def _replace(text: tf.Tensor, before: str, after: str) -> tf.Tensor:
    return tf.strings.regex_replace(text, before.replace(".", r"\.").replace("?", r"\?"), after)


def stripped(text: tf.Tensor) -> tf.Tensor:
    """`str.strip()`, whose whitespace is Python's."""
    return tf.strings.regex_replace(text, f"^{PYTHON_SPACE}+|{PYTHON_SPACE}+$", "")
