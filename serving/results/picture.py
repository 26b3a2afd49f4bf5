"""A new image: image to image and text to image."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, ClassVar

from serving.results.base import Item, Result

__all__ = ["OUTPUTS", "Picture", "read"]

OUTPUTS = ("image_bytes",)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Picture(Result):
    """The image that the model made.

    Args:
        image_bytes: PNG.
    """

    COLUMNS: ClassVar[tuple[str, ...]] = ("size",)

    image_bytes: bytes = b""

    @property
    def image(self) -> Any:
        """As a Pillow image."""
        from PIL import Image

        return Image.open(io.BytesIO(self.image_bytes))

    def rows(self) -> list[tuple[str, ...]]:
        """The size in pixels."""
        width, height = self.image.size
        return [(f"{width}x{height}",)]


def read(item: Item) -> Picture:
    """Reads one image's outputs."""
    return Picture(image_bytes=item["image_bytes"].item())
