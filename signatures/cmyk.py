"""JPEG files of four colour components, as Pillow turns them into RGB, in TensorFlow ops.

TensorFlow's op answers RGB for them too, but rounds down where Pillow rounds to nearest, reads files without an Adobe
segment the other way round, and does not hand out the four components. They can be had all the same. With an Adobe
segment the op answers `c * k // 255`, without one `(255 - c) * (255 - k) // 255`; from both answers `a` and `b`, and
because remainders are less than 255, `c + k` is `255 + a - b` exactly. With the quantisation of `k` set to zero, `k`
is 128 throughout, so that `c` is known; then `k` is. So the file is read four times, with a few bytes changed.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

__all__ = ["decode_four", "variants"]


def variants(data: tf.Tensor, adobe: tf.Tensor, frame: tf.Tensor, scan: tf.Tensor) -> tf.Tensor:
    """The file in the four forms that are decoded.

    Args:
        data: string scalar, a JPEG with four components.
        adobe: int64, where its Adobe segment starts, or -1.
        frame: int64, where its frame header starts.
        scan: int64, where its first scan header starts, after the frame header.

    Returns:
        string [4]: as it is with and without an Adobe segment, and with a flat fourth component with and without.
    """
    size = tf.cast(tf.strings.length(data), tf.int64)

    def part(begin: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
        return tf.strings.substr(data, begin, end - begin)

    zero = tf.constant(0, tf.int64)
    # The file's own Adobe segment is kept under another name, which the decoder skips.
    data = tf.cond(
        adobe >= 0,
        lambda: tf.strings.join([part(zero, adobe + 4), "Other", part(adobe + 9, size)]),
        lambda: data,
    )
    # FF Cx, length, precision, height, width, 4, then identity, sampling and table of each component.
    table = frame + 21
    flat = tf.strings.join(
        [part(zero, table), b"\x03", part(table + 1, scan), b"\xff\xdb\x00\x43\x03" + bytes(64), part(scan, size)]
    )
    segment = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"
    pair = tf.stack([data, flat])
    marked = tf.strings.join([b"\xff\xd8", segment, tf.strings.substr(pair, [2, 2], [2**31 - 1] * 2)])
    return tf.stack([marked[0], pair[0], marked[1], pair[1]])


def decode_four(decoder: Callable[[tf.Tensor], tf.Tensor], forms: tf.Tensor, luminous: tf.Tensor) -> tf.Tensor:
    """Decodes to RGB.

    Args:
        decoder: Encoded bytes to uint8 [h, w, 3], or [0, 0, 3] where it fails.
        forms: string [4], from `variants`.
        luminous: bool scalar, whether the components are luminance, two of chrominance, and black (YCCK).

    Returns:
        uint8 [h, w, 3], or [0, 0, 3] where the data is corrupt.
    """
    pictures = [decoder(form) for form in tf.unstack(forms, 4)]
    sizes = tf.stack([tf.shape(picture)[:2] for picture in pictures])
    whole = tf.reduce_all(sizes > 0) & tf.reduce_all(sizes == sizes[:1])

    def combined() -> tf.Tensor:
        with_mark, without, flat_with, flat_without = (tf.cast(picture, tf.int32) for picture in pictures)
        colors = 127 + flat_with - flat_without
        black = 255 + with_mark[..., :1] - without[..., :1] - colors[..., :1]
        inks = tf.cond(luminous, lambda: _inks(colors), lambda: colors)
        # Pillow takes all such files for inverted, and multiplies by `x * y / 255` rounded to nearest.
        return tf.cast(tf.clip_by_value(black - _scaled(255 - inks, black), 0, 255), tf.uint8)

    return tf.cond(whole, combined, lambda: tf.zeros([0, 0, 3], tf.uint8))


def _scaled(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    product = a * b + 128
    return (product // 256 + product) // 256


def _inks(colors: tf.Tensor) -> tf.Tensor:
    """YCC to CMY in libjpeg's fixed point with 16 bits (`jdcolor.c`, `ycck_cmyk_convert`)."""
    y, blue, red = tf.unstack(colors, axis=2)
    blue, red = blue - 128, red - 128

    def shift(value: tf.Tensor) -> tf.Tensor:
        return tf.bitwise.right_shift(value, 16)

    cyan = y + shift(91881 * red + 32768)
    magenta = y + shift(-22554 * blue - 46802 * red + 32768)
    yellow = y + shift(116130 * blue + 32768)
    return tf.clip_by_value(255 - tf.stack([cyan, magenta, yellow], axis=2), 0, 255)
