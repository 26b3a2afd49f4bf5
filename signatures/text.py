"""What tasks that read or write text share: a model's tokenizer, and what of its answers the model takes."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from signatures.errors import MissingExtra, UsageError
from signatures.model import MEANINGS, Model
from signatures.spec import Tensor

__all__ = ["accepted", "text_inputs", "tokenizer_of"]


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
