"""How Keras brings a picture to its size: `keras.layers.Resizing`, and with it KerasHub's `ImageConverter`.

These layers run `tf.image.resize` on float32, so an answer is the same op's answer, and is not rounded to grey levels.
Formulas of the crop and the padding: `keras.src.backend.tensorflow.image.resize` of Keras 3.12 to 3.15.
"""

from __future__ import annotations

import tensorflow as tf

from signatures.preprocessing import Resize

__all__ = ["resize_as_keras"]


def resize_as_keras(image: tf.Tensor, rule: Resize) -> tf.Tensor:
    """Brings one picture to `rule.height` x `rule.width`.

    Args:
        image: [h, w, 3] of any number type.
        rule: Its method, its aspect and whether it smooths; `rule.rule` is `exact`.

    Returns:
        float32 [height, width, 3].
    """
    assert rule.rule == "exact"
    assert rule.height is not None
    assert rule.width is not None
    image = tf.cast(image, tf.float32)
    target = (rule.height, rule.width)
    if rule.aspect != "stretch":
        image = {"crop": _cropped, "pad": _padded}[rule.aspect](image, target)
    resized: tf.Tensor = tf.image.resize(image, target, method=rule.resample, antialias=rule.antialias)
    return tf.cast(resized, tf.float32)


def _cropped(image: tf.Tensor, target: tuple[int, int]) -> tf.Tensor:
    """The largest middle part of the aspect ratio `target`."""
    height, width, fitting_height, fitting_width = _sides(image, target)
    part_height = tf.maximum(tf.minimum(height, fitting_height), 1)
    part_width = tf.maximum(tf.minimum(width, fitting_width), 1)
    top, left = _half(height - part_height), _half(width - part_width)
    return image[top : top + part_height, left : left + part_width]


def _padded(image: tf.Tensor, target: tuple[int, int]) -> tf.Tensor:
    """The picture with as many zeros before as behind it; where their number is odd, one is left out."""
    height, width, fitting_height, fitting_width = _sides(image, target)
    above = _half(tf.maximum(height, fitting_height) - height)
    beside = _half(tf.maximum(width, fitting_width) - width)
    return tf.pad(image, [[above, above], [beside, beside], [0, 0]])


def _sides(image: tf.Tensor, target: tuple[int, int]) -> tuple[tf.Tensor, ...]:
    """Height, width, and the height and the width that would fit the other one at the aspect ratio `target`."""
    shape = tf.shape(image)
    height, width = shape[0], shape[1]
    fitting_height = tf.cast(tf.cast(width * target[0], tf.float32) / target[1], tf.int32)
    fitting_width = tf.cast(tf.cast(height * target[1], tf.float32) / target[0], tf.int32)
    return height, width, fitting_height, fitting_width


def _half(pixels: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.cast(pixels, tf.float32) / 2, tf.int32)
