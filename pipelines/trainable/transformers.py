"""TensorFlow checkpoints of transformers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.data import SEGMENTATION
from pipelines.trainable import Trainable
from signatures import sources
from signatures.checkpoint import PROCESSOR
from signatures.errors import UsageError
from signatures.model import Model
from signatures.preprocessing import Preprocessing
from signatures.sources import transformers as checkpoints

__all__ = ["load", "preprocessing", "restore", "save"]

SETTINGS = "preprocessing.json"
"""Beside a trained checkpoint: settings that were given in place of the checkpoint's own."""


def load(model: str, labels: Sequence[str], *, task: str, preprocessing: Preprocessing | None = None) -> Trainable:
    """As `trainable.load`."""
    import tf_keras

    given = preprocessing or _given(Path(model))
    try:
        native, settings, files, new_head = checkpoints.load_trainable(
            model, task=task, labels=labels, preprocessing=given
        )
    except UsageError as error:
        raise UsageError(f"{model} cannot be trained for {task}: {error}") from error
    if given is not None:
        files[SETTINGS] = json.dumps(given.to_json())
    names = {int(key): str(value) for key, value in native.config.id2label.items()}
    body = getattr(native, native.base_model_prefix, None)

    def scores(pixel_values: Any, training: bool) -> Any:
        import tensorflow as tf

        found = native(pixel_values, training=training)["logits"]
        return tf.transpose(found, [0, 2, 3, 1]) if task == SEGMENTATION else found

    return Trainable(
        native=native,
        keras=tf_keras,
        preprocessing=settings,
        labels=tuple(names[number] for number in sorted(names)),
        new_head=new_head,
        body=() if body is None else (body,),
        scores=scores,
        files=files,
    )


def save(trainable: Trainable, model: str, out: Path, *, task: str) -> None:
    """As `trainable.save`: a checkpoint as `save_pretrained` writes it, with the processor's file as it was."""
    del model, task
    trainable.native.save_pretrained(out)
    for name in (PROCESSOR, SETTINGS):
        if name in trainable.files:
            (out / name).write_text(trainable.files[name], encoding="utf-8")


def restore(checkpoint: Path, *, task: str) -> Model:
    """As `trainable.restore`."""
    return sources.load(str(checkpoint), task=task, preprocessing=_given(checkpoint))


def preprocessing(checkpoint: Path) -> Preprocessing:
    """As `trainable.preprocessing`."""
    given = _given(checkpoint)
    return checkpoints.preprocessing(str(checkpoint)) if given is None else given


def _given(folder: Path) -> Preprocessing | None:
    path = folder / SETTINGS
    if not path.is_file():
        return None
    return Preprocessing.from_json(json.loads(path.read_text(encoding="utf-8")))
