"""A tree of images: `DATA/<class>/*.png`, or `DATA/train/<class>/*` and `DATA/eval/<class>/*`."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

from pipelines.data import EVAL, SPLIT_NAMES, TRAIN, Data, Item, fingerprint, state
from pipelines.data.spread import read_items
from signatures.errors import UsageError

__all__ = ["IMAGE_SUFFIXES", "accepts", "find", "items"]

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp"})


def accepts(data: str) -> bool:
    """Whether it is a folder at all."""
    return Path(data).is_dir()


def find(data: str) -> Data:
    """Lists a tree of images.

    The split is given where DATA has a `train` and an `eval` (or `test`, `val`, `validation`) folder that hold class
    folders themselves. Hidden files and files that do not end like an image are passed over.

    Args:
        data: The folder.

    Returns:
        Its images; labels are the sorted folder names.

    Raises:
        UsageError: The folder is missing, or has no class folders with images, or only one class.
    """
    root = Path(data)
    if not root.is_dir():
        raise UsageError(
            f"There is no folder {data}. DATA is a folder with one subfolder of images per class (or `train/` and "
            "`eval/` folders of such), a folder with `images/` and `masks/`, a *.csv or *.jsonl manifest, or TFRecords."
        )
    found = items(root)
    labels = tuple(sorted({item.text for item in found}))
    if len(labels) < 2:
        raise UsageError(
            f"{data} holds images of {len(labels)} classes ({', '.join(labels) or 'none'}), but a classifier needs at "
            f"least 2. Give a folder with one subfolder of images ({', '.join(sorted(IMAGE_SUFFIXES))}) per class."
        )
    return Data(labels=labels, fingerprint=_fingerprint(found), read=functools.partial(read_items, items=found))


def items(root: Path) -> tuple[Item, ...]:
    """Every image file below a folder, by class and name."""
    found = sorted((text, path, split) for folder, split in _split_roots(root) for text, path in _class_files(folder))
    return tuple(
        Item(filename=path.relative_to(root).as_posix(), text=text, split=split, uri=str(path))
        for text, path, split in found
    )


def _split_roots(root: Path) -> list[tuple[Path, str | None]]:
    """The folders that hold class folders, with the split each stands for."""
    named = [(entry, SPLIT_NAMES.get(entry.name.lower())) for entry in _folders(root)]
    with_classes = [(entry, split) for entry, split in named if split and any(_folders(entry))]
    if {split for _, split in with_classes} == {TRAIN, EVAL}:
        return list(with_classes)
    return [(root, None)]


def _class_files(root: Path) -> Iterator[tuple[str, Path]]:
    for folder in _folders(root):
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file():
                yield folder.name, path


def _folders(root: Path) -> list[Path]:
    return sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _fingerprint(found: tuple[Item, ...]) -> str:
    return fingerprint([f"{item.filename}\0{state(item.uri)}" for item in found])
