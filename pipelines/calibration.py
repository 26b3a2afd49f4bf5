"""How far scores are from the truth: bins of answers by score, and their error. Plain Python."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["BINS", "Bin", "bin_of", "bins", "calibration_error"]

BINS = 10


@dataclass(frozen=True, kw_only=True)
class Bin:
    """The answers whose score is in one tenth.

    Args:
        images: How many.
        score: Their mean score.
        accuracy: The share of them that is right.
    """

    images: int
    score: float
    accuracy: float


def bins(answers: Iterable[tuple[float, bool]]) -> list[Bin]:
    """How often answers of a score are right: the bins of ten that hold any, by rising score.

    Args:
        answers: For each image the best score, 0 to 1, and whether that answer is right.
    """
    held: dict[int, list[tuple[float, bool]]] = {}
    for score, right in answers:
        held.setdefault(bin_of(score), []).append((score, right))
    return [
        Bin(
            images=len(items),
            score=sum(score for score, _ in items) / len(items),
            accuracy=sum(right for _, right in items) / len(items),
        )
        for _, items in sorted(held.items())
    ]


def calibration_error(found: Sequence[Bin]) -> float:
    """The expected calibration error, 0 to 1: the mean distance of score and accuracy, weighed by images.

    Source: Guo et al., On Calibration of Modern Neural Networks, 2017, equation 3.
    """
    images = sum(each.images for each in found)
    return sum(each.images * abs(each.score - each.accuracy) for each in found) / images if images else 0.0


def bin_of(score: float) -> int:
    """Which tenth a score of 0 to 1 is in."""
    return min(max(int(score * BINS), 0), BINS - 1)
