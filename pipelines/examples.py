"""The tf.Example that every pipeline step shares: an image as its encoded bytes, with its label and measures.

Pixels never enter an Example: the bytes that a client would send are what is stored, trained on (through the
serving preprocessing) and evaluated (through the serving signature). The measures (`image/width` ...) are there for
statistics and validation only.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from signatures.errors import VitrinaError

__all__ = ["ENCODED", "FILENAME", "LABEL", "LABELS_FILE", "MEASURES", "TEXT", "Measures", "measure", "to_example"]

ENCODED = "image/encoded"
LABEL = "image/class/label"
TEXT = "image/class/text"
FILENAME = "image/filename"
DIGEST = "image/digest"
FORMAT = "image/format"

#: What statistics and schema look at: everything but the bytes and what is unique per image by nature.
MEASURES = (
    LABEL,
    TEXT,
    FORMAT,
    "image/width",
    "image/height",
    "image/channels",
    "image/brightness",
    "image/contrast",
    "image/aspect",
    "image/size",
)

#: Beside the splits of an Examples artifact: the class names in the order of `image/class/label`.
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
    """

    format: str
    width: int
    height: int
    channels: int
    brightness: float
    contrast: float


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
            return Measures(
                format=image.format or "",
                width=image.width,
                height=image.height,
                channels=len(image.getbands()),
                brightness=luma.mean[0] / 255,
                contrast=luma.stddev[0] / 255,
            )
    except UnidentifiedImageError as error:
        raise VitrinaError("the bytes are no image in a known format") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise VitrinaError(f"the image cannot be read: {error}") from error


def to_example(encoded: bytes, *, label: int, text: str, filename: str) -> Any:
    """One image as a tf.Example.

    Args:
        encoded: The file's bytes, kept as they are.
        label: The class id.
        text: The class name.
        filename: Where it came from, relative to the data.

    Returns:
        A `tf.train.Example` with the features named in this module.

    Raises:
        VitrinaError: The bytes are no readable image.
    """
    import tensorflow as tf

    found = measure(encoded)

    def strings(value: bytes) -> Any:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    def integers(value: int) -> Any:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    def floats(value: float) -> Any:
        return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))

    features = {
        ENCODED: strings(encoded),
        LABEL: integers(label),
        TEXT: strings(text.encode()),
        FILENAME: strings(filename.encode()),
        DIGEST: strings(hashlib.sha256(encoded).hexdigest().encode()),
        FORMAT: strings(found.format.encode()),
        "image/width": integers(found.width),
        "image/height": integers(found.height),
        "image/channels": integers(found.channels),
        "image/brightness": floats(found.brightness),
        "image/contrast": floats(found.contrast),
        "image/aspect": floats(found.width / found.height),
        "image/size": integers(len(encoded)),
    }
    return tf.train.Example(features=tf.train.Features(feature=features))


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
