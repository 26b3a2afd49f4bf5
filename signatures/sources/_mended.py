"""What transformers' TensorFlow classes need besides, so that they can be made, and served, as they are meant."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

__all__ = ["images_of_any_size", "windows"]


def windows() -> None:
    """Lets Swin put its windows together without a division.

    transformers counts the images of a batch by a quotient of floats, cut to a whole number. TensorFlow's graph
    optimizer multiplies by the reciprocal instead, and 49 * (1 / 49) is less than 1: with windows of 7, servers would
    then mix up the images of a batch, or fail. The answer is the same otherwise.
    """
    swin: Any = sys.modules.get("transformers.models.swin.modeling_tf_swin")
    if swin is not None:
        swin.window_reverse = _whole


def _whole(windows: Any, window_size: Any, height: Any, width: Any) -> Any:
    """Windows [b * n, size, size, c] as the picture [b, height, width, c] that they were cut from."""
    import tensorflow as tf

    channels = windows.shape[-1]
    grid = (-1, height // window_size, width // window_size, window_size, window_size, channels)
    return tf.reshape(tf.transpose(tf.reshape(windows, grid), (0, 1, 3, 2, 4, 5)), (-1, height, width, channels))


@contextlib.contextmanager
def images_of_any_size() -> Iterator[None]:
    """Lets transformers make models whose images are oblong, or whose configuration says no size (Cvt).

    It wants one square size, for Keras's own way of saving models, which nothing here uses.
    """
    from transformers import TFPreTrainedModel

    usual = TFPreTrainedModel.input_signature

    def either(self: Any) -> dict[str, Any]:
        import tensorflow as tf

        try:
            return dict(usual.fget(self))
        except (TypeError, NotImplementedError):
            return {"pixel_values": tf.TensorSpec([None, None, None, None], tf.float32, name="pixel_values")}

    TFPreTrainedModel.input_signature = property(either)
    try:
        yield
    finally:
        TFPreTrainedModel.input_signature = usual
