"""TFRecords of tf.Examples with `image/encoded` and `image/class/label` or `image/class/text`.

A file whose name says so (`train-00000-of-00008.tfrecord`, `eval/part-0.tfrecord.gz`) belongs to that split, where both
splits are there; else the content decides. Compression is read off the name (`.gz`).
"""

from __future__ import annotations

import functools
import glob
import re
from pathlib import Path
from typing import Any

from pipelines.data import EVAL, TRAIN, Data, Item, fingerprint, split_named
from signatures.errors import UsageError

__all__ = ["accepts", "find"]

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
    parts = [f"{path}\0{path.stat().st_size}\0{path.stat().st_mtime_ns}" for path in files]
    by_split = tuple((str(path), split) for path, split in splits.items())
    return Data(labels=None, fingerprint=fingerprint(parts), read=functools.partial(_read, files=by_split))


def _below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def _split(path: Path, data: Path) -> str | None:
    """By the words in its name and in the folders between it and DATA."""
    inner = path.relative_to(data) if data.is_dir() else Path(path.name)
    return split_named(str(inner))


def _read(pipeline: Any, *, files: tuple[tuple[str, str | None], ...]) -> Any:
    import apache_beam as beam

    parts = []
    for split in dict.fromkeys(split for _, split in files):
        names = [name for name, of in files if of == split]
        parts.append(
            pipeline
            | f"Files[{split}]" >> beam.Create(names)
            | f"Records[{split}]" >> beam.io.ReadAllFromTFRecord(with_filename=True)
            | f"Items[{split}]" >> beam.Map(_item, split=split)
        )
    return parts | "All" >> beam.Flatten()


def _item(record: tuple[str, bytes], *, split: str | None) -> Item:
    import tensorflow as tf

    from pipelines.examples import ENCODED, FILENAME, LABEL, TEXT

    file, serialized = record
    feature = tf.train.Example.FromString(serialized).features.feature

    def first(name: str) -> Any:
        values = feature[name].bytes_list.value or feature[name].int64_list.value
        return values[0] if values else None

    text, label, name = first(TEXT), first(LABEL), first(FILENAME)
    if text is None and label is None:
        raise UsageError(f"An Example in {file} has neither `{TEXT}` nor `{LABEL}`. Write one of them into each.")
    return Item(
        filename=name.decode() if name else f"{Path(file).name}",
        text=text.decode() if text is not None else str(label),
        split=split,
        encoded=first(ENCODED) or b"",
    )
