"""Encoded bytes to RGB in TensorFlow ops, as `transformers.image_utils.load_image` reads a file with Pillow.

TensorFlow's own decoders differ from Pillow in places: an inexact inverse cosine transform by default, palettes of
BMP files ignored, CMYK rounded down, EXIF orientation ignored. Each is made up for here.

A decoder op that meets corrupt data fails the whole request it is part of. Here it is the only thing in a dataset of
one element that ignores errors, so that the caller gets a flag instead. The dataset holds nothing else, because
TensorFlow prepares a dataset's function anew at every call, which takes as long as the function is large.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from signatures import gif, headers
from signatures.cmyk import decode_four, variants
from signatures.headers import Header
from signatures.image import orient
from signatures.octets import little, signed, take

__all__ = ["Reader", "decode", "guarded", "unguarded"]

Reader = Callable[[Callable[[tf.Tensor], tf.Tensor], tf.Tensor], tf.Tensor]
"""Runs a decoder op on encoded bytes: `guarded` or `unguarded`."""


def guarded(decoder: Callable[[tf.Tensor], tf.Tensor], data: tf.Tensor) -> tf.Tensor:
    """A decoder's picture, or an empty one where it fails."""
    tried = tf.data.Dataset.from_tensors(data).map(tf.autograph.experimental.do_not_convert(decoder)).ignore_errors()
    spec = tried.element_spec
    blank = tf.zeros([side or 0 for side in spec.shape], spec.dtype)
    return tried.concatenate(tf.data.Dataset.from_tensors(blank)).take(1).get_single_element()


def unguarded(decoder: Callable[[tf.Tensor], tf.Tensor], data: tf.Tensor) -> tf.Tensor:
    """A decoder's picture; fails where the decoder does."""
    return decoder(data)


def decode(data: tf.Tensor, octets: tf.Tensor, header: Header, read: Reader = guarded) -> tf.Tensor:
    """Decodes one image to upright RGB.

    Args:
        data: string scalar, the encoded image.
        octets: uint8 [n], the same bytes.
        header: What `headers.read_header` says of them, with a `kind` that is read and without a `problem`.
        read: How decoder ops are run.

    Returns:
        uint8 [h, w, 3]; [0, 0, 3] where the data is truncated or corrupt and `read` is `guarded`.
    """
    readers: dict[int, Callable[[], tf.Tensor]] = {
        headers.JPEG: lambda: _jpeg(data, header, read),
        headers.PNG: lambda: _png(data, header, read),
        headers.BMP: lambda: _bmp(octets, header),
        headers.GIF: lambda: _gif(data, octets, read),
        headers.WEBP: lambda: read(_decode_webp, data),
    }
    image = tf.switch_case(header.kind - 1, {kind - 1: reader for kind, reader in readers.items()})
    return orient(tf.ensure_shape(image, [None, None, 3]), header.orientation)


def _jpeg(data: tf.Tensor, header: Header, read: Reader) -> tf.Tensor:
    def four() -> tf.Tensor:
        forms = variants(data, header.adobe, header.frame, header.scan)
        return decode_four(lambda form: read(_decode_jpeg, form), forms, header.transform > 0)

    return tf.cond(header.channels == 4, four, lambda: read(_decode_jpeg, data))


def _decode_jpeg(data: tf.Tensor) -> tf.Tensor:
    # Pillow decodes with the accurate transform and smooth chroma; TensorFlow's default transform is the fast one.
    return tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE", fancy_upscaling=True)


def _gif(data: tf.Tensor, octets: tf.Tensor, read: Reader) -> tf.Tensor:
    frame = gif.first_frame(octets)
    indices = read(lambda data: tf.io.decode_gif(data)[0, :, :, 0], gif.single(data, frame))
    failed = tf.size(indices) == 0
    return tf.cond(failed, lambda: tf.zeros([0, 0, 3], tf.uint8), lambda: gif.paint(indices, octets, frame))


def _decode_webp(data: tf.Tensor) -> tf.Tensor:
    # The op of its own would keep the graph from loading on a TensorFlow that lacks it; this one is in all of them, and
    # fails where it meets a WebP before 2.19. It wants as many channels as the file has, or 0 for those.
    image = tf.io.decode_image(data, channels=0, expand_animations=False)
    return tf.ensure_shape(tf.ensure_shape(image, [None, None, None])[..., :3], [None, None, 3])


def _png(data: tf.Tensor, header: Header, read: Reader) -> tf.Tensor:
    def deep_gray() -> tf.Tensor:
        # Pillow clips 16-bit gray at 255 where it takes the high byte of 16-bit colour.
        levels = read(lambda data: tf.io.decode_png(data, channels=1, dtype=tf.uint16), data)
        return tf.repeat(tf.cast(tf.minimum(levels, 255), tf.uint8), 3, axis=2)

    deep = (header.bits == 16) & (header.channels == 0)
    return tf.cond(deep, deep_gray, lambda: read(lambda data: tf.io.decode_png(data, channels=3), data))


def _bmp(octets: tf.Tensor, header: Header) -> tf.Tensor:
    """TensorFlow's own op reads palette indices as gray levels, so this one is made of basic ops."""
    height, width, bits = tf.cast(header.height, tf.int32), tf.cast(header.width, tf.int32), header.bits

    def number(position: int) -> tf.Tensor:
        return tf.cast(signed(little(take(octets, position, 4))), tf.int32)

    header_size = number(14)
    old = header_size == 12
    stride = tf.bitwise.bitwise_and((width * bits + 31) // 8, ~3)
    begin = number(10)
    whole = tf.size(octets) >= begin + stride * height
    height = tf.where(whole, height, 0)
    rows = tf.cast(tf.reshape(octets[begin : begin + stride * height], [height, stride]), tf.int32)

    def palette() -> tf.Tensor:
        entry = tf.where(old, 3, 4)
        claimed = tf.where(old, 0, number(46))
        colors = tf.where(claimed == 0, tf.bitwise.left_shift(1, bits), claimed)
        table = octets[14 + header_size : 14 + header_size + entry * tf.minimum(colors, 256)]
        table = tf.reshape(table, [-1, entry])[:, 2::-1]
        # An index without an entry is black.
        return tf.pad(table, [[0, 256 - tf.shape(table)[0]], [0, 0]])

    def indexed() -> tf.Tensor:
        shifts = tf.range(8 - bits, -1, -bits)
        indices = tf.bitwise.right_shift(rows[:, :, None], shifts) & (tf.bitwise.left_shift(1, bits) - 1)
        return tf.gather(palette(), tf.reshape(indices, [height, -1])[:, :width])

    def high_color() -> tf.Tensor:
        words = rows[:, 0 : 2 * width : 2] + 256 * rows[:, 1 : 2 * width : 2]
        wide = (number(30) == 3) & (number(54) == 0xF800)
        green_bits, red_shift = tf.where(wide, 6, 5), tf.where(wide, 11, 10)
        green_top = tf.bitwise.left_shift(1, green_bits) - 1
        red = tf.bitwise.right_shift(words, red_shift) & 31
        green = tf.bitwise.right_shift(words, 5) & green_top
        return tf.cast(tf.stack([red * 255 // 31, green * 255 // green_top, (words & 31) * 255 // 31], 2), tf.uint8)

    def true_color() -> tf.Tensor:
        samples = bits // 8
        pixels = tf.reshape(rows[:, : width * samples], [height, width, samples])
        places = tf.cond(
            (bits == 32) & (number(30) == 3) & (number(58) != 0),
            lambda: tf.stack([_byte_of(number(54 + 4 * i)) for i in range(3)]),
            lambda: tf.constant([2, 1, 0]),
        )
        return tf.cast(tf.gather(pixels, places, axis=2), tf.uint8)

    image = tf.cond(bits <= 8, indexed, lambda: tf.cond(bits == 16, high_color, true_color))
    top_down = ~old & (take(octets, 25, 1)[0] == 255)
    image = tf.cond(top_down, lambda: image, lambda: image[::-1])
    return image[:, : tf.where(whole, width, 0)]


def _byte_of(mask: tf.Tensor) -> tf.Tensor:
    """Which byte of a little-endian pixel a mask of eight bits stands for."""
    places = {0xFF: 0, 0xFF00: 1, 0xFF0000: 2}
    place = tf.constant(3)
    for value, index in places.items():
        place = tf.where(mask == value, index, place)
    return place
