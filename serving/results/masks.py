"""Mask generation from points."""

from __future__ import annotations

import dataclasses
import io
from dataclasses import dataclass
from typing import Any, ClassVar

from serving.results.base import Item, Result, enlarged, floats

__all__ = ["OUTPUTS", "Masks", "read"]

OUTPUTS = ("mask_bytes", "scores")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Masks(Result):
    """Masks of what is at the points.

    Args:
        mask_bytes: PNGs, as large as the image as it was given.
        scores: One per mask.
    """

    COLUMNS: ClassVar[tuple[str, ...]] = ("mask", "score")

    mask_bytes: tuple[bytes, ...] = ()
    scores: tuple[float, ...] = ()

    @property
    def masks(self) -> tuple[Any, ...]:
        """The masks as Pillow images."""
        from PIL import Image

        return tuple(Image.open(io.BytesIO(data)) for data in self.mask_bytes)

    def rows(self) -> list[tuple[str, ...]]:
        """One line per mask."""
        return [(str(index), f"{score:.4f}") for index, score in enumerate(self.scores)]

    def scaled(self, x: float, y: float) -> Masks:
        """The masks as large as the image before it was shrunk."""
        return dataclasses.replace(self, mask_bytes=tuple(enlarged(png, x, y) for png in self.mask_bytes))


def read(item: Item) -> Masks:
    """Reads one image's outputs."""
    return Masks(mask_bytes=tuple(item["mask_bytes"].reshape(-1).tolist()), scores=floats(item["scores"]))
