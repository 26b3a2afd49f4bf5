"""`run_fn` of TFX's Trainer: fine-tunes, then exports what clients will call.

`Trainer(run_fn="pipelines.trainer.run_fn")` finds it; TFX's `FnArgs` are unpacked here and nowhere else.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from pipelines.examples import LABELS_FILE
from pipelines.files import link_tree

__all__ = ["CHECKPOINT", "HISTORY", "run_fn"]

#: Below the ModelRun artifact.
CHECKPOINT = "checkpoint"
HISTORY = "history.json"

log = logging.getLogger(__name__)


def run_fn(fn_args: Any) -> None:
    """Trains on `fn_args.train_files` and writes a servable to `fn_args.serving_model_dir`.

    Args:
        fn_args: TFX's; `custom_config` holds `model` (a checkpoint), `schedule` (`settings.Schedule`) and `resume` (a
            folder for the state of interrupted trainings). `base_model`, where there is one, is started from instead.

    Raises:
        CheckFailed: The servable does not answer as the trained checkpoint does; no model comes out then.
    """
    from pipelines import own_answers
    from pipelines.settings import Schedule
    from pipelines.training import fine_tune
    from signatures import export, sources

    files = _matching(fn_args.train_files)
    labels = json.loads((Path(files[0]).parents[1] / LABELS_FILE).read_text(encoding="utf-8"))
    run = Path(fn_args.model_run_dir)
    trained = fine_tune(
        _start(fn_args),
        files=files,
        labels=labels,
        out=run / CHECKPOINT,
        schedule=Schedule(**fn_args.custom_config["schedule"]),
        resume=_resume_folder(fn_args),
        report=log.info,
    )
    (run / HISTORY).write_text(json.dumps({name: list(map(float, v)) for name, v in trained.history.items()}) + "\n")
    own_answers.write(
        own_answers.classify(trained.checkpoint, _matching(fn_args.eval_files)), run / own_answers.ANSWERS_FILE
    )
    # The checkpoint is read back from disk, so what is exported and certified is what was saved.
    model = sources.load(str(trained.checkpoint), task="image-classification")
    export.write(model, Path(fn_args.serving_model_dir), on_progress=log.info)
    # Beside the servable, so that a later training can start from this one.
    beside = Path(fn_args.serving_model_dir).parent / CHECKPOINT
    link_tree(trained.checkpoint, beside)


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
    key = json.dumps([fn_args.custom_config, _start(fn_args), sorted(fn_args.train_files)], sort_keys=True)
    return Path(fn_args.custom_config["resume"]) / hashlib.sha256(key.encode()).hexdigest()[:16]


def _matching(patterns: list[str]) -> list[str]:
    import tensorflow as tf

    return sorted(path for pattern in patterns for path in tf.io.gfile.glob(pattern))
