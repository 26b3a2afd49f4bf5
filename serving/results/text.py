"""Text of an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from serving.results.base import Item, Result, decoded

__all__ = ["OUTPUTS", "Text", "read"]

OUTPUTS = ("text",)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Text(Result):
    """What the model writes about an image."""

    COLUMNS: ClassVar[tuple[str, ...]] = ("text",)

    text: str = ""

    def rows(self) -> list[tuple[str, ...]]:
        """The text."""
        return [(self.text,)]


def read(item: Item) -> Text:
    """Reads one image's outputs."""
    return Text(text=decoded(item["text"].item()))
