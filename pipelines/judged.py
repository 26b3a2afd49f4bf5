"""A servable's answer to each held-out image, for pictures of where it errs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.calibration import Bin, bins
from pipelines.examples import ENCODED, FILENAME, FORMAT, TEXT

__all__ = ["Judged", "calibration", "confusion", "judge"]

SIGNATURE = "serving_default"
BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One image and what was answered.

    Args:
        encoded: The file.
        format: Such as `PNG`.
        filename: Its name within the data.
        actual: Its class.
        answered: The best answer, or "" where it could not be read.
        score: Of that answer, 0 to 1.
    """

    encoded: bytes
    format: str
    filename: str
    actual: str
    answered: str
    score: float


def judge(servable: Path, split: Path) -> list[Judged]:
    """Asks the bytes signature about every image of a split.

    Args:
        servable: One version's folder.
        split: A split's folder of Examples.

    Returns:
        In the order of the Examples.
    """
    import tensorflow as tf

    signature = tf.saved_model.load(str(servable)).signatures[SIGNATURE]
    files = sorted(str(path) for path in split.iterdir())
    found: list[Judged] = []
    for batch in tf.data.TFRecordDataset(files, compression_type="GZIP").batch(BATCH):
        features = [tf.train.Example.FromString(record).features.feature for record in batch.numpy()]
        answer = signature(image_bytes=tf.constant([_bytes(feature, ENCODED) for feature in features]))
        found += _judged(features, answer["labels"].numpy(), answer["scores"].numpy())
    return found


def confusion(judged: Sequence[Judged], labels: Sequence[str]) -> list[list[int]]:
    """Counts [actual][answered] in label order; the last column is for images without an answer."""
    ids = {name: number for number, name in enumerate(labels)}
    counts = [[0] * (len(labels) + 1) for _ in labels]
    for item in judged:
        counts[ids[item.actual]][ids.get(item.answered, len(labels))] += 1
    return counts


def calibration(judged: Iterable[Judged]) -> list[Bin]:
    """How often answers of a score are right: the bins of ten that hold any, by rising score."""
    return bins((item.score, item.answered == item.actual) for item in judged)


def _judged(features: Sequence[Any], labels: Any, scores: Any) -> Iterator[Judged]:
    for feature, names, values in zip(features, labels, scores, strict=True):
        yield Judged(
            encoded=_bytes(feature, ENCODED),
            format=_bytes(feature, FORMAT).decode(),
            filename=_bytes(feature, FILENAME).decode(),
            actual=_bytes(feature, TEXT).decode(),
            answered=names[0].decode(),
            score=float(values[0]),
        )


def _bytes(feature: Any, name: str) -> bytes:
    return bytes(feature[name].bytes_list.value[0])
