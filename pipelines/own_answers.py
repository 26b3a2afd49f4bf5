"""What the trained model itself answers, written down by the trainer: a served candidate is held to it later.

The answers come from the checkpoint by training's own way to the pixels, not from the exported graph: an export that
answers otherwise is found out where it is served.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = [
    "ANSWERS_FILE",
    "LIMIT",
    "OwnAnswer",
    "classify",
    "difference",
    "mask_difference",
    "read",
    "segment",
    "write",
]

#: Below the ModelRun artifact: a JSON line per image.
ANSWERS_FILE = "own_answers.jsonl"
#: Of so many held-out images.
LIMIT = 64
#: And of so many, where answers are masks.
MASKS = 16
BATCH = 16
TOLERANCE = 1e-4
AGREEMENT = 0.995
#: The EXIF tag of how an image is turned.
ORIENTATION = 0x0112


@dataclass(frozen=True, kw_only=True)
class OwnAnswer:
    """The trained model's answer to one held-out image.

    Args:
        digest: SHA-256 of the encoded image, in hexadecimal.
        scores: Class name -> softmax, 0 to 1; of a classifier.
        mask: The ids of its pixels as a PNG in base64, at the image's size; of a segmenter.
    """

    digest: str
    scores: Mapping[str, float] = field(default_factory=dict)
    mask: str = ""


def classify(
    checkpoint: Path, labels: Sequence[str], files: Sequence[str], *, limit: int = LIMIT
) -> Iterator[OwnAnswer]:
    """Asks a trained classifier about the first held-out images, as training sees them.

    Args:
        checkpoint: The folder that training saved.
        labels: Its class names.
        files: TFRecords (gzip) of the eval split.
        limit: At most so many images.

    Yields:
        An answer per image.
    """
    import tensorflow as tf

    from pipelines import trainable
    from pipelines.data import CLASSIFICATION
    from pipelines.inputs import PIXELS, dataset

    trained = trainable.load(str(checkpoint), labels, task=CLASSIFICATION)
    digests = _digests(files, limit)
    batches = dataset(files, preprocessing=trained.preprocessing, labels=trained.labels, batch_size=BATCH)
    for features, _ in batches:
        raw = tf.cast(trained.scores(features[PIXELS], False), tf.float32)
        scores = (tf.nn.softmax(raw) if trained.logits else raw).numpy()
        for row in scores:
            digest = next(digests, None)
            if digest is None:
                return
            yield OwnAnswer(digest=digest, scores=dict(zip(trained.labels, map(float, row), strict=True)))


def segment(
    checkpoint: Path, labels: Sequence[str], files: Sequence[str], *, limit: int = MASKS
) -> Iterator[OwnAnswer]:
    """Asks a trained segmenter about the first held-out images, as training sees them.

    Its scores are brought to the image's size, as stored; an image that is turned by its EXIF data is left out.

    Args:
        checkpoint: The folder that training saved.
        labels: Its class names.
        files: TFRecords (gzip) of the eval split.
        limit: At most so many images.

    Yields:
        An answer per image.
    """
    import tensorflow as tf
    from PIL import Image

    from pipelines import trainable
    from pipelines.data import SEGMENTATION
    from pipelines.examples import DIGEST, ENCODED
    from pipelines.inputs import PIXELS
    from signatures.processor import compile_processor

    trained = trainable.load(str(checkpoint), labels, task=SEGMENTATION)
    processor = compile_processor(trained.preprocessing)
    for record in tf.data.TFRecordDataset(list(files), compression_type="GZIP").take(limit):
        feature = tf.train.Example.FromString(record.numpy()).features.feature
        encoded = feature[ENCODED].bytes_list.value[0]
        with Image.open(io.BytesIO(encoded)) as image:
            size, turned = (image.height, image.width), image.getexif().get(ORIENTATION, 1) != 1
        if turned:
            continue
        pixels = processor.training_map(tf.constant(encoded))[PIXELS]
        scores = tf.cast(trained.scores(pixels[tf.newaxis], False), tf.float32)
        ids = tf.argmax(tf.image.resize(scores, size)[0], axis=-1, output_type=tf.int32)
        mask = tf.io.encode_png(tf.cast(ids[..., tf.newaxis], tf.uint16)).numpy()
        yield OwnAnswer(digest=feature[DIGEST].bytes_list.value[0].decode(), mask=base64.b64encode(mask).decode())


def mask_difference(own: OwnAnswer, mask: bytes, *, least: float = AGREEMENT) -> str:
    """How a served mask differs from the trainer's own, in words; "" where it does not.

    Args:
        own: The trainer's.
        mask: What was served: a PNG of ids.
        least: The share of pixels that has to be the same. Where two classes are as likely, rounding decides.
    """
    import numpy as np
    from PIL import Image

    ids = [np.asarray(Image.open(io.BytesIO(each))) for each in (mask, base64.b64decode(own.mask))]
    if ids[0].shape != ids[1].shape:
        return f"its mask has the shape {ids[0].shape}, the trained model's {ids[1].shape}"
    same = float(np.mean(ids[0] == ids[1]))
    return "" if same >= least else f"{same:.4f} of its mask is as the trained model's, wanted at least {least:g}"


def write(answers: Iterator[OwnAnswer], path: Path) -> None:
    """Writes answers, a JSON line each."""
    with path.open("w", encoding="utf-8") as stream:
        for answer in answers:
            stream.write(json.dumps(vars(answer), ensure_ascii=False) + "\n")


def read(path: Path) -> dict[str, OwnAnswer]:
    """Digest -> answer; empty where there is no such file."""
    if not path.is_file():
        return {}
    found = (OwnAnswer(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines())
    return {answer.digest: answer for answer in found}


def difference(own: OwnAnswer, labels: Sequence[Any], scores: Sequence[float], *, tolerance: float = TOLERANCE) -> str:
    """How a served answer differs from the trainer's own, in words; "" where it does not.

    Args:
        own: The trainer's.
        labels: What was served, best first, as strings or bytes.
        scores: Their scores.
        tolerance: The most that a score may differ by. Labels whose own scores are as close may change places.
    """
    names = [label.decode() if isinstance(label, bytes) else str(label) for label in labels]
    for name, score in zip(names, scores, strict=True):
        if name not in own.scores:
            return f"it answers {name!r}, which the trained model does not know"
        if not abs(own.scores[name] - float(score)) <= tolerance:
            return f"{name} has {float(score):.4f}, the trained model gives it {own.scores[name]:.4f}"
    best = max(own.scores, key=lambda name: own.scores[name])
    if not names or own.scores[names[0]] < own.scores[best] - 2 * tolerance:
        return f"it answers {names[0] if names else 'nothing'!r}, the trained model {best!r}"
    return ""


def _digests(files: Sequence[str], limit: int) -> Iterator[str]:
    import tensorflow as tf

    from pipelines.examples import DIGEST

    for record in tf.data.TFRecordDataset(list(files), compression_type="GZIP").take(limit):
        feature = tf.train.Example.FromString(record.numpy()).features.feature[DIGEST]
        yield feature.bytes_list.value[0].decode()
