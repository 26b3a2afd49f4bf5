"""Images to Examples in Beam: read, check, split, write. TFX is not needed here.

An image that cannot be read is set aside with its reason; how many may be, before it is an error, is for the
caller to say (`check`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import apache_beam as beam

from pipelines.data import EVAL, TRAIN, Data, Item, split_by_content
from pipelines.examples import to_example
from signatures.errors import CheckFailed, VitrinaError

__all__ = ["SPLITS", "ReadImage", "check", "ingest"]

SPLITS = (TRAIN, EVAL)
BAD = "bad"
SEEN = "seen"
LISTED = 5


class ReadImage(beam.DoFn):  # type: ignore[misc]
    """One `Item` to a serialized Example under the tag of its split, or to its reason under `bad`.

    Args:
        labels: Class names in id order.
        eval_share: The share held out where an item has no split.
    """

    def __init__(self, labels: tuple[str, ...], eval_share: float) -> None:
        super().__init__()
        self._ids = {text: number for number, text in enumerate(labels)}
        self._eval_share = eval_share

    def process(self, element: Item) -> Iterator[Any]:
        """Reads one image."""
        try:
            encoded = _bytes(element)
            example = to_example(encoded, label=self._ids[element.text], text=element.text, filename=element.filename)
        except (OSError, VitrinaError, beam.io.filesystem.BeamIOError) as error:
            yield beam.pvalue.TaggedOutput(BAD, {"filename": element.filename, "reason": _reason(error)})
            return
        digest = hashlib.sha256(encoded).hexdigest()
        split = element.split or split_by_content(digest, self._eval_share)
        yield beam.pvalue.TaggedOutput(split, example.SerializeToString(deterministic=True))
        yield beam.pvalue.TaggedOutput(SEEN, (digest, (split, element.text, element.filename)))


def ingest(
    data: Data,
    *,
    make_pipeline: Callable[[], Any],
    eval_share: float,
    split_folders: Mapping[str, str],
    scratch: Path,
) -> dict[str, Any]:
    """Runs Beam over images.

    Args:
        data: What to read.
        make_pipeline: Gives a fresh Beam pipeline.
        eval_share: The share held out where the data gives no split, 0 to 1.
        split_folders: Split name -> folder to write its TFRecords (gzip) to.
        scratch: An empty folder for what the workers count.

    Returns:
        The report: `labels`, `counts` (split -> number), `classes` (split -> class -> number), `bad` (a `filename`
        and a `reason` each) and `leaks` (the names of each content that is both trained on and held out).

    Raises:
        CheckFailed: There are fewer than two classes.
    """
    labels = data.labels or _labels(data, make_pipeline, scratch)
    with make_pipeline() as pipeline:
        _add_steps(pipeline, data, labels, eval_share=eval_share, split_folders=split_folders, report=scratch)
    classes: dict[str, dict[str, int]] = {split: dict.fromkeys(labels, 0) for split in SPLITS}
    for (split, text), count in (json.loads(line) for line in _lines(scratch, "count")):
        classes[split][text] = count
    bad = sorted((json.loads(line) for line in _lines(scratch, "bad")), key=lambda item: str(item["filename"]))
    return {
        "labels": list(labels),
        "counts": {split: sum(counts.values()) for split, counts in classes.items()},
        "classes": classes,
        "bad": bad,
        "leaks": sorted(json.loads(line) for line in _lines(scratch, "leak")),
    }


def check(report: Mapping[str, Any], data: str, *, max_bad_share: float) -> None:
    """Stops where too much is unreadable, a split is empty or a class is never trained on.

    Args:
        report: From `ingest`.
        data: The data's name, for the message.
        max_bad_share: The share of unreadable images that is tolerated, 0 to 1.

    Raises:
        CheckFailed: It is more than that, or there is nothing to train on or to hold out.
    """
    bad, good = report["bad"], sum(report["counts"].values())
    if len(bad) > max_bad_share * (good + len(bad)):
        listed = "; ".join(f"{item['filename']}: {item['reason']}" for item in bad[:LISTED])
        more = f"; and {len(bad) - LISTED} more" if len(bad) > LISTED else ""
        raise CheckFailed(
            f"{len(bad)} of {good + len(bad)} images of {data} cannot be read, more than the allowed share of "
            f"{max_bad_share:g} ({listed}{more}). Repair or remove them, or raise --max-bad-share."
        )
    for split, count in report["counts"].items():
        if not count:
            raise CheckFailed(
                f"The {split} split of {data} is empty ({good} images in all). Add images, or give `train/` and "
                "`eval/` folders of class folders."
            )
    untrained = [text for text, count in report["classes"][TRAIN].items() if not count]
    if untrained:
        raise CheckFailed(
            f"{data} holds images to evaluate but none to train on of: {', '.join(untrained[:LISTED])}"
            f"{f' and {len(untrained) - LISTED} more' if len(untrained) > LISTED else ''}. Add images of each class."
        )


def _add_steps(
    pipeline: Any,
    data: Data,
    labels: tuple[str, ...],
    *,
    eval_share: float,
    split_folders: Mapping[str, str],
    report: Path,
) -> None:
    read = data.read(pipeline) | "Read" >> beam.ParDo(ReadImage(labels, eval_share)).with_outputs(*SPLITS, BAD, SEEN)
    for split in SPLITS:
        _ = read[split] | f"Write[{split}]" >> beam.io.WriteToTFRecord(
            f"{split_folders[split]}/data_tfrecord", file_name_suffix=".gz"
        )
    _ = read[BAD] | "BadAsJson" >> beam.Map(json.dumps) | "WriteBad" >> beam.io.WriteToText(f"{report}/bad")
    _ = (
        read[SEEN]
        | "Class" >> beam.Map(_split_and_class)
        | "Count" >> beam.combiners.Count.PerElement()
        | "CountsAsJson" >> beam.Map(json.dumps)
        | "WriteCounts" >> beam.io.WriteToText(f"{report}/count")
    )
    _ = (
        read[SEEN]
        | "SameContent" >> beam.GroupByKey()
        | "OnBothSides" >> beam.FlatMap(_on_both_sides)
        | "LeaksAsJson" >> beam.Map(json.dumps)
        | "WriteLeaks" >> beam.io.WriteToText(f"{report}/leak")
    )


def _split_and_class(seen: tuple[str, tuple[str, str, str]]) -> tuple[str, str]:
    return seen[1][:2]


def _on_both_sides(same: tuple[str, Any]) -> list[list[str]]:
    """The names of one content that is both trained on and held out; nothing where it is on one side."""
    found = list(same[1])
    return [sorted(name for _, _, name in found)] if len({split for split, _, _ in found}) > 1 else []


def _labels(data: Data, make_pipeline: Callable[[], Any], scratch: Path) -> tuple[str, ...]:
    """The class names of data that has to be read for them; numbers in the order of numbers."""
    with make_pipeline() as pipeline:
        _ = (
            data.read(pipeline)
            | "Texts" >> beam.Map(lambda item: json.dumps(item.text))
            | "Distinct" >> beam.Distinct()
            | "WriteLabels" >> beam.io.WriteToText(f"{scratch}/label")
        )
    found = [json.loads(line) for line in _lines(scratch, "label")]
    if len(found) < 2:
        raise CheckFailed(
            f"The data holds images of {len(found)} classes ({', '.join(found) or 'none'}), but a classifier needs at "
            "least 2. Add images of other classes."
        )
    return tuple(sorted(found, key=int)) if all(text.isdecimal() for text in found) else tuple(sorted(found))


def _bytes(item: Item) -> bytes:
    if item.encoded is not None:
        return item.encoded
    if item.uri is not None and "://" not in item.uri:
        return Path(item.uri).read_bytes()
    with beam.io.filesystems.FileSystems.open(item.uri) as stream:
        return bytes(stream.read())


def _reason(error: BaseException) -> str:
    """Without the path, which stands beside it."""
    return (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split())


def _lines(folder: Path, prefix: str) -> list[str]:
    return [line for path in sorted(folder.glob(f"{prefix}-*")) for line in path.read_text().splitlines() if line]
