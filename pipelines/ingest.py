"""Images to Examples in Beam: read, check, split, write. TFX is not needed here.

A file that cannot be read is set aside with its reason; how many may be, before it is an error, is for the
caller to say (`components/image_gen.py`).
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam

from pipelines.examples import to_example
from pipelines.folders import EVAL, TRAIN, ImageFile, split_by_content
from signatures.errors import VitrinaError

__all__ = ["SPLITS", "ReadImage", "write_examples"]

SPLITS = (TRAIN, EVAL)
BAD = "bad"
SPREAD = 256


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


def write_examples(
    pipeline: Any, files: tuple[ImageFile, ...], *, eval_share: float, split_folders: dict[str, str], report: str
) -> None:
    """Adds the steps that turn files into TFRecords to a Beam pipeline.

    Args:
        pipeline: The Beam pipeline; it runs when the caller leaves it.
        files: What to read.
        eval_share: The share held out where the tree gives no split.
        split_folders: Split name -> folder to write its TFRecords (gzip) to.
        report: Folder for `bad-*` (a JSON object a line: `filename`, `reason`) and `count-<split>-*` (a number).
    """
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


def _values(pair: tuple[int, list[ImageFile]]) -> list[ImageFile]:
    return list(pair[1])
