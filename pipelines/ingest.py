"""Images to Examples in Beam: read, check, split, write. TFX is not needed here.

An image that cannot be read, or whose mask does not fit it, is set aside with its reason; how many may be, before it is
an error, is for the caller to say (`check`).
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam

from pipelines.data import EVAL, SEGMENTATION, TRAIN, Data, Item, split_by_content, storage
from pipelines.examples import BOTH_SIDES, COPIES, measure, to_example
from pipelines.masks import IGNORE, Mask, read_ids, read_mask
from signatures.errors import CheckFailed, VitrinaError

__all__ = ["SPLITS", "ReadImage", "check", "ingest"]

SPLITS = (TRAIN, EVAL)
BAD = "bad"
SEEN = "seen"
LISTED = 5


class ReadImage(beam.DoFn):  # type: ignore[misc]
    """One `Item` to a hash of its pixels and an Example under the tag of its split, or to its reason under `bad`.

    Args:
        labels: Class names in id order.
        task: One of `data.TASKS`.
        eval_share: The share held out where an item has no split.
        ignore: The id of a mask's pixels that count for nothing.
    """

    def __init__(self, labels: tuple[str, ...], *, task: str, eval_share: float, ignore: int) -> None:
        super().__init__()
        self._labels = labels
        self._ids = {text: number for number, text in enumerate(labels)}
        self._masks = task == SEGMENTATION
        self._eval_share = eval_share
        self._ignore = ignore

    def process(self, element: Item) -> Iterator[Any]:
        """Reads one image."""
        try:
            if element.problem:
                raise VitrinaError(element.problem)
            encoded = _bytes(element.encoded, element.uri)
            found = measure(encoded)
            mask = self._mask(element, found.upright) if self._masks else None
        except (OSError, VitrinaError) as error:
            yield beam.pvalue.TaggedOutput(BAD, {"filename": element.filename, "reason": storage.reason(error)})
            return
        label = None if self._masks else self._ids[element.text]
        example = to_example(
            encoded,
            filename=element.filename,
            label=label,
            text=element.text,
            mask=mask,
            labels=self._labels,
            found=found,
        )
        split = element.split or split_by_content(hashlib.sha256(encoded).hexdigest(), self._eval_share)
        yield beam.pvalue.TaggedOutput(split, (found.pixels, example.SerializeToString(deterministic=True)))
        shown = (
            tuple((self._labels[number], count) for number, count in enumerate(mask.pixels) if count) if mask else ()
        )
        yield beam.pvalue.TaggedOutput(SEEN, (found.pixels, (split, element.text, element.filename, shown)))

    def _mask(self, element: Item, size: tuple[int, int]) -> Mask:
        encoded = _bytes(element.mask, element.mask_uri)
        return read_mask(encoded, size=size, classes=len(self._labels), ignore=self._ignore)


def ingest(
    data: Data,
    *,
    make_pipeline: Callable[[], Any],
    eval_share: float,
    split_folders: Mapping[str, str],
    scratch: Path,
    ignore: int = IGNORE,
) -> dict[str, Any]:
    """Runs Beam over images.

    Args:
        data: What to read.
        make_pipeline: Gives a fresh Beam pipeline.
        eval_share: The share held out where the data gives no split, 0 to 1.
        split_folders: Split name -> folder to write its TFRecords (gzip) to.
        scratch: An empty folder for what the workers count.
        ignore: The id of a mask's pixels that count for nothing.

    Returns:
        The report: `task`, `labels`, `counts` (split -> number), `classes` (split -> class -> number of images), for
        masks `pixels` (split -> class -> number), `bad` (a `filename` and a `reason` each), `leaks` (the names of each
        content that is both trained on and held out), `leaked` (how many images are held out and trained on) and
        `conflicts` (the names of each content that is given several classes).

    Raises:
        CheckFailed: There are fewer than two classes.
    """
    labels = data.labels or _labels(data, make_pipeline, scratch, ignore)
    with make_pipeline() as pipeline:
        reader = ReadImage(labels, task=data.task, eval_share=eval_share, ignore=ignore)
        _add_steps(pipeline, data, reader, split_folders=split_folders, report=scratch)
    counts = dict.fromkeys(SPLITS, 0)
    classes: dict[str, dict[str, int]] = {split: dict.fromkeys(labels, 0) for split in SPLITS}
    pixels: dict[str, dict[str, int]] = {split: dict.fromkeys(labels, 0) for split in SPLITS}
    for (kind, split, text), count in (json.loads(line) for line in _lines(scratch, "count")):
        if kind == "images":
            counts[split] = count
        else:
            {"classes": classes, "pixels": pixels}[kind][split][text] = count
    same = [json.loads(line) for line in _lines(scratch, "same")]
    return {
        "task": data.task,
        "labels": list(labels),
        "counts": counts,
        "classes": classes,
        **({"pixels": pixels} if data.task == SEGMENTATION else {}),
        "bad": sorted((json.loads(line) for line in _lines(scratch, "bad")), key=lambda item: str(item["filename"])),
        "leaks": sorted(each["names"] for each in same if each["leaked"]),
        "leaked": sum(each["leaked"] for each in same),
        "conflicts": sorted(each["names"] for each in same if each["conflict"]),
    }


def check(
    report: Mapping[str, Any],
    data: str,
    *,
    max_bad_share: float,
    max_leak_share: float = 1.0,
    where: Path | str | None = None,
) -> None:
    """Stops where too much is unreadable, a split is empty, a class is never trained on, or too much is in both splits.

    Args:
        report: From `ingest`.
        data: The data's name, for the message.
        max_bad_share: The share of unreadable images that is tolerated, 0 to 1.
        max_leak_share: The share of what is held out that may be trained on, too, 0 to 1.
        where: The file that has the whole list, for the message.

    Raises:
        CheckFailed: It is more than that, or there is nothing to train on or to hold out.
    """
    bad, good = report["bad"], sum(report["counts"].values())
    whole = f" The whole list is in {where}." if where else ""
    if len(bad) > max_bad_share * (good + len(bad)):
        listed = _listed([f"{item['filename']}: {item['reason']}" for item in bad], "; ")
        raise CheckFailed(
            f"{len(bad)} of {good + len(bad)} images of {data} cannot be read, more than the allowed share of "
            f"{max_bad_share:g} ({listed}). Repair or remove them, or raise --max-bad-share.{whole}"
        )
    for split, count in report["counts"].items():
        if not count:
            raise CheckFailed(
                f"The {split} split of {data} is empty ({good} images in all). Add images, or give `train/` and "
                "`eval/` folders of class folders."
            )
    held_out = report["classes"][EVAL]
    untrained = [text for text, count in report["classes"][TRAIN].items() if not count and held_out[text]]
    if untrained:
        raise CheckFailed(
            f"{data} holds images to evaluate but none to train on of: {_listed(untrained, ', ')}. Add images of each "
            "class."
        )
    leaked = report.get("leaked", 0)
    if leaked > max_leak_share * report["counts"][EVAL]:
        listed = _listed([" = ".join(names) for names in report["leaks"]], "; ")
        raise CheckFailed(
            f"{leaked} of the {report['counts'][EVAL]} images that {data} holds out are trained on, too, more than the "
            f"allowed share of {max_leak_share:g}, so what is measured on them would say too much ({listed}). Remove "
            f"the copies, or raise --max-leak-share.{whole}"
        )


def _listed(texts: Sequence[str], between: str) -> str:
    more = f"{between}and {len(texts) - LISTED} more" if len(texts) > LISTED else ""
    return between.join(texts[:LISTED]) + more


def _add_steps(pipeline: Any, data: Data, reader: ReadImage, *, split_folders: Mapping[str, str], report: Path) -> None:
    read = data.read(pipeline) | "Read" >> beam.ParDo(reader).with_outputs(*SPLITS, BAD, SEEN)
    same = read[SEEN] | "SameContent" >> beam.GroupByKey() | "Several" >> beam.FlatMap(_several)
    # Few contents come more than once, so that this fits every worker, and images themselves need not be sorted.
    copies = beam.pvalue.AsDict(same | "Copies" >> beam.Map(_copies))
    for split in SPLITS:
        _ = (
            read[split]
            | f"CountCopies[{split}]" >> beam.Map(_with_copies, copies)
            | f"Write[{split}]"
            >> beam.io.WriteToTFRecord(f"{split_folders[split]}/data_tfrecord", file_name_suffix=".gz")
        )
    _ = read[BAD] | "BadAsJson" >> beam.Map(json.dumps) | "WriteBad" >> beam.io.WriteToText(f"{report}/bad")
    _ = same | "SameAsJson" >> beam.Map(_same_json) | "WriteSame" >> beam.io.WriteToText(f"{report}/same")
    _ = (
        read[SEEN]
        | "Counted" >> beam.FlatMap(_counted)
        | "Count" >> beam.CombinePerKey(sum)
        | "CountsAsJson" >> beam.Map(json.dumps)
        | "WriteCounts" >> beam.io.WriteToText(f"{report}/count")
    )


Seen = tuple[str, str, str, tuple[tuple[str, int], ...]]


def _counted(seen: tuple[str, Seen]) -> Iterator[tuple[tuple[str, str, str], int]]:
    split, text, _, shown = seen[1]
    yield ("images", split, ""), 1
    for name, pixels in shown or ((text, 0),):
        yield ("classes", split, name), 1
        if pixels:
            yield ("pixels", split, name), pixels


def _several(same: tuple[str, Any]) -> list[tuple[str, list[Seen]]]:
    found = sorted(same[1])
    return [(same[0], found)] if len(found) > 1 else []


def _copies(same: tuple[str, list[Seen]]) -> tuple[str, tuple[int, int]]:
    digest, found = same
    return digest, (len(found), int(len({split for split, *_ in found}) > 1))


def _same_json(same: tuple[str, list[Seen]]) -> str:
    """One content's names; how many of its images are held out while it is trained on; whether its classes differ."""
    _, found = same
    splits = [split for split, *_ in found]
    leaked = splits.count(EVAL) if TRAIN in splits else 0
    names = sorted(name for _, _, name, _ in found)
    return json.dumps({"names": names, "leaked": leaked, "conflict": len({text for _, text, *_ in found}) > 1})


def _with_copies(pair: tuple[str, bytes], copies: Mapping[str, tuple[int, int]]) -> bytes:
    import tensorflow as tf

    digest, serialized = pair
    example = tf.train.Example.FromString(serialized)
    for name, value in zip((COPIES, BOTH_SIDES), copies.get(digest, (1, 0)), strict=True):
        example.features.feature[name].int64_list.value.append(value)
    return bytes(example.SerializeToString(deterministic=True))


def _labels(data: Data, make_pipeline: Callable[[], Any], scratch: Path, ignore: int) -> tuple[str, ...]:
    """The class names of data that has to be read for them; numbers in the order of numbers."""
    texts = functools.partial(_ids_of, ignore=ignore) if data.task == SEGMENTATION else _text_of
    with make_pipeline() as pipeline:
        _ = (
            data.read(pipeline)
            | "Texts" >> beam.FlatMap(texts)
            | "Distinct" >> beam.Distinct()
            | "WriteLabels" >> beam.io.WriteToText(f"{scratch}/label")
        )
    found = [json.loads(line) for line in _lines(scratch, "label")]
    if data.task == SEGMENTATION:
        # Ids between those that are seen are classes, too.
        found = [str(number) for number in range(max(map(int, found), default=-1) + 1)]
    if len(found) < 2:
        needs = "a segmenter" if data.task == SEGMENTATION else "a classifier"
        raise CheckFailed(
            f"The data holds images of {len(found)} classes ({', '.join(found) or 'none'}), but {needs} needs at "
            "least 2. Add images of other classes."
        )
    return tuple(sorted(found, key=int)) if all(text.isdecimal() for text in found) else tuple(sorted(found))


def _text_of(item: Item) -> list[str]:
    return [json.dumps(item.text)]


def _ids_of(item: Item, *, ignore: int) -> list[str]:
    """The ids in a mask as JSON strings; one that cannot be read has none, and is set aside later."""
    import numpy as np

    if item.problem:
        return []
    try:
        ids = read_ids(_bytes(item.mask, item.mask_uri))
    except (OSError, VitrinaError):
        return []
    return [json.dumps(str(number)) for number in np.unique(ids[ids != ignore])]


def _bytes(encoded: bytes | None, uri: str | None) -> bytes:
    return storage.read(str(uri)) if encoded is None else encoded


def _lines(folder: Path, prefix: str) -> list[str]:
    return [line for path in sorted(folder.glob(f"{prefix}-*")) for line in path.read_text().splitlines() if line]
