"""The exported checkpoint as its own library runs it: the other side of the comparison in `verify`.

Everything comes out of the servable: configuration files from `assets.extra/checkpoint`, weights from the
SavedModel's variables. So a servable can be verified wherever it was pushed, without the source.
"""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from signatures.errors import UsageError
from signatures.spec import Card

__all__ = ["FOLDER", "Checkpoint", "restore"]

FOLDER = "assets.extra/checkpoint"
PROCESSOR = "preprocessor_config.json"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model and its image processor, ready to answer.

    Args:
        folder: Configuration and vocabulary files.
        native: The framework's model, with the servable's weights.
        image_processor: The PIL-based processor of transformers.
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
            self.pipelines[cls] = cls(model=self.native, framework="tf", **parts)
        return self.pipelines[cls]

    def grey_levels(self, image: Any) -> Any:
        """An RGB PIL image as the processor has it before rescaling, [3, h, w] in 0..255."""
        return self._processed(image, do_rescale=False, do_normalize=False)["pixel_values"]

    def features(self, image: Any) -> dict[str, Any]:
        """An RGB PIL image as the processor gives it to the model, without batch axis."""
        return self._processed(image)

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
    weights = {variable.name: variable for variable in loaded.model.weights}
    source = importlib.import_module(f"signatures.sources.{card.source.kind}")
    native = source.restore(folder, card, weights)
    return Checkpoint(folder=folder, native=native, image_processor=_image_processor(folder), card=card)


def _image_processor(folder: Path) -> Any:
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(folder, use_fast=False)
    # Left to guess, it takes a picture that is one or three pixels high for channels first.
    processor.preprocess = functools.partial(processor.preprocess, input_data_format="channels_last")
    return processor
