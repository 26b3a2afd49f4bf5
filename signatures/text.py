"""What tasks that read or write text share: a model's tokenizer, and what of its answers the model takes."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from signatures.errors import MissingExtra, UsageError
from signatures.model import MEANINGS, Model
from signatures.spec import Tensor

if TYPE_CHECKING:
    from signatures.tokenizers import GraphTokenizer

__all__ = ["accepted", "encode_within", "most_tokens", "text_inputs", "tokenizer_of"]

_SHIFTED = ("roberta", "camembert", "xlm-roberta", "layoutlmv3")
"""Families that count positions from the padding id on, so that many fewer are left for tokens."""


def tokenizer_of(model: Model) -> Any:
    """The tokenizer of transformers that belongs to a checkpoint.

    Raises:
        UsageError: The checkpoint has no tokenizer's files, or they cannot be read.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise MissingExtra("transformers", "hub") from error

    with tempfile.TemporaryDirectory() as folder:
        for name, content in model.files.items():
            (Path(folder) / name).write_text(content, encoding="utf-8")
        try:
            return AutoTokenizer.from_pretrained(folder)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UsageError(
                f"{model.source.model} has no tokenizer that transformers can read ({reason}). "
                "Copy tokenizer.json and tokenizer_config.json, as the model was trained with, into the folder."
            ) from error


def accepted(model: Model, encoded: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a tokenizer's outputs that the model takes."""
    known = inspect.signature(model.native.call).parameters
    return {name: value for name, value in encoded.items() if name in known}


def most_tokens(config: Mapping[str, Any]) -> int:
    """How many tokens a text may have before its model has no position for them.

    Args:
        config: The text model's configuration.
    """
    positions = int(config["max_position_embeddings"])
    return positions - int(config["pad_token_id"]) - 1 if config.get("model_type") in _SHIFTED else positions


def encode_within(tokenizer: GraphTokenizer, texts: Any, most: int) -> tuple[dict[str, Any], Any]:
    """Texts as ids, of which none is longer than its model reads: one of those would fail its whole batch.

    Args:
        tokenizer: The tokenizer in the graph.
        texts: string [n].
        most: Tokens at most, special ones included.

    Returns:
        The tokenizer's outputs, int32 [n, t] with t at most `most`, and bool [n]: which texts are too long. Those are
        cut, and what is answered of them means nothing.
    """
    import tensorflow as tf

    encoded = tokenizer.encode(texts, max_length=most + 1)
    too_long = tf.reduce_sum(encoded["attention_mask"], axis=1) > most
    return {name: value[:, :most] for name, value in encoded.items()}, too_long


def text_inputs(model: Model, tokenizer: Any) -> dict[str, Tensor]:
    """The text inputs of the `model` signature, int32 [b, t]: what the tokenizer gives and the model takes.

    Args:
        model: A transformers model.
        tokenizer: Its tokenizer, from `tokenizer_of`.
    """
    return {
        name: Tensor(dtype="int32", shape=(None, None), meaning=MEANINGS.get(name, "an output of the tokenizer"))
        for name in accepted(model, dict.fromkeys(tokenizer.model_input_names))
    }
