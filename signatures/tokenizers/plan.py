"""A Hugging Face tokenizer's settings, read into plain data; no TensorFlow.

The one source is the fast tokenizer's own document (`tokenizer.json`, as the live object has it), so whatever a
checkpoint's tokenizer class changed while loading is seen too. Everything that is not understood is refused by name.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from signatures.errors import MissingExtra, UsageError

__all__ = ["AddedToken", "BytePairs", "Detokenizer", "Plan", "Slot", "WordPieces", "Words", "read_plan"]

CLIP_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"

_CODE_POINT_NORMALIZERS = ("Lowercase", "StripAccents")
_UNICODE_FORMS = ("NFC", "NFD", "NFKC", "NFKD")


@dataclass(frozen=True, kw_only=True)
class AddedToken:
    """A token that is found in the text before anything else happens, such as `[MASK]`.

    Args:
        id: Its id.
        content: Its text.
        sought: What is looked for: the text, normalised where `normalized` says so.
        lstrip, rstrip: Whether it swallows the whitespace before and after it.
        normalized: Whether it is looked for after normalisation instead of before.
        special: Whether decoding leaves it out.
    """

    id: int
    content: str
    sought: str
    lstrip: bool
    rstrip: bool
    normalized: bool
    special: bool


@dataclass(frozen=True, kw_only=True)
class BytePairs:
    """Byte-level BPE: the 256 bytes as symbols, then merges in the order of their rank.

    Args:
        vocab: Token to id, tokens in the byte-to-unicode alphabet.
        merges: Pairs of tokens, the most urgent first.
        suffix: What the last symbol of a word carries, `</w>` for CLIP, else "".
        unknown: The token that stands for a symbol without an id; None leaves such symbols out.
    """

    vocab: Mapping[str, int]
    merges: Sequence[tuple[str, str]]
    suffix: str
    unknown: str | None


@dataclass(frozen=True, kw_only=True)
class WordPieces:
    """Greedy longest match, first piece plain, the others with a prefix.

    Args:
        vocab: Piece to id.
        prefix: What continuing pieces carry, `##`.
        unknown: The token of a word that cannot be built, or is longer than `max_characters`.
        max_characters: In code points.
    """

    vocab: Mapping[str, int]
    prefix: str
    unknown: str
    max_characters: int


@dataclass(frozen=True, kw_only=True)
class Words:
    """How a text is cut into words.

    Args:
        kind: `bert` (whitespace and punctuation), `clip` and `gpt2` (their regular expressions), `bytes` (no cut).
        prefix_space: Whether a space is put before a text that does not start with one.
    """

    kind: Literal["bert", "clip", "gpt2", "bytes"]
    prefix_space: bool


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One place of the template around the text: a special token, or the first or second text."""

    kind: Literal["special", "A", "B"]
    id: int
    type_id: int


@dataclass(frozen=True, kw_only=True)
class Detokenizer:
    """How ids become text again.

    Args:
        kind: `bytes`, `wordpiece`, or `spaces` (tokens joined by spaces).
        prefix: The continuing prefix of `wordpiece`.
        cleanup: Whether `wordpiece` tidies punctuation inside each token.
        tidy: Whether the tokenizer's `clean_up_tokenization_spaces` is set.
        end_of_word: What CLIP replaces by a space before it strips the text; "" elsewhere.
    """

    kind: Literal["bytes", "wordpiece", "spaces"]
    prefix: str
    cleanup: bool
    tidy: bool
    end_of_word: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that decides what a tokenizer answers.

    Args:
        name: The tokenizer's class, for messages.
        added: The added tokens, special ones included.
        normalizers: The normaliser's steps as the document has them, in order.
        words: How the text is cut into words.
        model: How words become ids.
        single, pair: The templates for one text and for two.
        detokenizer: How ids become text.
        tokens: id to token, the added ones included.
        pad_id: None where there is no padding token.
        pad_type: The type id of padding.
        padding_side, truncation_side: `left` or `right`.
        inputs: The names that the tokenizer returns by default, such as `input_ids`.
        max_length: The tokenizer's own `model_max_length`; None where it has none.
        boxes: Boxes of special tokens by role (`cls`, `sep`, `pad`), for tokenizers that know boxes.
        roles: Ids of the tokens with those roles.
    """

    name: str
    added: tuple[AddedToken, ...]
    normalizers: tuple[Mapping[str, Any], ...]
    words: Words
    model: BytePairs | WordPieces
    single: tuple[Slot, ...]
    pair: tuple[Slot, ...]
    detokenizer: Detokenizer
    tokens: Mapping[int, str]
    pad_id: int | None
    pad_type: int
    padding_side: Literal["left", "right"]
    truncation_side: Literal["left", "right"]
    inputs: tuple[str, ...]
    max_length: int | None
    boxes: Mapping[str, tuple[int, ...]]
    roles: Mapping[str, int]


def read_plan(tokenizer: Any) -> Plan:
    """Reads a tokenizer's settings.

    Args:
        tokenizer: A tokenizer of transformers, fast or slow, or the folder (or Hub id) of one.

    Raises:
        UsageError: A part of it has no equal in TensorFlow here; the message names it.
        MissingExtra: transformers is not installed.
    """
    fast = _fast(tokenizer)
    document = json.loads(fast.backend_tokenizer.to_str())
    name = type(fast).__name__
    normalizer = fast.backend_tokenizer.normalizer
    normalize = normalizer.normalize_str if normalizer else str
    added = tuple(_added(token, normalize, name) for token in document.get("added_tokens") or ())
    words = _words(document.get("pre_tokenizer"), name)
    model = _model(document["model"], words, name)
    single, pair = _templates(document.get("post_processor"), name)
    return Plan(
        name=name,
        added=added,
        normalizers=_normalizers(document.get("normalizer"), name),
        words=words,
        model=model,
        single=single,
        pair=pair,
        detokenizer=_detokenizer(document.get("decoder"), fast, name),
        tokens={id: token for token, id in model.vocab.items()} | {token.id: token.content for token in added},
        pad_id=fast.pad_token_id,
        pad_type=fast.pad_token_type_id,
        padding_side=fast.padding_side,
        truncation_side=fast.truncation_side,
        inputs=tuple(name for name in fast.model_input_names if name in _INPUTS),
        max_length=fast.model_max_length if fast.model_max_length < 10**9 else None,
        boxes={
            role: tuple(getattr(fast, f"{role}_token_box"))
            for role in ("cls", "sep", "pad")
            if hasattr(fast, f"{role}_token_box")
        },
        roles={
            role: getattr(fast, f"{role}_token_id")
            for role in ("cls", "sep", "pad")
            if getattr(fast, f"{role}_token_id") is not None
        },
    )


_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def _fast(tokenizer: Any) -> Any:
    """The fast tokenizer that is meant: transformers' pipelines use the fast one wherever there is one."""
    try:
        from transformers import AutoTokenizer, PreTrainedTokenizer, PreTrainedTokenizerFast
    except ImportError as error:
        raise MissingExtra("transformers", "hub") from error
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        return tokenizer
    if isinstance(tokenizer, PreTrainedTokenizer):
        # Writing it down and reading it back is the one route that keeps added tokens and every option.
        with tempfile.TemporaryDirectory() as folder:
            tokenizer.save_pretrained(folder)
            return _load(AutoTokenizer, folder, PreTrainedTokenizerFast, type(tokenizer).__name__)
    if isinstance(tokenizer, str | Path):
        return _load(AutoTokenizer, str(tokenizer), PreTrainedTokenizerFast, str(tokenizer))
    raise UsageError(
        f"Got a {type(tokenizer).__name__} as the tokenizer, but wanted a tokenizer of transformers or its folder. "
        "Give AutoTokenizer.from_pretrained(...)."
    )


def _load(auto: Any, source: str, wanted: type, name: str) -> Any:
    try:
        loaded = auto.from_pretrained(source, use_fast=True)
    except Exception as error:  # transformers raises nearly every kind here
        raise UsageError(
            f"The tokenizer {name} could not be loaded as a fast tokenizer ({error}). "
            "Give a folder that holds tokenizer.json, or the vocabulary files of its class."
        ) from error
    if not isinstance(loaded, wanted):
        raise _unknown(name, "class", type(loaded).__name__, "a class with a fast version (tokenizer.json)")
    return loaded


def _unknown(name: str, part: str, got: object, wanted: str) -> UsageError:
    return UsageError(
        f"The tokenizer {name} has the {part} {got}, which cannot be put into a TensorFlow graph; wanted {wanted}. "
        "Freeze the texts at export instead, or leave the text inputs to the client."
    )


def _added(token: Mapping[str, Any], normalize: Callable[[str], str], name: str) -> AddedToken:
    content = token["content"]
    if token["single_word"]:
        raise _unknown(name, "added token", f"{content!r} with single_word", "added tokens without single_word")
    if not content or content != content.strip():
        raise _unknown(name, "added token", repr(content), "added tokens without whitespace at their ends")
    return AddedToken(
        id=token["id"],
        content=content,
        sought=normalize(content) if token["normalized"] else content,
        lstrip=token["lstrip"],
        rstrip=token["rstrip"],
        normalized=token["normalized"],
        special=token["special"],
    )


def _normalizers(document: Mapping[str, Any] | None, name: str) -> tuple[Mapping[str, Any], ...]:
    if document is None:
        return ()
    kind = document["type"]
    if kind == "Sequence":
        return tuple(step for part in document["normalizers"] for step in _normalizers(part, name))
    spaces = {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}
    if kind in ("BertNormalizer", *_CODE_POINT_NORMALIZERS, *_UNICODE_FORMS) or document == spaces:
        return (document,)
    wanted = "BertNormalizer, Lowercase, StripAccents, NFC, NFD, NFKC, NFKD or Replace of \\s+ by a space"
    raise _unknown(name, "normaliser", json.dumps(document), wanted)


def _words(document: Mapping[str, Any] | None, name: str) -> Words:
    steps = document.get("pretokenizers", [document]) if document else []
    match [step["type"] for step in steps]:
        case ["BertPreTokenizer"]:
            return Words(kind="bert", prefix_space=False)
        case ["ByteLevel"]:
            kind: Literal["gpt2", "bytes"] = "gpt2" if steps[0].get("use_regex", True) else "bytes"
            return Words(kind=kind, prefix_space=steps[0]["add_prefix_space"])
        case ["Split", "ByteLevel"] if _is_clip(*steps):
            return Words(kind="clip", prefix_space=False)
    wanted = "BertPreTokenizer, ByteLevel, or CLIP's Split followed by ByteLevel"
    raise _unknown(name, "pre-tokeniser", json.dumps(document), wanted)


def _is_clip(split: Mapping[str, Any], byte_level: Mapping[str, Any]) -> bool:
    # ByteLevel's own expression cannot cut a piece that CLIP's expression gave, so `use_regex` does not matter.
    return (
        split["pattern"] == {"Regex": CLIP_PATTERN}
        and split["behavior"] == "Removed"
        and split["invert"] is True
        and byte_level["add_prefix_space"] is False
    )


def _model(document: Mapping[str, Any], words: Words, name: str) -> BytePairs | WordPieces:
    kind = document.get("type")
    if kind == "WordPiece" and words.kind == "bert":
        if document["unk_token"] not in document["vocab"]:
            raise _unknown(name, "unknown token", repr(document["unk_token"]), "one that the vocabulary holds")
        return WordPieces(
            vocab=document["vocab"],
            prefix=document["continuing_subword_prefix"],
            unknown=document["unk_token"],
            max_characters=document["max_input_chars_per_word"],
        )
    if kind != "BPE" or words.kind == "bert":
        raise _unknown(name, "model", f"{kind} on {words.kind} words", "byte-level BPE, or WordPiece on BERT's words")
    for option in ("dropout", "continuing_subword_prefix", "fuse_unk", "byte_fallback", "ignore_merges"):
        if document.get(option):
            raise _unknown(name, "BPE option", f"{option}={document[option]!r}", f"a BPE without {option}")
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in document["merges"]]
    return BytePairs(
        vocab=document["vocab"],
        merges=[(left, right) for left, right in merges],
        suffix=document.get("end_of_word_suffix") or "",
        unknown=document.get("unk_token"),
    )


def _templates(document: Mapping[str, Any] | None, name: str) -> tuple[tuple[Slot, ...], tuple[Slot, ...]]:
    first = Slot(kind="A", id=-1, type_id=0)
    steps = [document] if document else []
    if document and document["type"] == "Sequence":
        steps = document["processors"]
    steps = [step for step in steps if step["type"] != "ByteLevel"]  # it only moves offsets
    if not steps:
        return (first,), (first, Slot(kind="B", id=-1, type_id=1))
    if len(steps) > 1:
        raise _unknown(name, "post-processor", [step["type"] for step in steps], "a single one")
    step = steps[0]
    if step["type"] in ("BertProcessing", "RobertaProcessing"):
        cls = Slot(kind="special", id=step["cls"][1], type_id=0)
        sep = Slot(kind="special", id=step["sep"][1], type_id=0)
        if step["type"] == "RobertaProcessing":
            return (cls, first, sep), (cls, first, sep, sep, Slot(kind="B", id=-1, type_id=0), sep)
        last = Slot(kind="special", id=sep.id, type_id=1)
        return (cls, first, sep), (cls, first, sep, Slot(kind="B", id=-1, type_id=1), last)
    if step["type"] == "TemplateProcessing":
        return _slots(step["single"], step["special_tokens"]), _slots(step["pair"], step["special_tokens"])
    wanted = "TemplateProcessing, BertProcessing, RobertaProcessing or ByteLevel"
    raise _unknown(name, "post-processor", step["type"], wanted)


def _slots(template: Sequence[Mapping[str, Any]], special: Mapping[str, Any]) -> tuple[Slot, ...]:
    slots: list[Slot] = []
    for part in template:
        if "Sequence" in part:
            place = part["Sequence"]
            slots.append(Slot(kind=place["id"], id=-1, type_id=place["type_id"]))
        else:
            place = part["SpecialToken"]
            ids = special[place["id"]]["ids"]
            slots.extend(Slot(kind="special", id=id, type_id=place["type_id"]) for id in ids)
    return tuple(slots)


def _detokenizer(document: Mapping[str, Any] | None, fast: Any, name: str) -> Detokenizer:
    from transformers import CLIPTokenizerFast

    kinds: dict[str | None, Literal["bytes", "wordpiece", "spaces"]] = {
        "ByteLevel": "bytes",
        "WordPiece": "wordpiece",
        None: "spaces",
    }
    kind = document["type"] if document else None
    if kind not in kinds:
        raise _unknown(name, "decoder", kind, "ByteLevel, WordPiece or none")
    return Detokenizer(
        kind=kinds[kind],
        prefix=document["prefix"] if document and kind == "WordPiece" else "",
        cleanup=bool(document and document.get("cleanup")),
        tidy=bool(fast.clean_up_tokenization_spaces),
        end_of_word=fast.backend_tokenizer.model.end_of_word_suffix or ""
        if isinstance(fast, CLIPTokenizerFast)
        else "",
    )
