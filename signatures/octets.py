"""Reading numbers out of a vector of bytes in TensorFlow ops, without ever raising."""

from __future__ import annotations

import tensorflow as tf

__all__ = ["big", "little", "signed", "starts", "take", "text"]


def take(octets: tf.Tensor, position: tf.Tensor | int, count: int) -> tf.Tensor:
    """Some bytes as numbers.

    Args:
        octets: uint8 [n], n at least 1.
        position: int64 scalar, or a vector [m] of them.
        count: How many bytes from there.

    Returns:
        int64 [count], or [m, count]; past the end the last byte repeats, so that nothing can raise.
    """
    last = tf.size(octets, out_type=tf.int64) - 1
    places = tf.cast(position, tf.int64)[..., None] + tf.range(count, dtype=tf.int64)
    return tf.cast(tf.gather(octets, tf.clip_by_value(places, 0, last)), tf.int64)


def big(values: tf.Tensor) -> tf.Tensor:
    """The last axis (at most 4 bytes) as one unsigned big-endian number."""
    n = values.shape[-1]
    return tf.reduce_sum(values * tf.constant([256 ** (n - 1 - i) for i in range(n)], tf.int64), axis=-1)


def little(values: tf.Tensor) -> tf.Tensor:
    """The last axis (at most 4 bytes) as one unsigned little-endian number."""
    n = values.shape[-1]
    return tf.reduce_sum(values * tf.constant([256**i for i in range(n)], tf.int64), axis=-1)


def signed(value: tf.Tensor) -> tf.Tensor:
    """An unsigned 32-bit number read again as two's complement."""
    return tf.where(value >= 1 << 31, value - (1 << 32), value)


def starts(values: tf.Tensor, text: bytes) -> tf.Tensor:
    """Whether the last axis begins with `text`."""
    return tf.reduce_all(values[..., : len(text)] == tf.constant(list(text), tf.int64), axis=-1)


def text(values: tf.Tensor) -> tf.Tensor:
    """A few numbers 0 to 255, [n], as a string of n bytes."""
    return tf.strings.reduce_join(tf.gather([bytes([value]) for value in range(256)], values))
