"""The exported checkpoint as its own library runs it: the other side of the comparison in `verify`.

Everything comes out of the servable: configuration files from `assets.extra/checkpoint`, weights from the
SavedModel's variables. So a servable can be verified wherever it was pushed, without the source.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from signatures.errors import UsageError
from signatures.preprocessing import RESAMPLE_NAMES, Preprocessing
from signatures.spec import Card

__all__ = ["FOLDER", "PROCESSOR", "Checkpoint", "processor_config", "restore"]

FOLDER = "assets.extra/checkpoint"
PROCESSOR = "preprocessor_config.json"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model and its image processor, ready to answer.

    Args:
        folder: Configuration and vocabulary files.
        native: The framework's model, with the servable's weights.
        image_processor: The PIL-based processor of transformers, or a Keras layer in its place.
        card: The servable's card.
        pipelines: Those made so far, by class.
    """

    folder: Path
    native: Any
    image_processor: Any
    card: Card
    pipelines: dict[type, Any] = field(default_factory=dict)

    def pipeline(self, cls: Any, **parts: Any) -> Any:
        """A transformers pipeline of the class `cls` around this model; `parts` are tokenizer and the like.

        `transformers.pipeline()` itself needs PyTorch even for TensorFlow models; its classes do not.
        """
        if cls not in self.pipelines:
            parts = {"image_processor": self.image_processor, **parts}
            self.pipelines[cls] = cls(model=self.native, framework="tf", device=-1, **parts)
        return self.pipelines[cls]

    def grey_levels(self, image: Any) -> Any:
        """An RGB PIL image as the processor has it before rescaling, [3, h, w] in 0..255."""
        return self._processed(image, do_rescale=False, do_normalize=False)["pixel_values"]

    def features(self, image: Any) -> dict[str, Any]:
        """An RGB PIL image as the processor gives it to the model, without batch axis."""
        return self._processed(image)

    def raw(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """The model's raw outputs for features without batch axis, as `Model.call` names them."""
        import tensorflow as tf

        source = importlib.import_module(f"signatures.sources.{self.card.source.kind}")
        outputs = source.call(self.native, {name: tf.constant(value[None]) for name, value in features.items()})
        return {name: value.numpy()[0] for name, value in outputs.items()}

    def _processed(self, image: Any, **settings: Any) -> dict[str, Any]:
        outputs = self.image_processor(images=image, return_tensors="np", **settings)
        return {name: value[0] for name, value in outputs.items()}


def restore(version: Path, card: Card, loaded: Any) -> Checkpoint:
    """The checkpoint that a servable was exported from.

    Args:
        version: The servable's folder.
        card: Its card.
        loaded: Its SavedModel, from `tf.saved_model.load`.

    Returns:
        The checkpoint, with the weights that the servable holds.

    Raises:
        UsageError: The servable does not carry the checkpoint's files.
    """
    folder = version / FOLDER
    if not (folder / PROCESSOR).is_file():
        raise UsageError(
            f"{version} does not carry its checkpoint's {PROCESSOR}, so there is nothing to compare it with. "
            "Export the model again."
        )
    source = importlib.import_module(f"signatures.sources.{card.source.kind}")
    native = source.restore(folder, card, list(loaded.model.weights))
    return Checkpoint(folder=folder, native=native, image_processor=_image_processor(folder, card), card=card)


def processor_config(settings: Preprocessing) -> dict[str, Any]:
    """A `preprocessor_config.json` for settings that were given by options, so that Pillow can check them too."""
    config: dict[str, Any] = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": settings.resize is not None,
        "do_center_crop": settings.crop is not None,
        "do_rescale": settings.rescale is not None,
        "do_normalize": settings.mean is not None,
    }
    if settings.resize is not None:
        resize = settings.resize
        exact = {"height": resize.height, "width": resize.width}
        config["size"] = exact if resize.rule == "exact" else {resize.rule: resize.edge}
        config["resample"] = RESAMPLE_NAMES.index(resize.resample)
    if settings.crop is not None:
        config["crop_size"] = dict(zip(("height", "width"), settings.crop, strict=True))
    if settings.rescale is not None:
        config["rescale_factor"] = settings.rescale
    if settings.mean is not None and settings.std is not None:
        config["image_mean"], config["image_std"] = list(settings.mean), list(settings.std)
    return config


def _image_processor(folder: Path, card: Card) -> Any:
    # Not above: sources read this module.
    from signatures.sources import _keras_layers

    layer = _keras_layers.read(folder / PROCESSOR, Preprocessing.from_json(card.preprocessing))
    if layer is not None:
        return layer
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(folder, use_fast=False)
    # Left to guess, it takes a picture that is one or three pixels high for channels first.
    settings = {"input_data_format": "channels_last"}
    if card.preprocessing.get("data_format") == "channels_last":
        settings["data_format"] = "channels_last"
    processor.preprocess = functools.partial(processor.preprocess, **settings)
    return processor
