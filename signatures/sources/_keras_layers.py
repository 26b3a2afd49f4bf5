"""Keras layers that prepare images, as frozen settings: KerasHub's `ImageConverter`, and a model's own first layers.

Keras runs these layers on float32 in `predict`, `fit` and `tf.data`, and so do the settings here. (Called with 8-bit
pixels outside of them, they round to 8 bits; no trained model has seen that.)
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from signatures.errors import UsageError
from signatures.preprocessing import TENSORFLOW, Preprocessing, Resize

__all__ = ["LayerProcessor", "document", "from_converter", "from_own_layers", "read"]

LAYER = "keras_layer"
"""The key of a `preprocessor_config.json` that holds a Keras layer in place of an image processor of transformers."""

METHODS = ("nearest", "bilinear", "bicubic", "lanczos3", "lanczos5")
"""What Keras calls `interpolation`, as far as `tf.image.resize` knows it by the same name."""
CALLS = ("__call__", "call", "_call_python", "_call_tf")
RANGES = ("Rescaling", "Normalization")
"""Layers that say of which range the values before them are."""


class LayerProcessor:
    """A Keras layer that answers where `signatures.verify` asks an image processor of transformers.

    Args:
        layer: Takes float32 [b, h, w, 3].
        settings: What it was frozen as, of which only the scale and the shift are read.
    """

    do_rescale = False
    do_normalize = True

    def __init__(self, layer: Any, settings: Preprocessing) -> None:
        self.layer = layer
        scale = settings.scale or (1.0,) * 3
        shift = settings.shift or (0.0,) * 3
        self.image_std = [1 / each for each in scale]
        self.image_mean = [-add / each for each, add in zip(scale, shift, strict=True)]

    def __call__(self, images: Any, *, do_rescale: bool = True, **_: Any) -> dict[str, Any]:
        """One upright RGB picture, prepared; without `do_rescale` in whole grey levels."""
        import numpy as np

        values = np.asarray(self.layer(np.asarray(images, np.float32)[None]))
        if not do_rescale:
            values = np.rint(values.astype(np.float64) * self.image_std + self.image_mean)
        return {"pixel_values": values}


def document(layer: Any) -> str:
    """The text of a `preprocessor_config.json` that holds a layer."""
    library = "keras_hub" if type(layer).__module__.startswith("keras_hub") else _library(layer)
    keras: Any = importlib.import_module("tf_keras" if library == "tf_keras" else "keras")
    content = {"library": library, LAYER: keras.saving.serialize_keras_object(layer)}
    return json.dumps(content, indent=2)


def read(path: Path, settings: Preprocessing) -> LayerProcessor | None:
    """What `document` wrote; None where the file is of transformers."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if LAYER not in content:
        return None
    importlib.import_module(content["library"])
    keras: Any = importlib.import_module("tf_keras" if content["library"] == "tf_keras" else "keras")
    return LayerProcessor(keras.saving.deserialize_keras_object(content[LAYER]), settings)


def from_converter(converter: Any, name: str) -> Preprocessing:
    """KerasHub's `ImageConverter`: resize, times `scale`, plus `offset`.

    Args:
        converter: The layer of a preset.
        name: The preset, for messages.

    Raises:
        UsageError: It has a setting, or code of its own, that cannot be frozen exactly; the message names it.
    """
    import keras_hub

    base = keras_hub.layers.ImageConverter
    cls = type(converter)
    for method in CALLS:
        if getattr(cls, method, None) is not getattr(base, method, None):
            raise _refused(name, cls.__name__, f"a `{method}` of its own")
    _channels_last_float32(converter, name)
    resize = None
    if converter.image_size is not None:
        resize = _resize(converter.resizing, tuple(converter.image_size), name)
    return Preprocessing(
        processor=cls.__name__,
        resize=resize,
        scale=_per_channel(converter.scale, "scale", cls.__name__, name),
        shift=_per_channel(converter.offset, "offset", cls.__name__, name),
        data_format="channels_last",
    )


def from_own_layers(native: Any, name: str) -> tuple[Preprocessing, Any] | None:
    """The settings of a Keras model that resizes its images itself, and the layer that does.

    The servable runs the model's first `Resizing` layer image by image, since a batch of several sizes cannot be
    stacked before it; within the model it then finds the right size and leaves the values as they are.

    Args:
        native: The model.
        name: For messages.

    Returns:
        None where the model does not begin with `Resizing`, or no `Rescaling` or `Normalization` follows that would say
        which range of values it takes.

    Raises:
        UsageError: The layer has a setting that cannot be frozen exactly.
    """
    kinds = [type(layer).__name__ for layer in native.layers]
    layers = [layer for layer, kind in zip(native.layers, kinds, strict=True) if kind != "InputLayer"]
    if len(layers) < 2 or type(layers[0]).__name__ != "Resizing" or type(layers[1]).__name__ not in RANGES:
        return None
    layer = layers[0]
    _channels_last_float32(layer, name)
    if _library(layer) == "tf_keras" and layer.crop_to_aspect_ratio:
        raise _refused(name, "Resizing", "crop_to_aspect_ratio of tf-keras")
    resize = _resize(layer, (layer.height, layer.width), name)
    return Preprocessing(processor="Resizing", resize=resize, data_format="channels_last"), layer


def _resize(layer: Any, size: tuple[int, int], name: str) -> Resize:
    kind = type(layer).__name__
    if layer.interpolation not in METHODS:
        raise _refused(name, kind, f"interpolation {layer.interpolation!r}")
    for setting, plain in (("fill_mode", "constant"), ("fill_value", 0.0)):
        if getattr(layer, setting, plain) != plain:
            raise _refused(name, kind, f"{setting} {getattr(layer, setting)!r}")
    crop, pad = layer.crop_to_aspect_ratio, getattr(layer, "pad_to_aspect_ratio", False)
    return Resize(
        rule="exact",
        height=int(size[0]),
        width=int(size[1]),
        resample=layer.interpolation,
        order=TENSORFLOW,
        aspect="crop" if crop else "pad" if pad else "stretch",
        antialias=bool(getattr(layer, "antialias", False)),
    )


def _channels_last_float32(layer: Any, name: str) -> None:
    kind = type(layer).__name__
    if getattr(layer, "data_format", "channels_last") == "channels_first":
        raise _refused(name, kind, "data_format channels_first")
    if layer.compute_dtype != "float32":
        raise _refused(name, kind, f"dtype {layer.compute_dtype}")


def _per_channel(value: Any, setting: str, kind: str, name: str) -> tuple[float, ...] | None:
    if value is None:
        return None
    values = [float(value)] * 3 if not hasattr(value, "__len__") else [float(each) for each in value]
    if len(values) != 3 or (setting == "scale" and 0 in values):
        raise _refused(name, kind, f"{setting} {value!r}")
    return tuple(values)


def _refused(name: str, kind: str, setting: str) -> UsageError:
    return UsageError(
        f"{name} has a {kind} with {setting}, which cannot be put into a graph exactly. "
        "Give the settings by options instead: --size, --resample, --mean, --std."
    )


def _library(layer: Any) -> str:
    modules: Mapping[str, None] = dict.fromkeys(cls.__module__.partition(".")[0] for cls in type(layer).__mro__)
    return "tf_keras" if "tf_keras" in modules else "keras"
