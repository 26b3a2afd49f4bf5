"""Masks of semantic segmentation: read, checked, and kept as gray PNGs of class ids.

A mask says for each pixel of its image (upright, after EXIF orientation) which class it is of. It may be a gray PNG of
1 to 16 bits, a palette PNG, or a colour one whose channels are equal. TensorFlow's PNG decoder turns palettes into
colours and stretches shallow greys, so what is not a gray PNG of 8 or 16 bits already is written as one, id by id; the
rest keeps its bytes. Pixels that count for nothing have an id past the last class.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from signatures.errors import VitrinaError

__all__ = ["IGNORE", "Mask", "read_ids", "read_mask", "void"]

#: The id that usual data sets give to pixels that count for nothing.
IGNORE = 255
PNG = b"\x89PNG\r\n\x1a\n"
GRAY, PALETTE = 0, 3


@dataclass(frozen=True, kw_only=True)
class Mask:
    """A mask that was found good.

    Args:
        encoded: A gray PNG of class ids, of 8 bits where the ids fit, else of 16.
        pixels: How many pixels each class has, by id.
        ignored: How many pixels count for nothing.
    """

    encoded: bytes
    pixels: tuple[int, ...]
    ignored: int


def void(classes: int) -> int:
    """The id for pixels that count for nothing, among so many classes: the highest that the PNG holds."""
    return 255 if classes <= 255 else 65535


def read_ids(encoded: bytes) -> NDArray[np.int64]:
    """The ids in a mask.

    Args:
        encoded: The file's bytes.

    Returns:
        [height, width].

    Raises:
        VitrinaError: It is no picture, or one of colours.
    """
    from PIL import Image, UnidentifiedImageError

    if not encoded:
        raise VitrinaError("the mask is empty (0 bytes)")
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            image.load()
            bands, mode = image.getbands(), image.mode
            values = np.asarray(image).astype(np.int64)
    except UnidentifiedImageError as error:
        raise VitrinaError("the mask is no image in a known format") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise VitrinaError(f"the mask cannot be read: {error}") from error
    if mode in ("LA", "PA"):
        values = values[..., 0]
    elif len(bands) in (3, 4):
        if (
            mode not in ("RGB", "RGBA")
            or np.any(values[..., 0] != values[..., 1])
            or np.any(values[..., 0] != values[..., 2])
        ):
            raise VitrinaError(
                "the mask is a picture of colours, but wants class ids: save it as a gray or palette PNG whose values "
                "are the ids"
            )
        values = values[..., 0]
    elif mode == "F":
        raise VitrinaError("the mask holds fractions, but wants whole class ids")
    return values // _stretched(encoded, mode)


def read_mask(encoded: bytes, *, size: tuple[int, int], classes: int, ignore: int = IGNORE) -> Mask:
    """Reads a mask and holds it to its image.

    Args:
        encoded: The file's bytes.
        size: Width and height of the upright image.
        classes: How many there are; ids are 0 to one less.
        ignore: The id of pixels that count for nothing.

    Returns:
        The mask.

    Raises:
        VitrinaError: It cannot be read, has another size than its image, holds an id of no class, or nothing but
            pixels that count for nothing.
    """
    ids = read_ids(encoded)
    if ids.shape[::-1] != size:
        raise VitrinaError(
            f"the mask has {ids.shape[1]}x{ids.shape[0]} pixels, but its image {size[0]}x{size[1]} (upright)"
        )
    kept = ids != ignore
    wrong = np.unique(ids[kept & ((ids >= classes) | (ids < 0))])
    if wrong.size:
        listed = ", ".join(map(str, wrong[:5])) + (f" and {wrong.size - 5} more" if wrong.size > 5 else "")
        raise VitrinaError(f"the mask holds {listed}, but the classes are 0 to {classes - 1} and {ignore} is ignored")
    if not kept.any():
        raise VitrinaError(f"the mask holds nothing but {ignore}, which is ignored")
    pixels = np.bincount(ids[kept], minlength=classes)
    return Mask(
        encoded=encoded
        if _is_plain(encoded) and ignore >= classes
        else _write(np.where(kept, ids, void(classes)), classes),
        pixels=tuple(int(count) for count in pixels),
        ignored=int(ids.size - kept.sum()),
    )


def _header(encoded: bytes) -> tuple[int, int] | None:
    """Bits and colour type of a PNG."""
    if not encoded.startswith(PNG) or len(encoded) < 26:
        return None
    bits, kind = struct.unpack(">BB", encoded[24:26])
    return bits, kind


def _is_plain(encoded: bytes) -> bool:
    return _header(encoded) in ((8, GRAY), (16, GRAY))


def _stretched(encoded: bytes, mode: str) -> int:
    """By what Pillow multiplied shallow greys to fill 8 bits."""
    header = _header(encoded)
    if mode != "L" or header is None or header[1] != GRAY or header[0] >= 8:
        return 1
    return int(255 // (2 ** header[0] - 1))


def _write(ids: NDArray[Any], classes: int) -> bytes:
    from PIL import Image

    encoded = io.BytesIO()
    Image.fromarray(ids.astype(np.uint8 if void(classes) == 255 else np.uint16)).save(encoded, "PNG")
    return encoded.getvalue()
