"""Pillow's 8-bit resize in TensorFlow ops, bit for bit.

Pillow resizes in two separable passes with an 8-bit picture in between. Each output sample is a weighted sum of a few
neighbouring input samples, in integers: the weights are rounded to 22 fractional bits, the sum is rounded half up
and clipped to 0..255 (`src/libImaging/Resample.c`). The order of the passes shows in the result, and Pillow 13
chooses it otherwise than Pillow 12 does, so it is a setting here: see `ORDERS`.

A pass is one product of a sparse matrix (an output sample has `2 * support * scale` inputs) with the picture, in
int32 as Pillow does it. Wide pictures go through in slices, so that memory stays at a small multiple of the picture's
own 8-bit size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

__all__ = ["FILTERS", "ORDERS", "Window", "resize"]

_PRECISION_BITS = 22
_SLICE_ELEMENTS = 1 << 22


class Window(NamedTuple):
    """The part of the resized picture that is wanted, in its pixels; scalars of int32.

    Only this part is computed, which is what makes resize and centre crop cheap on long pictures.
    """

    top: tf.Tensor
    left: tf.Tensor
    height: tf.Tensor
    width: tf.Tensor


def _box(x: tf.Tensor) -> tf.Tensor:
    return tf.cast((x > -0.5) & (x <= 0.5), tf.float64)


def _bilinear(x: tf.Tensor) -> tf.Tensor:
    return tf.maximum(1.0 - tf.abs(x), 0.0)


def _sinc(x: tf.Tensor) -> tf.Tensor:
    safe = tf.where(x == 0.0, tf.ones_like(x), x * math.pi)
    return tf.where(x == 0.0, tf.ones_like(x), tf.sin(safe) / safe)


def _hamming(x: tf.Tensor) -> tf.Tensor:
    # Pillow writes the two constants as C floats; their rounding to 24 bits reaches the 22-bit weights.
    a, b = (float.fromhex(h) for h in ("0x1.147ae2p-1", "0x1.d70a3ep-2"))
    x = tf.abs(x)
    return tf.where(x < 1.0, _sinc(x) * (a + b * tf.cos(x * math.pi)), tf.zeros_like(x))


def _bicubic(x: tf.Tensor) -> tf.Tensor:
    a = -0.5
    x = tf.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return tf.where(x < 1.0, near, tf.where(x < 2.0, far, tf.zeros_like(x)))


def _lanczos(x: tf.Tensor) -> tf.Tensor:
    return tf.where((x >= -3.0) & (x < 3.0), _sinc(x) * _sinc(x / 3.0), tf.zeros_like(x))


_KERNELS: dict[str, tuple[Callable[[tf.Tensor], tf.Tensor], float]] = {
    "lanczos": (_lanczos, 3.0),
    "bilinear": (_bilinear, 1.0),
    "bicubic": (_bicubic, 2.0),
    "box": (_box, 0.5),
    "hamming": (_hamming, 1.0),
}

FILTERS: tuple[str, ...] = ("nearest", *_KERNELS)
"""The names of `PIL.Image.Resampling`, in the order of its numbers 0 to 5."""


def _pillow_12(source: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Vertical first only for pictures over a hundred times as tall as wide (`Image.resize`, Pillow 10 to 12)."""
    return (source[0] > 100 * source[1]) & (target[0] < source[0])


def _pillow_13(source: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Vertical first where that removes over twice as many rows as the other order removes columns.

    Measured on Pillow 13.0.0: 978 geometries drawn from 1..640 on both axes, and 1,599 at the edge of the rule.
    """
    return (target[0] < source[0]) & (source[0] - target[0] > 2 * (source[1] - target[1]))


_ORDERS: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "pillow-12": _pillow_12,
    "pillow-13": _pillow_13,
}

ORDERS: tuple[str, ...] = tuple(_ORDERS)
"""Names of the rules that say which pass comes first; `preprocessing.pass_order` picks by Pillow's version."""


def resize(
    image: tf.Tensor,
    size: tf.Tensor,
    *,
    resample: str,
    order: str,
    window: Window | None = None,
) -> tf.Tensor:
    """Resizes a picture as `PIL.Image.Image.resize` does.

    Args:
        image: uint8 [h, w, 3], neither side 0.
        size: int32 [2], the new height and width in pixels, both at least 1.
        resample: One of `FILTERS`.
        order: One of `ORDERS`.
        window: The part of the result that is wanted; all of it where None.

    Returns:
        uint8 [size[0], size[1], 3], or the window's part of that.
    """
    source = tf.shape(image)[:2]
    size = tf.cast(size, tf.int32)
    whole = Window(tf.constant(0), tf.constant(0), size[0], size[1])
    part = whole if window is None else window

    def unchanged() -> tf.Tensor:
        return image[part.top : part.top + part.height, part.left : part.left + part.width]

    def changed() -> tf.Tensor:
        if resample == "nearest":
            return _nearest(image, size, part)
        return _two_passes(image, size, part, resample, order)

    return tf.cond(tf.reduce_all(source == size), unchanged, changed)


def _nearest(image: tf.Tensor, size: tf.Tensor, part: Window) -> tf.Tensor:
    source = tf.shape(image)[:2]
    rows = _nearest_indices(source[0], size[0])[part.top : part.top + part.height]
    columns = _nearest_indices(source[1], size[1])[part.left : part.left + part.width]
    return tf.gather(tf.gather(image, rows), columns, axis=1)


def _nearest_indices(source: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Pillow walks the axis by repeated addition (`Geometry.c`, `ImagingScaleAffine`), and so does this."""
    step = _ratio(source, target)
    steps = tf.concat([[step * 0.5], tf.fill([target - 1], step)], axis=0)
    return tf.minimum(tf.cast(tf.cumsum(steps), tf.int32), source - 1)


def _two_passes(image: tf.Tensor, size: tf.Tensor, part: Window, resample: str, order: str) -> tf.Tensor:
    source = tf.shape(image)[:2]
    rows = _Axis.of(source[0], size[0], part.top, part.height, resample)
    columns = _Axis.of(source[1], size[1], part.left, part.width, resample)

    def horizontal_first() -> tf.Tensor:
        used = image[rows.first : rows.last]
        narrow = _pass(tf.transpose(used, [1, 0, 2]), columns)
        return tf.transpose(_pass(narrow, rows.shifted()), [1, 0, 2])

    def vertical_first() -> tf.Tensor:
        used = image[:, columns.first : columns.last]
        return _pass(_pass(used, rows), columns.shifted())

    return tf.cond(_ORDERS[order](source, size), vertical_first, horizontal_first)


class _Axis(NamedTuple):
    """One axis' weights: output sample `i` is the sum of `weights[i, k] * input[start[i] + k]`."""

    start: tf.Tensor  # int32 [count]
    weights: tf.Tensor  # int32 [count, taps], with 22 fractional bits; 0 past a sample's own taps
    first: tf.Tensor  # int32, the first input sample that is used at all
    last: tf.Tensor  # int32, one past the last

    def shifted(self) -> _Axis:
        """The same weights for an input that was cut to `first:last`."""
        return _Axis(self.start - self.first, self.weights, tf.zeros_like(self.first), self.last - self.first)

    @classmethod
    def of(cls, source: tf.Tensor, target: tf.Tensor, offset: tf.Tensor, count: tf.Tensor, resample: str) -> _Axis:
        """Pillow's `precompute_coeffs` and `normalize_coeffs_8bpc`, for the outputs `offset:offset + count`."""
        kernel, reach = _KERNELS[resample]
        scale = _ratio(source, target)
        stretch = tf.maximum(scale, 1.0)
        support = reach * stretch
        centre = (tf.cast(tf.range(offset, offset + count), tf.float64) + 0.5) * scale
        # Casting truncates towards zero, as in C; a negative start is clipped in any case.
        start = tf.maximum(tf.cast(centre - support + 0.5, tf.int32), 0)
        stop = tf.minimum(tf.cast(centre + support + 0.5, tf.int32), source)
        taps = tf.range(tf.reduce_max(stop - start))
        positions = start[:, None] + taps[None, :]
        inverse = 1.0 / stretch
        raw = kernel((tf.cast(positions, tf.float64) - centre[:, None] + 0.5) * inverse)
        raw = tf.where(positions < stop[:, None], raw, tf.zeros_like(raw))
        total = tf.reduce_sum(raw, axis=1, keepdims=True)
        share = raw / tf.where(total == 0.0, tf.ones_like(total), total)
        fixed = share * float(1 << _PRECISION_BITS)
        weights = tf.cast(tf.where(share < 0.0, fixed - 0.5, fixed + 0.5), tf.int32)
        return cls(start, weights, tf.reduce_min(start), tf.reduce_max(stop))


def _ratio(source: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    # Pillow's box is made of C floats, which matters only past 2**24 pixels.
    box = tf.cast(tf.cast(source, tf.float32), tf.float64)
    return box / tf.cast(target, tf.float64)


def _pass(image: tf.Tensor, axis: _Axis) -> tf.Tensor:
    """Resamples the first axis and swaps the first two: uint8 [n, m, 3] to uint8 [m, count, 3].

    Slices along `m` bound the int32 copies; a small picture is one slice.
    """
    shape = tf.shape(image)
    n, m = shape[0], shape[1]
    count, taps = tf.shape(axis.weights)[0], tf.shape(axis.weights)[1]
    row = tf.repeat(tf.range(count), taps)
    # Taps past the end have weight 0; clipping their position keeps the product in bounds.
    column = tf.minimum(tf.reshape(axis.start[:, None] + tf.range(taps)[None, :], [-1]), n - 1)
    indices = tf.cast(tf.stack([row, column], axis=1), tf.int64)
    values = tf.reshape(axis.weights, [-1])
    matrix_shape = tf.cast(tf.stack([count, n]), tf.int64)

    def resampled(part: tf.Tensor) -> tf.Tensor:
        width = tf.shape(part)[1]
        sums = tf.raw_ops.SparseTensorDenseMatMul(
            a_indices=indices,
            a_values=values,
            a_shape=matrix_shape,
            b=tf.cast(tf.reshape(part, [n, width * 3]), tf.int32),
        )
        rounded = tf.bitwise.right_shift(sums + (1 << (_PRECISION_BITS - 1)), _PRECISION_BITS)
        levels = tf.cast(tf.clip_by_value(rounded, 0, 255), tf.uint8)
        return tf.transpose(tf.reshape(levels, [count, width, 3]), [1, 0, 2])

    per_slice = tf.maximum(_SLICE_ELEMENTS // (3 * tf.maximum(n, count)), 1)
    slices = -(-m // per_slice)

    def sliced() -> tf.Tensor:
        def body(i: tf.Tensor, parts: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            begin = i * per_slice
            return i + 1, parts.write(i, resampled(image[:, begin : tf.minimum(begin + per_slice, m)]))

        empty = tf.TensorArray(tf.uint8, size=slices, element_shape=[None, None, 3], infer_shape=False)
        _, parts = tf.while_loop(lambda i, _: i < slices, body, [tf.constant(0), empty], parallel_iterations=1)
        return parts.concat()

    result = tf.cond(slices <= 1, lambda: resampled(image), sliced)
    return tf.ensure_shape(result, [None, None, 3])
