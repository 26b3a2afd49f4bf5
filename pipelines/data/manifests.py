"""A manifest: one line per image with where it is, its label or its mask, and perhaps its split.

CSV and TSV have a header line; JSON Lines has an object a line. The columns: `image` (or `path`, `uri`, `file`,
`filename`, `image_uri`, `url`), `label` (or `class`, `text`, `category`) or else `mask` (or `mask_path`, ...), and
optionally `split`. Relative paths are relative to the manifest; URIs such as `gs://bucket/a.jpg` are read by Beam's
file systems. A folder with a file `metadata.csv`, `metadata.jsonl` or `manifest.*` is that manifest. Classes of masks
are named by `labels.txt` beside the manifest, or only numbered.
"""

from __future__ import annotations

import csv
import functools
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.data import CLASSIFICATION, SEGMENTATION, SPLIT_NAMES, Data, Item, fingerprint, label_names, state
from pipelines.data.spread import read_items
from pipelines.data.storage import local, read, reason
from signatures.errors import UsageError, VitrinaError

__all__ = ["accepts", "find"]

DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON_LINES = frozenset({".jsonl", ".ndjson"})
IMAGE = ("image", "path", "uri", "file", "filename", "file_name", "image_uri", "url")
LABEL = ("label", "class", "text", "category")
MASK = ("mask", "mask_path", "mask_uri", "segmentation", "annotation", "mask_file", "mask_filename")
SPLIT = ("split", "ml_use", "subset")
#: Names of a manifest that stands for its folder.
STEMS = ("metadata", "manifest")


def accepts(data: str) -> bool:
    """Whether it ends like a manifest, or is a folder with one."""
    if "://" not in data and Path(data).is_dir():
        return _inside(Path(data)) is not None
    suffix = Path(data).suffix.lower()
    return suffix in DELIMITERS or suffix in JSON_LINES


def find(data: str) -> Data:
    """Reads a manifest.

    Args:
        data: The file, a URI of one, or a folder with one.

    Returns:
        Its images; labels are sorted, those of masks as `labels.txt` beside it says.

    Raises:
        UsageError: The file is missing, a line lacks an image or a label, or there are fewer than 2 classes.
    """
    inside = _inside(Path(data)) if "://" not in data and Path(data).is_dir() else None
    name = str(inside or data)
    folder = name.rpartition("/")[0] if local(name) is None else str((local(name) or Path()).parent)
    rows = list(_rows(name))
    task = SEGMENTATION if any(_field(row, MASK) for _, row in rows) else CLASSIFICATION
    found = tuple(_item(row, f"{name}:{number}", folder, task) for number, row in rows)
    if task == SEGMENTATION:
        labels = label_names(Path(folder))
    else:
        labels = tuple(sorted({item.text for item in found}))
        if len(labels) < 2:
            raise UsageError(
                f"{name} lists images of {len(labels)} classes ({', '.join(labels) or 'none'}), but a classifier needs "
                "at least 2. Add lines of other classes."
            )
    parts = [f"{item.filename}\0{item.text}\0{item.split}\0{state(item.uri)}\0{state(item.mask_uri)}" for item in found]
    return Data(
        labels=labels,
        fingerprint=fingerprint([*parts, *(labels or ())]),
        read=functools.partial(read_items, items=found),
        task=task,
    )


def _inside(folder: Path) -> Path | None:
    """The manifest that stands for its folder."""
    names = [f"{stem}{suffix}" for stem in STEMS for suffix in (*DELIMITERS, *sorted(JSON_LINES))]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _rows(name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        text = read(name).decode("utf-8-sig")
        if Path(name).suffix.lower() in JSON_LINES:
            for number, line in enumerate(io.StringIO(text), start=1):
                if line.strip():
                    yield number, _object(line, f"{name}:{number}")
        else:
            reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=DELIMITERS[Path(name).suffix.lower()])
            for row in reader:
                yield reader.line_num, row
    except FileNotFoundError as error:
        raise UsageError(f"There is no file {name}. Give a manifest (*.csv or *.jsonl), or a folder.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{name} cannot be read as a manifest ({error}). Save it as UTF-8 text.") from error
    except UsageError:
        raise
    except (OSError, VitrinaError) as error:
        raise UsageError(f"{name} cannot be read ({reason(error)}). Give a manifest that can be.") from error


def _object(line: str, where: str) -> Mapping[str, Any]:
    try:
        found = json.loads(line)
    except json.JSONDecodeError as error:
        raise UsageError(f"{where} is not JSON ({error}). Write one JSON object per line.") from error
    if not isinstance(found, dict):
        raise UsageError(f'{where} is no JSON object. Write lines such as {{"image": "a.jpg", "label": "cat"}}.')
    return found


def _item(row: Mapping[str, Any], where: str, folder: str, task: str) -> Item:
    image, text, mask, split = (_field(row, names) for names in (IMAGE, LABEL, MASK, SPLIT))
    answer, kind, names = (mask, "mask", MASK) if task == SEGMENTATION else (text, "label", LABEL)
    if not image or not answer:
        missing = "no image" if not image else f"no {kind}"
        raise UsageError(
            f"{where} has {missing}; its columns are {', '.join(str(name) for name in row if name is not None)}. "
            f"Wanted: `{IMAGE[0]}` (or {', '.join(IMAGE[1:])}) and `{kind}` (or {', '.join(names[1:])})."
        )
    if split and split.lower() not in SPLIT_NAMES:
        raise UsageError(f"{where} has the split {split!r}. Wanted one of {', '.join(SPLIT_NAMES)}, or nothing.")
    return Item(
        filename=image,
        text="" if task == SEGMENTATION else text,
        split=SPLIT_NAMES[split.lower()] if split else None,
        uri=_located(image, folder),
        mask_uri=_located(mask, folder) if task == SEGMENTATION else None,
    )


def _located(name: str, folder: str) -> str:
    """Relative to the manifest, wherever that is."""
    return name if "://" in name or Path(name).is_absolute() else f"{folder}/{name}"


def _field(row: Mapping[str, Any], names: tuple[str, ...]) -> str:
    lower = {str(name).strip().lower(): value for name, value in row.items() if name is not None}
    return next((str(lower[name]).strip() for name in names if lower.get(name) not in (None, "")), "")
