"""Images as a client has them, files, bytes, Pillow images and arrays, made into what a signature takes."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray

from signatures.errors import UsageError, VitrinaError

__all__ = ["Image", "encode", "is_batch", "pixels", "readable", "shrink"]

_ORIENTATION = 0x0112  # the EXIF tag; values from 5 on swap width and height

Image: TypeAlias = Union[str, "os.PathLike[str]", bytes, NDArray[np.uint8], Any]
"""A path, encoded bytes, a `PIL.Image.Image`, or a uint8 array [h, w, 3], [h, w, 4] or [h, w]."""


def is_batch(images: Any) -> bool:
    """Whether these are several images: any list or tuple, or a uint8 array [b, h, w, c]."""
    if hasattr(images, "__array__") and not _is_pillow(images):
        return np.ndim(images) == 4
    return isinstance(images, Sequence) and not isinstance(images, str | bytes | bytearray | memoryview)


def encode(image: Image) -> bytes:
    """Encoded image bytes. Files and bytes pass unchanged; Pillow images and arrays become PNG, which loses nothing.

    Args:
        image: One image.

    Returns:
        What `image_bytes` takes. Whether a file or bytes are an image at all is for the server to say, per item.

    Raises:
        UsageError: There is no such file, or the object is no image.
        VitrinaError: The file cannot be read.
    """
    if isinstance(image, str | os.PathLike):
        return _read(Path(image))
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    return _png(readable(image))


def readable(image: Image) -> Any:
    """What a file holds, bytes as they are, and all else as a Pillow image whose pixels are there.

    Args:
        image: One image.

    Raises:
        UsageError: There is no such file, the object is no image, or its pixels cannot be read.
        VitrinaError: The file cannot be read.
    """
    if isinstance(image, str | os.PathLike):
        return _read(Path(image))
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    opened = _pillow(image)
    try:
        opened.load()
    except (OSError, ValueError, SyntaxError) as error:
        raise UsageError(f"A Pillow image cannot be read ({error}). Open its file again.") from error
    return opened


def pixels(image: Image) -> NDArray[np.uint8]:
    """RGB pixels, uint8 [h, w, 3], upright by the EXIF orientation: what the `pixels` signature takes.

    Args:
        image: One image.

    Raises:
        UsageError: It is no image that Pillow reads.
    """
    from PIL import Image as Pillow
    from PIL import ImageOps

    try:
        with _opened(image) as opened:
            upright = ImageOps.exif_transpose(opened)
            return np.asarray(upright.convert("RGB"), dtype=np.uint8)
    except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError) as error:
        raise UsageError(f"An image cannot be read ({error}). The `pixels` signature wants it decoded here.") from error


def shrink(image: Image, max_side: int) -> tuple[bytes, tuple[float, float]]:
    """The image with its longer side at most `max_side` pixels, turned upright; unchanged where it is small enough.

    JPEGs stay JPEGs (quality 95), all else becomes PNG. Bytes that Pillow cannot read pass unchanged, so that the
    server says what is wrong with them.

    Args:
        image: One image.
        max_side: Pixels.

    Returns:
        The bytes, and how many times wider and higher the upright image was before.

    Raises:
        UsageError: There is no such file, the object is no image, or `max_side` is none.
    """
    from PIL import Image as Pillow
    from PIL import ImageOps

    if max_side < 1:
        raise UsageError(f"Got max_side {max_side}, wanted at least 1 pixel.")
    if isinstance(image, str | os.PathLike):
        image = encode(image)
    try:
        with _opened(image) as opened:
            if max(opened.size) <= max_side:
                return encode(image), (1.0, 1.0)
            # A caller's own Pillow image is not to change, as `draft` would change it.
            jpeg = opened.format == "JPEG" and opened is not image
            turned = opened.getexif().get(_ORIENTATION, 1) >= 5
            width, height = opened.size[::-1] if turned else opened.size
            if jpeg:  # decodes at an eighth, a quarter or half the size where that is still large enough
                opened.draft(None, (2 * max_side, 2 * max_side))
            upright = ImageOps.exif_transpose(opened)
    except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError):
        return encode(image), (1.0, 1.0)
    if upright.mode in ("P", "1"):
        upright = upright.convert("RGBA" if "transparency" in upright.info else "RGB")
    factor = max(width, height) / max_side
    size = (max(1, round(width / factor)), max(1, round(height / factor)))
    upright = upright.resize(size, Pillow.Resampling.LANCZOS)
    scale = (width / size[0], height / size[1])
    if not jpeg:
        return _png(upright), scale
    packed = io.BytesIO()
    upright.save(packed, "JPEG", quality=95)
    return packed.getvalue(), scale


def _opened(image: Image) -> AbstractContextManager[Any]:
    """A Pillow image; what was opened here is closed at the end, what the caller opened is left open."""
    from PIL import Image as Pillow

    if isinstance(image, str | os.PathLike):
        image = _read(Path(image))
    if isinstance(image, bytes | bytearray | memoryview):
        return Pillow.open(io.BytesIO(image))
    return nullcontext(_pillow(image))


def _is_pillow(image: Any) -> bool:
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(image, module.Image)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise UsageError(f"There is no file {path}. Give the path of an image.") from error
        if error.errno == errno.EISDIR:
            raise UsageError(f"{path} is a folder. Give the path of an image.") from error
        raise VitrinaError(f"{path} cannot be read ({error.strerror}). Check its permissions.") from error


def _pillow(image: Any) -> Any:
    from PIL import Image as Pillow

    if isinstance(image, Pillow.Image):
        return image
    if not hasattr(image, "__array__"):
        advice = (
            " Several images go in a list, or one by one through Client.stream." if isinstance(image, Iterable) else ""
        )
        raise UsageError(
            f"Got a {type(image).__name__}, wanted an image: a path, encoded bytes, a Pillow image or a uint8 array."
            + advice
        )
    image = np.asarray(image)
    squeezed = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
    if (
        image.dtype != np.uint8
        or not image.size
        or not (squeezed.ndim == 2 or (squeezed.ndim == 3 and squeezed.shape[-1] in (3, 4)))
    ):
        raise UsageError(
            f"Got an array of {image.dtype} with shape {list(image.shape)}, wanted uint8 [h, w, 3] (RGB) or [h, w]. "
            "Scale floats back to 0..255, or send preprocessed values to the `model` signature with Client.call."
        )
    return Pillow.fromarray(np.ascontiguousarray(squeezed))


def _png(image: Any) -> bytes:
    from PIL import ImageOps

    # A Pillow image opened from a photo still carries its EXIF orientation beside the unturned pixels; PNG keeps the
    # EXIF only on request, so the pixels are turned here, as a server would have turned them.
    upright = ImageOps.exif_transpose(image)
    if upright.mode in ("CMYK", "YCbCr", "HSV", "LAB", "F", "RGBX", "RGBa", "La"):  # PNG has no such modes
        upright = upright.convert("RGB")
    packed = io.BytesIO()
    upright.save(packed, "PNG", compress_level=1)
    return packed.getvalue()
