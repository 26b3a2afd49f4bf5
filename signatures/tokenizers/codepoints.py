"""What the `tokenizers` library does with every code point, measured at export; NumPy only.

Asking the library itself, rather than Python's `unicodedata`, freezes the library's own Unicode version into the
servable: letters, digits, marks and decompositions are exactly those that the checkpoint's tokenizer knows.
"""

from __future__ import annotations

import functools
import json
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "CodePointMap",
    "Composition",
    "Pages",
    "bert_classes",
    "code_point_map",
    "composition",
    "gpt_classes",
    "whitespace",
]

COUNT = 0x110000
PAGE = 256
OTHER, LETTER, NUMBER, SPACE = 0, 1, 2, 3
PUNCTUATION = 1  # in BERT's classes, beside OTHER and SPACE
EXPANDS = COUNT  # a map's values from here on are rows of its expansions

_SURROGATES = range(0xD800, 0xE000)
_ITSELF = "\ud800"  # stands for the code point itself in an expansion; no text holds it
_SEPARATOR = "|"  # composes with nothing, is no mark, and no normaliser here changes it

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Pages:
    """An int32 for each code point, as pages of 256 with equal pages stored once.

    Args:
        start: [4352] where a code point's page starts in `values`.
        values: [pages * 256].
    """

    start: Ints
    values: Ints

    @classmethod
    def of(cls, values: npt.NDArray[Any]) -> Pages:
        """Packs [0x110000] values."""
        rows = values.reshape(-1, PAGE).astype(np.int32)
        number: dict[bytes, int] = {}
        start = [PAGE * number.setdefault(row.tobytes(), len(number)) for row in rows]
        return cls(start=np.array(start, np.int32), values=np.frombuffer(b"".join(number), np.int32))


@dataclass(frozen=True)
class CodePointMap:
    """A normaliser that looks at one code point at a time.

    Args:
        pages: What to add to the code point; from `EXPANDS` on, a row of the expansions instead.
        starts, lengths: [rows] where an expansion lies in `codes`, and how long it is (0 removes the code point).
        codes: The expansions, one after another; -1 is the code point itself.
    """

    pages: Pages
    starts: Ints
    lengths: Ints
    codes: Ints


@dataclass(frozen=True)
class Composition:
    """Canonical order and composition (Unicode Standard Annex 15).

    Args:
        combining: The canonical combining class of each code point; only its order and zero matter.
        unstable: 1 where a code point may change in NFC, by itself or by what stands before it.
        pairs: [n] sorted keys first * 0x110000 + second.
        composed: [n] what each pair becomes.
    """

    combining: Pages
    unstable: Pages
    pairs: npt.NDArray[np.int64]
    composed: Ints


@functools.cache
def _pages() -> tuple[str, ...]:
    """The characters of each page; surrogates have none."""
    firsts = range(0, COUNT, PAGE)
    return tuple("" if first in _SURROGATES else "".join(map(chr, range(first, first + PAGE))) for first in firsts)


def _each(normalize: Callable[[str], str], characters: str) -> list[str]:
    """`normalize` of each character; many at once where the separator shows that nothing was lost."""
    parts = normalize(_SEPARATOR.join(characters)).split(_SEPARATOR)
    return parts if len(parts) == len(characters) else [normalize(character) for character in characters]


@functools.cache
def _mapped(document: str) -> Mapping[int, str]:
    """Code points that a normaliser changes, by what they become."""
    normalize = _normalizer(json.loads(document)).normalize_str
    changed: dict[int, str] = {}
    for characters in filter(None, _pages()):
        pairs = zip(characters, _each(normalize, characters), strict=True)
        changed.update((ord(before), after) for before, after in pairs if before != after)
    return changed


def _normalizer(document: Mapping[str, Any]) -> Any:
    from tokenizers import normalizers  # type: ignore[import-untyped]

    options = {key: value for key, value in document.items() if key != "type"}
    return getattr(normalizers, document["type"])(**options)


@functools.cache
def code_point_map(document: str) -> CodePointMap:
    """The table of a normaliser, given as its JSON."""
    values = np.zeros(COUNT, np.int32)
    expansions: dict[str, int] = {}
    for code, text in _mapped(document).items():
        if len(text) == 1:
            values[code] = ord(text) - code
        else:  # " X " of each ideograph is one shared expansion
            template = text.replace(chr(code), _ITSELF)
            values[code] = EXPANDS + expansions.setdefault(template, len(expansions))
    lengths = np.array([len(text) for text in expansions] or [0], np.int32)
    return CodePointMap(
        pages=Pages.of(values),
        starts=(np.cumsum(lengths) - lengths).astype(np.int32),
        lengths=lengths,
        codes=np.array(
            [-1 if character == _ITSELF else ord(character) for text in expansions for character in text] or [0],
            np.int32,
        ),
    )


@functools.cache
def composition() -> Composition:
    """The library's canonical order and composition."""
    decomposed, recomposed = _mapped('{"type": "NFD"}'), _mapped('{"type": "NFC"}')
    nfc = _normalizer({"type": "NFC"}).normalize_str
    pairs: dict[int, int] = {}
    for code, text in decomposed.items():
        if len(text) > 1 and code not in recomposed:
            pairs[ord(nfc(text[:-1])) * COUNT + ord(text[-1])] = code
    combining = _combining_classes()
    unstable = combining != 0
    unstable[list(recomposed)] = True
    unstable[[key % COUNT for key in pairs]] = True
    keys = np.array(sorted(pairs), np.int64)
    return Composition(
        combining=Pages.of(combining),
        unstable=Pages.of(unstable),
        pairs=keys,
        composed=np.array([pairs[int(key)] for key in keys], np.int32),
    )


def _combining_classes() -> Ints:
    """The classes, in an order that the library confirms.

    Python's are taken for the marks that Python knows, because a class never changes once it is assigned. A mark that
    is newer than Python's Unicode gets its class by probing: it moves before marks of a higher class.
    """
    normalize = _normalizer({"type": "NFD"}).normalize_str
    highest = "\u0345"  # class 240: every other mark moves before it
    moving: list[str] = [highest]
    for characters in filter(None, _pages()):
        text = _SEPARATOR.join(highest + character for character in characters)
        if normalize(text) != text:
            moving += [character for character in characters if normalize(highest + character)[0] != highest]
    known = {character: unicodedata.combining(character) for character in moving}
    marks = {value: character for character, value in known.items() if value}
    classes = np.zeros(COUNT, np.int32)
    for character, value in known.items():
        below = [other for other, mark in marks.items() if normalize(mark + character) == mark + character]
        classes[ord(character)] = value or max(below, default=1)
    return classes


@functools.cache
def gpt_classes() -> Pages:
    r"""LETTER for `\p{L}`, NUMBER for `\p{N}`, SPACE for `\s`, else OTHER, as the library's expressions see them."""
    classes = np.full(COUNT, OTHER, np.int32)
    for pattern, value in ((r"\p{L}+", LETTER), (r"\p{N}+", NUMBER), (r"\s+", SPACE)):
        for start, stop in _spans(pattern):
            classes[start:stop] = value
    return Pages.of(classes)


def _spans(pattern: str) -> list[tuple[int, int]]:
    from tokenizers import Regex, pre_tokenizers

    split = pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True)
    spans = []
    for number, characters in enumerate(_pages()):  # in pages, as the library's time grows faster than the text
        first = number * PAGE
        spans += [(first + start, first + stop) for _, (start, stop) in split.pre_tokenize_str(characters)]
    return spans


@functools.cache
def bert_classes() -> Pages:
    """PUNCTUATION, SPACE or OTHER as the library's BertPreTokenizer sees them."""
    from tokenizers import pre_tokenizers

    split = pre_tokenizers.BertPreTokenizer()
    classes = np.full(COUNT, OTHER, np.int32)
    for number, characters in enumerate(_pages()):
        text = "".join(f"a{character}" for character in characters)  # letters between them: neighbours do not touch
        owner = np.zeros(len(text), np.int32)
        for _, (start, stop) in split.pre_tokenize_str(text):
            owner[start:stop] = stop - start
        found = np.where(owner == 0, SPACE, np.where(owner == 1, PUNCTUATION, OTHER))[1::2]
        classes[number * PAGE : number * PAGE + len(found)] = found
    return Pages.of(classes)


@functools.cache
def whitespace() -> str:
    r"""`\s` of the library as a character class for RE2, whose own `\s` is ASCII."""
    return "[" + "".join(rf"\x{{{start:X}}}-\x{{{stop - 1:X}}}" for start, stop in _spans(r"\s+")) + "]"
