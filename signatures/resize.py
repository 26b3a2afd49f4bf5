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
# A slice's samples are held once as int32, so 2 MB of them; the slices of a picture are shared by the cores. A smaller
# slice costs more in bookkeeping than its better use of the cache gains.
_SLICE_ELEMENTS = 1 << 19
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
    # Vertical first is horizontal first on the transposed picture.
    swap = _ORDERS[order](source, size)

    def swapped(pair: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        one, other = tf.unstack(pair, 2)
        return tf.where(swap, other, one), tf.where(swap, one, other)

    def upright(picture: tf.Tensor) -> tf.Tensor:
        turned = tf.cond(swap, lambda: tf.transpose(picture, [1, 0, 2]), lambda: picture)
        return tf.ensure_shape(turned, [None, None, 3])

    image = upright(image)
    (rows, columns), (new_rows, new_columns) = swapped(source), swapped(size)
    top, left = swapped(tf.stack([part.top, part.left]))
    height, width = swapped(tf.stack([part.height, part.width]))

    def matrix(axis: tuple[tf.Tensor, tf.Tensor], start: tf.Tensor) -> _MatrixMaker:
        return lambda first, count: _matrix(*axis, start + first, count, resample)

    first, last = _reach(rows, new_rows, top, height, resample)
    signed = resample in _SIGNED
    image = _horizontal(image[first:last], matrix((columns, new_columns), left), width, signed)
    return upright(_vertical(image, first, matrix((rows, new_rows), top), height, signed))


class _Matrix(NamedTuple):
    """The weights of some output samples, as a sparse matrix over the inputs `first:last` that they use."""

    indices: tf.Tensor  # int64 [n, 2]
    values: tf.Tensor  # int32 [n], with 22 fractional bits
    shape: tf.Tensor  # int64 [2]
    first: tf.Tensor  # int32
    last: tf.Tensor  # int32

    def times(self, samples: tf.Tensor, signed: bool) -> tf.Tensor:
        """The product with uint8 [last - first, m], rounded and clipped: uint8 [outputs, m]."""
        sums = tf.raw_ops.SparseTensorDenseMatMul(
            a_indices=self.indices, a_values=self.values, a_shape=self.shape, b=tf.cast(samples, tf.int32)
        )
        levels = tf.bitwise.right_shift(sums + (1 << (_PRECISION_BITS - 1)), _PRECISION_BITS)
        # Without negative weights no sum leaves 0..255.
        return tf.cast(tf.clip_by_value(levels, 0, 255) if signed else levels, tf.uint8)


_MatrixMaker = Callable[[tf.Tensor, tf.Tensor], _Matrix]
"""`(first output, how many) -> their weights`, for one axis of one picture."""


def _matrix(source: tf.Tensor, target: tf.Tensor, first: tf.Tensor, count: tf.Tensor, resample: str) -> _Matrix:
    """Pillow's `precompute_coeffs` and `normalize_coeffs_8bpc`, for the outputs `first:first + count`."""
    kernel, _ = _KERNELS[resample]
    start, stop, centre, inverse = _taps(source, target, tf.range(first, first + count), resample)
    taps = tf.reduce_max(stop - start)
    positions = start[:, None] + tf.range(taps)
    raw = kernel((tf.cast(positions, tf.float64) - centre[:, None] + 0.5) * inverse)
    raw = tf.where(positions < stop[:, None], raw, tf.zeros([], tf.float64))
    total = tf.reduce_sum(raw, axis=1, keepdims=True)
    share = raw / tf.where(total == 0.0, tf.ones([], tf.float64), total)
    # Casting truncates towards zero, so this rounds half away from it.
    fixed = share * float(1 << _PRECISION_BITS)
    values = tf.cast(tf.where(share < 0.0, fixed - 0.5, fixed + 0.5), tf.int32)
    low, high = start[0], stop[-1]
    # Taps past the end have weight 0; clipping their position keeps the product in bounds.
    column = tf.reshape(tf.minimum(positions, high - 1) - low, [-1])
    indices = tf.cast(tf.stack([tf.repeat(tf.range(count), taps), column], axis=1), tf.int64)
    return _Matrix(indices, tf.reshape(values, [-1]), tf.cast(tf.stack([count, high - low]), tf.int64), low, high)


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


def _horizontal(image: tf.Tensor, matrix: _MatrixMaker, count: tf.Tensor, signed: bool) -> tf.Tensor:
    """Resamples the columns: uint8 [h, w, 3] to [h, count, 3], a few rows at a time.

    Args:
        image: The picture.
        matrix: Its columns' weights.
        count: How many outputs.
        signed: Whether weights may be negative.
    """
    shape = tf.shape(image)
    height, longer = shape[0], tf.maximum(shape[1], count)
    rows = tf.maximum(_SLICE_ELEMENTS // (3 * longer), 1)
    # Slices of the same size, for cores that share them.
    rows = -(-height // -(-height // rows))
    # Where one row alone is too long its weights are, too, and are made for a few outputs at a time.
    outputs = tf.minimum(tf.maximum(_SLICE_ELEMENTS // -(-3 * longer // count), 1), count)
    across = -(-count // outputs)
    common = matrix(tf.constant(0), outputs)

    def one(i: tf.Tensor) -> tf.Tensor:
        first = i // across * rows
        own = tf.cond(across == 1, lambda: common, lambda: _some(matrix, i % across * outputs, outputs, count))
        samples = image[first : first + rows, own.first : own.last]
        some, inputs = tf.shape(samples)[0], own.last - own.first
        # Columns come first for the product, and channels before rows, so that both ways are plain transposes of two
        # axes, which TensorFlow does in half the time that it takes for three.
        columns = tf.transpose(tf.reshape(samples, tf.stack([some, 3 * inputs])))
        levels = own.times(tf.reshape(columns, tf.stack([inputs, 3 * some])), signed)
        return tf.reshape(tf.transpose(tf.reshape(levels, tf.stack([-1, some]))), [-1, 3])

    pixels = _concatenated(one, -(-height // rows) * across, [None, 3])
    return tf.reshape(pixels, tf.stack([height, count, 3]))


def _vertical(
    image: tf.Tensor,
    above: tf.Tensor,
    matrix: _MatrixMaker,
    count: tf.Tensor,
    signed: bool,
) -> tf.Tensor:
    """Resamples the rows: uint8 [h, w, 3], whose first row is the source's row `above`, to [count, w, 3]."""
    shape = tf.shape(image)
    height, width = shape[0], shape[1]
    # A slice of the result needs its share of the input's rows, or as many rows as it has itself.
    outputs = tf.maximum(_SLICE_ELEMENTS // (3 * width * -(-tf.maximum(height, count) // count)), 1)

    def one(i: tf.Tensor) -> tf.Tensor:
        own = _some(matrix, i * outputs, outputs, count)
        samples = image[own.first - above : own.last - above]
        return own.times(tf.reshape(samples, tf.stack([own.last - own.first, 3 * width])), signed)

    rows = _concatenated(one, -(-count // outputs), [None, None])
    return tf.reshape(rows, tf.stack([count, width, 3]))


def _some(matrix: _MatrixMaker, first: tf.Tensor, outputs: tf.Tensor, count: tf.Tensor) -> _Matrix:
    return matrix(first, tf.minimum(outputs, count - first))


def _concatenated(one: Callable[[tf.Tensor], tf.Tensor], slices: tf.Tensor, shape: list[int | None]) -> tf.Tensor:
    """`one(i)` for every slice, so that each works on a bounded number of samples; uint8, one after another."""

    def body(i: tf.Tensor, parts: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        return i + 1, parts.write(i, one(i))

    empty = tf.TensorArray(tf.uint8, size=slices, element_shape=shape, infer_shape=False)
    start = [tf.constant(0), empty]
    return tf.while_loop(lambda i, _: i < slices, body, start, parallel_iterations=_PARALLEL_SLICES)[1].concat()
