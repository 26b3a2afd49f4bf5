"""Depth estimation."""

from __future__ import annotations

import dataclasses
import io
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from serving.results.base import Item, Result, enlarged

__all__ = ["OUTPUTS", "Depth", "read"]

OUTPUTS = ("depth_bytes", "depth_scale", "depth_offset")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Depth(Result):
    """Depth per pixel: `png * scale + offset`.

    Args:
        depth_bytes: 16-bit PNG, as large as the image as it was given.
        scale: Depth per step of the PNG.
        offset: Depth at 0.
    """

    COLUMNS: ClassVar[tuple[str, ...]] = ("nearest and farthest", "size")

    depth_bytes: bytes = b""
    scale: float = 0.0
    offset: float = 0.0

    @property
    def image(self) -> Any:
        """The PNG as a Pillow image."""
        from PIL import Image

        return Image.open(io.BytesIO(self.depth_bytes))

    @property
    def depth(self) -> NDArray[np.float32]:
        """Float32 [h, w] in the model's unit."""
        steps = np.asarray(self.image, dtype=np.float32)
        return steps * np.float32(self.scale) + np.float32(self.offset)

    def rows(self) -> list[tuple[str, ...]]:
        """The range of the depths."""
        depth = self.depth
        return [(f"{depth.min():.4g} to {depth.max():.4g}", f"{depth.shape[1]}x{depth.shape[0]}")]

    def scaled(self, x: float, y: float) -> Depth:
        """The depths as large as the image before it was shrunk, interpolated."""
        return dataclasses.replace(self, depth_bytes=enlarged(self.depth_bytes, x, y, smooth=True))


def read(item: Item) -> Depth:
    """Reads one image's outputs."""
    return Depth(
        depth_bytes=item["depth_bytes"].item(),
        scale=float(item["depth_scale"]),
        offset=float(item["depth_offset"]),
    )
