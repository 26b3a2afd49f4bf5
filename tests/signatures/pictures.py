"""Pictures and encoded files for tests, made here so that nothing is downloaded."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from PIL import Image


@cache
def photo(height: int = 427, width: int = 640) -> Image.Image:
    """A photograph (scikit-learn's `china.jpg`) at a size."""
    from sklearn.datasets import load_sample_image

    return Image.fromarray(load_sample_image("china.jpg")).resize((width, height), Image.Resampling.LANCZOS)


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    """Random pixels: the hardest case for every rounding."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    """An encoded file as Pillow writes it."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def with_orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def claims(height: int, width: int) -> bytes:
    """A PNG of a few bytes whose header claims a size."""
    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + size + b"\x08\x02\x00\x00\x00" + bytes(40)
