"""Labels with scores: image, zero-shot and video classification."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from serving.results.base import Item, Result, floats, texts

__all__ = ["OUTPUTS", "Classification", "read"]

OUTPUTS = ("labels", "scores")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Classification(Result):
    """The best labels of an image.

    Args:
        labels: Best first.
        scores: One per label, in [0, 1].
    """

    COLUMNS: ClassVar[tuple[str, ...]] = ("label", "score")

    labels: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()

    @property
    def label(self) -> str:
        """The best label; "" where there was an error."""
        return self.labels[0] if self.labels else ""

    def rows(self) -> list[tuple[str, ...]]:
        """One line per label."""
        return [(label, f"{score:.4f}") for label, score in zip(self.labels, self.scores, strict=True)]


def read(item: Item) -> Classification:
    """Reads one image's outputs."""
    return Classification(labels=texts(item["labels"]), scores=floats(item["scores"]))
