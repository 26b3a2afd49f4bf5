"""Boxes with labels: object and zero-shot object detection."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from serving.results.base import Item, Result, floats, texts

__all__ = ["OUTPUTS", "Box", "Detection", "read"]

OUTPUTS = ("boxes", "labels", "scores", "num_detections")


@dataclass(frozen=True, kw_only=True)
class Box:
    """A box in pixels of the image as it was given, upright."""

    xmin: float
    ymin: float
    xmax: float
    ymax: float


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Detection(Result):
    """What was found in an image, best first; the padding of a batch is taken away.

    Args:
        boxes: One per finding.
        labels: One per finding.
        scores: One per finding, in [0, 1].
    """

    COLUMNS: ClassVar[tuple[str, ...]] = ("label", "score", "xmin", "ymin", "xmax", "ymax")

    boxes: tuple[Box, ...] = ()
    labels: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()

    def rows(self) -> list[tuple[str, ...]]:
        """One line per finding."""
        return [
            (label, f"{score:.4f}", *(f"{edge:.1f}" for edge in dataclasses.astuple(box)))
            for label, score, box in zip(self.labels, self.scores, self.boxes, strict=True)
        ]

    def scaled(self, x: float, y: float) -> Detection:
        """The boxes in pixels of the image before it was shrunk."""
        boxes = tuple(Box(xmin=b.xmin * x, ymin=b.ymin * y, xmax=b.xmax * x, ymax=b.ymax * y) for b in self.boxes)
        return dataclasses.replace(self, boxes=boxes)


def read(item: Item) -> Detection:
    """Reads one image's outputs."""
    count = int(item["num_detections"])
    edges = [floats(box) for box in item["boxes"][:count]]
    return Detection(
        boxes=tuple(Box(xmin=xmin, ymin=ymin, xmax=xmax, ymax=ymax) for xmin, ymin, xmax, ymax in edges),
        labels=texts(item["labels"])[:count],
        scores=floats(item["scores"])[:count],
    )
