"""Test pictures drawn by formula and encoded in many ways, for warmup and verification. No TensorFlow.

They are the same on every call and every machine (up to the encoders of the installed Pillow), and hold smooth
gradients, hard edges and fine texture, so that a wrong filter, offset or rounding shows.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["draw", "encode", "many", "warmup"]

ORIENTATION_TAG = 0x0112


def draw(height: int, width: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """One picture, uint8 [height, width, 3]."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = np.sin(x / (9.0 + seed)) * np.cos(y / (13.0 + seed)) * 60
    disc = ((x - width / 2) ** 2 + (y - height / 2) ** 2 < (min(height, width) / 3) ** 2) * 70
    noise = np.random.default_rng(seed).integers(-20, 20, (height, width))
    picture = np.stack([x / width * 255, y / height * 255 + noise, 128 + waves], axis=-1) + disc[..., None]
    clipped: NDArray[np.uint8] = np.clip(picture, 0, 255).astype(np.uint8)
    return clipped


def encode(image: Any, kind: str, **options: Any) -> bytes:
    """A PIL image as a file of the given kind (`JPEG`, `PNG`...), with options of its `save`."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def warmup(count: int) -> list[bytes]:
    """Pictures of a few hundred pixels a side, alternately JPEG and PNG."""
    from PIL import Image

    encoded = []
    for index in range(count):
        image = Image.fromarray(draw(240 + 16 * (index % 5), 320 - 24 * (index % 4), seed=index))
        encoded.append(encode(image, "PNG") if index % 2 else encode(image, "JPEG", quality=90))
    return encoded


def many() -> dict[str, bytes]:
    """Pictures in every format, mode, orientation and size that a servable promises to read as Pillow does, by name."""
    from PIL import Image

    def image(height: int, width: int) -> Any:
        return Image.fromarray(draw(height, width, seed=height % 7))

    photo = image(427, 640)
    small = image(251, 333)
    gray16 = Image.fromarray(draw(120, 90)[..., 0].astype(np.uint16) * 251)
    alpha = small.copy()
    alpha.putalpha(Image.fromarray(draw(251, 333, seed=3)[..., 1]))
    palette = small.quantize(64)
    clear = small.quantize(16)
    makers: dict[str, Callable[[], bytes]] = {
        "jpeg 640x427": lambda: encode(photo, "JPEG", quality=92),
        "jpeg quality 30": lambda: encode(photo, "JPEG", quality=30),
        "jpeg 4:4:4 progressive": lambda: encode(small, "JPEG", subsampling=0, progressive=True),
        "jpeg gray": lambda: encode(small.convert("L"), "JPEG"),
        "jpeg cmyk": lambda: encode(small.convert("CMYK"), "JPEG"),
        "png 333x251": lambda: encode(small, "PNG"),
        "png gray": lambda: encode(small.convert("L"), "PNG"),
        "png gray 16-bit": lambda: encode(gray16, "PNG"),
        "png 1-bit": lambda: encode(small.convert("1"), "PNG"),
        "png palette": lambda: encode(palette, "PNG"),
        "png palette transparent": lambda: encode(clear, "PNG", transparency=3),
        "png rgba": lambda: encode(alpha, "PNG"),
        "png gray alpha": lambda: encode(alpha.convert("LA"), "PNG"),
        "bmp": lambda: encode(small, "BMP"),
        "gif": lambda: encode(palette, "GIF"),
        "png 1x1": lambda: encode(image(1, 1), "PNG"),
        "png 1x500": lambda: encode(image(500, 1), "PNG"),
        "png 500x1": lambda: encode(image(1, 500), "PNG"),
        "jpeg 3000x40": lambda: encode(image(40, 3000), "JPEG"),
        "jpeg 40x1500": lambda: encode(image(1500, 40), "JPEG"),
        "jpeg 31x33": lambda: encode(image(33, 31), "JPEG"),
    }
    pictures = {name: make() for name, make in makers.items()}
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[ORIENTATION_TAG] = orientation
        pictures[f"jpeg exif {orientation}"] = encode(image(120, 200), "JPEG", exif=exif)
    return pictures
