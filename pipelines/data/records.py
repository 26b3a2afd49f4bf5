"""TFRecords of tf.Examples with `image/encoded` and `image/class/label` or `image/class/text`.

Where the first Example has `image/segmentation/class/encoded`, all are read as images with masks; `labels.txt` beside
the files names their classes. A file whose name says so (`train-00000-of-00008.tfrecord`, `eval/part-0.tfrecord.gz`)
belongs to that split, where both splits are there; else the content decides. Compression (gzip) is read off the
content.
"""

from __future__ import annotations

import functools
import glob
import re
from pathlib import Path
from typing import Any

from pipelines.data import (
    CLASSIFICATION,
    EVAL,
    SEGMENTATION,
    TRAIN,
    Data,
    Item,
    fingerprint,
    label_names,
    split_named,
    state,
)
from signatures.errors import UsageError

__all__ = ["accepts", "find"]

GZIP = b"\x1f\x8b"
IS_RECORDS = re.compile(r"\.tfrecords?\b|-of-\d{5}(\.gz)?$", re.IGNORECASE)


def accepts(data: str) -> bool:
    """Whether it is a pattern for TFRecords, one of them, or a folder that holds some."""
    if Path(data).is_dir():
        return any(IS_RECORDS.search(path.name) for path in _below(Path(data)))
    return bool(IS_RECORDS.search(Path(data).name))


def find(data: str) -> Data:
    """Lists TFRecords; what is in them is read later.

    Args:
        data: A file, a pattern such as `records/train-*.tfrecord`, or a folder.

    Returns:
        Their images, with labels that only reading tells.

    Raises:
        UsageError: No file fits.
    """
    if Path(data).is_dir():
        files = [path for path in _below(Path(data)) if IS_RECORDS.search(path.name)]
    else:
        files = sorted(Path(path) for path in glob.glob(data))
    if not files:
        raise UsageError(f"No TFRecords fit {data}. Give a folder with *.tfrecord files, or a pattern.")
    splits = {path: _split(path, Path(data)) for path in files}
    if {split for split in splits.values() if split} != {TRAIN, EVAL}:
        splits = dict.fromkeys(files)
    by_split = tuple((str(path), split) for path, split in splits.items())
    masks = _holds_masks(files[0])
    labels = label_names(files[0].parent) if masks else None
    return Data(
        labels=labels,
        fingerprint=fingerprint([*(f"{path}\0{state(str(path))}" for path in files), *(labels or ())]),
        read=functools.partial(_read, files=by_split),
        task=SEGMENTATION if masks else CLASSIFICATION,
    )


def _holds_masks(path: Path) -> bool:
    """Whether a file's first Example has a mask."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    from pipelines.examples import MASK

    try:
        compression = "GZIP" if _compressed(path) else ""
        for record in tf.data.TFRecordDataset(str(path), compression_type=compression).take(1):
            return MASK in tf.train.Example.FromString(record.numpy()).features.feature
    except (OSError, tf.errors.OpError, DecodeError) as error:
        line = " ".join(str(error).split())[:200]
        raise UsageError(f"{path} cannot be read as TFRecords of Examples ({line}). Write it again.") from error
    return False


def _compressed(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(2) == GZIP


def _below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def _split(path: Path, data: Path) -> str | None:
    """By the words in its name and in the folders between it and DATA."""
    inner = path.relative_to(data) if data.is_dir() else Path(path.name)
    return split_named(str(inner))


def _read(pipeline: Any, *, files: tuple[tuple[str, str | None], ...]) -> Any:
    import apache_beam as beam

    types = beam.io.filesystem.CompressionTypes
    groups: dict[tuple[str | None, bool], list[str]] = {}
    for name, split in files:
        groups.setdefault((split, _compressed(Path(name))), []).append(name)
    parts = []
    for (split, compressed), names in groups.items():
        told = f"{split}, {'gzip' if compressed else 'plain'}"
        kind = types.GZIP if compressed else types.UNCOMPRESSED
        parts.append(
            pipeline
            | f"Files[{told}]" >> beam.Create(names)
            | f"Records[{told}]" >> beam.io.ReadAllFromTFRecord(compression_type=kind, with_filename=True)
            | f"Items[{told}]" >> beam.Map(_item, split=split)
        )
    return parts | "All" >> beam.Flatten()


def _item(record: tuple[str, bytes], *, split: str | None) -> Item:
    import tensorflow as tf

    from pipelines.examples import ENCODED, FILENAME, LABEL, MASK, TEXT

    file, serialized = record
    feature = tf.train.Example.FromString(serialized).features.feature

    def first(name: str) -> Any:
        values = feature[name].bytes_list.value or feature[name].int64_list.value
        return values[0] if values else None

    text, label, name, mask = first(TEXT), first(LABEL), first(FILENAME), first(MASK)
    if text is None and label is None and mask is None:
        raise UsageError(
            f"An Example in {file} has neither `{TEXT}` nor `{LABEL}`, nor a mask `{MASK}`. "
            "Write one of them into each."
        )
    known = "" if mask is not None else text.decode() if text is not None else str(label)
    return Item(
        filename=name.decode() if name else f"{Path(file).name}",
        text=known,
        split=split,
        encoded=first(ENCODED) or b"",
        mask=mask,
    )
