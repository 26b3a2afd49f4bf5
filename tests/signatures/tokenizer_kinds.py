"""Small tokenizers of every kind, trained here on a few sentences, and text that is hard on them."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

CORPUS = [
    "a photo of a cat and a dog, the quick brown fox's tail; it'll jump! 123 naïve café こんにちは 世界 we're you've",
    "the quick brown fox jumps over the lazy dogs, photographs photographers photographing 2024",
    "what is the total amount on the invoice? who didn't sign it, and when?",
] * 3

# Pieces that have a meaning to some tokenizer: contractions, marks in and out of order, special tokens, odd spaces.
PIECES = [
    *"abcdefghijst' \t\n.,!?0123ABCÀÉéß#'",
    *("'s", "'re", "'LL", "'ve ", "''s", " '", "  ", "cat", "photo", "##a", "</w>", "don't"),
    *("\u0301", "\u0323", "e\u0301", "a\u0323\u0307", "o\u031b\u0301", "\u1dfa\u0301", "\u302e", "\U0001d165"),
    *("가", "\u1100", "\u1161", "\u11a8", "Σς", "İ", "ﬁ", "Ⅷ", "½", "٣", "𝔘", "😀", "\u0f73", "\u0958", "\u2126"),
    *("世界", "\u3000", "\u00a0", "\u0085", "\u2028", "\x00", "\x1f", "\x7f", "\u200b", "\ufeff", "\ufffd", "\uffff"),
    *("<mask>", " <mask>  ", "[MASK]", "[mask]", "<s>", "</s>", "<|endoftext|>", "<|ENDOFTEXT|>", " [SEP]", "[ADDED] "),
]

texts = st.lists(
    st.one_of(st.sampled_from(PIECES), st.characters(exclude_categories=["Cs"]), st.sampled_from(CORPUS)), max_size=12
).map("".join)
batches = st.lists(texts, min_size=1, max_size=6)


def train_bpe(suffix: str, special: list[str]) -> tuple[str, str]:
    """Paths of a vocabulary and its merges; every byte has an id, with the suffix too."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    signs = pre_tokenizers.ByteLevel.alphabet()
    ends = [sign + suffix for sign in signs] if suffix else []
    settings = {"end_of_word_suffix": suffix} if suffix else {}
    tokenizer = Tokenizer(models.BPE(**settings))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=not suffix)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=special + ends, initial_alphabet=signs, show_progress=False, **settings
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    folder = tempfile.mkdtemp()
    tokenizer.model.save(folder)
    return f"{folder}/vocab.json", f"{folder}/merges.txt"


def train_wordpiece() -> str:
    """The path of a vocabulary."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=160, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    folder = tempfile.mkdtemp()
    tokenizer.model.save(folder)
    return str(Path(folder) / "vocab.txt")


def _clip(**settings: Any) -> Any:
    from transformers import CLIPTokenizerFast

    return CLIPTokenizerFast(*train_bpe("</w>", ["<|startoftext|>", "<|endoftext|>"]), **settings)


def _roberta_like(name: str, **settings: Any) -> Any:
    import transformers

    files = train_bpe("", ["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    return getattr(transformers, name)(*files, **settings)


def _bert(**settings: Any) -> Any:
    from transformers import AddedToken, BertTokenizerFast

    tokenizer = BertTokenizerFast(train_wordpiece(), **settings)
    tokenizer.add_tokens([AddedToken("[ADDED]", normalized=True, rstrip=True)])
    return tokenizer


KINDS = {
    "clip": _clip,
    "roberta": lambda: _roberta_like("RobertaTokenizerFast", add_prefix_space=True),
    "gpt2": lambda: _roberta_like("GPT2TokenizerFast", pad_token="<pad>"),
    "layoutlmv3": lambda: _roberta_like("LayoutLMv3TokenizerFast"),
    "bert": _bert,
    "bert-cased": lambda: _bert(do_lower_case=False, tokenize_chinese_chars=False),
    "bert-accents": lambda: _bert(strip_accents=False),
    "bert-left": lambda: _bert(padding_side="left", truncation_side="left"),
}


@functools.cache
def tokenizer(kind: str) -> Any:
    """The tokenizer of transformers; one of each kind per session."""
    return KINDS[kind]()


@functools.cache
def compiled(kind: str) -> Any:
    """The same, compiled."""
    from signatures.tokenizers import compile_tokenizer

    return compile_tokenizer(tokenizer(kind))
