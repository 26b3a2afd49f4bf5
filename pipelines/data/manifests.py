"""A manifest: one line per image with where it is, its label, and perhaps its split.

CSV and TSV have a header line; JSON Lines has an object a line. The columns: `image` (or `path`, `uri`, `file`,
`filename`, `image_uri`, `url`), `label` (or `class`, `text`, `category`), and optionally `split`. Relative paths are
relative to the manifest; URIs such as `gs://bucket/a.jpg` are read by Beam's file systems.
"""

from __future__ import annotations

import csv
import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.data import SPLIT_NAMES, Data, Item, fingerprint
from pipelines.data.spread import read_items
from signatures.errors import UsageError

__all__ = ["accepts", "find"]

DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON_LINES = frozenset({".jsonl", ".ndjson"})
IMAGE = ("image", "path", "uri", "file", "filename", "file_name", "image_uri", "url")
LABEL = ("label", "class", "text", "category")
SPLIT = ("split", "ml_use", "subset")


def accepts(data: str) -> bool:
    """Whether it ends like a manifest."""
    suffix = Path(data).suffix.lower()
    return suffix in DELIMITERS or suffix in JSON_LINES


def find(data: str) -> Data:
    """Reads a manifest.

    Args:
        data: The file.

    Returns:
        Its images; labels are sorted.

    Raises:
        UsageError: The file is missing, a line lacks an image or a label, or there are fewer than 2 classes.
    """
    path = Path(data)
    try:
        rows = list(_rows(path))
    except FileNotFoundError as error:
        raise UsageError(f"There is no file {data}. Give a manifest (*.csv or *.jsonl), or a folder.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{data} cannot be read as a manifest ({error}). Save it as UTF-8 text.") from error
    found = tuple(_item(row, f"{data}:{number}", path.parent) for number, row in rows)
    labels = tuple(sorted({item.text for item in found}))
    if len(labels) < 2:
        raise UsageError(
            f"{data} lists images of {len(labels)} classes ({', '.join(labels) or 'none'}), but a classifier needs at "
            "least 2. Add lines of other classes."
        )
    parts = [f"{item.filename}\0{item.text}\0{item.split}\0{_state(str(item.uri))}" for item in found]
    return Data(labels=labels, fingerprint=fingerprint(parts), read=functools.partial(read_items, items=found))


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        if path.suffix.lower() in JSON_LINES:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield number, _object(line, f"{path}:{number}")
        else:
            reader = csv.DictReader(stream, delimiter=DELIMITERS[path.suffix.lower()])
            for row in reader:
                yield reader.line_num, row


def _object(line: str, where: str) -> Mapping[str, Any]:
    try:
        found = json.loads(line)
    except json.JSONDecodeError as error:
        raise UsageError(f"{where} is not JSON ({error}). Write one JSON object per line.") from error
    if not isinstance(found, dict):
        raise UsageError(f'{where} is no JSON object. Write lines such as {{"image": "a.jpg", "label": "cat"}}.')
    return found


def _item(row: Mapping[str, Any], where: str, folder: Path) -> Item:
    image, text, split = (_field(row, names) for names in (IMAGE, LABEL, SPLIT))
    if not image or not text:
        raise UsageError(
            f"{where} has {'no image' if not image else 'no label'}; its columns are {', '.join(map(str, row))}. "
            f"Wanted: `{IMAGE[0]}` (or {', '.join(IMAGE[1:])}) and `{LABEL[0]}` (or {', '.join(LABEL[1:])})."
        )
    if split and split.lower() not in SPLIT_NAMES:
        raise UsageError(f"{where} has the split {split!r}. Wanted one of {', '.join(SPLIT_NAMES)}, or nothing.")
    uri = image if "://" in image or Path(image).is_absolute() else str(folder / image)
    return Item(filename=image, text=text, split=SPLIT_NAMES[split.lower()] if split else None, uri=uri)


def _field(row: Mapping[str, Any], names: tuple[str, ...]) -> str:
    lower = {str(name).strip().lower(): value for name, value in row.items() if name is not None}
    return next((str(lower[name]).strip() for name in names if lower.get(name) not in (None, "")), "")


def _state(uri: str) -> str:
    """Size and time of a local file; a remote one, or one that is not there, counts by its name alone."""
    try:
        stat = Path(uri).stat()
    except OSError:
        return ""
    return f"{stat.st_size}\0{stat.st_mtime_ns}"
