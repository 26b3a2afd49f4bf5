"""Models as training takes them, one file per kind, chosen by the model's name or by what an earlier training left.

`transformers.py` takes TensorFlow checkpoints of transformers, `keras.py` what the Keras sources of `signatures` load:
`*.keras` and `*.h5` files, `keras_hub:NAME`, `python:module:function`. Each holds `load`, `save` and `restore`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from signatures.model import Model
from signatures.preprocessing import Preprocessing
from signatures.sources import kind_of

__all__ = ["RECORD", "Trainable", "compute_in", "load", "preprocessing", "restore", "save"]

#: In a trained checkpoint of Keras: what it is of. Transformers' checkpoints say it by their own `config.json`.
RECORD = "trained.json"


@dataclass(frozen=True, kw_only=True)
class Trainable:
    """A model with a head for the data's classes.

    Args:
        native: The framework's model, whose variables are trained.
        keras: The Keras that it is made with: the module `keras` or `tf_keras`.
        preprocessing: How images become its input, as the servable will freeze it.
        labels: Class names in the order of its outputs.
        new_head: Whether its head began anew, with random weights.
        body: The layers that stay as they are while the head alone is trained.
        scores: `(pixel_values, training)` to scores with the classes in the last axis.
        logits: Whether these are before the softmax.
        files: What `save` needs besides, such as the checkpoint's small files by name.
    """

    native: Any
    keras: Any
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    new_head: bool
    body: Sequence[Any]
    scores: Callable[[Any, bool], Any]
    logits: bool = True
    files: dict[str, str] = field(default_factory=dict)


def load(model: str, labels: Sequence[str], *, task: str, preprocessing: Preprocessing | None = None) -> Trainable:
    """A model to train.

    Args:
        model: A transformers checkpoint's folder or Hub id, a `*.keras` or `*.h5` file, `keras_hub:NAME`,
            `python:module:function`, or a folder that a training saved.
        labels: The data's class names in id order.
        task: `image-classification` or `image-segmentation`.
        preprocessing: Settings that replace the model's own, or stand in where it has none.

    Raises:
        UsageError: There is no such model, it is not for the task, or does not say how images are prepared.
        VitrinaError: Its weights do not fit.
    """
    trainable = _module(model).load(model, labels, task=task, preprocessing=preprocessing)
    assert isinstance(trainable, Trainable)
    return trainable


def save(trainable: Trainable, model: str, out: Path, *, task: str) -> None:
    """Writes a trained model with all that `load` and `restore` want.

    Args:
        trainable: From `load`.
        model: The name that it was loaded by.
        out: A folder.
        task: As for `load`.
    """
    out.mkdir(parents=True, exist_ok=True)
    _module(model).save(trainable, model, out, task=task)


def compute_in(trainable: Trainable, precision: str) -> None:
    """Lets a model compute in `float32`, `mixed_bfloat16` or `mixed_float16`; its weights stay float32.

    Layers that come out of a file say themselves what they compute in, so that Keras's global policy does not reach
    them.
    """
    if trainable.keras.__name__ == "keras":
        for layer in trainable.native._flatten_layers():
            layer.dtype_policy = precision
    elif RECORD in trainable.files:
        policy = trainable.keras.mixed_precision.Policy(precision)
        for layer in trainable.native._flatten_layers():
            layer._set_dtype_policy(policy)


def restore(checkpoint: Path, *, task: str) -> Model:
    """What `save` wrote, as `signatures.export` takes it."""
    model = _module(str(checkpoint)).restore(checkpoint, task=task)
    assert isinstance(model, Model)
    return model


def preprocessing(checkpoint: Path) -> Preprocessing:
    """How images are prepared for what `save` wrote, without its weights."""
    found = _module(str(checkpoint)).preprocessing(checkpoint)
    assert isinstance(found, Preprocessing)
    return found


def _module(model: str) -> Any:
    trained = Path(model) / RECORD
    kind = "keras" if trained.is_file() or kind_of(model) != "transformers" else "transformers"
    return importlib.import_module(f"{__name__}.{kind}")
