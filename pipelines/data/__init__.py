"""Where images come from, one file per kind, chosen by what DATA looks like.

| DATA | read by |
|---|---|
| a folder with one subfolder of images per class | `folders.py` |
| `*.csv`, `*.tsv` or `*.jsonl`: paths or URIs with labels | `manifests.py` |
| a folder of, or a pattern for, TFRecords with `image/encoded` | `records.py` |
| `datasets:` and a folder of Arrow or Parquet files, or a name | `hub_datasets.py` |

Each file holds `accepts(data) -> bool` and `find(data) -> Data`. None of them reads an image: Beam's workers do.
"""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "EVAL",
    "PREFIX",
    "SPLIT_NAMES",
    "TRAIN",
    "Data",
    "Item",
    "absolute",
    "find",
    "split_by_content",
    "split_named",
]

TRAIN = "train"
EVAL = "eval"
SPLIT_NAMES = {"train": TRAIN, "training": TRAIN, "eval": EVAL, "test": EVAL, "val": EVAL, "validation": EVAL}
"""What people call a split -> what it is here."""

#: The order in which they are asked; folders take what is left.
KINDS = ("hub_datasets", "manifests", "records", "folders")
#: Before what Hugging Face's `datasets` keeps.
PREFIX = "datasets:"
BUCKETS = 1000


@dataclass(frozen=True, kw_only=True)
class Item:
    """One image, or where it is.

    Args:
        filename: Its name within the data.
        text: The class name.
        split: `train` or `eval`, or None where the content decides.
        uri: Its path, or a URI that Beam's file systems read; None where `encoded` is given.
        encoded: The file's bytes.
    """

    filename: str
    text: str
    split: str | None = None
    uri: str | None = None
    encoded: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class Data:
    """Images with labels, not read yet.

    Args:
        labels: Class names in id order, or None where only reading all of it tells.
        fingerprint: Changes when something is added, removed or rewritten.
        read: A Beam pipeline to a PCollection of `Item`; may be called for several pipelines.
    """

    labels: tuple[str, ...] | None
    fingerprint: str
    read: Callable[[Any], Any]


def find(data: str) -> Data:
    """The images that DATA names.

    Raises:
        UsageError: There is nothing there, or not what it looks like.
    """
    for kind in KINDS[:-1]:
        module = importlib.import_module(f"{__name__}.{kind}")
        if module.accepts(data):
            found = module.find(data)
            assert isinstance(found, Data)
            return found
    from pipelines.data import folders

    return folders.find(data)


def absolute(data: str | Path) -> str:
    """DATA as it is known from any working folder; a name stays one.

    >>> absolute("/flowers/../roses")
    '/flowers/../roses'
    """
    name = str(data).removeprefix(PREFIX)
    prefix = str(data)[: len(str(data)) - len(name)]
    if prefix and not Path(name).is_dir():
        return str(data)
    return prefix + str(Path(name).absolute())


def split_named(path: str) -> str | None:
    """The split that a file's name, or a folder on the way to it, says: `train-00000.parquet`, `test/part-0.arrow`."""
    words = re.split(r"[^a-z]+", path.lower())
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)


def split_by_content(digest: str, eval_share: float) -> str:
    """The split of an image by its content's hash, so that it never changes sides, whatever is added or renamed.

    Args:
        digest: The hexadecimal SHA-256 of its bytes.
        eval_share: The share of the hash space that is held out, 0 to 1.

    Returns:
        `train` or `eval`.
    """
    return EVAL if int(digest[:15], 16) % BUCKETS < round(eval_share * BUCKETS) else TRAIN


def fingerprint(parts: list[str]) -> str:
    """One hash of many strings."""
    total = hashlib.sha256()
    for part in parts:
        total.update(f"{part}\n".encode())
    return total.hexdigest()
