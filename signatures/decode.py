"""Encoded bytes to RGB in TensorFlow ops, as `transformers.image_utils.load_image` reads a file with Pillow.

TensorFlow's own decoders differ from Pillow in places: an inexact inverse cosine transform by default, palettes of
BMP files ignored, CMYK rounded down, EXIF orientation ignored. Each is made up for here.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from signatures import gif, headers
from signatures.cmyk import decode_four, variants
from signatures.functions import apart, guarded
from signatures.headers import Header
from signatures.image import orient
from signatures.octets import little, take

__all__ = ["Reader", "decode", "unguarded"]

Reader = Callable[[Callable[[tf.Tensor], tf.Tensor], tf.Tensor], tf.Tensor]
"""Runs a decoder op on encoded bytes: `guarded` or `unguarded`."""


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
        headers.BMP: lambda: apart(_bmp)(octets, header),
        headers.GIF: lambda: apart(lambda data, octets: _gif(data, octets, read))(data, octets),
        headers.WEBP: lambda: apart(lambda data: read(_decode_webp, data))(data),
    }
    image = tf.switch_case(header.kind - 1, {kind - 1: reader for kind, reader in readers.items()})
    return orient(tf.ensure_shape(image, [None, None, 3]), header.orientation)


def _jpeg(data: tf.Tensor, header: Header, read: Reader) -> tf.Tensor:
    def four() -> tf.Tensor:
        forms = variants(data, header.adobe, header.frame, header.scan)
        return decode_four(lambda form: read(_decode_jpeg, form), forms, header.transform > 0)

    return tf.cond(header.channels == 4, apart(four), lambda: read(_decode_jpeg, data))


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
    return tf.cond(deep, apart(deep_gray), lambda: read(lambda data: tf.io.decode_png(data, channels=3), data))


def _bmp(octets: tf.Tensor, header: Header) -> tf.Tensor:
    """TensorFlow's own op reads palette indices as gray levels, so this one is made of ops that cannot fail."""

    def number(position: int) -> tf.Tensor:
        return little(take(octets, position, 4))

    old = number(14) == 12
    stride = (header.width * tf.cast(header.bits, tf.int64) + 31) // 32 * 4
    begin, size = number(10), stride * header.height
    whole = begin + size <= tf.size(octets, out_type=tf.int64)

    def read() -> tf.Tensor:
        rows = tf.reshape(octets[begin : begin + size], tf.stack([header.height, stride]))
        image = _bmp_pixels(octets, rows, header, old)
        top_down = ~old & (take(octets, 25, 1)[0] == 255)
        return tf.cond(top_down, lambda: image, lambda: image[::-1])

    return tf.cond(whole, read, lambda: tf.zeros([0, 0, 3], tf.uint8))


def _bmp_pixels(octets: tf.Tensor, rows: tf.Tensor, header: Header, old: tf.Tensor) -> tf.Tensor:
    """The stored rows, uint8 [h, stride], as colours, uint8 [h, w, 3]."""
    height, width, bits = tf.shape(rows)[0], tf.cast(header.width, tf.int32), header.bits
    masks = little(tf.reshape(take(octets, 54, 12), [3, 4]))
    masked = little(take(octets, 30, 4)) == 3

    def indexed() -> tf.Tensor:
        shifts = tf.range(8 - bits, -1, -bits)
        packed = tf.cast(rows, tf.int32)[:, :, None]
        indices = tf.bitwise.right_shift(packed, shifts) & (tf.bitwise.left_shift(1, bits) - 1)
        return tf.gather(_bmp_palette(octets, bits, old), tf.reshape(indices, [height, -1])[:, :width])

    def high_color() -> tf.Tensor:
        low, high = (tf.cast(rows[:, i : 2 * width : 2], tf.int32) for i in (0, 1))
        words = low + 256 * high
        wide = masked & (masks[0] == 0xF800)
        green_top, red_shift = tf.where(wide, 63, 31), tf.where(wide, 11, 10)
        red = tf.bitwise.right_shift(words, red_shift) & 31
        green = tf.bitwise.right_shift(words, 5) & green_top
        return tf.cast(tf.stack([red * 255 // 31, green * 255 // green_top, (words & 31) * 255 // 31], 2), tf.uint8)

    def true_color() -> tf.Tensor:
        samples = bits // 8
        pixels = tf.reshape(rows[:, : width * samples], [height, width, samples])
        own = masked & (bits == 32) & (masks[1] != 0)
        places = tf.where(own, _byte_of(masks), tf.constant([2, 1, 0]))
        return tf.gather(pixels, places, axis=2)

    return tf.cond(bits <= 8, indexed, lambda: tf.cond(bits == 16, high_color, true_color))


def _bmp_palette(octets: tf.Tensor, bits: tf.Tensor, old: tf.Tensor) -> tf.Tensor:
    """The colours, uint8 [256, 3]; an index without one is black."""
    start, entry = 14 + little(take(octets, 14, 4)), tf.where(old, tf.constant(3, tf.int64), 4)
    claimed = tf.where(~old, little(take(octets, 46, 4)), 0)
    colors = tf.where(claimed > 0, claimed, tf.cast(tf.bitwise.left_shift(1, bits), tf.int64))
    index = tf.range(256, dtype=tf.int64)
    table = take(octets, start + entry * index, 3)[:, ::-1]
    return tf.cast(tf.where((index < colors)[:, None], table, 0), tf.uint8)


def _byte_of(mask: tf.Tensor) -> tf.Tensor:
    """Which byte of a little-endian pixel a mask of eight bits stands for; int32, of the masks' shape."""
    places = {0xFF: 0, 0xFF00: 1, 0xFF0000: 2}
    place = tf.fill(tf.shape(mask), 3)
    for value, index in places.items():
        place = tf.where(mask == value, index, place)
    return place
