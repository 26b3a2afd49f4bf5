"""What is done after each epoch, for either generation of Keras: told, kept for a restart, and stopped early."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Best", "Progress", "history_so_far", "keep_history"]

HISTORY = "history.json"
BEST = "best.npz"
Report = Callable[[str], None]


class Progress:
    """A line per epoch.

    Args:
        epochs: How many there are.
        report: Called with the line.
        head: Whether the head alone is trained.
    """

    def __init__(self, epochs: int, report: Report, *, head: bool) -> None:
        self._epochs = epochs
        self._report = report
        self._which = " of the head alone" if head else ""

    def __call__(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Tells of one."""
        shown = ", ".join(f"{name} {value:.4f}" for name, value in (logs or {}).items())
        self._report(f"epoch {epoch + 1}/{self._epochs}{self._which}: {shown}")


class Best:
    """Stops where the loss on the validation part no longer falls, and goes back to the weights of the best epoch.

    Keras's own `EarlyStopping` forgets the best epoch when a run is killed; this one keeps it beside the state.

    Args:
        net: The Keras model.
        patience: Epochs without a better loss before it stops.
        state: A folder for the best weights; None keeps them in memory alone.
        report: Called with a line when it stops.
    """

    def __init__(self, net: Any, *, patience: int, state: Path | None, report: Report) -> None:
        self._net, self._patience, self._report = net, patience, report
        self._file = None if state is None else state / BEST
        self._loss, self._epoch, self._weights = math.inf, -1, None
        if self._file is not None and self._file.is_file():
            with np.load(self._file) as kept:
                self._loss, self._epoch = float(kept["loss"]), int(kept["epoch"])
                self._weights = [kept[f"w{number}"] for number in range(len(kept.files) - 2)]

    def epoch_ended(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Looks at the loss."""
        loss = float((logs or {}).get("val_loss", math.nan))
        if loss < self._loss:
            self._loss, self._epoch, self._weights = loss, epoch, self._net.get_weights()
            self._keep()
        elif epoch - self._epoch >= self._patience:
            self._net.stop_training = True

    def train_ended(self, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        """Goes back to the best epoch."""
        if self._weights is not None:
            self._net.set_weights(self._weights)
            self._report(
                f"the weights of epoch {self._epoch + 1} are kept: its loss on the validation part was {self._loss:.4f}"
            )

    def _keep(self) -> None:
        if self._file is None or self._weights is None:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        half = self._file.with_suffix(".writing.npz")
        arrays = {f"w{number}": weight for number, weight in enumerate(self._weights)}
        np.savez(half, loss=self._loss, epoch=self._epoch, **arrays)
        os.replace(half, self._file)


def history_so_far(state: Path | None) -> dict[str, list[float]]:
    """The figures of the epochs that an interrupted training has done; nothing where there was none."""
    path = None if state is None else state / HISTORY
    if path is None or not path.is_file():
        return {}
    return {name: list(values) for name, values in json.loads(path.read_text(encoding="utf-8")).items()}


def keep_history(state: Path) -> Callable[..., None]:
    """A callback that writes each epoch's figures down."""
    kept = history_so_far(state)

    def epoch_ended(epoch: int, logs: Mapping[str, float] | None = None) -> None:
        for name, value in (logs or {}).items():
            # An epoch that was done but not saved is done again.
            kept[name] = [*kept.get(name, [])[:epoch], float(value)]
        state.mkdir(parents=True, exist_ok=True)
        half = state / f"{HISTORY}.writing"
        half.write_text(json.dumps(kept), encoding="utf-8")
        os.replace(half, state / HISTORY)

    return epoch_ended
