"""Images with a mask each, for semantic segmentation: `DATA/images/a.jpg` and `DATA/masks/a.png`.

Splits may be above (`DATA/train/images`) or below (`DATA/images/train`). An image and its mask have the same path below
their folders, but for the ending; the mask's name may end in `_mask` besides. With such names both may also lie in one
folder. Classes are named by `labels.txt` beside the folders, or only numbered.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

from pipelines.data import EVAL, SEGMENTATION, SPLIT_NAMES, TRAIN, Data, Item, fingerprint, label_names, state
from pipelines.data.folders import IMAGE_SUFFIXES
from pipelines.data.spread import read_items
from signatures.errors import UsageError

__all__ = ["accepts", "find"]

IMAGES = ("images", "image", "imgs", "img", "photos", "jpegimages")
MASKS = ("masks", "mask", "annotations", "annotation", "segmentationclass", "segmentations", "segmentation", "labels")
MASK_SUFFIXES = frozenset({".png", ".bmp", ".tif", ".tiff"})
ENDINGS = ("_mask", "-mask", "_seg", "_segmentation", "_label", "_labels")


def accepts(data: str) -> bool:
    """Whether it is a folder with images and masks."""
    root = Path(data)
    return root.is_dir() and bool(_roots(root) or _marked(root))


def find(data: str) -> Data:
    """Lists images with their masks.

    Args:
        data: The folder.

    Returns:
        Its pairs. An image without a mask, or a mask without an image, is an item with a problem.

    Raises:
        UsageError: There are no images, or the file that names the classes cannot be used.
    """
    root = Path(data)
    found = tuple(sorted(_items(root), key=lambda item: item.filename))
    if not any(item.uri for item in found):
        raise UsageError(
            f"{data} has folders for images and masks, but no image in them. Put images "
            f"({', '.join(sorted(IMAGE_SUFFIXES))}) into one and masks of the same names into the other."
        )
    parts = [f"{item.filename}\0{state(item.uri)}\0{state(item.mask_uri)}" for item in found]
    labels = label_names(root)
    return Data(
        labels=labels,
        fingerprint=fingerprint([*parts, *(labels or ())]),
        read=functools.partial(read_items, items=found),
        task=SEGMENTATION,
    )


def _items(root: Path) -> Iterator[Item]:
    roots = _roots(root)
    if not roots:
        yield from _paired(root, _marked(root), _unmarked(root), root, root, None)
        return
    given = {split for _, _, split in roots}
    # Splits count only where there are two sides, as everywhere.
    below = {_below(path, images) for images, _, _ in roots for path in _files(images, IMAGE_SUFFIXES)}
    by_folder = given == {TRAIN, EVAL}
    by_path = not by_folder and {TRAIN, EVAL} <= below
    for images, masks, split in roots:
        pictures, drawn = _files(images, IMAGE_SUFFIXES), _files(masks, MASK_SUFFIXES)
        for item in _paired(root, drawn, pictures, images, masks, split if by_folder else None):
            side = _below(root / item.filename, images) if by_path and item.uri else item.split
            yield Item(**{**vars(item), "split": side})


def _paired(
    root: Path, masks: list[Path], pictures: list[Path], images_root: Path, masks_root: Path, split: str | None
) -> Iterator[Item]:
    by_name = {_name(path, masks_root): path for path in masks}
    taken = set()
    for path in pictures:
        name = path.relative_to(images_root).with_suffix("").as_posix()
        mask = by_name.get(name)
        taken.add(name)
        yield Item(
            filename=path.relative_to(root).as_posix(),
            split=split,
            uri=str(path),
            mask_uri=None if mask is None else str(mask),
            problem="" if mask else f"it has no mask {name}.png in {masks_root.relative_to(root)}",
        )
    for name, path in by_name.items():
        if name not in taken:
            yield Item(filename=path.relative_to(root).as_posix(), problem="the mask has no image of its name")


def _roots(root: Path) -> list[tuple[Path, Path, str | None]]:
    """The folders of images and masks that belong together, with the split that their own folder stands for."""
    here = _pair(root)
    if here is not None:
        return [(*here, None)]
    found: list[tuple[Path, Path, str | None]] = []
    for entry in _folders(root):
        pair = _pair(entry) if entry.name.lower() in SPLIT_NAMES else None
        if pair is not None:
            found.append((*pair, SPLIT_NAMES[entry.name.lower()]))
    return found


def _pair(folder: Path) -> tuple[Path, Path] | None:
    names = {entry.name.lower(): entry for entry in _folders(folder)}
    images = next((names[name] for name in IMAGES if name in names), None)
    masks = next((names[name] for name in MASKS if name in names), None)
    return None if images is None or masks is None else (images, masks)


def _marked(root: Path) -> list[Path]:
    """Files of one folder that are masks by their name."""
    return [path for path in _top(root) if path.suffix.lower() in MASK_SUFFIXES and path.stem.lower().endswith(ENDINGS)]


def _unmarked(root: Path) -> list[Path]:
    masks = set(_marked(root))
    return [path for path in _top(root) if path.suffix.lower() in IMAGE_SUFFIXES and path not in masks]


def _name(mask: Path, root: Path) -> str:
    name = mask.relative_to(root).with_suffix("").as_posix()
    ending = next((each for each in ENDINGS if name.lower().endswith(each)), "")
    return name[: len(name) - len(ending)] if ending else name


def _below(path: Path, images: Path) -> str | None:
    """The split that a folder right below the images stands for."""
    parts = path.relative_to(images).parts
    return SPLIT_NAMES.get(parts[0].lower()) if len(parts) > 1 else None


def _files(root: Path, suffixes: frozenset[str]) -> list[Path]:
    return sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()
    )


def _top(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_file() and not path.name.startswith("."))


def _folders(root: Path) -> list[Path]:
    return sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
