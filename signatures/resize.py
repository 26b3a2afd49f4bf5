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
# A slice's samples are held once as int32, so 4 MB of them; a smaller slice costs more in bookkeeping than its better
# use of the cache gains.
_SLICE_ELEMENTS = 1 << 20
_PARALLEL_SLICES = 4
_SIGNED = ("bicubic", "lanczos")


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
    signed = resample in _SIGNED

    def weights(i: int, first: tf.Tensor, count: tf.Tensor) -> _Weights:
        return _weights(source[i], size[i], first, count, resample)

    def horizontal(rows: tf.Tensor) -> tf.Tensor:
        return _horizontal(rows, weights(1, part.left, part.width), signed)

    def vertical(rows: tf.Tensor, above: tf.Tensor) -> tf.Tensor:
        return _vertical(rows, above, part, lambda first, count: weights(0, first, count), signed)

    def horizontal_first() -> tf.Tensor:
        first, last = _reach(source[0], size[0], part.top, part.height, resample)
        return vertical(horizontal(image[first:last]), first)

    def vertical_first() -> tf.Tensor:
        return horizontal(vertical(image, tf.constant(0)))

    return tf.cond(_ORDERS[order](source, size), vertical_first, horizontal_first)


class _Weights(NamedTuple):
    """One axis' weights: output sample `i` is the sum of `values[i, k] * input[start[i] + k]`."""

    start: tf.Tensor  # int32 [count]
    values: tf.Tensor  # int32 [count, taps], with 22 fractional bits; 0 past a sample's own taps
    last: tf.Tensor  # int32, one past the last input sample that is used


def _weights(source: tf.Tensor, target: tf.Tensor, first: tf.Tensor, count: tf.Tensor, resample: str) -> _Weights:
    """Pillow's `precompute_coeffs` and `normalize_coeffs_8bpc`, for the outputs `first:first + count`."""
    kernel, _ = _KERNELS[resample]
    start, stop, centre, inverse = _taps(source, target, tf.range(first, first + count), resample)
    positions = start[:, None] + tf.range(tf.reduce_max(stop - start))[None, :]
    raw = kernel((tf.cast(positions, tf.float64) - centre[:, None] + 0.5) * inverse)
    raw = tf.where(positions < stop[:, None], raw, tf.zeros_like(raw))
    total = tf.reduce_sum(raw, axis=1, keepdims=True)
    share = raw / tf.where(total == 0.0, tf.ones_like(total), total)
    # Casting truncates towards zero, so this rounds half away from it.
    fixed = share * float(1 << _PRECISION_BITS)
    values = tf.cast(tf.where(share < 0.0, fixed - 0.5, fixed + 0.5), tf.int32)
    return _Weights(start, values, tf.reduce_max(stop))


def _taps(
    source: tf.Tensor, target: tf.Tensor, outputs: tf.Tensor, resample: str
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """For each output sample the first input and one past the last (int32), its centre, and 1 / stretch (float64)."""
    _, reach = _KERNELS[resample]
    scale = _ratio(source, target)
    stretch = tf.maximum(scale, 1.0)
    support = reach * stretch
    centre = (tf.cast(outputs, tf.float64) + 0.5) * scale
    # Casting truncates towards zero, as in C; a negative start is clipped in any case.
    start = tf.maximum(tf.cast(centre - support + 0.5, tf.int32), 0)
    stop = tf.minimum(tf.cast(centre + support + 0.5, tf.int32), source)
    return start, stop, centre, 1.0 / stretch


def _reach(
    source: tf.Tensor, target: tf.Tensor, first: tf.Tensor, count: tf.Tensor, resample: str
) -> tuple[tf.Tensor, tf.Tensor]:
    """The first input sample that the outputs `first:first + count` use, and one past the last."""
    start, stop, _, _ = _taps(source, target, tf.stack([first, first + count - 1]), resample)
    return start[0], stop[1]


def _ratio(source: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    # Pillow's box is made of C floats, which matters only past 2**24 pixels.
    box = tf.cast(tf.cast(source, tf.float32), tf.float64)
    return box / tf.cast(target, tf.float64)


class _Matrix(NamedTuple):
    """Weights as a sparse matrix over the inputs `0:inputs`."""

    indices: tf.Tensor
    values: tf.Tensor
    shape: tf.Tensor

    @classmethod
    def of(cls, weights: _Weights, inputs: tf.Tensor) -> _Matrix:
        count, taps = tf.shape(weights.values)[0], tf.shape(weights.values)[1]
        row = tf.repeat(tf.range(count), taps)
        # Taps past the end have weight 0; clipping their position keeps the product in bounds.
        column = tf.minimum(tf.reshape(weights.start[:, None] + tf.range(taps)[None, :], [-1]), inputs - 1)
        indices = tf.cast(tf.stack([row, column], axis=1), tf.int64)
        return cls(indices, tf.reshape(weights.values, [-1]), tf.cast(tf.stack([count, inputs]), tf.int64))

    def times(self, samples: tf.Tensor, signed: bool) -> tf.Tensor:
        """The product with uint8 [inputs, m], rounded and clipped: uint8 [count, m]."""
        sums = tf.raw_ops.SparseTensorDenseMatMul(
            a_indices=self.indices, a_values=self.values, a_shape=self.shape, b=tf.cast(samples, tf.int32)
        )
        levels = tf.bitwise.right_shift(sums + (1 << (_PRECISION_BITS - 1)), _PRECISION_BITS)
        # Without negative weights no sum leaves 0..255.
        return tf.cast(tf.clip_by_value(levels, 0, 255) if signed else levels, tf.uint8)


def _horizontal(image: tf.Tensor, weights: _Weights, signed: bool) -> tf.Tensor:
    """Resamples the columns: uint8 [h, w, 3] to [h, count, 3], a few rows at a time."""
    shape = tf.shape(image)
    height, width, count = shape[0], shape[1], tf.shape(weights.values)[0]
    matrix = _Matrix.of(weights, width)

    def rows(first: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
        # Columns come first for the product, and channels before rows so that the way back is a plain transpose.
        columns = tf.reshape(tf.transpose(image[first:last], [1, 2, 0]), [width, 3 * (last - first)])
        levels = tf.reshape(matrix.times(columns, signed), [3 * count, last - first])
        return tf.reshape(tf.transpose(levels), [last - first, count, 3])

    return _in_slices(rows, height, 3 * tf.maximum(width, count))


def _vertical(
    image: tf.Tensor,
    above: tf.Tensor,
    part: Window,
    weights: Callable[[tf.Tensor, tf.Tensor], _Weights],
    signed: bool,
) -> tf.Tensor:
    """Resamples the rows: uint8 [h, w, 3], whose first row is the source's row `above`, to [count, w, 3]."""
    shape = tf.shape(image)
    height, width = shape[0], shape[1]

    def rows(first: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
        own = weights(part.top + first, last - first)
        top, bottom = own.start[0], own.last
        samples = tf.reshape(image[top - above : bottom - above], [bottom - top, 3 * width])
        levels = _Matrix.of(own._replace(start=own.start - top), bottom - top).times(samples, signed)
        return tf.reshape(levels, [last - first, width, 3])

    # A slice of the result needs its share of the input's rows, or as many rows as it has itself.
    per_row = 3 * width * tf.maximum(height, part.height) // part.height
    return _in_slices(rows, part.height, per_row)


def _in_slices(rows: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], count: tf.Tensor, per_row: tf.Tensor) -> tf.Tensor:
    """Puts together `rows(first, last)` for slices of `0:count`, so that each works on a bounded number of samples."""
    step = tf.maximum(_SLICE_ELEMENTS // per_row, 1)
    slices = -(-count // step)

    def body(i: tf.Tensor, parts: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        return i + 1, parts.write(i, rows(i * step, tf.minimum((i + 1) * step, count)))

    def several() -> tf.Tensor:
        empty = tf.TensorArray(tf.uint8, size=slices, element_shape=[None, None, 3], infer_shape=False)
        start = [tf.constant(0), empty]
        return tf.while_loop(lambda i, _: i < slices, body, start, parallel_iterations=_PARALLEL_SLICES)[1].concat()

    result = tf.cond(slices <= 1, lambda: rows(tf.constant(0), count), several)
    return tf.ensure_shape(result, [None, None, 3])
