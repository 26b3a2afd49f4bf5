"""A list of items over Beam's workers, in the same order every run."""

from __future__ import annotations

import zlib
from typing import Any

from pipelines.data import Item

__all__ = ["read_items"]

KEYS = 256


def read_items(pipeline: Any, *, items: tuple[Item, ...]) -> Any:
    """Items as a PCollection.

    They are keyed by name, not at random as `beam.Reshuffle` does it: spread over workers, yet in the same order
    every run on one machine, so that a seed fixes the training too.
    """
    import apache_beam as beam

    return (
        pipeline
        | "Items" >> beam.Create([(zlib.crc32(item.filename.encode()) % KEYS, item) for item in items])
        | "Spread" >> beam.GroupByKey()
        | "Items in key" >> beam.FlatMap(_values)
    )


def _values(pair: tuple[int, list[Item]]) -> list[Item]:
    return list(pair[1])
