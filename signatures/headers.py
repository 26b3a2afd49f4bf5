"""What an encoded image says of itself before any pixel is decoded: format, size, orientation. TensorFlow ops.

A few kilobytes can claim a picture of terabytes, so the size is read here first, and refused where it is absurd.
TensorFlow's decoders ignore orientation, so that is read here too, where Pillow finds it: EXIF (JPEG APP1, PNG
`eXIf`, WebP `EXIF`), else XMP.

Nothing here raises: whatever the bytes are, the answer is a `Header`, and the caller decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from signatures.functions import apart, guarded
from signatures.gif import first_frame
from signatures.octets import big, little, signed, starts, take
from signatures.orientation import orientation, pieces, unhexed

__all__ = ["BMP", "GIF", "JPEG", "NAMES", "PNG", "UNKNOWN", "WEBP", "Header", "read_header"]

UNKNOWN, JPEG, PNG, BMP, GIF, WEBP = range(6)
NAMES: tuple[str, ...] = ("unknown", "JPEG", "PNG", "BMP", "GIF", "WebP")

BMP_LAYOUTS: dict[int, tuple[tuple[int, int, int], ...]] = {
    16: ((0xF800, 0x7E0, 0x1F), (0x7C00, 0x3E0, 0x1F)),
    24: ((0xFF0000, 0xFF00, 0xFF),),
    32: (
        (0xFF0000, 0xFF00, 0xFF),
        (0xFF000000, 0xFF0000, 0xFF00),
        (0xFF000000, 0xFF00, 0xFF),
        (0xFF, 0xFF00, 0xFF0000),
        (0, 0, 0),
    ),
}
"""The masks of red, green and blue that Pillow reads in a BMP, by bits per pixel; all 0 means the first."""

_MAX_SEGMENTS = 10_000


class Header(NamedTuple):
    """What the first bytes say; scalars.

    Args:
        kind: int32, an index of `NAMES`.
        height: int64, rows as stored, before orientation; 0 where it could not be read.
        width: int64, likewise.
        orientation: int32, 1 to 8 as in EXIF; 1 where nothing is said.
        channels: int32, components of a JPEG, colour type of a PNG, else 0.
        bits: int32, bits per sample of a PNG, else 0.
        adobe: int64, where a JPEG's Adobe segment starts (its FF byte), or -1.
        transform: int32, the Adobe segment's colour transform, or -1.
        frame: int64, where a JPEG's frame header starts, or -1.
        scan: int64, where a JPEG's first scan header starts, or -1.
        problem: string, why this variant of the format is not read, or "".
    """

    kind: tf.Tensor
    height: tf.Tensor
    width: tf.Tensor
    orientation: tf.Tensor
    channels: tf.Tensor
    bits: tf.Tensor
    adobe: tf.Tensor
    transform: tf.Tensor
    frame: tf.Tensor
    scan: tf.Tensor
    problem: tf.Tensor


def read_header(data: tf.Tensor) -> tuple[Header, tf.Tensor]:
    """Reads the header of one encoded image.

    Args:
        data: string scalar.

    Returns:
        The header, and the bytes as uint8 [n] (one zero byte where `data` is empty).
    """
    octets = tf.io.decode_raw(data, tf.uint8)
    octets = tf.cond(tf.size(octets) > 0, lambda: octets, lambda: tf.zeros([1], tf.uint8))
    kind = _kind(octets)
    header = tf.switch_case(
        kind,
        {
            UNKNOWN: lambda: _header(UNKNOWN),
            JPEG: lambda: _jpeg(data, octets),
            PNG: lambda: _png(data, octets),
            BMP: lambda: _bmp(octets),
            GIF: lambda: _gif(octets),
            WEBP: lambda: _webp(octets),
        },
    )
    return header, octets


def _header(
    kind: int,
    height: tf.Tensor = 0,
    width: tf.Tensor = 0,
    orientation: tf.Tensor = 1,
    channels: tf.Tensor = 0,
    bits: tf.Tensor = 0,
    adobe: tf.Tensor = -1,
    transform: tf.Tensor = -1,
    frame: tf.Tensor = -1,
    scan: tf.Tensor = -1,
    problem: tf.Tensor = "",
) -> Header:
    """A header with every part in its dtype, so that the branches of a `tf.switch_case` agree."""
    return Header(
        kind=tf.constant(kind, tf.int32),
        height=tf.cast(height, tf.int64),
        width=tf.cast(width, tf.int64),
        orientation=tf.cast(orientation, tf.int32),
        channels=tf.cast(channels, tf.int32),
        bits=tf.cast(bits, tf.int32),
        adobe=tf.cast(adobe, tf.int64),
        transform=tf.cast(transform, tf.int32),
        frame=tf.cast(frame, tf.int64),
        scan=tf.cast(scan, tf.int64),
        problem=tf.convert_to_tensor(problem, tf.string),
    )


def _kind(octets: tf.Tensor) -> tf.Tensor:
    first = _matches(take(octets, 0, 12), [start for start, _ in _STARTS]) & (tf.size(octets) >= 10)
    return tf.reduce_max(tf.where(first, [kind for _, kind in _STARTS], UNKNOWN))


_STARTS: tuple[tuple[bytes, int], ...] = (
    (b"\xff\xd8\xff", JPEG),
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"BM", BMP),
    (b"GIF87a", GIF),
    (b"GIF89a", GIF),
    (b"RIFF????WEBP", WEBP),
)
_ANY = ord("?")


def _matches(values: tf.Tensor, patterns: Sequence[bytes]) -> tf.Tensor:
    """Whether the last axis begins with each of some patterns, in which `?` is any byte: bool [..., patterns]."""
    padded = np.array([list(pattern.ljust(int(values.shape[-1]), b"?")) for pattern in patterns])
    same = values[..., None, :] == tf.constant(padded, tf.int64)
    return tf.reduce_all(same | tf.constant(padded == _ANY), axis=-1)


# JPEG: segments of FF, marker, two bytes of length.


_SEGMENTS = (b"\xff\xe1??Exif\0\0", b"\xff\xe1??http://ns.adobe.com/xap/1.0/\0", b"\xff\xee??Adobe", b"\xff\xda")


def _jpeg(data: tf.Tensor, octets: tf.Tensor) -> Header:
    positions = _segment_starts(data)
    segments = take(octets, positions, 33)
    ends = positions + 2 + big(segments[:, 2:4])
    # Stray bytes between segments are listed too.
    matches = tf.concat([_matches(segments, _SEGMENTS), _is_frame(segments)[:, None]], axis=1)
    # The last of each counts; row 0 is for what is not there.
    place = tf.range(1, tf.size(positions) + 1)[:, None]
    which = tf.maximum(tf.reduce_max(tf.where(matches, place, 0), axis=0), 0)
    rows = tf.concat([positions[:, None], ends[:, None], segments], axis=1)
    rows = tf.concat([tf.constant([[-1, -1] + [0] * 33], tf.int64), rows], axis=0)
    exif, xmp, adobe, scan, frame = tf.unstack(tf.gather(rows, which))

    def profile() -> tf.Tensor:
        # Long ones are in several segments.
        each = tf.where(matches[:, 0])[:, 0]
        return pieces(octets, tf.gather(positions, each) + 10, tf.gather(ends, each))

    return _header(
        JPEG,
        height=big(frame[7:9]),
        width=big(frame[9:11]),
        orientation=orientation(exif[0] >= 0, profile, xmp[0] >= 0, lambda: pieces(octets, xmp[:1] + 33, xmp[1:2])),
        channels=frame[11],
        bits=frame[6],
        adobe=adobe[0],
        transform=tf.where(adobe[0] >= 0, adobe[17], -1),
        frame=frame[0],
        scan=scan[0],
        # The frame header takes 10 bytes and 3 for each component.
        problem=tf.where(scan[0] >= frame[0] + 10 + 3 * frame[11], "", "The JPEG ends before its picture begins."),
    )


_FRAMES = [0xFFC0 + kind for kind in range(16) if kind not in (4, 8, 12)]


def _is_frame(segments: tf.Tensor) -> tf.Tensor:
    return tf.reduce_any(big(segments[:, :2])[:, None] == tf.constant(_FRAMES, tf.int64), axis=1)


def _segment_starts(data: tf.Tensor) -> tf.Tensor:
    """Positions of a JPEG's segments up to the first scan; int64 [n].

    The loop runs once per segment of every image that is served, so its body is kept to a handful of ops.
    """
    size = tf.cast(tf.strings.length(data), tf.int64)
    # What a marker adds to the position: `_STEP`, and the segment's length where there is one.
    step_of, has_length = (tf.constant(table, tf.int64) for table in _AFTER_MARKER)

    def more(seen: tf.Tensor) -> tf.Tensor:
        return (seen[-1] + 4 <= size) & (tf.size(seen) <= _MAX_SEGMENTS)

    def step(seen: tf.Tensor) -> tuple[tf.Tensor]:
        here = seen[-1:]
        pair = tf.io.decode_raw(tf.strings.substr(data, here[0], 4), tf.uint16, little_endian=False)
        marker, length = tf.split(tf.cast(tf.ensure_shape(pair, [2]), tf.int64), 2)
        which = tf.maximum(marker - 0xFEFF, 0)
        onward = here + tf.gather(step_of, which) + length * tf.gather(has_length, which)
        return (tf.concat([seen, onward], axis=0),)

    begin, shapes = (tf.constant([2], tf.int64),), (tf.TensorShape([None]),)
    seen = tf.while_loop(more, step, begin, shape_invariants=shapes, parallel_iterations=1)[0]
    # The last is where the next one would be.
    return seen[:-1]


_END = 1 << 40


def _after_marker(low: int) -> tuple[int, int]:
    """What the marker FF `low` adds to a position besides its segment's length, and whether it has a length."""
    if low in (0xDA, 0xD9):
        return _END, 0
    # Anything else (fill bytes, restart markers, stray bytes) is stepped over byte by byte, as libjpeg does.
    return (2, 1) if 0xC0 <= low <= 0xFE and not 0xD0 <= low <= 0xD8 else (1, 0)


# By the marker's second byte and one more; the first entry is for what is no marker.
_AFTER_MARKER = tuple(zip((1, 0), *(_after_marker(low) for low in range(256)), strict=True))


# PNG: chunks of length, type, data, checksum.


_PROFILE, _XMP = b"Raw profile type exif\0", b"XML:com.adobe.xmp\0"
_CHUNKS = (b"eXIf", *(kind + name for name in (_PROFILE, _XMP) for kind in (b"tEXt", b"zTXt", b"iTXt")))
_DEFLATED_LIMIT, _TEXT_LIMIT = 1 << 16, 1 << 20
"""A longer compressed text is taken for empty, for it may need a thousand times as much memory; of a longer text the
rest is left aside, where Pillow refuses the file."""


@apart
def _png(data: tf.Tensor, octets: tf.Tensor) -> Header:
    start = take(octets, 8, 18)
    valid = starts(start[4:], b"IHDR") & (tf.size(octets) >= 26)
    size = tf.size(octets, out_type=tf.int64)
    nowhere = tf.fill([len(_CHUNKS), 2], tf.constant(-1, tf.int64))

    def more(position: tf.Tensor, steps: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
        return (position + 8 <= size) & (steps < _MAX_SEGMENTS)

    def step(position: tf.Tensor, steps: tf.Tensor, found: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        here = take(octets, position, 30)
        end = position + 8 + big(here[:4])
        found = tf.where(_matches(here[4:], _CHUNKS)[:, None], tf.stack([position, end]), found)
        return tf.where(starts(here[4:], b"IEND"), size, end + 4), steps + 1, found

    begin = (tf.constant(8, tf.int64), tf.constant(0), nowhere)
    last, _, found = tf.while_loop(more, step, begin, parallel_iterations=1)
    place = found[:, 0]
    # TensorFlow's op takes memory for all that a chunk claims, up to 2 GB, before it finds that the file ends.
    problem = tf.where(last > size, "The PNG data is truncated or corrupt.", "")
    many = f"The PNG has more than {_MAX_SEGMENTS:,} chunks. Save it again with larger ones."
    problem = tf.where(last + 8 <= size, many, problem)

    def profile() -> tf.Tensor:
        return tf.cond(
            place[0] >= 0,
            lambda: pieces(octets, place[:1] + 8, found[0, 1:]),
            lambda: unhexed(_png_text(data, octets, found[1:4], len(_PROFILE))),
        )

    return _header(
        PNG,
        tf.where(valid, big(start[12:16]), 0),
        tf.where(valid, big(start[8:12]), 0),
        orientation(
            tf.reduce_any(place[:4] >= 0),
            profile,
            tf.reduce_any(place[4:] >= 0),
            lambda: _png_text(data, octets, found[4:], len(_XMP)),
        ),
        channels=start[17],
        bits=start[16],
        problem=problem,
    )


def _png_text(data: tf.Tensor, octets: tf.Tensor, places: tf.Tensor, keyword: int) -> tf.Tensor:
    """What the last of some text chunks says: uint8 [n].

    Args:
        data: string scalar, the file.
        octets: uint8 [size], the same bytes.
        places: int64 [3, 2], where a tEXt, a zTXt and an iTXt chunk begin, or -1, and one past their data.
        keyword: The length of their keyword with its end.
    """
    kind = tf.argmax(places[:, 0])
    begin, end = tf.unstack(tf.gather(places, kind), 2)
    begin += 8 + keyword
    # zTXt has a method first; iTXt has whether it is compressed, a method, and two texts that end with a zero each.
    compressed = (kind == 1) | ((kind == 2) & (take(octets, begin, 1)[0] != 0))
    zeros = tf.where(octets[begin + 2 : tf.minimum(end, begin + 1024)] == 0)[:, 0]
    named = tf.where(tf.size(zeros) >= 2, tf.pad(zeros, [[0, 2]])[1] + 3, end - begin)
    begin += tf.where(kind == 0, tf.constant(0, tf.int64), tf.where(kind == 1, tf.constant(1, tf.int64), named))

    def inflated() -> tf.Tensor:
        packed = tf.strings.substr(data, begin, tf.maximum(end - begin, 0))
        text = guarded(lambda text: tf.io.decode_compressed(text, "ZLIB"), packed)
        return tf.io.decode_raw(tf.strings.substr(text, 0, _TEXT_LIMIT), tf.uint8)

    fits = (begin < end) & (end <= tf.size(octets, out_type=tf.int64)) & (end - begin <= _DEFLATED_LIMIT)
    return tf.cond(
        compressed,
        lambda: tf.cond(fits, inflated, lambda: tf.zeros([0], tf.uint8)),
        lambda: pieces(octets, begin[None], tf.minimum(end, begin + _TEXT_LIMIT)[None]),
    )


@apart
def _bmp(octets: tf.Tensor) -> Header:
    start = take(octets, tf.constant(14, tf.int64), 16)
    old = little(start[:4]) == 12
    width = tf.where(old, little(start[4:6]), signed(little(start[4:8])))
    height = tf.where(old, little(start[6:8]), signed(little(start[8:12])))
    bits = tf.where(old, little(start[10:12]), little(start[14:16]))
    compression = tf.where(~old, little(take(octets, tf.constant(30, tf.int64), 4)), 0)
    masks = little(tf.reshape(take(octets, 54, 12), [3, 4]))
    layouts = tf.constant(BMP_LAYOUTS[16] + BMP_LAYOUTS[24] + BMP_LAYOUTS[32], tf.int64)
    depths = tf.constant([depth for depth in (16, 24, 32) for _ in BMP_LAYOUTS[depth]], tf.int64)
    laid_out = tf.reduce_any((depths == bits) & tf.reduce_all(layouts == masks, axis=1))
    plain = tf.reduce_any(bits == tf.constant([1, 4, 8, 16, 24, 32], tf.int64)) & (compression == 0)
    readable = plain | ((compression == 3) & laid_out)
    kind = tf.strings.join([tf.as_string(bits), " bits with compression ", tf.as_string(compression)])
    problem = tf.strings.join(["The BMP has ", kind, ", but only plain ones are read. Send it as PNG."])
    return _header(BMP, tf.abs(height), tf.maximum(width, 0), bits=bits, problem=tf.where(readable, "", problem))


@apart
def _gif(octets: tf.Tensor) -> Header:
    frame = first_frame(octets)
    # The frame may claim more than the screen.
    problem = tf.where(frame.end > 0, "", "The GIF ends before its first frame does.")
    empty = (frame.rows < 1) | (frame.columns < 1)
    return _header(GIF, tf.where(~empty, frame.height, 0), tf.where(~empty, frame.width, 0), problem=problem)


@apart
def _webp(octets: tf.Tensor) -> Header:
    start = take(octets, 12, 18)
    extended = starts(start, b"VP8X")
    canvas = tf.where(extended, tf.stack([little(start[15:18]) + 1, little(start[12:15]) + 1]), 0)
    # Where the first picture of an animation is put together, TensorFlow's op writes past its memory.
    animated = extended & ((start[8] & 2) > 0)
    # A chunk of metadata that the file's head does not announce is passed over.
    announced = extended & tf.stack([(start[8] & 8) > 0, (start[8] & 4) > 0])
    size = tf.size(octets, out_type=tf.int64)

    def more(position: tf.Tensor, steps: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
        return (position + 8 <= size) & (steps < _MAX_SEGMENTS)

    def step(
        position: tf.Tensor, steps: tf.Tensor, found: tf.Tensor, largest: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        here = take(octets, position, 18)
        end = position + 8 + little(here[4:8])
        first = _matches(here, (b"EXIF", b"XMP ")) & (found[:, 0] < 0) & announced
        found = tf.where(first[:, None], tf.stack([position + 8, end]), found)
        return end + (end - position) % 2, steps + 1, found, tf.maximum(largest, _webp_picture(here))

    begin = (tf.constant(12, tf.int64), tf.constant(0), tf.fill([2, 2], tf.constant(-1, tf.int64)), canvas)
    _, _, found, largest = tf.while_loop(more, step, begin, parallel_iterations=1)
    exif, xmp = tf.unstack(found)
    return _header(
        WEBP,
        largest[0],
        largest[1],
        orientation(
            exif[0] >= 0,
            lambda: pieces(octets, exif[:1], exif[1:]),
            xmp[0] >= 0,
            lambda: pieces(octets, xmp[:1], xmp[1:]),
        ),
        problem=tf.where(animated, "The WebP is animated, which is not read. Send its first picture.", ""),
    )


def _webp_picture(chunk: tf.Tensor) -> tf.Tensor:
    """Height and width that a chunk's first 18 bytes give for a picture, [2]; zeros where it is no picture."""
    lossy = tf.stack([little(chunk[16:18]) & 0x3FFF, little(chunk[14:16]) & 0x3FFF])
    packed = little(chunk[9:13])
    lossless = tf.stack([(packed // (1 << 14) & 0x3FFF) + 1, (packed & 0x3FFF) + 1])
    size = tf.where(starts(chunk, b"VP8 "), lossy, tf.zeros([2], tf.int64))
    return tf.where(starts(chunk, b"VP8L"), lossless, size)
