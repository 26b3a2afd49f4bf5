"""Small image ops in TensorFlow, each answering as Pillow and transformers' PIL processors do.

Reading a file is `decode.py`, its header `headers.py`, resizing `resize.py`.
"""

from __future__ import annotations

import tensorflow as tf

__all__ = ["center_crop", "center_window", "normalize", "orient", "pad_to", "rescale"]


def orient(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns a stored picture upright (`PIL.ImageOps.exif_transpose`).

    Args:
        image: [h, w, c], any dtype.
        orientation: int32 scalar, 1 to 8 as in EXIF.

    Returns:
        [h, w, c], or [w, h, c] for orientations 5 to 8.
    """

    def turned() -> tf.Tensor:
        swap = orientation >= 5
        upright = tf.cond(swap, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
        # After the swap: 2, 3, 7, 6 run right to left and 3, 4, 7, 8 bottom to top.
        mirror = tf.reduce_any(orientation == tf.constant([2, 3, 6, 7]))
        upside_down = tf.reduce_any(orientation == tf.constant([3, 4, 7, 8]))
        upright = tf.cond(mirror, lambda: upright[:, ::-1], lambda: upright)
        return tf.cond(upside_down, lambda: upright[::-1], lambda: upright)

    result = tf.cond(orientation > 1, turned, lambda: image)
    return tf.ensure_shape(result, [None, None, image.shape[-1]])


def center_window(size: tf.Tensor, crop: tuple[int, int]) -> tuple[tf.Tensor, tf.Tensor]:
    """Where a centre crop cuts, and where the cut lands on the canvas (`transformers.image_transforms.center_crop`).

    Args:
        size: int32 [2], the picture's height and width.
        crop: The height and width of the result.

    Returns:
        int32 [2, 2] `(top, left), (height, width)` of the part of the picture that is kept, and int32 [2], the row and
        column of the canvas where its corner goes; the rest of the canvas is zero.
    """
    wanted = tf.constant(crop, tf.int32)
    start = tf.math.floordiv(size - wanted, 2)
    # A picture smaller than the crop on either axis is first laid on a canvas at least as large as both, with the
    # odd pixel before it, and the crop is taken from there.
    small = tf.reduce_any(size < wanted)
    before = tf.where(small, -tf.math.floordiv(-(tf.maximum(wanted, size) - size), 2), 0)
    start = tf.where(small, start + before, start)
    top_left = tf.maximum(start, 0) - before
    corner = tf.maximum(-top_left, 0)
    kept_from = tf.maximum(top_left, 0)
    kept = tf.minimum(size, top_left + wanted) - kept_from
    return tf.stack([kept_from, tf.maximum(kept, 0)]), corner


def center_crop(image: tf.Tensor, crop: tuple[int, int]) -> tf.Tensor:
    """Cuts the middle out of a picture, with zeros where the picture is too small.

    Args:
        image: [h, w, c].
        crop: The height and width of the result in pixels.
    """
    part, corner = center_window(tf.shape(image)[:2], crop)
    (top, left), (height, width) = tf.unstack(part[0]), tf.unstack(part[1])
    return pad_to(image[top : top + height, left : left + width], crop, corner)


def pad_to(image: tf.Tensor, size: tuple[int, int], corner: tf.Tensor | None = None) -> tf.Tensor:
    """Lays a picture on a canvas of zeros.

    Args:
        image: [h, w, c], at most as large as the canvas.
        size: The canvas' height and width.
        corner: int32 [2], the row and column of the picture's corner; the upper left one where None.
    """
    before = tf.zeros([2], tf.int32) if corner is None else corner
    after = tf.constant(size, tf.int32) - before - tf.shape(image)[:2]
    padding = tf.concat([tf.stack([before, after], axis=1), tf.zeros([1, 2], tf.int32)], axis=0)
    missing = tf.reduce_any(padding > 0)
    result = tf.cond(missing, lambda: tf.pad(image, padding), lambda: image)
    return tf.ensure_shape(result, [*size, image.shape[-1]])


def rescale(image: tf.Tensor, scale: float, offset: float = 0.0) -> tf.Tensor:
    """Times `scale` in double precision, rounded to float32 as NumPy does it; then plus `offset`."""
    scaled = tf.cast(tf.cast(image, tf.float64) * scale, tf.float32)
    return scaled + offset if offset else scaled


def normalize(plane: tf.Tensor, mean: float, std: float) -> tf.Tensor:
    """`(plane - mean) / std` in float32, for one channel: TensorFlow is slow at broadcasting over a last axis of 3."""
    return (plane - tf.constant(mean, tf.float32)) / tf.constant(std, tf.float32)
