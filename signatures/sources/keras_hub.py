"""`keras_hub:NAME`: image classifiers and backbones of KerasHub.

NAME is what KerasHub's `from_preset` takes: a preset (`resnet_50_imagenet`), a folder that `save_to_preset` wrote, or
a handle (`kaggle://...`, `hf://...`). KerasHub keeps the preparation of images, its `ImageConverter`, beside the model
and leaves it out of what it exports; here it is part of the servable.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from signatures.errors import MissingExtra, UsageError
from signatures.model import Model
from signatures.preprocessing import Preprocessing
from signatures.sources import _keras, _keras_layers
from signatures.spec import Card

__all__ = ["call", "load", "load_trainable", "restore"]

CLASSIFY, EXTRACT = "image-classification", "image-feature-extraction"
TASK_FILE, TASK_WEIGHTS = "task.json", "task.weights.h5"

call = _keras.call


def load(
    model: str,
    *,
    task: str | None = None,
    revision: str | None = None,
    dtype: str = "float32",
    preprocessing: Preprocessing | None = None,
) -> Model:
    """Loads a preset with its image converter; arguments as in `signatures.sources.load`.

    Raises:
        UsageError: There is no such preset, it holds neither an image classifier nor a backbone, or its converter
            cannot be frozen.
    """
    if revision is not None:
        raise UsageError(f"Got --revision {revision}, but KerasHub takes versions within the handle. Leave it out.")
    hub = _keras_hub()
    if model.startswith((".", "/", "~")) and not Path(model).expanduser().is_dir():
        raise UsageError(f"There is no folder {model}. Give one that `save_to_preset` wrote, or a preset's name.")
    return _wrapped(hub, _native(hub, model, task), model, task=task, dtype=dtype, preprocessing=preprocessing)


def load_trainable(model: str, classes: int, *, preprocessing: Preprocessing | None = None) -> tuple[Model, bool]:
    """An image classifier with so many classes, to be trained.

    Args:
        model: A preset of a classifier or of a backbone.
        classes: How many the data has.
        preprocessing: Settings in place of the preset's image converter.

    Returns:
        The model, and whether its head is new, with random weights.

    Raises:
        UsageError: As for `load`.
    """
    hub = _keras_hub()
    if model.startswith((".", "/", "~")) and not Path(model).expanduser().is_dir():
        raise UsageError(f"There is no folder {model}. Give one that `save_to_preset` wrote, or a preset's name.")
    native = _native(hub, model, CLASSIFY) if _has(model, TASK_FILE) and _has(model, TASK_WEIGHTS) else None
    fits = native is not None and native.num_classes == classes
    if not fits:
        native = _from_preset(hub.models.ImageClassifier, model, num_classes=classes)
    wrapped = _wrapped(hub, native, model, task=CLASSIFY, dtype="float32", preprocessing=preprocessing)
    return wrapped, not fits


def _wrapped(
    hub: Any, native: Any, model: str, *, task: str | None, dtype: str, preprocessing: Preprocessing | None
) -> Model:
    name = f"keras_hub:{model}"
    classifies = isinstance(native, hub.models.ImageClassifier)
    layer = None
    if preprocessing is None:
        layer = _converter(hub, native, model)
        preprocessing = None if layer is None else _keras_layers.from_converter(layer, name)
    loaded = _keras.wrap(
        native,
        name=name,
        kind="keras_hub",
        task=task or (CLASSIFY if classifies else EXTRACT),
        dtype=dtype,
        preprocessing=preprocessing,
        processor=None if layer is None else _keras_layers.document(layer),
    )
    if not classifies:
        return loaded
    # KerasHub's heads give logits unless they say otherwise.
    activation = getattr(native.activation, "__name__", native.activation)
    done = activation in ("softmax", "sigmoid")
    return dataclasses.replace(loaded, config={"function_to_apply": "none" if done else "softmax"})


def restore(folder: Path, card: Card, weights: Sequence[Any]) -> Any:
    """The KerasHub model of a servable, with the weights that the servable holds; as `sources/keras.py` does."""
    _keras_hub()  # Its classes are found by name once it is imported.
    return _keras.restore(folder, card, weights)


def _keras_hub() -> Any:
    try:
        import keras
        import keras_hub
    except ImportError as error:
        raise MissingExtra(str(error.name or "keras_hub"), "hub") from error
    if keras.backend.backend() != "tensorflow":
        raise UsageError(f"Keras runs on {keras.backend.backend()} here. Set KERAS_BACKEND=tensorflow to export.")
    return keras_hub


def _native(hub: Any, preset: str, task: str | None) -> Any:
    """The classifier of a preset where it is asked for or there is one, else the backbone."""
    if task not in (None, CLASSIFY):
        return _from_preset(hub.models.Backbone, preset)
    if not _has(preset, TASK_FILE) and not preset.startswith("hf://"):
        if task is None:
            return _from_preset(hub.models.Backbone, preset)
        raise UsageError(
            f"keras_hub:{preset} holds a backbone without a classifier, whose head would be random. "
            f"Export it with --task {EXTRACT}."
        )
    if _has(preset, TASK_FILE) and not _has(preset, TASK_WEIGHTS):
        raise UsageError(
            f"keras_hub:{preset} has a {TASK_FILE} but no {TASK_WEIGHTS}, so its head would be random. Save it again."
        )
    return _from_preset(hub.models.ImageClassifier, preset)


def _from_preset(cls: Any, preset: str, **settings: Any) -> Any:
    try:
        return cls.from_preset(preset, **settings)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        line = " ".join(str(error).split())[:300]
        raise UsageError(
            f"KerasHub cannot load {preset} as {cls.__name__}: {line} Give the preset of an image classifier, or of a "
            f"backbone with --task {EXTRACT}."
        ) from error


def _converter(hub: Any, native: Any, preset: str) -> Any:
    """The image converter that a preset has for its model; None where it has none."""
    preprocessor = getattr(native, "preprocessor", None)
    if preprocessor is not None:
        return getattr(preprocessor, "image_converter", None)
    if not _has(preset, "image_converter.json") and not preset.startswith("hf://"):
        return None
    return _from_preset(hub.layers.ImageConverter, preset)


def _has(preset: str, name: str) -> bool:
    """Whether a preset has a file, wherever it lies."""
    if Path(preset).is_dir():
        return (Path(preset) / name).is_file()
    from keras_hub.src.utils.preset_utils import check_file_exists

    try:
        return bool(check_file_exists(preset, name))
    except (OSError, ValueError, RuntimeError) as error:
        line = " ".join(str(error).split())[:300]
        raise UsageError(
            f"There is no folder {preset}, and KerasHub did not find such a preset either ({line}). "
            "Check the spelling and the network, or give a folder that `save_to_preset` wrote."
        ) from error
