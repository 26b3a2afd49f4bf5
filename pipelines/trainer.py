"""`run_fn` of TFX's Trainer: fine-tunes, then exports what clients will call.

`Trainer(run_fn="pipelines.trainer.run_fn")` finds it; TFX's `FnArgs` are unpacked here and nowhere else.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.data import CLASSIFICATION
from pipelines.examples import LABELS_FILE
from pipelines.files import link_tree
from pipelines.settings import Schedule
from signatures.preprocessing import Preprocessing

__all__ = ["CHECKPOINT", "HISTORY", "LOGS", "labels_beside", "matching", "run_fn", "schedule_of", "settings_of"]

#: Below the ModelRun artifact.
CHECKPOINT = "checkpoint"
HISTORY = "history.json"
LOGS = "logs"

log = logging.getLogger(__name__)


def run_fn(fn_args: Any) -> None:
    """Trains on `fn_args.train_files` and writes a servable to `fn_args.serving_model_dir`.

    TensorBoard's logs go to `logs` below `fn_args.model_run_dir`.

    Args:
        fn_args: TFX's; `custom_config` holds `model` (as `trainable.load` takes it), `task`, `schedule`
            (`settings.Schedule`), `preprocessing` (settings in place of the model's own, or None) and `resume` (a
            folder for the state of interrupted trainings). `base_model`, where there is one, is started from instead,
            and `hyperparameters`, where there are some, replace those of the schedule.

    Raises:
        CheckFailed: The servable does not answer as the trained checkpoint does; no model comes out then.
    """
    from pipelines import own_answers, trainable
    from pipelines.training import fine_tune
    from signatures import export

    files = matching(fn_args.train_files)
    config = fn_args.custom_config
    run = Path(fn_args.model_run_dir)
    trained = fine_tune(
        _start(fn_args),
        files=files,
        labels=labels_beside(files),
        out=run / CHECKPOINT,
        schedule=schedule_of(fn_args),
        task=config["task"],
        preprocessing=settings_of(config),
        resume=_resume_folder(fn_args),
        logs=run / LOGS,
        report=log.info,
    )
    (run / HISTORY).write_text(json.dumps({name: list(map(float, v)) for name, v in trained.history.items()}) + "\n")
    answers = own_answers.classify if config["task"] == CLASSIFICATION else own_answers.segment
    own_answers.write(
        answers(trained.checkpoint, trained.labels, matching(fn_args.eval_files)), run / own_answers.ANSWERS_FILE
    )
    # The checkpoint is read back from disk, so what is exported and certified is what was saved.
    model = trainable.restore(trained.checkpoint, task=config["task"])
    export.write(model, Path(fn_args.serving_model_dir), on_progress=log.info)
    # Beside the servable, so that a later training can start from this one.
    beside = Path(fn_args.serving_model_dir).parent / CHECKPOINT
    link_tree(trained.checkpoint, beside)
    # Not before: an export that is cut off is done again without training again.
    shutil.rmtree(_resume_folder(fn_args), ignore_errors=True)


def labels_beside(files: list[str]) -> list[str]:
    """The data's class names, from beside its splits."""
    found = json.loads((Path(files[0]).parents[1] / LABELS_FILE).read_text(encoding="utf-8"))
    assert isinstance(found, list)
    return found


def schedule_of(fn_args: Any) -> Schedule:
    """How to train: what was asked for, with what a tuner found best."""
    from pipelines.tuning import with_values

    given = Schedule(**fn_args.custom_config["schedule"])
    found = getattr(fn_args, "hyperparameters", None)
    return with_values(given, found["values"]) if found else given


def settings_of(config: Mapping[str, Any]) -> Preprocessing | None:
    """The settings in place of the model's own; None where there are none."""
    given = config.get("preprocessing")
    return None if given is None else Preprocessing.from_json(given)


def _start(fn_args: Any) -> str:
    """The checkpoint to train on from: that of the base model, where there is one, else the one that was named."""
    base = getattr(fn_args, "base_model", None)
    if not base:
        return str(fn_args.custom_config["model"])
    checkpoint = Path(base).parent / CHECKPOINT
    if not checkpoint.is_dir():
        log.info("the latest blessed model has no checkpoint at %s, so training starts as the first time", checkpoint)
        return str(fn_args.custom_config["model"])
    log.info("training goes on from the latest blessed model, %s", checkpoint)
    return str(checkpoint)


def _resume_folder(fn_args: Any) -> Path:
    """The same for every try at the same training, and for no other: by its configuration and its images."""
    given = [fn_args.custom_config, schedule_of(fn_args).to_json(), _start(fn_args), sorted(fn_args.train_files)]
    key = json.dumps(given, sort_keys=True)
    return Path(fn_args.custom_config["resume"]) / hashlib.sha256(key.encode()).hexdigest()[:16]


def matching(patterns: list[str]) -> list[str]:
    """The files that TFX's patterns name."""
    import tensorflow as tf

    return sorted(path for pattern in patterns for path in tf.io.gfile.glob(pattern))
