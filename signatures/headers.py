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

from signatures.functions import apart
from signatures.gif import first_frame
from signatures.octets import big, little, signed, starts, take

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
_NOWHERE = -1_000_000


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
            PNG: lambda: _png(octets),
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
    # The first EXIF segment counts, and the last of the others; row 0 is for what is not there.
    place = tf.range(1, tf.size(positions) + 1)[:, None]
    order = tf.where([True, False, False, False, False], -place, place)
    which = tf.abs(tf.maximum(tf.reduce_max(tf.where(matches, order, _NOWHERE), axis=0), _NOWHERE))
    rows = tf.concat([positions[:, None], ends[:, None], segments], axis=1)
    rows = tf.concat([tf.constant([[-1, -1] + [0] * 33], tf.int64), rows], axis=0)
    exif, xmp, adobe, scan, frame = tf.unstack(tf.gather(rows, tf.where(which == -_NOWHERE, 0, which)))
    return _header(
        JPEG,
        height=big(frame[7:9]),
        width=big(frame[9:11]),
        orientation=_orientation(
            octets,
            tf.where(exif[0] >= 0, exif[0] + 10, -1),
            exif[1],
            tf.where(xmp[0] >= 0, xmp[0] + 33, -1),
            xmp[1],
        ),
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
    size = tf.strings.length(data)

    def word(position: tf.Tensor) -> tf.Tensor:
        pair = tf.io.decode_raw(tf.strings.substr(data, position, 4), tf.uint16, little_endian=False)
        return tf.unstack(tf.cast(tf.ensure_shape(pair, [2]), tf.int32))

    def more(position: tf.Tensor, seen: tf.Tensor, done: tf.Tensor) -> tf.Tensor:
        return ~done & (position + 4 <= size) & (tf.size(seen) < _MAX_SEGMENTS)

    def step(position: tf.Tensor, seen: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        marker, length = word(position)
        # Anything else (fill bytes, restart markers, stray bytes) is stepped over byte by byte, as libjpeg does.
        segment = (marker >= 0xFFC0) & (marker <= 0xFFFE) & ((marker < 0xFFD0) | (marker > 0xFFD9))
        return (
            position + tf.where(segment, 2 + length, 1),
            tf.concat([seen, [position]], axis=0),
            (marker == 0xFFDA) | (marker == 0xFFD9),
        )

    begin = (tf.constant(2), tf.zeros([0], tf.int32), tf.constant(False))
    shapes = (tf.TensorShape([]), tf.TensorShape([None]), tf.TensorShape([]))
    seen = tf.while_loop(more, step, begin, shape_invariants=shapes, parallel_iterations=1)[1]
    return tf.cast(seen, tf.int64)


# PNG: chunks of length, type, data, checksum.


class _Chunks(NamedTuple):
    """What a walk over a PNG's or WebP's chunks has found so far; int64 scalars, positions are -1 where not seen."""

    position: tf.Tensor
    steps: tf.Tensor
    exif: tf.Tensor
    exif_end: tf.Tensor
    xmp: tf.Tensor
    xmp_end: tf.Tensor
    done: tf.Tensor


def _no_chunks(position: int) -> _Chunks:
    zero, none = tf.constant(0, tf.int64), tf.constant(-1, tf.int64)
    return _Chunks(zero + position, zero, none, none, none, none, tf.constant(False))


def _png(octets: tf.Tensor) -> Header:
    start = take(octets, tf.constant(8, tf.int64), 18)
    valid = starts(start[4:], b"IHDR") & (tf.size(octets) >= 26)
    size = tf.size(octets, out_type=tf.int64)

    def more(c: _Chunks) -> tf.Tensor:
        return ~c.done & (c.position + 12 <= size) & (c.steps < _MAX_SEGMENTS)

    def step(c: _Chunks) -> tuple[_Chunks]:
        here = take(octets, c.position, 28)
        end = c.position + 8 + big(here[:4])
        exif = starts(here[4:], b"eXIf")
        xmp = starts(here[4:], b"iTXtXML:com.adobe.xmp\0")
        return (
            _Chunks(
                position=end + 4,
                steps=c.steps + 1,
                exif=tf.where(exif, c.position + 8, c.exif),
                exif_end=tf.where(exif, end, c.exif_end),
                xmp=tf.where(xmp, c.position + 26, c.xmp),
                xmp_end=tf.where(xmp, end, c.xmp_end),
                done=starts(here[4:], b"IEND"),
            ),
        )

    found = tf.while_loop(more, step, [_no_chunks(8)], parallel_iterations=1)[0]
    orientation = _orientation(octets, found.exif, found.exif_end, found.xmp, found.xmp_end)
    return _header(
        PNG,
        tf.where(valid, big(start[12:16]), 0),
        tf.where(valid, big(start[8:12]), 0),
        orientation,
        channels=start[17],
        bits=start[16],
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
    size = tf.size(octets, out_type=tf.int64)

    def more(c: _Chunks, _: tf.Tensor) -> tf.Tensor:
        return ~c.done & (c.position + 8 <= size) & (c.steps < _MAX_SEGMENTS)

    def step(c: _Chunks, largest: tf.Tensor) -> tuple[_Chunks, tf.Tensor]:
        here = take(octets, c.position, 18)
        length = little(here[4:8])
        end = c.position + 8 + length
        exif, xmp = starts(here, b"EXIF"), starts(here, b"XMP ")
        found = _Chunks(
            position=end + (length & 1),
            steps=c.steps + 1,
            exif=tf.where(exif, c.position + 8, c.exif),
            exif_end=tf.where(exif, end, c.exif_end),
            xmp=tf.where(xmp, c.position + 8, c.xmp),
            xmp_end=tf.where(xmp, end, c.xmp_end),
            done=c.done,
        )
        return found, tf.maximum(largest, _webp_picture(here))

    found, largest = tf.while_loop(more, step, [_no_chunks(12), canvas], parallel_iterations=1)
    return _header(
        WEBP,
        largest[0],
        largest[1],
        _orientation(octets, found.exif, found.exif_end, found.xmp, found.xmp_end),
        problem=tf.where(animated, "The WebP is animated, which is not read. Send its first picture.", ""),
    )


def _webp_picture(chunk: tf.Tensor) -> tf.Tensor:
    """Height and width that a chunk's first 18 bytes give for a picture, [2]; zeros where it is no picture."""
    lossy = tf.stack([little(chunk[16:18]) & 0x3FFF, little(chunk[14:16]) & 0x3FFF])
    packed = little(chunk[9:13])
    lossless = tf.stack([(packed // (1 << 14) & 0x3FFF) + 1, (packed & 0x3FFF) + 1])
    size = tf.where(starts(chunk, b"VP8 "), lossy, tf.zeros([2], tf.int64))
    return tf.where(starts(chunk, b"VP8L"), lossless, size)


# EXIF is a TIFF file of its own; orientation is tag 0x0112 of its first directory.


def _orientation(
    octets: tf.Tensor, exif: tf.Tensor, exif_end: tf.Tensor, xmp: tf.Tensor, xmp_end: tf.Tensor
) -> tf.Tensor:
    """1 to 8, from EXIF, else from XMP, else 1 (`PIL.Image.Image.getexif`)."""
    nothing = tf.constant(0, tf.int64)
    value = tf.cond(exif >= 0, lambda: _tiff_orientation(octets, exif, exif_end), lambda: nothing)
    value = tf.cond((value == 0) & (xmp >= 0), lambda: _xmp_orientation(octets, xmp, xmp_end), lambda: value)
    return tf.cast(tf.where((value >= 1) & (value <= 8), value, 1), tf.int32)


@apart
def _tiff_orientation(octets: tf.Tensor, begin: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
    # Some writers repeat the prefix; Pillow strips it as often as it comes, PNG's eXIf included.
    prefixed = starts(take(octets, begin, 6), b"Exif\0\0")
    begin = tf.where(prefixed, begin + 6, begin)
    end = tf.minimum(end, tf.size(octets, out_type=tf.int64))
    start = take(octets, begin, 8)
    intel = starts(start, b"II")

    def number(values: tf.Tensor) -> tf.Tensor:
        return tf.where(intel, little(values), big(values))

    directory = begin + number(start[4:8])
    valid = (intel | starts(start, b"MM")) & (directory + 2 <= end)
    claimed = number(take(octets, directory, 2))
    count = tf.where(valid, tf.minimum(claimed, tf.maximum((end - directory - 2) // 12, 0)), 0)
    places = directory + 2 + 12 * tf.range(count)[:, None] + tf.range(12, dtype=tf.int64)[None, :]
    entries = tf.cast(tf.gather(octets, tf.clip_by_value(places, 0, tf.size(octets, out_type=tf.int64) - 1)), tf.int64)
    tag, kind, many = number(entries[:, 0:2]), number(entries[:, 2:4]), number(entries[:, 4:8])
    # SHORT and SSHORT have two bytes, LONG, SLONG and IFD four, SBYTE one. Pillow takes the first of several that fit
    # into the entry. The other types give it nothing that equals 1 to 8.
    byte, short = kind == 6, (kind == 3) | (kind == 8)
    long = (kind == 4) | (kind == 9) | (kind == 13)
    value = tf.where(short, number(entries[:, 8:10]), tf.where(byte, entries[:, 8], number(entries[:, 8:12])))
    fits = (byte & (many <= 4)) | (short & (many <= 2)) | (long & (many == 1))
    matches = (tag == 0x0112) & fits & (many >= 1)
    # The last entry wins, as in a dictionary.
    found = tf.boolean_mask(value, matches)
    return tf.cond(tf.size(found) > 0, lambda: found[-1], lambda: tf.constant(0, tf.int64))


@apart
def _xmp_orientation(octets: tf.Tensor, begin: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
    """The digit of the first `tiff:Orientation="d` or `tiff:Orientation>d`, or 0; by bytes, for XMP may be binary."""
    text = octets[begin : tf.minimum(end, tf.size(octets, out_type=tf.int64))]
    name = b"tiff:Orientation"
    room = tf.maximum(tf.size(text) - len(name) - 2, 0)
    matches = tf.fill([room], True)
    for offset, letter in enumerate(name):
        matches &= text[offset : offset + room] == letter
    places = tf.cast(tf.where(matches)[:, 0], tf.int32) + len(name)
    after = tf.cast(tf.gather(tf.pad(text, [[0, 1]]), places[:, None] + tf.range(3)), tf.int64)
    attribute, element = starts(after, b'="'), starts(after, b">")
    digit = tf.where(attribute, after[:, 2], after[:, 1]) - ord("0")
    found = tf.boolean_mask(digit, (attribute | element) & (digit >= 0) & (digit <= 9))
    return tf.cond(tf.size(found) > 0, lambda: found[0], lambda: tf.constant(0, tf.int64))
