"""Image feature extraction."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from serving.results.base import Item, Result

__all__ = ["OUTPUTS", "Embedding", "read"]

OUTPUTS = ("embedding",)


def _none() -> NDArray[np.float32]:
    return np.zeros(0, np.float32)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Embedding(Result):
    """An image's features.

    Args:
        embedding: Float32 [d].
    """

    COLUMNS: ClassVar[tuple[str, ...]] = ("size", "norm", "begins")

    embedding: NDArray[np.float32] = field(default_factory=_none)

    def rows(self) -> list[tuple[str, ...]]:
        """Size, Euclidean norm and the first values."""
        begins = " ".join(f"{value:.4f}" for value in self.embedding[:4])
        return [(str(self.embedding.size), f"{np.linalg.norm(self.embedding):.4f}", begins)]


def read(item: Item) -> Embedding:
    """Reads one image's outputs."""
    return Embedding(embedding=item["embedding"])
