"""What Keras models of both generations, and plain tf.Modules, have in common as a source."""

from __future__ import annotations

import dataclasses
import functools
import importlib
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
KEPT_EXACT = ("__keras_tensor__", "InputLayer", "Rescaling", "Normalization", "Resizing", "CenterCrop")
"""Inputs, and layers that hold grey levels, of which bfloat16 knows whole ones alone."""
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
        dtype: `float32` leaves that to the model; `bfloat16` lets its layers compute so over the weights as they are.
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
    import tensorflow as tf

    shape = _input_shape(native, made_with, name)
    # A channels-first model shows it by its input's shape; everything else in TensorFlow is channels last.
    first = shape is not None and len(shape) == 4 and shape[1] == 3 and shape[-1] != 3
    preprocessing = dataclasses.replace(preprocessing, data_format="channels_first" if first else "channels_last")
    _check_size(preprocessing, shape, name)
    files = {PROCESSOR: processor or json.dumps(processor_config(preprocessing), indent=2)}
    if made_with != "module":
        # As it was, so that verification shows what another dtype changes.
        files[ARCHITECTURE] = native.to_json()
    if dtype != "float32":
        native = _recast(native, made_with, dtype, name)
    classifies = (task or DEFAULT_TASK) == DEFAULT_TASK
    module = tf.Module(name="model")
    module.weights = _variables(native, made_with)
    if made_with == "module":
        module.native = native
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
        config={"function_to_apply": _function(native, made_with, preprocessing)} if classifies else {},
        files=files,
        dtype=dtype,
        native=native,
    )


def _recast(native: Any, made_with: str, dtype: str, name: str) -> Any:
    """The same model with the same weights, whose layers compute in `dtype`; the last one stays in float32.

    Raises:
        UsageError: It is no Keras model, or cannot be made anew from its configuration.
    """
    if made_with == "module":
        raise UsageError(f"Got --dtype {dtype}, but {name} is code that computes as it says. Leave --dtype out.")
    keras: Any = importlib.import_module(made_with)
    document = json.loads(native.to_json())
    last = document["config"].get("layers", [None])[-1]
    before = json.dumps(last)
    _set_dtype(document, f"mixed_{dtype}")
    if last is not None:
        last.clear()
        last.update(json.loads(before))
    try:
        recast = keras.models.model_from_json(json.dumps(document))
        recast.set_weights(native.get_weights())
    except (KeyError, TypeError, ValueError) as error:
        line = " ".join(str(error).split())[:300]
        raise UsageError(f"{name} cannot be made anew in {dtype}: {line} Leave --dtype out.") from error
    return recast


def _set_dtype(node: Any, policy: str) -> None:
    """Changes the float32 policies in a model's configuration, in place."""
    if isinstance(node, dict):
        config = node.get("config")
        if node.get("class_name") in KEPT_EXACT:
            return
        if isinstance(config, dict) and "dtype" in config:
            found = config["dtype"]
            if found == "float32":
                config["dtype"] = policy
            elif isinstance(found, dict) and found.get("config", {}).get("name") == "float32":
                found["config"]["name"] = policy
        node = list(node.values())
    for child in node if isinstance(node, list) else []:
        _set_dtype(child, policy)


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


def _function(native: Any, made_with: str, preprocessing: Preprocessing) -> str:
    """What makes scores of a model's outputs: `none` where they are probabilities already, else what they lack."""
    activation = _last_activation(native) if made_with != "module" else ""
    if activation in ("softmax", "sigmoid"):
        return "none"
    tried = _tried(native, preprocessing)
    if tried is None:
        return "softmax"
    if tried.shape[1] == 1:
        return "none" if activation == "" and tried.min() >= 0 and tried.max() <= 1 else "sigmoid"
    # Whatever gave them, and however deep within: probabilities of one label each add up to 1.
    return "none" if tried.min() >= 0 and abs(tried.sum(axis=1) - 1).max() < 1e-3 else "softmax"


def _last_activation(native: Any) -> str:
    """The name of what the last layer does to its output, also of models within models; "" where it is not known."""
    last = native
    while getattr(last, "layers", None):
        last = last.layers[-1]
    named = getattr(getattr(last, "activation", None), "__name__", "")
    return "softmax" if type(last).__name__ == "Softmax" else str(named)


def _tried(native: Any, preprocessing: Preprocessing) -> Any:
    """A model's only output for a few pictures of noise, NumPy [b, n]; None where it has no such output."""
    import numpy as np
    import tensorflow as tf

    from signatures.processor import compile_processor

    process = compile_processor(preprocessing)
    noise = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3)).astype(np.uint8)
    try:
        pixels = tf.stack([process(tf.constant(picture))["pixel_values"] for picture in noise])
        outputs = list(call(native, {"pixel_values": pixels}).values())
    except Exception:  # whatever it is, tracing meets it again and says it
        return None
    if len(outputs) != 1 or outputs[0].shape.rank != 2:
        return None
    return tf.cast(outputs[0], tf.float64).numpy()
