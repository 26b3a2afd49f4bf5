"""Images to Examples in Beam: read, check, split, write. TFX is not needed here.

A file that cannot be read is set aside with its reason; how many may be, before it is an error, is for the
caller to say (`components/image_gen.py`).
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam

from pipelines.examples import to_example
from pipelines.folders import EVAL, TRAIN, ImageFile, Tree, split_by_content
from signatures.errors import CheckFailed, VitrinaError

__all__ = ["SPLITS", "ReadImage", "check", "ingest"]

SPLITS = (TRAIN, EVAL)
BAD = "bad"
SPREAD = 256
LISTED = 5


class ReadImage(beam.DoFn):  # type: ignore[misc]
    """One `ImageFile` to a serialized Example under the tag of its split, or to its reason under `bad`."""

    def __init__(self, eval_share: float) -> None:
        super().__init__()
        self._eval_share = eval_share

    def process(self, element: ImageFile) -> Iterator[Any]:
        """Reads one file."""
        try:
            encoded = Path(element.path).read_bytes()
            example = to_example(encoded, label=element.label, text=element.text, filename=element.filename)
        except (OSError, VitrinaError) as error:
            yield beam.pvalue.TaggedOutput(BAD, {"filename": element.filename, "reason": str(error)})
            return
        split = element.split or split_by_content(hashlib.sha256(encoded).hexdigest(), self._eval_share)
        yield beam.pvalue.TaggedOutput(split, example.SerializeToString(deterministic=True))


def ingest(
    tree: Tree, *, pipeline: Any, eval_share: float, split_folders: Mapping[str, str], scratch: Path
) -> dict[str, Any]:
    """Runs a Beam pipeline over a tree of images.

    Args:
        tree: What to read.
        pipeline: A fresh Beam pipeline; it has run when this returns.
        eval_share: The share held out where the tree gives no split, 0 to 1.
        split_folders: Split name -> folder to write its TFRecords (gzip) to.
        scratch: An empty folder for what the workers count.

    Returns:
        The report: `labels`, `counts` (split -> number) and `bad` (a `filename` and a `reason` each).
    """
    with pipeline as started:
        _add_steps(started, tree.files, eval_share=eval_share, split_folders=split_folders, report=scratch)
    counts = {split: sum(int(line) for line in _lines(scratch, f"count-{split}")) for split in SPLITS}
    bad = sorted((json.loads(line) for line in _lines(scratch, "bad")), key=lambda item: str(item["filename"]))
    return {"labels": list(tree.labels), "counts": counts, "bad": bad}


def check(report: Mapping[str, Any], data: str, *, max_bad_share: float) -> None:
    """Stops where too much is unreadable or a split is empty.

    Args:
        report: From `ingest`.
        data: The data's name, for the message.
        max_bad_share: The share of unreadable files that is tolerated, 0 to 1.

    Raises:
        CheckFailed: It is more than that, or there is nothing to train on or to hold out.
    """
    bad, good = report["bad"], sum(report["counts"].values())
    if len(bad) > max_bad_share * (good + len(bad)):
        listed = "; ".join(f"{item['filename']}: {item['reason']}" for item in bad[:LISTED])
        more = f"; and {len(bad) - LISTED} more" if len(bad) > LISTED else ""
        raise CheckFailed(
            f"{len(bad)} of {good + len(bad)} files below {data} cannot be read, more than the allowed share of "
            f"{max_bad_share:g} ({listed}{more}). Repair or remove them, or raise --max-bad-share."
        )
    for split, count in report["counts"].items():
        if not count:
            raise CheckFailed(
                f"The {split} split of {data} is empty ({good} images in all). Add images, or give `train/` and "
                "`eval/` folders of class folders."
            )


def _add_steps(
    pipeline: Any, files: Sequence[ImageFile], *, eval_share: float, split_folders: Mapping[str, str], report: Path
) -> None:
    # Keyed by name, not at random as beam.Reshuffle does it: spread over workers, yet the same order every run.
    spread = (
        pipeline
        | "Files" >> beam.Create([(zlib.crc32(file.filename.encode()) % SPREAD, file) for file in files])
        | "Spread" >> beam.GroupByKey()
        | "Files in key" >> beam.FlatMap(_values)
    )
    read = spread | "Read" >> beam.ParDo(ReadImage(eval_share)).with_outputs(*SPLITS, BAD)
    for split in SPLITS:
        _ = read[split] | f"Write[{split}]" >> beam.io.WriteToTFRecord(
            f"{split_folders[split]}/data_tfrecord", file_name_suffix=".gz"
        )
        _ = (
            read[split]
            | f"Count[{split}]" >> beam.combiners.Count.Globally()
            | f"WriteCount[{split}]" >> beam.io.WriteToText(f"{report}/count-{split}")
        )
    _ = read[BAD] | "AsJson" >> beam.Map(json.dumps) | "WriteBad" >> beam.io.WriteToText(f"{report}/bad")


def _lines(folder: Path, prefix: str) -> list[str]:
    return [line for path in sorted(folder.glob(f"{prefix}-*")) for line in path.read_text().splitlines() if line]


def _values(pair: tuple[int, list[ImageFile]]) -> list[ImageFile]:
    return list(pair[1])
