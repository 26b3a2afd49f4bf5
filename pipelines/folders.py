"""A tree of images, one subfolder per class, as a list of files with labels and splits. No TensorFlow, no Beam."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from signatures.errors import UsageError

__all__ = ["EVAL", "TRAIN", "ImageFile", "Tree", "find_images", "split_by_content"]

TRAIN = "train"
EVAL = "eval"
SPLIT_FOLDERS = {"train": TRAIN, "training": TRAIN, "eval": EVAL, "test": EVAL, "val": EVAL, "validation": EVAL}
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp"})
BUCKETS = 1000


@dataclass(frozen=True, kw_only=True)
class ImageFile:
    """One file of a tree.

    Args:
        path: Where it is.
        filename: Its path relative to the tree.
        label: The class id: the place of its class among the sorted class names.
        text: The class name.
        split: `train` or `eval`, or None where the content decides.
    """

    path: str
    filename: str
    label: int
    text: str
    split: str | None


@dataclass(frozen=True, kw_only=True)
class Tree:
    """The images below a folder.

    Args:
        labels: Class names, sorted; the place is the id.
        files: Every image file, in the order of their names.
        fingerprint: Changes when a file is added, removed, moved or rewritten (names, sizes and times).
    """

    labels: tuple[str, ...]
    files: tuple[ImageFile, ...]
    fingerprint: str


def find_images(data: Path) -> Tree:
    """Lists `DATA/<class>/*.png`, or `DATA/train/<class>/*` and `DATA/eval/<class>/*` where the split is given.

    A split is given where DATA has a `train` and an `eval` (or `test`, `val`, `validation`) folder that hold class
    folders themselves. Hidden files and files that do not end like an image are passed over.

    Args:
        data: The folder.

    Returns:
        Its labels and files.

    Raises:
        UsageError: The folder is missing, or has no class folders with images, or only one class.
    """
    if not data.is_dir():
        raise UsageError(
            f"There is no folder {data}. DATA is a folder with one subfolder of images per class "
            "(or `train/` and `eval/` folders of such)."
        )
    roots = _split_roots(data)
    found = sorted((text, path, split) for root, split in roots for text, path in _class_files(root))
    labels = tuple(sorted({text for text, _, _ in found}))
    if len(labels) < 2:
        raise UsageError(
            f"{data} holds images of {len(labels)} classes ({', '.join(labels) or 'none'}), but a classifier needs at "
            f"least 2. Give a folder with one subfolder of images ({', '.join(sorted(IMAGE_SUFFIXES))}) per class."
        )
    ids = {text: number for number, text in enumerate(labels)}
    files = tuple(
        ImageFile(path=str(path), filename=path.relative_to(data).as_posix(), label=ids[text], text=text, split=split)
        for text, path, split in found
    )
    return Tree(labels=labels, files=files, fingerprint=_fingerprint(files))


def split_by_content(digest: str, eval_share: float) -> str:
    """The split of an image by its content's hash, so that it never changes sides, whatever is added or renamed.

    Args:
        digest: The hexadecimal SHA-256 of its bytes.
        eval_share: The share of the hash space that is held out, 0 to 1.

    Returns:
        `train` or `eval`.
    """
    return EVAL if int(digest[:15], 16) % BUCKETS < round(eval_share * BUCKETS) else TRAIN


def _split_roots(data: Path) -> list[tuple[Path, str | None]]:
    """The folders that hold class folders, with the split each stands for."""
    named = [(entry, SPLIT_FOLDERS.get(entry.name.lower())) for entry in _folders(data)]
    with_classes = [(entry, split) for entry, split in named if split and any(_folders(entry))]
    if {split for _, split in with_classes} == {TRAIN, EVAL}:
        return list(with_classes)
    return [(data, None)]


def _class_files(root: Path) -> Iterator[tuple[str, Path]]:
    for folder in _folders(root):
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file():
                yield folder.name, path


def _folders(root: Path) -> list[Path]:
    return sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _fingerprint(files: tuple[ImageFile, ...]) -> str:
    total = hashlib.sha256()
    for file in files:
        stat = Path(file.path).stat()
        total.update(f"{file.filename}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return total.hexdigest()
