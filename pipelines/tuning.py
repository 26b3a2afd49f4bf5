"""`tuner_fn` of TFX's Tuner: KerasTuner tries schedules, each on the validation share of the train split.

What is held out for the evaluation is never looked at, so that the trials cannot learn it.
"""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.settings import Schedule
from signatures.errors import UsageError

__all__ = ["tuner_fn", "with_values"]

#: Per setting: its values, or the factors of its own value between which it is tried, in logarithmic steps.
FACTORS = {"learning_rate": (0.1, 4.0)}
CHOICES = {"weight_decay": (0.0, 0.01, 0.05), "label_smoothing": (0.0, 0.1), "shift": (0.0, 0.1)}
VALIDATION_SHARE = 0.2
OBJECTIVE = "score"

log = logging.getLogger(__name__)


def tuner_fn(fn_args: Any) -> Any:
    """What TFX's Tuner runs.

    Args:
        fn_args: TFX's; `custom_config` holds what the trainer's does, and `trials` and `epochs` of each.

    Returns:
        A `TunerFnResult`.
    """
    from tfx.components.trainer.fn_args_utils import FnArgs
    from tfx.v1.components import TunerFnResult

    from pipelines.trainer import labels_beside, matching, settings_of
    from pipelines.training import fine_tune

    assert isinstance(fn_args, FnArgs)
    config = fn_args.custom_config
    files = matching(fn_args.train_files)

    def score(schedule: Schedule) -> float:
        with tempfile.TemporaryDirectory(prefix="vitrina-trial-") as out:
            trained = fine_tune(
                config["model"],
                files=files,
                labels=labels_beside(files),
                out=Path(out),
                schedule=schedule,
                task=config["task"],
                preprocessing=settings_of(config),
            )
        name = "val_accuracy" if "val_accuracy" in trained.history else "val_mean_iou"
        found = max(trained.history[name])
        log.info("a trial with learning rate %.2g reaches %s %.4f", schedule.learning_rate, name[4:], found)
        return found

    base = Schedule(**config["schedule"])
    trial = dataclasses.replace(
        base,
        epochs=config["epochs"] or base.epochs,
        early_stopping=base.early_stopping or (config["epochs"] or base.epochs),
        validation_share=max(base.validation_share, VALIDATION_SHARE),
    )
    tuner = _tuner(score, trial, trials=config["trials"], folder=Path(fn_args.working_dir))
    return TunerFnResult(tuner=tuner, fit_kwargs={})


def with_values(schedule: Schedule, values: dict[str, Any]) -> Schedule:
    """A schedule with what a tuner found.

    Raises:
        UsageError: There is a value that no schedule has.
    """
    known = {*FACTORS, *CHOICES}
    unknown = sorted(set(values) - known)
    if unknown:
        raise UsageError(
            f"Got the hyperparameters {', '.join(unknown)}, but what is tuned is {', '.join(sorted(known))}."
        )
    return dataclasses.replace(schedule, **values)


def _tuner(score: Callable[[Schedule], float], schedule: Schedule, *, trials: int, folder: Path) -> Any:
    import keras_tuner
    from keras_tuner.engine import base_tuner

    class Tuner(base_tuner.BaseTuner):  # type: ignore[misc]
        """Trains once per trial; there is no model to build or to keep."""

        def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
            del args, kwargs
            return {OBJECTIVE: score(with_values(schedule, dict(trial.hyperparameters.values)))}

    oracle = keras_tuner.oracles.RandomSearchOracle(
        objective=keras_tuner.Objective(OBJECTIVE, "max"),
        max_trials=trials,
        seed=schedule.seed,
        hyperparameters=_space(schedule),
        tune_new_entries=False,
    )
    return Tuner(oracle, directory=str(folder), project_name="schedule", overwrite=True)


def _space(schedule: Schedule) -> Any:
    """What is tried, around what was asked for; that itself is among it."""
    import keras_tuner

    space = keras_tuner.HyperParameters()
    for name, (low, high) in FACTORS.items():
        value = getattr(schedule, name)
        space.Float(name, value * low, value * high, sampling="log", default=value)
    for name, choices in CHOICES.items():
        own = getattr(schedule, name)
        space.Choice(name, sorted({*choices, own}), default=own)
    return space
