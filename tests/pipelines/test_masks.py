"""Masks as people have them: gray and palette PNGs of every depth, and what cannot be one."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pipelines.masks import read_ids, read_mask, void
from signatures.errors import VitrinaError

IDS = np.array([[0, 1, 2], [3, 1, 0]])


def encode(image: Image.Image, kind: str = "PNG") -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, kind)
    return encoded.getvalue()


def gray(ids: np.ndarray) -> bytes:
    return encode(Image.fromarray(ids.astype(np.uint8)))


def palette(ids: np.ndarray) -> bytes:
    image = Image.fromarray(ids.astype(np.uint8)).convert("L")
    image.putpalette([channel for id in range(256) for channel in (255 - id, 7 * id % 256, id)])
    return encode(image)


def shallow(ids: np.ndarray, bits: int) -> bytes:
    """A gray PNG of 1, 2 or 4 bits, which Pillow does not write itself."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = ids.shape
    rows = b""
    for row in ids:
        text = "".join(f"{int(id):0{bits}b}" for id in row)
        text += "0" * (-len(text) % 8)
        rows += b"\0" + int(text, 2).to_bytes(len(text) // 8, "big")
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "encoded",
    [
        gray(IDS),
        palette(IDS),
        shallow(IDS, 2),
        shallow(IDS, 4),
        encode(Image.fromarray(IDS.astype(np.uint16))),
        encode(Image.fromarray(np.repeat(IDS[..., None], 3, axis=2).astype(np.uint8))),
        encode(Image.fromarray(IDS.astype(np.uint8)).convert("LA")),
        encode(Image.fromarray(IDS.astype(np.uint8)), "TIFF"),
    ],
    ids=["gray", "palette", "2 bits", "4 bits", "16 bits", "colours", "alpha", "tiff"],
)
def test_the_ids_are_read_and_kept_in_a_png_that_tensorflow_reads(encoded: bytes) -> None:
    import tensorflow as tf

    np.testing.assert_array_equal(read_ids(encoded), IDS)
    mask = read_mask(encoded, size=(3, 2), classes=4)
    assert (mask.pixels, mask.ignored) == ((2, 2, 1, 1), 0)
    np.testing.assert_array_equal(
        tf.io.decode_png(mask.encoded, 1, tf.uint16).numpy()[..., 0] // wide(mask.encoded), IDS
    )


def wide(encoded: bytes) -> int:
    """TensorFlow widens 8 bits to 16 by repeating them."""
    return 1 if encoded[24] == 16 else 257


def test_one_bit() -> None:
    ids = np.array([[0, 1, 1], [1, 0, 0]])
    np.testing.assert_array_equal(read_ids(shallow(ids, 1)), ids)


def test_a_gray_png_keeps_its_bytes() -> None:
    assert read_mask(gray(IDS), size=(3, 2), classes=4).encoded == gray(IDS)


def test_ignored_pixels_are_counted_apart_and_lie_past_the_last_class() -> None:
    ids = np.where(IDS == 3, 255, IDS)
    mask = read_mask(gray(ids), size=(3, 2), classes=3)
    assert (mask.pixels, mask.ignored, mask.encoded) == ((2, 2, 1), 1, gray(ids))
    background = read_mask(gray(IDS), size=(3, 2), classes=4, ignore=0)
    assert (background.pixels, background.ignored) == ((0, 2, 1, 1), 2)
    np.testing.assert_array_equal(read_ids(background.encoded), np.where(IDS == 0, void(4), IDS))


def test_more_classes_than_eight_bits_hold() -> None:
    ids = np.array([[0, 299], [65535, 7]])
    mask = read_mask(encode(Image.fromarray(ids.astype(np.uint16))), size=(2, 2), classes=300, ignore=65535)
    assert mask.ignored == 1
    assert mask.pixels[299] == 1
    np.testing.assert_array_equal(read_ids(mask.encoded), ids)


@pytest.mark.parametrize(
    ("encoded", "told"),
    [
        (b"", "empty"),
        (b"no image", "no image in a known format"),
        (gray(IDS)[:50], "cannot be read"),
        (gray(IDS.T), "2x3 pixels, but its image 3x2"),
        (gray(IDS + 2), "holds 4, 5, but the classes are 0 to 3 and 255 is ignored"),
        (gray(np.full((2, 3), 255)), "nothing but 255"),
        (encode(Image.fromarray(np.arange(18, dtype=np.uint8).reshape(2, 3, 3))), "a picture of colours"),
        (encode(Image.fromarray(IDS.astype(np.float32)), "TIFF"), "holds fractions"),
    ],
)
def test_what_is_no_mask_of_its_image_is_refused(encoded: bytes, told: str) -> None:
    with pytest.raises(VitrinaError, match=told):
        read_mask(encoded, size=(3, 2), classes=4)
