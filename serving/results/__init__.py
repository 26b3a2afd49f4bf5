"""Typed answers. A file here reads the outputs of one kind of task: `OUTPUTS`, their names, and `read(item)`.

A new kind of answer is one new file; outputs that none of them reads come back as a plain `Result`.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.results.base import Item, Result, decoded, plain

__all__ = ["Result", "kinds", "plain", "read"]


@functools.cache
def kinds() -> dict[frozenset[str], Callable[[Item], Result]]:
    """Output names -> the function that reads one item, for every file here."""
    found: dict[frozenset[str], Callable[[Item], Result]] = {}
    for info in pkgutil.iter_modules(__path__):
        if info.name != "base":
            module = importlib.import_module(f"{__name__}.{info.name}")
            found[frozenset(module.OUTPUTS)] = module.read
    return found


def read(
    outputs: Mapping[str, NDArray[Any]], count: int, scales: Sequence[tuple[float, float]] | None = None
) -> list[Result]:
    """The answers of a batch.

    Args:
        outputs: As a transport returns them, batch axis first.
        count: How many images were asked.
        scales: For each image, the width and height that it had over those that were sent; None where nothing shrank.
    """
    names = frozenset(outputs) - {"error"}
    reader = kinds().get(names, _read_any)
    errors = outputs.get("error", np.full(count, b"", dtype=object)).reshape(-1)
    answers = []
    for index in range(count):
        item = {name: _item(outputs[name], index, count) for name in sorted(names)}
        error = decoded(errors[index]) if index < len(errors) else ""
        answer = _failed(reader, item, error) if error else reader(item)
        answers.append(answer if scales is None else answer.scaled(*scales[index]))
    return answers


def _item(values: NDArray[Any], index: int, count: int) -> NDArray[Any]:
    batched = values.ndim > 0 and values.shape[0] == count
    return np.asarray(values[index : index + 1]).reshape(values.shape[1:]) if batched else values


def _read_any(item: Item) -> Result:
    return Result(outputs={name: values[()] if values.ndim == 0 else values for name, values in item.items()})


def _failed(reader: Callable[[Item], Result], item: Item, error: str) -> Result:
    """An empty answer of the same type, so that callers find the same fields."""
    kind = Result if reader is _read_any else type(reader(item))
    return kind(error=error)
