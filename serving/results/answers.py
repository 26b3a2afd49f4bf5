"""Visual and document question answering."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from serving.results.base import Item, Result, floats, texts

__all__ = ["OUTPUTS", "Answers", "read"]

OUTPUTS = ("answers", "scores")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Answers(Result):
    """The best answers to a question.

    Args:
        answers: Best first.
        scores: One per answer.
    """

    COLUMNS: ClassVar[tuple[str, ...]] = ("answer", "score")

    answers: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()

    def rows(self) -> list[tuple[str, ...]]:
        """One line per answer."""
        return [(answer, f"{score:.4f}") for answer, score in zip(self.answers, self.scores, strict=True)]


def read(item: Item) -> Answers:
    """Reads one image's outputs."""
    return Answers(answers=texts(item["answers"]), scores=floats(item["scores"]))
