"""Where models come from, one file per kind, found by name.

`keras_hub:resnet` is read by `sources/keras_hub.py` (the prefix), `model.keras` by `sources/keras.py` (the suffix), and
anything else, a folder or a Hub id, by `sources/transformers.py`. Each file holds one function `load` with the
arguments of `load` below.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path

from signatures.errors import UsageError, did_you_mean
from signatures.model import Model
from signatures.preprocessing import Preprocessing

__all__ = ["DTYPES", "kind_of", "known", "load"]

DTYPES = ("float32", "bfloat16")
DEFAULT = "transformers"
SUFFIXES = {".keras": "keras", ".h5": "keras", ".hdf5": "keras"}
"""The kinds of source that are told by a file's ending."""


def known() -> list[str]:
    """The names of the kinds of source."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))


def load(
    model: str,
    *,
    task: str | None = None,
    revision: str | None = None,
    dtype: str = "float32",
    preprocessing: Preprocessing | None = None,
) -> Model:
    """Loads a model from wherever its name points to.

    Args:
        model: A folder or Hub id with `config.json`, a `*.keras` or `*.h5` file, or `KIND:NAME`, such as
            `python:package.module:function`.
        task: A task name; None takes the one that the architecture is for.
        revision: A Hub branch, tag or commit.
        dtype: What the model computes in, `float32` or `bfloat16`; its inputs and outputs stay float32.
        preprocessing: Settings that replace the checkpoint's own, or stand in where it has none.

    Returns:
        The model with its variables in memory.

    Raises:
        UsageError: There is nothing there, or it cannot be a vision model.
    """
    if dtype not in DTYPES:
        raise UsageError(f"Got --dtype {dtype!r}, but it is one of {', '.join(DTYPES)}. Choose one.")
    source = importlib.import_module(f"signatures.sources.{kind_of(model)}")
    name = model.partition(":")[2] if _prefix(model) else model
    loaded = source.load(name, task=task, revision=revision, dtype=dtype, preprocessing=preprocessing)
    assert isinstance(loaded, Model)
    return loaded


def _prefix(model: str) -> str | None:
    """`keras_hub` of `keras_hub:name`; None where the name has no prefix or is a file or folder that exists."""
    match = re.match(r"([A-Za-z][A-Za-z0-9_-]+):", model)
    return match.group(1) if match and not Path(model).exists() else None


def kind_of(model: str) -> str:
    """The kind of source that a model's name means.

    Raises:
        UsageError: It begins with a prefix that is none.
    """
    prefix = _prefix(model)
    if prefix is not None:
        kind = prefix.replace("-", "_")
        if kind not in known():
            raise UsageError(
                f"No model source named {prefix!r}.{did_you_mean(prefix, known())} Give a folder or Hub id "
                f"with config.json, or one of the prefixes {', '.join(known())}. To add one, write "
                f"signatures/sources/{kind}.py."
            )
        return kind
    return SUFFIXES.get(Path(model).suffix, DEFAULT)
