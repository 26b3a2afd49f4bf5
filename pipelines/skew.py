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
        values: The largest difference in the model's input values. Two graphs of the same ops may round the last bit
            of a float32 otherwise, which is some 1e-7 and no grey level.
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
        VitrinaError: There are no images, or the two do not have the same values at all.
    """
    import tensorflow as tf

    from pipelines.training import dataset
    from signatures.sources.transformers import preprocessing

    images = encoded_images(split, limit=limit)
    if not images:
        raise VitrinaError(f"{split} holds no images to compare training and serving on. Look at ImageGen's report.")
    files = sorted(str(path) for path in split.iterdir())
    settings = preprocessing(str(checkpoint))
    trained, _ = next(iter(dataset(files, preprocessing=settings, labels=("any",), batch_size=len(images))))
    preprocess = tf.saved_model.load(str(servable)).signatures[SIGNATURE]
    served = preprocess(image_bytes=tf.constant(images, tf.string))
    if set(trained) != set(served):
        raise VitrinaError(f"Training makes {sorted(trained)}, but the servable {sorted(served)}. Export it again.")
    pairs = {name: (trained[name].numpy(), served[name].numpy()) for name in served}
    if any(one.shape != other.shape for one, other in pairs.values()):
        return Skew(images=len(images), pixels=float("inf"), values=float("inf"))
    one, other = pairs[PIXELS]
    return Skew(
        images=len(images),
        pixels=_largest(_grey_levels(one, settings), _grey_levels(other, settings)),
        values=max(_largest(one, other) for one, other in pairs.values()),
    )


def _grey_levels(values: Any, settings: Preprocessing) -> Any:
    """The 8-bit pixels that normalised values came from, to the nearest level."""
    channels = (-1, 1, 1) if settings.data_format == "channels_first" else (-1,)
    std = np.reshape(settings.std or (1.0,), channels)
    mean = np.reshape(settings.mean or (0.0,), channels)
    return np.rint((values.astype(np.float64) * std + mean) / (settings.rescale or 1.0))


def _largest(one: Any, other: Any) -> float:
    return float(np.max(np.abs(one.astype(np.float64) - other.astype(np.float64)), initial=0.0))
