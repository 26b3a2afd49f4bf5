"""Where images come from, one file per kind, chosen by what DATA looks like.

| DATA | read by |
|---|---|
| a folder with one subfolder of images per class | `folders.py` |
| a folder with `images/` and `masks/` | `pairs.py` |
| `*.csv`, `*.tsv` or `*.jsonl`: paths or URIs with labels or masks; a folder with one | `manifests.py` |
| a folder of, or a pattern for, TFRecords with `image/encoded` | `records.py` |
| `datasets:` and a folder of Arrow or Parquet files, or a name | `hub_datasets.py` |

Each file holds `accepts(data) -> bool` and `find(data) -> Data`. None of them reads an image: Beam's workers do.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from signatures.errors import UsageError

__all__ = [
    "CLASSIFICATION",
    "EVAL",
    "PREFIX",
    "SEGMENTATION",
    "SPLIT_NAMES",
    "TASKS",
    "TRAIN",
    "Data",
    "Item",
    "absolute",
    "find",
    "label_names",
    "split_by_content",
    "split_named",
]

TRAIN = "train"
EVAL = "eval"
SPLIT_NAMES = {"train": TRAIN, "training": TRAIN, "eval": EVAL, "test": EVAL, "val": EVAL, "validation": EVAL}
"""What people call a split -> what it is here."""

CLASSIFICATION = "image-classification"
SEGMENTATION = "image-segmentation"
TASKS = (CLASSIFICATION, SEGMENTATION)

#: The order in which they are asked; folders take what is left.
KINDS = ("hub_datasets", "manifests", "records", "pairs", "folders")
#: Before what Hugging Face's `datasets` keeps.
PREFIX = "datasets:"
LABEL_FILES = ("labels.txt", "classes.txt", "labels.json", "id2label.json")
BUCKETS = 1000


@dataclass(frozen=True, kw_only=True)
class Item:
    """One image, or where it is, with its class or its mask.

    Args:
        filename: Its name within the data.
        text: The class name; "" where there is a mask.
        split: `train` or `eval`, or None where the content decides.
        uri: Its path, or a URI that Beam's file systems read; None where `encoded` is given.
        encoded: The file's bytes.
        mask_uri: Where its mask is, likewise.
        mask: The mask's bytes.
        problem: Why it cannot be used, where that is known without reading it.
    """

    filename: str
    text: str = ""
    split: str | None = None
    uri: str | None = None
    encoded: bytes | None = None
    mask_uri: str | None = None
    mask: bytes | None = None
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Data:
    """Images with labels or masks, not read yet.

    Args:
        labels: Class names in id order, or None where only reading all of it tells.
        fingerprint: Changes when something is added, removed or rewritten.
        read: A Beam pipeline to a PCollection of `Item`; may be called for several pipelines.
        task: What can be learned from it, one of `TASKS`.
    """

    labels: tuple[str, ...] | None
    fingerprint: str
    read: Callable[[Any], Any]
    task: str = CLASSIFICATION


def find(data: str, labels: tuple[str, ...] | None = None) -> Data:
    """The images that DATA names.

    Args:
        data: As the command takes it.
        labels: The classes of masks in id order, in place of what the data says.

    Raises:
        UsageError: There is nothing there, or not what it looks like.
    """
    found = _find(data)
    if labels is None:
        return found
    if found.task != SEGMENTATION:
        raise UsageError(
            f"Got labels ({', '.join(labels[:5])}), but {data} names its classes itself. Labels are for masks, which "
            "hold numbers: leave them out here."
        )
    return replace(found, labels=labels, fingerprint=fingerprint([found.fingerprint, *labels]))


def _find(data: str) -> Data:
    for kind in KINDS[:-1]:
        module = importlib.import_module(f"{__name__}.{kind}")
        if module.accepts(data):
            found = module.find(data)
            assert isinstance(found, Data)
            return found
    from pipelines.data import folders

    return folders.find(data)


def absolute(data: str | Path) -> str:
    """DATA as it is known from any working folder; a name or URI stays one.

    >>> absolute("/flowers/../roses")
    '/flowers/../roses'
    >>> absolute("gs://bucket/list.csv")
    'gs://bucket/list.csv'
    """
    name = str(data).removeprefix(PREFIX)
    prefix = str(data)[: len(str(data)) - len(name)]
    if "://" in name or (prefix and not Path(name).is_dir()):
        return str(data)
    return prefix + str(Path(name).absolute())


def label_names(folder: Path) -> tuple[str, ...] | None:
    """The classes of masks in id order, from a file beside them or beside all spans; None where there is none.

    Args:
        folder: It, or the folder of its spans, holds perhaps `labels.txt` or `classes.txt` (a name a line), or
            `labels.json` or `id2label.json` (a list, or ids to names).

    Raises:
        UsageError: The file cannot be used.
    """
    from pipelines.data.spans import SPAN, VERSION

    while True:
        for path in (folder / name for name in LABEL_FILES):
            if path.is_file():
                return _label_names(path)
        if not (SPAN.fullmatch(folder.name) or VERSION.fullmatch(folder.name)):
            return None
        folder = folder.parent


def _label_names(path: Path) -> tuple[str, ...]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        found = json.loads(text) if path.suffix == ".json" else text.splitlines()
        if isinstance(found, dict):
            numbered = {int(key): value for key, value in found.items()}
            if sorted(numbered) != list(range(len(numbered))):
                raise ValueError("the ids are not 0, 1, 2, ...")
            found = [numbered[number] for number in range(len(numbered))]
        names = [str(name).strip() for name in found]
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{path} is no list of classes ({error}). Write a name a line, in id order.") from error
    while names and not names[-1]:
        names.pop()
    twice = sorted({name for name in names if names.count(name) > 1})
    if len(names) < 2 or not all(names) or twice:
        wrong = f"names {twice[0]!r} twice" if twice and all(names) else f"holds {len([n for n in names if n])} names"
        raise UsageError(f"{path} {wrong}, but a segmenter wants at least 2 classes, each with a name of its own.")
    return tuple(names)


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


def state(uri: str | None) -> str:
    """Size and time of a local file; a remote one, or one that is not there, counts by its name alone."""
    if uri is None:
        return ""
    try:
        stat = Path(uri).stat()
    except OSError:
        return ""
    return f"{stat.st_size}\0{stat.st_mtime_ns}"
