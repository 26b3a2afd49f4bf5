"""A mask of segment ids: semantic, instance and panoptic segmentation."""

from __future__ import annotations

import dataclasses
import io
from dataclasses import dataclass
from typing import Any, ClassVar

from serving.results.base import Item, Result, enlarged, floats, texts

__all__ = ["OUTPUTS", "Segment", "Segmentation", "read"]

OUTPUTS = ("mask_bytes", "segment_ids", "segment_labels", "segment_scores", "segment_areas")


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One segment.

    Args:
        id: Its value in the mask.
        label: Its class.
        score: In [0, 1].
        area: The fraction of the image that it covers.
    """

    id: int
    label: str
    score: float
    area: float


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Segmentation(Result):
    """A mask and what its ids mean; the padding of a batch is taken away.

    Args:
        mask_bytes: PNG of segment ids, 8 or 16 bit, as large as the image as it was given.
        segments: What the ids mean.
    """

    COLUMNS: ClassVar[tuple[str, ...]] = ("id", "label", "score", "area")

    mask_bytes: bytes = b""
    segments: tuple[Segment, ...] = ()

    @property
    def mask(self) -> Any:
        """The mask as a Pillow image, mode `L` or `I;16`."""
        from PIL import Image

        return Image.open(io.BytesIO(self.mask_bytes))

    def rows(self) -> list[tuple[str, ...]]:
        """One line per segment."""
        return [(str(s.id), s.label, f"{s.score:.4f}", f"{100 * s.area:.1f} %") for s in self.segments]

    def scaled(self, x: float, y: float) -> Segmentation:
        """The mask as large as the image before it was shrunk."""
        return dataclasses.replace(self, mask_bytes=enlarged(self.mask_bytes, x, y))


def read(item: Item) -> Segmentation:
    """Reads one image's outputs."""
    columns = zip(
        item["segment_ids"].reshape(-1).tolist(),
        texts(item["segment_labels"]),
        floats(item["segment_scores"]),
        floats(item["segment_areas"]),
        strict=True,
    )
    segments = tuple(Segment(id=id_, label=label, score=score, area=area) for id_, label, score, area in columns)
    return Segmentation(mask_bytes=item["mask_bytes"].item(), segments=tuple(s for s in segments if s.id >= 0))
