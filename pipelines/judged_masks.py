"""A segmenter's answers beside the masks that they should be: counts of pixels, and pictures of the worst."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.examples import ENCODED, FILENAME, MASK, PRESENT
from pipelines.judged import Judged
from pipelines.masks import read_ids
from signatures.errors import CheckFailed, VitrinaError

__all__ = ["JudgedMask", "gallery", "iou", "judge_masks", "mean_iou", "pixel_confusion"]

SIGNATURE = "serving_default"
BATCH = 8
SIDE = 160

Counts = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class JudgedMask:
    """One image's mask and what was answered.

    Args:
        encoded: The image's file.
        filename: Its name within the data.
        present: The classes that it shows.
        mask: The mask as it lies in its Example.
        answer: The answered mask as PNG, or b"" where the image could not be read.
        confusion: int64 [classes, classes + 1], pixels by what they are and what was answered.
    """

    encoded: bytes
    filename: str
    present: tuple[str, ...]
    mask: bytes
    answer: bytes
    confusion: Counts


def pixel_confusion(
    mask: bytes, present: Sequence[str], answer: bytes, answered: Sequence[str], labels: Sequence[str]
) -> Counts:
    """How many pixels of each class were answered as which.

    Args:
        mask: A mask as it lies in an Example.
        present: Its Example's names of the classes in it, by rising id; so the order of the data's classes need not be
            known.
        answer: The PNG of class ids that was answered; b"" where there was none.
        answered: The names of these ids.
        labels: The names to count by.

    Returns:
        int64 [classes, classes + 1]; the last column is for no answer and for names that are not among `labels`.

    Raises:
        CheckFailed: The mask holds a class that is not among `labels`.
    """
    ids = {name: number for number, name in enumerate(labels)}
    unknown = sorted(set(present) - set(ids))
    if unknown:
        raise CheckFailed(
            f"The eval split has classes that the model does not know: {', '.join(unknown)} (it knows "
            f"{', '.join(labels)}). Train on data with every class."
        )
    truth = read_ids(mask)
    found = np.unique(truth)[: len(present)]
    counts = truth <= (found[-1] if len(found) else -1)
    known = np.searchsorted(found, np.where(counts, truth, found[0] if len(found) else 0))
    actual = np.array([ids[name] for name in present], np.int64)[known]
    guess = np.full(truth.shape, len(labels), np.int64)
    if answer:
        given = read_ids(answer)
        if given.shape == truth.shape:
            names = np.array([ids.get(name, len(labels)) for name in answered], np.int64)
            guess = names[np.clip(given, 0, len(names) - 1)]
    flat = actual[counts] * (len(labels) + 1) + guess[counts]
    return np.bincount(flat, minlength=len(labels) * (len(labels) + 1)).reshape(len(labels), -1).astype(np.int64)


def iou(confusion: Counts) -> NDArray[np.float64]:
    """Per class: pixels that are it and were answered so, over pixels that are or were; NaN where there are none."""
    confusion = confusion.astype(np.float64)
    right = np.diagonal(confusion)
    either = confusion.sum(axis=1) + confusion[:, :-1].sum(axis=0) - right
    return np.divide(right, either, out=np.full(len(right), np.nan), where=either > 0)


def mean_iou(confusion: Counts) -> float:
    """The mean over the classes that there are; 0 where there are none."""
    each = iou(confusion)
    return 0.0 if np.isnan(each).all() else float(np.nanmean(each))


def judge_masks(servable: Path, split: Path) -> Iterator[JudgedMask]:
    """Asks the bytes signature about every image of a split.

    Args:
        servable: One version's folder.
        split: A split's folder of Examples.

    Yields:
        In the order of the Examples.
    """
    import tensorflow as tf

    from signatures.spec import Card

    labels = Card.read(servable).labels
    signature = tf.saved_model.load(str(servable)).signatures[SIGNATURE]
    files = sorted(str(path) for path in split.iterdir())
    for batch in tf.data.TFRecordDataset(files, compression_type="GZIP").batch(BATCH):
        features = [tf.train.Example.FromString(record).features.feature for record in batch.numpy()]
        images = [bytes(feature[ENCODED].bytes_list.value[0]) for feature in features]
        answers = answers_of(signature, images)
        for feature, image, answer in zip(features, images, answers, strict=True):
            mask = bytes(feature[MASK].bytes_list.value[0])
            present = tuple(name.decode() for name in feature[PRESENT].bytes_list.value)
            yield JudgedMask(
                encoded=image,
                filename=feature[FILENAME].bytes_list.value[0].decode(),
                present=present,
                mask=mask,
                answer=answer,
                confusion=pixel_confusion(mask, present, answer, labels, labels),
            )


def answers_of(signature: Any, images: Sequence[bytes]) -> list[bytes]:
    """The masks that a signature answers with; b"" for an image that it could not read."""
    import tensorflow as tf

    answer = signature(image_bytes=tf.constant(list(images), tf.string))
    return [
        b"" if error else bytes(mask)
        for mask, error in zip(answer["mask_bytes"].numpy(), answer["error"].numpy(), strict=True)
    ]


def gallery(judged: Sequence[JudgedMask], most: int) -> list[Judged]:
    """The worst images by mean IoU, each as a picture of image, mask and answer side by side."""
    worst = sorted(judged, key=lambda item: mean_iou(item.confusion))[:most]
    return [
        Judged(
            encoded=_side_by_side(item),
            format="PNG",
            filename=item.filename,
            actual=", ".join(item.present),
            answered="mean IoU" if item.answer else "",
            score=mean_iou(item.confusion),
        )
        for item in worst
        if mean_iou(item.confusion) < 1
    ]


def _side_by_side(item: JudgedMask) -> bytes:
    from PIL import Image, ImageOps

    parts = []
    with Image.open(io.BytesIO(item.encoded)) as image:
        parts.append(ImageOps.exif_transpose(image).convert("RGB"))
    for mask in (item.mask, item.answer):
        try:
            parts.append(Image.fromarray(_colours(read_ids(mask))))
        except VitrinaError:
            parts.append(Image.new("RGB", parts[0].size))
    sheet = Image.new("RGB", (3 * SIDE, SIDE), "white")
    for number, part in enumerate(parts):
        part.thumbnail((SIDE - 4, SIDE - 4), Image.Resampling.NEAREST)
        sheet.paste(part, (number * SIDE, 0))
    encoded = io.BytesIO()
    sheet.save(encoded, "PNG")
    return encoded.getvalue()


def _colours(ids: NDArray[np.int64]) -> NDArray[np.uint8]:
    """A colour per id, far from its neighbours' (the golden ratio's hues); what counts for nothing is white."""
    import colorsys

    hues = [colorsys.hsv_to_rgb(number * 0.618 % 1, 0.75, 0.9) for number in range(1, 255)]
    table = np.array([(0.08, 0.08, 0.08), *hues, (1.0, 1.0, 1.0)]) * 255
    shown: NDArray[np.uint8] = table.astype(np.uint8)[np.minimum(ids, 255)]
    return shown
