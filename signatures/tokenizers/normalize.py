"""Normalisers of the `tokenizers` library on flat code points: case, accents, control characters, NFC and its kin."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from signatures.tokenizers import codepoints
from signatures.tokenizers.arrays import Table, Text, find, frozen, row_starts, take

__all__ = ["normalizers"]

Step = Callable[[Text], Text]

_NFD: Mapping[str, Any] = {"type": "NFD"}


def normalizers(documents: Sequence[Mapping[str, Any]]) -> list[Step]:
    """The steps of a plan's normalisers, in order."""
    return [step for document in documents for step in _steps(document)]


def _steps(document: Mapping[str, Any]) -> list[Step]:
    match document["type"]:
        case "NFC":
            return [Nfc()]
        case "NFD" | "NFKD":
            return [Map(document), Reorder()]
        case "NFKC":
            return [Map({"type": "NFKD"}), Reorder(), Compose()]
        case "Replace":  # the one that a plan lets through: whitespace runs to one space
            return [Spaces()]
        case "BertNormalizer":
            return _bert(document)
    return [Map(document)]


def _bert(document: Mapping[str, Any]) -> list[Step]:
    """The library cleans, separates ideographs, decomposes, drops marks and lowers, each over the whole text."""
    lower = document["lowercase"]
    strip = lower if document["strip_accents"] is None else document["strip_accents"]
    bert = {"type": "BertNormalizer", "strip_accents": False, "lowercase": False}
    clean = {"clean_text": document["clean_text"], "handle_chinese_chars": document["handle_chinese_chars"]}
    steps: list[Step] = [Map(bert | clean)] if any(clean.values()) else []
    if strip:
        steps += [Map(_NFD), Reorder()]
    if strip or lower:
        off = {"clean_text": False, "handle_chinese_chars": False}
        steps.append(Map(bert | off | {"strip_accents": strip, "lowercase": lower}))
    return steps


class Map:
    """A normaliser that looks at one code point at a time."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        table = codepoints.code_point_map(json.dumps(document, sort_keys=True))
        self._changes = Table(table.pages)
        self._starts, self._lengths, self._codes = map(frozen, (table.starts, table.lengths, table.codes))

    def __call__(self, text: Text) -> Text:
        changes = self._changes(text.codes)
        expands = changes >= codepoints.EXPANDS
        plain = text.codes + tf.where(expands, 0, changes)
        codes, rows = tf.cond(
            tf.reduce_any(expands),
            lambda: self._expand(plain, text.rows, tf.where(expands, changes - codepoints.EXPANDS, -1)),
            lambda: (plain, text.rows),
        )
        return Text(codes, rows, text.count)

    def _expand(self, codes: tf.Tensor, rows: tf.Tensor, expansion: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        row = tf.maximum(expansion, 0)
        sizes = tf.where(expansion >= 0, tf.gather(self._lengths, row), 1)
        source = tf.repeat(tf.range(tf.size(codes)), sizes)
        offset = tf.range(tf.size(source)) - tf.gather(tf.cumsum(sizes, exclusive=True), source)
        place = tf.gather(tf.gather(self._starts, row), source) + offset
        found = tf.gather(self._codes, tf.minimum(place, tf.size(self._codes) - 1))
        itself = (tf.gather(expansion, source) < 0) | (found < 0)
        return tf.where(itself, tf.gather(codes, source), found), tf.gather(rows, source)


class Spaces:
    """Each run of whitespace becomes one space."""

    def __init__(self) -> None:
        self._classes = Table(codepoints.gpt_classes())

    def __call__(self, text: Text) -> Text:
        space = self._classes(text.codes) == codepoints.SPACE
        again = tf.concat([tf.zeros_like(space[:1]), space[:-1]], 0) & ~row_starts(text.rows)
        return take(text._replace(codes=tf.where(space, ord(" "), text.codes)), ~(space & again))


class Reorder:
    """Combining marks in canonical order: sorted by class, stably, within each run of marks."""

    def __init__(self) -> None:
        self._combining = Table(codepoints.composition().combining)

    def __call__(self, text: Text) -> Text:
        combining = self._combining(text.codes)
        codes = tf.cond(
            tf.reduce_any(combining > 0), lambda: self._sort(text, combining), lambda: tf.identity(text.codes)
        )
        return text._replace(codes=codes)

    def _sort(self, text: Text, combining: tf.Tensor) -> tf.Tensor:
        size = tf.size(text.codes, tf.int64)
        run = tf.cumsum(tf.cast((combining == 0) | row_starts(text.rows), tf.int64))
        # The position makes every key its own, which makes any sort a stable one.
        keys = (run * 256 + tf.cast(combining, tf.int64)) * size + tf.range(size)
        return tf.gather(text.codes, tf.argsort(keys))


class Compose:
    """Canonical composition of decomposed, ordered text.

    What starts a block never composes with what stands before it, so all blocks go in parallel, and a step of the
    loop takes the next code point of each.
    """

    def __init__(self) -> None:
        table = codepoints.composition()
        self._combining, self._unstable = Table(table.combining), Table(table.unstable)
        self._pairs, self._composed = frozen(table.pairs), frozen(table.composed)

    def __call__(self, text: Text) -> Text:
        begins = (self._unstable(text.codes) == 0) | row_starts(text.rows)
        begin = tf.cast(tf.where(begins)[:, 0], tf.int32)
        size = tf.concat([begin[1:], tf.size(text.codes)[None]], 0)[: tf.size(begin)] - begin
        begin, size = tf.boolean_mask(begin, size > 1), tf.boolean_mask(size, size > 1)
        combining = self._combining(text.codes)
        longest = tf.reduce_max(tf.concat([[0], size], 0))

        def step(
            at: tf.Tensor, result: tf.Tensor, starter: tf.Tensor, last: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
            alive = at < size
            place = tf.where(alive, begin + at, begin)
            kind = tf.gather(combining, place)
            open_ = alive & (tf.gather(combining, starter) == 0) & ((last == 0) | (last < kind))
            key = _pair(tf.gather(result, starter), tf.gather(text.codes, place))
            pair = tf.where(open_, find(self._pairs, key), -1)
            merged = pair >= 0
            result = _write(result, starter, tf.gather(self._composed, tf.maximum(pair, 0)), merged)
            result = _write(result, place, tf.fill(tf.shape(place), -1), merged)
            stays = alive & ~merged
            return (
                at + 1,
                result,
                tf.where(stays & (kind == 0), place, starter),
                tf.where(stays, kind, last),
            )

        start = (tf.constant(1), text.codes, begin, tf.zeros_like(begin))
        _, result, _, _ = tf.while_loop(lambda at, *_: at < longest, step, start)
        return take(text._replace(codes=result), result >= 0)


class Nfc:
    """NFC; text that cannot change, which is nearly all text, passes through."""

    def __init__(self) -> None:
        self._unstable = Table(codepoints.composition().unstable)
        self._steps: list[Step] = [Map(_NFD), Reorder(), Compose()]

    def __call__(self, text: Text) -> Text:
        def change() -> tuple[tf.Tensor, tf.Tensor]:
            changed = text
            for step in self._steps:
                changed = step(changed)
            return changed.codes, changed.rows

        unstable = tf.reduce_any(self._unstable(text.codes) > 0)
        codes, rows = tf.cond(unstable, change, lambda: (tf.identity(text.codes), tf.identity(text.rows)))
        return Text(codes, rows, text.count)


def _pair(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    return tf.cast(first, tf.int64) * codepoints.COUNT + tf.cast(second, tf.int64)


def _write(values: tf.Tensor, places: tf.Tensor, what: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    places, what = tf.boolean_mask(places, mask), tf.boolean_mask(what, mask)
    return tf.tensor_scatter_nd_update(values, places[:, None], what)
