"""Keras models of both generations: files, KerasHub's presets, and functions that return one."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.data import CLASSIFICATION, SEGMENTATION
from pipelines.trainable import RECORD, Trainable
from signatures import sources
from signatures.errors import UsageError
from signatures.model import Model
from signatures.preprocessing import Preprocessing
from signatures.sources import _keras

__all__ = ["load", "preprocessing", "restore", "save"]

MODEL, WEIGHTS, PRESET = "model.keras", "model.weights.h5", "preset"
HUB, CODE = "keras_hub:", "python:"
WEIGHTED = ("Dense", "Conv2D", "Conv2DTranspose")
PROBABILITIES = ("softmax", "sigmoid")


def load(model: str, labels: Sequence[str], *, task: str, preprocessing: Preprocessing | None = None) -> Trainable:
    """As `trainable.load`.

    Raises:
        UsageError: It is no Keras model, or its last layer gives another number of classes and cannot be replaced.
    """
    record = _record(Path(model))
    if record is None:
        loaded, new_head = _load(model, len(labels), task, preprocessing)
        return _trainable(loaded, labels, task=task, model=model, given=preprocessing, new_head=new_head)
    # What an earlier training left, perhaps for other classes now.
    same = sorted(labels) == sorted(record["labels"])
    names = record["labels"] if same else labels
    given = preprocessing or _given(record)
    loaded, new_head = _trained(Path(model), record, len(names), given)
    return _trainable(loaded, names, task=task, model=str(record["model"]), given=given, new_head=new_head or not same)


def save(trainable: Trainable, model: str, out: Path, *, task: str) -> None:
    """As `trainable.save`: the whole model, or its weights where its code is the caller's own."""
    record = json.loads(trainable.files[RECORD])
    origin = str(record["model"])
    if origin.startswith(HUB):
        trainable.native.save_to_preset(str(out / PRESET))
    elif origin.startswith(CODE):
        trainable.native.save_weights(str(out / WEIGHTS))
    else:
        trainable.native.save(str(out / MODEL))
    document = {**record, "task": task, "labels": list(trainable.labels), "trained": model}
    (out / RECORD).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def restore(checkpoint: Path, *, task: str) -> Model:
    """As `trainable.restore`."""
    record = _record(checkpoint) or {}
    loaded, _ = _trained(checkpoint, record, len(record["labels"]), _given(record))
    return dataclasses.replace(loaded, labels=tuple(record["labels"]), task=task)


def preprocessing(checkpoint: Path) -> Preprocessing:
    """As `trainable.preprocessing`."""
    return Preprocessing.from_json((_record(checkpoint) or {})["preprocessing"])


def _load(model: str, classes: int, task: str, preprocessing: Preprocessing | None) -> tuple[Model, bool]:
    """The source's model, and whether its head is new: of KerasHub it has as many classes as the data has."""
    if not model.startswith(HUB):
        return sources.load(model, task=task, preprocessing=preprocessing), False
    if task != CLASSIFICATION:
        raise UsageError(
            f"Got {model} for {task}, but of KerasHub's models image classifiers are trained here. Give a *.keras "
            "file, python:package.module:function, or a checkpoint of transformers."
        )
    from signatures.sources import keras_hub

    return keras_hub.load_trainable(model.removeprefix(HUB), classes, preprocessing=preprocessing)


def _trained(folder: Path, record: dict[str, Any], classes: int, given: Preprocessing | None) -> tuple[Model, bool]:
    """What `save` wrote, and whether its head is new."""
    origin, task = str(record["model"]), str(record["task"])
    if origin.startswith(HUB):
        return _load(f"{HUB}{folder / PRESET}", classes, task, given)
    if not origin.startswith(CODE):
        return _load(str(folder / MODEL), classes, task, given)
    loaded, _ = _load(origin, classes, task, given)
    # The same head as when it was trained, so that the weights fit.
    built = _trainable(loaded, record["labels"], task=task, model=origin, given=given, new_head=False)
    built.native.load_weights(str(folder / WEIGHTS))
    wrapped = _keras.wrap(built.native, name=origin, kind="python", task=task, dtype="float32", preprocessing=given)
    return wrapped, False


def _trainable(
    loaded: Model, labels: Sequence[str], *, task: str, model: str, given: Preprocessing | None, new_head: bool
) -> Trainable:
    made_with = _keras.generation(loaded.native)
    if made_with == "module":
        raise UsageError(f"{model} is a tf.Module, which has no layers to train. Return a Keras model instead.")
    keras: Any = importlib.import_module(made_with)
    native, head, replaced = _with_head(keras, loaded.native, labels, model)
    activation = _activation(native)

    def scores(pixel_values: Any, training: bool) -> Any:
        found = _only(native(pixel_values, training=training), model)
        wanted = 4 if task == SEGMENTATION else 2
        if len(found.shape) != wanted:
            raise UsageError(
                f"{model} answers with the shape {tuple(found.shape)}, but {task} wants scores "
                f"[batch, {'height, width, ' if wanted == 4 else ''}classes]."
            )
        return found

    record = {
        "model": model,
        "preprocessing": loaded.preprocessing.to_json(),
        "given": None if given is None else given.to_json(),
    }
    return Trainable(
        native=native,
        keras=keras,
        preprocessing=loaded.preprocessing,
        labels=tuple(labels),
        new_head=new_head or replaced,
        body=[layer for layer in native.layers if layer not in head],
        scores=scores,
        logits=activation not in PROBABILITIES,
        files={RECORD: json.dumps(record)},
    )


def _only(outputs: Any, model: str) -> Any:
    """The scores among a model's outputs, as the tasks choose them."""
    if isinstance(outputs, (list, tuple)):
        outputs = {str(number): value for number, value in enumerate(outputs)}
    if not isinstance(outputs, dict):
        return outputs
    if "logits" in outputs:
        return outputs["logits"]
    if len(outputs) > 1:
        raise UsageError(f"{model} has the outputs {', '.join(sorted(outputs))}. Call the scores `logits`.")
    return next(iter(outputs.values()))


def _with_head(keras: Any, native: Any, labels: Sequence[str], model: str) -> tuple[Any, list[Any], bool]:
    """The model, its head's layers, and whether they were replaced: the last one gave another number of classes."""
    classes = len(labels)
    layers = list(native.layers)
    last = next((layer for layer in reversed(layers) if type(layer).__name__ in WEIGHTED), None)
    if last is None:
        raise UsageError(f"{model} has no dense or convolutional last layer, so it has no classes. Give a classifier.")
    units = last.units if hasattr(last, "units") else last.filters
    after = layers[layers.index(last) :]
    if units == classes:
        return native, after, False
    plain = all(type(layer).__name__ in ("Activation", "Softmax") for layer in after[1:])
    try:
        if not plain:
            raise AttributeError("its last layer is not the one that gives the classes")
        config = dict(last.get_config())
        config["units" if "units" in config else "filters"] = classes
        activation = config["activation"]
        config["activation"] = "softmax" if activation in PROBABILITIES else activation
        head = [type(last).from_config({**config, "name": f"{config['name']}_of_{classes}"})]
        head += [keras.layers.Softmax(name="scores")] if len(after) > 1 else []
        outputs = last.input
        for layer in head:
            outputs = layer(outputs)
        return keras.Model(native.inputs, outputs), head, True
    except (AttributeError, ValueError, TypeError) as error:
        line = " ".join(str(error).split())[:200]
        raise UsageError(
            f"{model} gives {units} classes, the data has {classes} ({', '.join(list(labels)[:5])}...), and its last "
            f"layer cannot be replaced here ({line}). Build it for {classes} classes."
        ) from error


def _activation(native: Any) -> str:
    last = list(native.layers)[-1]
    if type(last).__name__ == "Softmax":
        return "softmax"
    activation = getattr(native, "activation", None) or getattr(last, "activation", None)
    return str(getattr(activation, "__name__", activation or ""))


def _record(folder: Path) -> dict[str, Any] | None:
    path = folder / RECORD
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def _given(record: dict[str, Any]) -> Preprocessing | None:
    found = record.get("given")
    return None if found is None else Preprocessing.from_json(found)
