"""Where images come from, one file per kind, chosen by what DATA looks like.

| DATA | read by |
|---|---|
| a folder with one subfolder of images per class | `folders.py` |
| `*.csv`, `*.tsv` or `*.jsonl`: paths or URIs with labels | `manifests.py` |
| a folder of, or a pattern for, TFRecords with `image/encoded` | `records.py` |

Each file holds `accepts(data) -> bool` and `find(data) -> Data`. None of them reads an image: Beam's workers do.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["EVAL", "SPLIT_NAMES", "TRAIN", "Data", "Item", "find", "split_by_content"]

TRAIN = "train"
EVAL = "eval"
SPLIT_NAMES = {"train": TRAIN, "training": TRAIN, "eval": EVAL, "test": EVAL, "val": EVAL, "validation": EVAL}
"""What people call a split -> what it is here."""

#: The order in which they are asked; folders take what is left.
KINDS = ("manifests", "records", "folders")
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
