"""The `classify` signature, which names its labels `classes` as TF Serving's Classify API wants."""

from __future__ import annotations

from serving.results.base import Item, floats, texts
from serving.results.classification import Classification

__all__ = ["OUTPUTS", "read"]

OUTPUTS = ("classes", "scores")


def read(item: Item) -> Classification:
    """Reads one image's outputs."""
    return Classification(labels=texts(item["classes"]), scores=floats(item["scores"]))
