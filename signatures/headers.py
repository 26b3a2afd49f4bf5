"""What an encoded image says of itself before any pixel is decoded: format, size, orientation. TensorFlow ops.

A few kilobytes can claim a picture of terabytes, so the size is read here first, and refused where it is absurd.
TensorFlow's decoders ignore orientation, so that is read here too, where Pillow finds it: EXIF (JPEG APP1, PNG
`eXIf`, WebP `EXIF`), else XMP.

Nothing here raises: whatever the bytes are, the answer is a `Header`, and the caller decides.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

__all__ = ["BMP", "GIF", "JPEG", "NAMES", "PNG", "UNKNOWN", "WEBP", "Header", "read_header"]

UNKNOWN, JPEG, PNG, BMP, GIF, WEBP = range(6)
NAMES: tuple[str, ...] = ("unknown", "JPEG", "PNG", "BMP", "GIF", "WebP")

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
            WEBP: lambda: _webp(data, octets),
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
        problem=tf.convert_to_tensor(problem, tf.string),
    )


def _take(octets: tf.Tensor, position: tf.Tensor, count: int) -> tf.Tensor:
    """`count` bytes from `position` as int64; past the end the last byte repeats, so that nothing can raise."""
    last = tf.size(octets, out_type=tf.int64) - 1
    where = tf.clip_by_value(position + tf.range(count, dtype=tf.int64), 0, last)
    return tf.cast(tf.gather(octets, where), tf.int64)


def _big(values: tf.Tensor) -> tf.Tensor:
    """The last axis as one unsigned big-endian number (up to 4 bytes)."""
    n = values.shape[-1]
    return tf.reduce_sum(values * tf.constant([256 ** (n - 1 - i) for i in range(n)], tf.int64), axis=-1)


def _little(values: tf.Tensor) -> tf.Tensor:
    n = values.shape[-1]
    return tf.reduce_sum(values * tf.constant([256**i for i in range(n)], tf.int64), axis=-1)


def _signed(value: tf.Tensor) -> tf.Tensor:
    """An unsigned 32-bit number read again as two's complement."""
    return tf.where(value >= 1 << 31, value - (1 << 32), value)


def _starts(values: tf.Tensor, text: bytes) -> tf.Tensor:
    """Whether the last axis begins with `text`."""
    return tf.reduce_all(values[..., : len(text)] == tf.constant(list(text), tf.int64), axis=-1)


def _kind(octets: tf.Tensor) -> tf.Tensor:
    start = _take(octets, tf.constant(0, tf.int64), 16)
    enough = tf.size(octets) >= 10
    gif = _starts(start, b"GIF87a") | _starts(start, b"GIF89a")
    webp = _starts(start, b"RIFF") & _starts(start[8:], b"WEBP")
    answers = [
        (_starts(start, b"\xff\xd8\xff"), JPEG),
        (_starts(start, b"\x89PNG\r\n\x1a\n"), PNG),
        (_starts(start, b"BM"), BMP),
        (gif, GIF),
        (webp, WEBP),
    ]
    kind = tf.constant(UNKNOWN, tf.int32)
    for matches, value in answers:
        kind = tf.where(matches & enough, value, kind)
    return kind


# JPEG: segments of FF, marker, two bytes of length.


def _jpeg(data: tf.Tensor, octets: tf.Tensor) -> Header:
    starts = _segment_starts(data)
    count = tf.size(starts)
    last = tf.size(octets, out_type=tf.int64) - 1
    places = tf.clip_by_value(starts[:, None] + tf.range(16, dtype=tf.int64)[None, :], 0, last)
    segments = tf.cast(tf.gather(octets, places), tf.int64)
    marker, ends = segments[:, 1], starts + 2 + _big(segments[:, 2:4])

    def where(matches: tf.Tensor, offset: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Where the first match's content starts, `offset` bytes into the segment, and where it ends; or -1, -1."""
        found = tf.concat([tf.boolean_mask(tf.stack([starts + offset, ends], axis=1), matches), [[-1, -1]]], axis=0)
        return found[0, 0], found[0, 1]

    frames = tf.boolean_mask(segments, _is_frame(marker))
    frame = tf.cond(tf.size(frames) > 0, lambda: frames[-1], lambda: tf.zeros([16], tf.int64))
    exif = where((marker == 0xE1) & _starts(segments[:, 4:], b"Exif\0\0"), 10)
    # The namespace and its zero byte are 29 bytes.
    xmp = where((marker == 0xE1) & _starts(segments[:, 4:], b"http://ns.ad"), 33)
    adobe = tf.cast((marker == 0xEE) & _starts(segments[:, 4:], b"Adobe"), tf.int64)
    index = tf.where(tf.reduce_any(adobe > 0), tf.argmax(adobe), tf.cast(count, tf.int64))
    return _header(
        JPEG,
        height=_big(frame[5:7]),
        width=_big(frame[7:9]),
        orientation=_orientation(data, octets, *exif, *xmp),
        channels=frame[9],
        bits=frame[4],
        adobe=tf.concat([starts, [-1]], axis=0)[index],
        transform=tf.concat([segments[:, 15], [-1]], axis=0)[index],
    )


def _is_frame(marker: tf.Tensor) -> tf.Tensor:
    tables = (marker == 0xC4) | (marker == 0xC8) | (marker == 0xCC)
    return (marker >= 0xC0) & (marker <= 0xCF) & ~tables


def _segment_starts(data: tf.Tensor) -> tf.Tensor:
    """Positions of a JPEG's segments up to the first scan; int64 [n].

    The loop runs once per segment of every image that is served, so its body is kept to a handful of ops.
    """
    size = tf.strings.length(data)

    def word(position: tf.Tensor) -> tf.Tensor:
        pair = tf.io.decode_raw(tf.strings.substr(data, position, 4), tf.uint16, little_endian=False)
        return tf.unstack(tf.cast(tf.ensure_shape(pair, [2]), tf.int32))

    def more(position: tf.Tensor, starts: tf.Tensor, done: tf.Tensor) -> tf.Tensor:
        return ~done & (position + 4 <= size) & (tf.size(starts) < _MAX_SEGMENTS)

    def step(position: tf.Tensor, starts: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        marker, length = word(position)
        # Anything else (fill bytes, restart markers, stray bytes) is stepped over byte by byte, as libjpeg does.
        segment = (marker >= 0xFFC0) & (marker <= 0xFFFE) & ((marker < 0xFFD0) | (marker > 0xFFD9))
        return (
            position + tf.where(segment, 2 + length, 1),
            tf.concat([starts, [position]], axis=0),
            (marker == 0xFFDA) | (marker == 0xFFD9),
        )

    begin = (tf.constant(2), tf.zeros([0], tf.int32), tf.constant(False))
    shapes = (tf.TensorShape([]), tf.TensorShape([None]), tf.TensorShape([]))
    starts = tf.while_loop(more, step, begin, shape_invariants=shapes, parallel_iterations=1)[1]
    return tf.cast(starts, tf.int64)


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


def _png(data: tf.Tensor, octets: tf.Tensor) -> Header:
    start = _take(octets, tf.constant(8, tf.int64), 18)
    valid = _starts(start[4:], b"IHDR") & (tf.size(octets) >= 26)
    size = tf.size(octets, out_type=tf.int64)

    def more(c: _Chunks) -> tf.Tensor:
        return ~c.done & (c.position + 12 <= size) & (c.steps < _MAX_SEGMENTS)

    def step(c: _Chunks) -> tuple[_Chunks]:
        here = _take(octets, c.position, 28)
        end = c.position + 8 + _big(here[:4])
        exif = _starts(here[4:], b"eXIf")
        xmp = _starts(here[4:], b"iTXtXML:com.adobe.xmp\0")
        return (
            _Chunks(
                position=end + 4,
                steps=c.steps + 1,
                exif=tf.where(exif, c.position + 8, c.exif),
                exif_end=tf.where(exif, end, c.exif_end),
                xmp=tf.where(xmp, c.position + 26, c.xmp),
                xmp_end=tf.where(xmp, end, c.xmp_end),
                done=_starts(here[4:], b"IEND"),
            ),
        )

    found = tf.while_loop(more, step, [_no_chunks(8)], parallel_iterations=1)[0]
    orientation = _orientation(data, octets, found.exif, found.exif_end, found.xmp, found.xmp_end)
    return _header(
        PNG,
        tf.where(valid, _big(start[12:16]), 0),
        tf.where(valid, _big(start[8:12]), 0),
        orientation,
        channels=start[17],
        bits=start[16],
    )


def _bmp(octets: tf.Tensor) -> Header:
    start = _take(octets, tf.constant(14, tf.int64), 16)
    old = _little(start[:4]) == 12
    width = tf.where(old, _little(start[4:6]), _signed(_little(start[4:8])))
    height = tf.where(old, _little(start[6:8]), _signed(_little(start[8:12])))
    bits = tf.where(old, _little(start[10:12]), _little(start[14:16]))
    compression = tf.where(~old, _little(_take(octets, tf.constant(30, tf.int64), 4)), 0)
    readable = tf.reduce_any(bits == tf.constant([1, 4, 8, 16, 24, 32], tf.int64)) & (
        (compression == 0) | ((compression == 3) & (bits >= 16))
    )
    kind = tf.strings.join([tf.as_string(bits), " bits with compression ", tf.as_string(compression)])
    problem = tf.strings.join(["The BMP has ", kind, ", but only plain ones are read. Send it as PNG."])
    return _header(BMP, tf.abs(height), tf.maximum(width, 0), bits=bits, problem=tf.where(readable, "", problem))


def _gif(octets: tf.Tensor) -> Header:
    start = _take(octets, tf.constant(6, tf.int64), 4)
    return _header(GIF, _little(start[2:4]), _little(start[0:2]))


def _webp(data: tf.Tensor, octets: tf.Tensor) -> Header:
    start = _take(octets, tf.constant(12, tf.int64), 18)
    lossy = (_little(start[16:18]) & 0x3FFF, _little(start[14:16]) & 0x3FFF)
    packed = _little(start[9:13])
    lossless = ((packed // (1 << 14) & 0x3FFF) + 1, (packed & 0x3FFF) + 1)
    extended = (_little(start[15:18]) + 1, _little(start[12:15]) + 1)
    height, width = tf.constant(0, tf.int64), tf.constant(0, tf.int64)
    for name, (h, w) in ((b"VP8 ", lossy), (b"VP8L", lossless), (b"VP8X", extended)):
        matches = _starts(start, name)
        height, width = tf.where(matches, h, height), tf.where(matches, w, width)
    size = tf.size(octets, out_type=tf.int64)

    def more(c: _Chunks) -> tf.Tensor:
        return ~c.done & (c.position + 8 <= size) & (c.steps < _MAX_SEGMENTS)

    def step(c: _Chunks) -> tuple[_Chunks]:
        here = _take(octets, c.position, 8)
        length = _little(here[4:8])
        end = c.position + 8 + length
        exif, xmp = _starts(here, b"EXIF"), _starts(here, b"XMP ")
        return (
            _Chunks(
                position=end + (length & 1),
                steps=c.steps + 1,
                exif=tf.where(exif, c.position + 8, c.exif),
                exif_end=tf.where(exif, end, c.exif_end),
                xmp=tf.where(xmp, c.position + 8, c.xmp),
                xmp_end=tf.where(xmp, end, c.xmp_end),
                done=c.done,
            ),
        )

    found = tf.while_loop(more, step, [_no_chunks(12)], parallel_iterations=1)[0]
    return _header(
        WEBP, height, width, _orientation(data, octets, found.exif, found.exif_end, found.xmp, found.xmp_end)
    )


# EXIF is a TIFF file of its own; orientation is tag 0x0112 of its first directory.


def _orientation(
    data: tf.Tensor, octets: tf.Tensor, exif: tf.Tensor, exif_end: tf.Tensor, xmp: tf.Tensor, xmp_end: tf.Tensor
) -> tf.Tensor:
    """1 to 8, from EXIF, else from XMP, else 1 (`PIL.Image.Image.getexif`)."""
    nothing = tf.constant(0, tf.int64)
    value = tf.cond(exif >= 0, lambda: _tiff_orientation(octets, exif, exif_end), lambda: nothing)
    value = tf.cond((value == 0) & (xmp >= 0), lambda: _xmp_orientation(data, xmp, xmp_end), lambda: value)
    return tf.cast(tf.where((value >= 1) & (value <= 8), value, 1), tf.int32)


def _tiff_orientation(octets: tf.Tensor, begin: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
    # Some writers repeat the prefix; Pillow strips it as often as it comes, PNG's eXIf included.
    prefixed = _starts(_take(octets, begin, 6), b"Exif\0\0")
    begin = tf.where(prefixed, begin + 6, begin)
    end = tf.minimum(end, tf.size(octets, out_type=tf.int64))
    start = _take(octets, begin, 8)
    little = _starts(start, b"II")

    def number(values: tf.Tensor) -> tf.Tensor:
        return tf.where(little, _little(values), _big(values))

    directory = begin + number(start[4:8])
    valid = (little | _starts(start, b"MM")) & (directory + 2 <= end)
    claimed = number(_take(octets, directory, 2))
    count = tf.where(valid, tf.minimum(claimed, tf.maximum((end - directory - 2) // 12, 0)), 0)
    places = directory + 2 + 12 * tf.range(count)[:, None] + tf.range(12, dtype=tf.int64)[None, :]
    entries = tf.cast(tf.gather(octets, tf.clip_by_value(places, 0, tf.size(octets, out_type=tf.int64) - 1)), tf.int64)
    tag, kind, many = number(entries[:, 0:2]), number(entries[:, 2:4]), number(entries[:, 4:8])
    # SHORT and SSHORT have two bytes, LONG and SLONG four; other types give Pillow nothing that equals 1 to 8.
    short, long = (kind == 3) | (kind == 8), (kind == 4) | (kind == 9)
    value = tf.where(short, number(entries[:, 8:10]), number(entries[:, 8:12]))
    matches = (tag == 0x0112) & (many == 1) & (short | long)
    # The last entry wins, as in a dictionary.
    found = tf.boolean_mask(value, matches)
    return tf.cond(tf.size(found) > 0, lambda: found[-1], lambda: tf.constant(0, tf.int64))


def _xmp_orientation(data: tf.Tensor, begin: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
    size = tf.cast(tf.strings.length(data), tf.int64)
    begin, end = tf.minimum(begin, size), tf.minimum(end, size)
    text = tf.strings.substr(data, begin, tf.maximum(end - begin, 0))
    # The first match counts, so everything before it is taken without greed.
    digit = tf.strings.regex_replace(text, r'(?s)^.*?tiff:Orientation(?:="|>)([0-9]).*$', r"\1", replace_global=False)
    found = tf.strings.length(digit) == 1
    return tf.cond(
        found & tf.strings.regex_full_match(digit, "[0-9]"),
        lambda: tf.strings.to_number(digit, tf.int64),
        lambda: tf.constant(0, tf.int64),
    )
