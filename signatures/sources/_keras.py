"""What Keras models of both generations, and plain tf.Modules, have in common as a source."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from signatures.checkpoint import PROCESSOR, processor_config
from signatures.errors import UsageError, VitrinaError
from signatures.model import Model, Tensors
from signatures.preprocessing import Preprocessing
from signatures.sources import _keras_layers
from signatures.spec import Card, Source, Tensor

__all__ = ["ARCHITECTURE", "call", "generation", "restore", "wrap"]

ARCHITECTURE = "model.json"
DEFAULT_TASK = "image-classification"


def generation(native: Any) -> str:
    """`keras`, `tf_keras` or `module`: what a model object is made with."""
    for cls in type(native).__mro__:
        root = cls.__module__.partition(".")[0]
        if root in ("keras", "tf_keras"):
            return root
    return "module"


def wrap(
    native: Any,
    *,
    name: str,
    kind: str,
    task: str | None,
    dtype: str,
    preprocessing: Preprocessing | None,
    processor: str | None = None,
) -> Model:
    """A `Model` around a Keras model, or a tf.Module with `__call__`, that takes a batch of images.

    Args:
        native: The model, built.
        name: What was asked for, for the card.
        kind: The source's file.
        task: A task name; None for image classification.
        dtype: `float32`; the model itself decides what it computes in.
        preprocessing: How images become its input; None takes it from the model's own first layers.
        processor: The `preprocessor_config.json` to keep; None writes one that says what `preprocessing` does.

    Raises:
        UsageError: No preprocessing was given and the model has none, or it does not take one image batch.
    """
    made_with = generation(native)
    own = _keras_layers.from_own_layers(native, name) if preprocessing is None and made_with != "module" else None
    if own is not None:
        preprocessing, processor = own[0], _keras_layers.document(own[1])
    if preprocessing is None:
        raise UsageError(
            f"{name} does not say how its images are prepared, and that is never guessed. Give the settings: "
            "--size 224 --resample bilinear --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5 (or --rescale 1 for 0..255)."
        )
    if dtype != "float32":
        raise UsageError(f"Got --dtype {dtype}, but {name} decides itself what it computes in. Leave --dtype out.")
    import tensorflow as tf

    shape = _input_shape(native, made_with, name)
    # A channels-first model shows it by its input's shape; everything else in TensorFlow is channels last.
    first = shape is not None and len(shape) == 4 and shape[1] == 3 and shape[-1] != 3
    preprocessing = dataclasses.replace(preprocessing, data_format="channels_first" if first else "channels_last")
    _check_size(preprocessing, shape, name)
    module = tf.Module(name="model")
    module.weights = _variables(native, made_with)
    if made_with == "module":
        module.native = native
    files = {PROCESSOR: processor or json.dumps(processor_config(preprocessing), indent=2)}
    if made_with != "module":
        files[ARCHITECTURE] = native.to_json()
    return Model(
        source=Source(model=name, revision=None, cls=f"{type(native).__module__}.{type(native).__name__}", kind=kind),
        task=task or DEFAULT_TASK,
        labels=(),
        preprocessing=preprocessing,
        module=module,
        call=functools.partial(call, native),
        inputs={
            "pixel_values": Tensor(
                dtype="float32", shape=(None, None, None, 3), meaning="the image as the model takes it"
            )
        },
        config={"function_to_apply": _function(native, made_with)},
        files=files,
        native=native,
    )


def call(native: Any, features: Mapping[str, Any]) -> Tensors:
    """A model's raw outputs under their own names; a single nameless output is `output`."""
    if generation(native) == "module":
        return _named(native(features["pixel_values"]), [])
    return _named(native(features["pixel_values"], training=False), list(getattr(native, "output_names", None) or []))


def restore(folder: Path, card: Card, weights: Sequence[Any]) -> Any:
    """The Keras model of a servable, with the weights that the servable holds.

    Raises:
        UsageError: It was not a Keras model, so its code is not in the servable.
        VitrinaError: The weights do not fit.
    """
    path = folder / ARCHITECTURE
    if not path.is_file():
        raise UsageError(
            f"{card.source.model} was exported from a tf.Module, whose code the servable does not hold, so there is "
            "nothing to compare it with. Verify it where it was exported."
        )
    architecture = path.read_text(encoding="utf-8")
    if card.source.cls.startswith("tf_keras"):
        import tf_keras as keras
    else:
        import keras
    native = keras.models.model_from_json(architecture)
    try:
        native.set_weights([variable.numpy() for variable in weights[: len(native.weights)]])
    except ValueError as error:
        raise VitrinaError(
            f"The servable's weights do not fit its {ARCHITECTURE} ({error}). Export it again."
        ) from error
    return native


def _input_shape(native: Any, made_with: str, name: str) -> tuple[int | None, ...] | None:
    if made_with == "module":
        if not callable(native):
            raise UsageError(
                f"{name} is a {type(native).__name__} without __call__. Return a model to call with images."
            )
        return None
    inputs = native.inputs or []
    if len(inputs) > 1:
        raise UsageError(
            f"{name} takes {len(inputs)} inputs, but a servable feeds one image batch. Wrap it in a model."
        )
    return tuple(inputs[0].shape) if inputs else None


def _check_size(preprocessing: Preprocessing, shape: tuple[int | None, ...] | None, name: str) -> None:
    """Raises where the model wants another size than its preprocessing makes."""
    if shape is None or len(shape) != 4 or preprocessing.pad is not None:
        return
    wanted = shape[2:] if preprocessing.data_format == "channels_first" else shape[1:3]
    resize = preprocessing.resize
    made: tuple[int | None, int | None] = (None, None)
    if preprocessing.crop is not None:
        made = preprocessing.crop
    elif resize is not None and resize.rule == "exact":
        made = (resize.height, resize.width)
    if any(want not in (None, got) for got, want in zip(made, wanted, strict=True)):
        got = "any size" if made == (None, None) else f"{made[0]}x{made[1]}"
        raise UsageError(
            f"{name} takes images of {wanted[0]}x{wanted[1]} (height x width), but its preprocessing gives {got}. "
            f"Give --size {wanted[0]} or the size that it was trained with."
        )


def _variables(native: Any, made_with: str) -> list[Any]:
    """The raw TensorFlow variables, weights first: TensorFlow does not track Keras 3's own objects."""
    if made_with == "keras":
        return [variable.value for variable in [*native.weights, *_others(native)]]
    if made_with == "tf_keras":
        return list(native.weights)
    return list(native.variables)


def _others(native: Any) -> list[Any]:
    known = {id(variable) for variable in native.weights}
    return [variable for variable in native.variables if id(variable) not in known]


def _named(outputs: Any, names: list[str]) -> Tensors:
    if isinstance(outputs, Mapping):
        return dict(outputs)
    if isinstance(outputs, (list, tuple)):
        if len(names) != len(outputs):
            names = [f"output_{index}" for index in range(len(outputs))]
        return dict(zip(names, outputs, strict=True))
    return {names[0] if len(names) == 1 else "output": outputs}


def _function(native: Any, made_with: str) -> str:
    """`none` where the last layer already gives probabilities, else `softmax`."""
    last = native.layers[-1] if made_with != "module" and native.layers else None
    activation = getattr(getattr(last, "activation", None), "__name__", "")
    is_softmax_layer = type(last).__name__ == "Softmax"
    return "none" if activation in ("softmax", "sigmoid") or is_softmax_layer else "softmax"
