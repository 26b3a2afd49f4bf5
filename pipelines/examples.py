"""The tf.Example that every pipeline step shares: an image as its encoded bytes, with its label and measures.

Pixels never enter an Example: the bytes that a client would send are what is stored, trained on (through the
serving preprocessing) and evaluated (through the serving signature). The measures (`image/width` ...) are there for
statistics and validation only. For segmentation the label is a mask, a gray PNG of class ids (see `pipelines.masks`).
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.data import CLASSIFICATION, SEGMENTATION
from pipelines.masks import Mask
from signatures.errors import VitrinaError

__all__ = [
    "BOTH_SIDES",
    "COPIES",
    "DIGEST",
    "ENCODED",
    "FILENAME",
    "FORMAT",
    "LABEL",
    "LABELS_FILE",
    "MASK",
    "PRESENT",
    "TEXT",
    "Measures",
    "encoded_images",
    "features_of",
    "measure",
    "measured",
    "to_example",
]

ENCODED = "image/encoded"
LABEL = "image/class/label"
TEXT = "image/class/text"
FILENAME = "image/filename"
DIGEST = "image/digest"
FORMAT = "image/format"
MASK = "image/segmentation/class/encoded"
MASK_FORMAT = "image/segmentation/class/format"
#: Names of the classes that a mask holds.
PRESENT = "image/segmentation/text"
#: How many files of the data show the very same pixels.
COPIES = "image/copies"
#: 1 where one of them is on the other side of the split.
BOTH_SIDES = "image/on_both_sides"

#: What can be said of an image without its label; a request to a server has all of it, too.
IMAGE_MEASURES = (
    FORMAT,
    "image/width",
    "image/height",
    "image/channels",
    "image/brightness",
    "image/contrast",
    "image/aspect",
    "image/size",
)
LABEL_MEASURES = {
    CLASSIFICATION: (LABEL, TEXT),
    SEGMENTATION: (PRESENT, "image/segmentation/ignored", "image/segmentation/largest"),
}

#: The EXIF tag that says how a picture is turned.
ORIENTATION = 0x0112

#: Beside the splits of an Examples artifact: the class names in the order of their ids.
LABELS_FILE = "labels.json"


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What can be said of an image without its label.

    Args:
        format: The file's own format as Pillow names it: `JPEG`, `PNG`, ...
        width: In pixels, as stored (before any EXIF orientation).
        height: In pixels.
        channels: Bands of the stored image: 1 gray or palette, 3 RGB, 4 RGBA or CMYK.
        brightness: Mean luma over the image, 0 to 1.
        contrast: Standard deviation of luma, 0 to 1.
        upright: Width and height after EXIF orientation, in pixels.
        pixels: A hash of the pixels, the same for copies that were packed otherwise.
    """

    format: str
    width: int
    height: int
    channels: int
    brightness: float
    contrast: float
    upright: tuple[int, int]
    pixels: str


def measured(task: str) -> tuple[str, ...]:
    """What statistics and schema look at: everything but the bytes and what is unique per image by nature."""
    return (*LABEL_MEASURES[task], *IMAGE_MEASURES, COPIES, BOTH_SIDES)


def measure(encoded: bytes) -> Measures:
    """Decodes an image whole and measures it.

    Args:
        encoded: A file's bytes.

    Returns:
        Its measures.

    Raises:
        VitrinaError: The bytes are no image that Pillow reads to its end.
    """
    from PIL import Image, ImageStat, UnidentifiedImageError

    if not encoded:
        raise VitrinaError("the file is empty")
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            image.load()
            luma = ImageStat.Stat(image.convert("L"))
            turned = _orientation(image) in range(5, 9)
            # A palette's order says nothing of what is seen.
            plain = image.convert("RGBA") if image.mode in ("P", "PA") else image
            return Measures(
                format=image.format or "",
                width=image.width,
                height=image.height,
                channels=len(image.getbands()),
                brightness=luma.mean[0] / 255,
                contrast=luma.stddev[0] / 255,
                upright=(image.height, image.width) if turned else (image.width, image.height),
                pixels=hashlib.sha256(f"{plain.mode}{plain.size}".encode() + plain.tobytes()).hexdigest(),
            )
    except UnidentifiedImageError as error:
        raise VitrinaError("the bytes are no image in a known format") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise VitrinaError(f"the image cannot be read: {error}") from error


def to_example(
    encoded: bytes,
    *,
    filename: str,
    label: int | None = None,
    text: str = "",
    mask: Mask | None = None,
    labels: Sequence[str] = (),
    found: Measures | None = None,
) -> Any:
    """One image as a tf.Example.

    Args:
        encoded: The file's bytes, kept as they are.
        filename: Where it came from, relative to the data.
        label: The class id, for classification.
        text: The class name, for classification.
        mask: Its mask, for segmentation.
        labels: The class names in id order, for segmentation.
        found: Its measures, where they are known.

    Returns:
        A `tf.train.Example` with the features named in this module.

    Raises:
        VitrinaError: The bytes are no readable image.
    """
    import tensorflow as tf

    values: dict[str, list[Any]] = {
        ENCODED: [encoded],
        FILENAME: [filename.encode()],
        DIGEST: [hashlib.sha256(encoded).hexdigest().encode()],
        **features_of(encoded, measure(encoded) if found is None else found),
    }
    if label is not None:
        values |= {LABEL: [label], TEXT: [text.encode()]}
    if mask is not None:
        counted = sum(mask.pixels)
        values |= {
            MASK: [mask.encoded],
            MASK_FORMAT: [b"png"],
            PRESENT: [labels[number].encode() for number, count in enumerate(mask.pixels) if count],
            "image/segmentation/ignored": [mask.ignored / (counted + mask.ignored)],
            "image/segmentation/largest": [max(mask.pixels) / counted],
        }
    return tf.train.Example(features=tf.train.Features(feature={name: _feature(v) for name, v in values.items()}))


def _orientation(image: Any) -> int:
    """1 to 8 as EXIF counts; 1 where it says nothing, or nothing that can be read."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except (OSError, SyntaxError, ValueError, TypeError, struct.error):
        return 1


def features_of(encoded: bytes, found: Measures) -> dict[str, list[Any]]:
    """The measures of an image as an Example has them, by feature name."""
    return {
        FORMAT: [found.format.encode()],
        "image/width": [found.width],
        "image/height": [found.height],
        "image/channels": [found.channels],
        "image/brightness": [found.brightness],
        "image/contrast": [found.contrast],
        "image/aspect": [found.width / found.height],
        "image/size": [len(encoded)],
    }


def _feature(values: list[Any]) -> Any:
    import tensorflow as tf

    if isinstance(values[0], bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
    if isinstance(values[0], float):
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def encoded_images(folder: Path, *, limit: int) -> list[bytes]:
    """The first images of a split, as they were sent in.

    Args:
        folder: The split's folder of TFRecords (gzip).
        limit: At most so many.

    Returns:
        Encoded images.
    """
    import tensorflow as tf

    files = sorted(str(path) for path in folder.iterdir())
    records = tf.data.TFRecordDataset(files, compression_type="GZIP").take(limit)
    return [
        tf.train.Example.FromString(record.numpy()).features.feature[ENCODED].bytes_list.value[0] for record in records
    ]
