"""`datasets:FOLDER` or `datasets:NAME`: what Hugging Face's `datasets` keeps, read with Arrow.

FOLDER is what `save_to_disk` wrote (`*.arrow`) or a local copy of a repository with `*.parquet` files; neither needs
the `datasets` package. A NAME does: it is loaded once, and the Arrow files in its cache are read.

The image column is the one of type `Image`, else `image`, `img` or the like; the label column is the one of type
`ClassLabel`, whose names are the labels, else `label` and the like. Of two columns of type `Image`, the one called
`annotation`, `mask`, `label` or the like holds masks; `labels.txt` or `id2label.json` in FOLDER names their classes.
Files and folders named after splits give the split where both sides are there.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.data import (
    CLASSIFICATION,
    EVAL,
    PREFIX,
    SEGMENTATION,
    TRAIN,
    Data,
    Item,
    fingerprint,
    label_names,
    split_named,
    state,
)
from signatures.errors import MissingExtra, UsageError

__all__ = ["accepts", "find"]

IMAGE = ("image", "img", "jpg", "png", "picture", "photo")
LABEL = ("label", "labels", "class", "category", "fine_label", "text")
MASK = ("annotation", "annotations", "mask", "masks", "segmentation", "segmentation_mask", "label", "labels")
SUFFIXES = (".arrow", ".parquet")
ROWS = 256


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Where image and label are.

    Args:
        image: A struct of `bytes` and `path`, or bytes.
        label: Class ids, names, or masks.
        names: Class names in id order, or None where the column holds names, bare numbers or masks.
        masks: Whether `label` holds masks, as `image` does images.
    """

    image: str
    label: str
    names: tuple[str, ...] | None
    masks: bool = False


def accepts(data: str) -> bool:
    """Whether it says so itself."""
    return data.startswith(PREFIX)


def find(data: str) -> Data:
    """Lists a data set's files.

    Args:
        data: `datasets:` and a folder, or the name of a data set.

    Returns:
        Its images; labels are the `ClassLabel`'s names where there is one.

    Raises:
        UsageError: There is nothing there, or it has no images with labels.
        MissingExtra: It is Arrow data and pyarrow is not installed.
    """
    name = data.removeprefix(PREFIX)
    files = _below(Path(name)) if Path(name).is_dir() else _loaded(name)
    if not files:
        raise UsageError(
            f"{name} holds no *.arrow or *.parquet files. Give what `save_to_disk` wrote, or a data set's files."
        )
    splits = {
        path: split_named(str(path.relative_to(name)) if path.is_relative_to(name) else path.name) for path in files
    }
    if {split for split in splits.values() if split} != {TRAIN, EVAL}:
        splits = dict.fromkeys(files)
    columns = _columns(files[0])
    by_split = tuple((str(path), split) for path, split in splits.items())
    labels = label_names(Path(name)) if columns.masks else columns.names
    return Data(
        labels=labels,
        fingerprint=fingerprint([*(f"{path}\0{state(str(path))}" for path in files), *(labels or ())]),
        read=functools.partial(_read, files=by_split, columns=columns),
        task=SEGMENTATION if columns.masks else CLASSIFICATION,
    )


def _below(folder: Path) -> list[Path]:
    # `cache-*.arrow` are what `map` and `filter` left: other rows, or the same ones again.
    return sorted(
        path for path in folder.rglob("*") if path.suffix in SUFFIXES and not path.name.startswith((".", "cache-"))
    )


def _loaded(name: str) -> list[Path]:
    try:
        import datasets
    except ImportError as error:
        raise UsageError(
            f"There is no folder {name}, and to load a data set of that name the package `datasets` is needed. "
            "Give the folder of one, or install it with: pip install datasets"
        ) from error
    found = datasets.load_dataset(name)
    return sorted(Path(file["filename"]) for split in found.values() for file in split.cache_files)


def _columns(path: Path) -> Columns:
    schema = _schema(path)
    features = _features(schema, path)
    kinds = {name: feature.get("_type") for name, feature in features.items() if isinstance(feature, dict)}
    images = [name for name, kind in kinds.items() if kind == "Image"]
    mask = next((name for name in MASK if name in images), None) if len(images) > 1 else None
    image = _first(schema.names, [name for name in images if name != mask], IMAGE)
    if mask is not None and image is not None:
        return Columns(image=image, label=mask, names=None, masks=True)
    label = _first(schema.names, [name for name, kind in kinds.items() if kind == "ClassLabel"], LABEL)
    if image is None or label is None:
        missing = "image" if image is None else "label"
        raise UsageError(
            f"{path} has the columns {', '.join(schema.names)}, but no {missing} is among them. Name one of them "
            f"{missing!r}."
        )
    names = features.get(label, {}).get("names")
    return Columns(image=image, label=label, names=tuple(map(str, names)) if names else None)


def _first(present: Sequence[str], typed: Sequence[str], usual: Sequence[str]) -> str | None:
    return next((name for name in (*typed, *usual) if name in present), None)


def _features(schema: Any, path: Path) -> Mapping[str, Any]:
    """The columns' types as `datasets` wrote them: in the file itself, or beside it."""
    found = (schema.metadata or {}).get(b"huggingface")
    if found:
        info = json.loads(found).get("info", {})
    elif (path.parent / "dataset_info.json").is_file():
        info = json.loads((path.parent / "dataset_info.json").read_text(encoding="utf-8"))
    else:
        info = {}
    features = info.get("features")
    return features if isinstance(features, dict) else {}


def _schema(path: Path) -> Any:
    parquet, ipc = _arrow()
    try:
        if path.suffix == ".parquet":
            return parquet.read_schema(path)
        with ipc.open_stream(path) as stream:
            return stream.schema
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as {path.suffix[1:]} ({error}). Copy the data set again.") from error


def _arrow() -> tuple[Any, Any]:
    try:
        from pyarrow import ipc, parquet
    except ImportError as error:
        raise MissingExtra("pyarrow", "tfx") from error
    return parquet, ipc


def _read(pipeline: Any, *, files: tuple[tuple[str, str | None], ...], columns: Columns) -> Any:
    import apache_beam as beam

    return (
        pipeline
        | "Files" >> beam.Create(list(files))
        | "Spread" >> beam.Reshuffle()
        | "Items" >> beam.FlatMap(_items, columns=columns)
    )


def _items(file: tuple[str, str | None], *, columns: Columns) -> Iterator[Item]:
    path, split = Path(file[0]), file[1]
    row = 0
    for batch in _batches(path, [columns.image, columns.label]):
        for image, label in zip(
            *(batch.column(name).to_pylist() for name in (columns.image, columns.label)), strict=True
        ):
            yield _item(image, label, path, row, split, columns)
            row += 1


def _batches(path: Path, names: list[str]) -> Iterator[Any]:
    parquet, ipc = _arrow()
    if path.suffix == ".parquet":
        with parquet.ParquetFile(path) as file:
            yield from file.iter_batches(ROWS, columns=names)
    else:
        with ipc.open_stream(path) as stream:
            for batch in stream:
                yield from (batch.slice(start, ROWS) for start in range(0, batch.num_rows, ROWS))


def _item(image: Any, label: Any, path: Path, row: int, split: str | None, columns: Columns) -> Item:
    encoded, uri, where = _file(image, path)
    name = f"{path.stem}/{row:06}" + (f"-{Path(where).name}" if where else "")
    if columns.masks:
        mask, mask_uri, _ = _file(label, path)
        return Item(filename=name, split=split, uri=uri, encoded=encoded, mask=mask, mask_uri=mask_uri)
    if columns.names is not None and isinstance(label, int) and 0 <= label < len(columns.names):
        text = columns.names[label]
    elif label is None or columns.names is not None:
        raise UsageError(f"Row {row} of {path} has the label {label!r}, which names no class. Leave such rows out.")
    else:
        text = str(label)
    return Item(filename=name, text=text, split=split, uri=uri, encoded=encoded)


def _file(value: Any, path: Path) -> tuple[bytes | None, str | None, str | None]:
    """A picture's bytes, or else its URI; and its path as the data tells it."""
    found = value if isinstance(value, dict) else {"bytes": value, "path": None}
    where = found.get("path")
    if found.get("bytes") is None and where:
        uri = str(where) if Path(where).is_absolute() or "://" in where else str(path.parent / where)
        return None, uri, where
    return found.get("bytes") or b"", None, where
