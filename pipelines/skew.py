"""Does a servable see the pixels that its model was trained on? Measured on real Examples, not argued."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.examples import encoded_images
from signatures.errors import VitrinaError
from signatures.preprocessing import Preprocessing

__all__ = ["Skew", "measure_skew"]

SIGNATURE = "preprocess"
PIXELS = "pixel_values"
TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Skew:
    """How far training and serving are apart.

    Args:
        images: How many were compared.
        pixels: The largest difference in grey levels of 255, to the nearest level. Anything but 0 is skew.
        values: The largest difference in the model's input values, relative to the largest of them where that is above
            1. Two graphs of the same ops may round the last bit of a float32 otherwise, some 1e-7 and no grey level.
    """

    images: int
    pixels: float
    values: float

    @property
    def ok(self) -> bool:
        """Whether training and serving see the same."""
        return self.pixels == 0 and self.values <= TOLERANCE


def measure_skew(servable: Path, checkpoint: Path, split: Path, *, limit: int) -> Skew:
    """Compares the training input with the servable's `preprocess` signature, image by image.

    Args:
        servable: One version's folder.
        checkpoint: The trained checkpoint, whose settings the training input was made with.
        split: A split's folder of Examples.
        limit: At most so many images.

    Returns:
        The largest differences.

    Raises:
        VitrinaError: There are no images.
    """
    import tensorflow as tf

    from pipelines import trainable
    from pipelines.inputs import features

    images = encoded_images(split, limit=limit)
    if not images:
        raise VitrinaError(f"{split} holds no images to compare training and serving on. Look at ImageGen's report.")
    settings = trainable.preprocessing(checkpoint)
    trained = features(images, settings)
    served = tf.saved_model.load(str(servable)).signatures[SIGNATURE](image_bytes=tf.constant(images, tf.string))
    pairs = [(one.numpy(), served[PIXELS][number].numpy()) for number, one in enumerate(trained)]
    if any(one.shape != other.shape for one, other in pairs):
        return Skew(images=len(images), pixels=float("inf"), values=float("inf"))
    return Skew(
        images=len(images),
        pixels=max(
            float(np.rint(_largest(_grey_levels(one, settings), _grey_levels(other, settings)))) for one, other in pairs
        ),
        values=max(_largest(one, other) / max(1.0, float(np.max(np.abs(other)))) for one, other in pairs),
    )


def _grey_levels(values: Any, settings: Preprocessing) -> Any:
    """The grey levels that preprocessed values came from."""
    channels = (-1, 1, 1) if settings.data_format == "channels_first" else (1, 1, -1)

    def each(numbers: tuple[float, ...] | None, plain: float) -> Any:
        shown = numbers or (plain,) * 3
        return np.reshape(shown[::-1] if settings.flip_channels else shown, channels)

    levels = values.astype(np.float64) * each(settings.divisor, 1.0)
    levels = levels * each(settings.std, 1.0) + each(settings.mean, 0.0)
    levels = (levels - each(settings.shift, 0.0)) / each(settings.scale, 1.0)
    return (levels - settings.offset) / (settings.rescale or 1.0)


def _largest(one: Any, other: Any) -> float:
    return float(np.max(np.abs(one.astype(np.float64) - other.astype(np.float64)), initial=0.0))
