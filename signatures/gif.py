"""The first frame of a GIF, as Pillow reads it, in TensorFlow ops.

TensorFlow's own op decodes every frame of an animation into memory and answers otherwise than Pillow where there is
transparency. So the first frame is cut out and given to that op as a GIF of its own, with a gray ramp for its colours:
what comes back are the indices, and the colours are looked up here.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from signatures.octets import little, take, text

__all__ = ["Frame", "first_frame", "paint", "single"]

_MAX_STEPS = 20_000
_RUN = 64


class Frame(NamedTuple):
    """Where the first frame is; int64 scalars, positions in bytes.

    Args:
        height: Rows of the picture: those of the screen, or more where the frame reaches beyond it.
        width: Columns, likewise.
        top: The frame's first row on the picture.
        left: Its first column.
        rows: Its own size.
        columns: Its own size.
        interlaced: 1 where the rows are interlaced.
        own: Where the frame's own palette starts, and how many colours it has, 0 without one; [2].
        common: The same of the file's palette.
        transparent: The index that is transparent, or -1.
        data: Where the image data starts, at its code size.
        end: One past the image data's last block; 0 where the file ends before it, or has no frame.
    """

    height: tf.Tensor
    width: tf.Tensor
    top: tf.Tensor
    left: tf.Tensor
    rows: tf.Tensor
    columns: tf.Tensor
    interlaced: tf.Tensor
    own: tf.Tensor
    common: tf.Tensor
    transparent: tf.Tensor
    data: tf.Tensor
    end: tf.Tensor


def first_frame(octets: tf.Tensor) -> Frame:
    """Finds the first frame.

    Args:
        octets: uint8 [n], the file.
    """
    screen = take(octets, 0, 13)
    count = _table_size(screen[10])
    position, transparent = _skip_extensions(octets, 13 + 3 * count)
    place = take(octets, position, 10)
    found = place[0] == 0x2C
    left, top, columns, rows = (little(place[i : i + 2]) for i in (1, 3, 5, 7))
    own_count = _table_size(place[9])
    data = position + 10 + 3 * own_count
    end = tf.cond(found, lambda: _skip_blocks(octets, data + 1), lambda: tf.constant(0, tf.int64))
    return Frame(
        height=tf.maximum(little(screen[8:10]), top + rows),
        width=tf.maximum(little(screen[6:8]), left + columns),
        top=top,
        left=left,
        rows=rows,
        columns=columns,
        interlaced=tf.cast((place[9] & 64) > 0, tf.int64),
        own=tf.stack([position + 10, own_count]),
        common=tf.stack([tf.constant(13, tf.int64), count]),
        transparent=transparent,
        data=data,
        end=end,
    )


def single(data: tf.Tensor, frame: Frame) -> tf.Tensor:
    """The frame as a GIF of its own, whose colours are its indices.

    Args:
        data: string scalar, the file.
        frame: From `first_frame`, with an `end`.

    Returns:
        string scalar.
    """
    size = tf.stack([frame.columns % 256, frame.columns // 256, frame.rows % 256, frame.rows // 256])
    ramp = bytes(level for index in range(256) for level in (index, index, index))
    return tf.strings.join(
        [
            b"GIF89a",
            text(size),
            b"\xf7\x00\x00" + ramp + b",\x00\x00\x00\x00",
            text(size),
            text(frame.interlaced[None] * 64),
            tf.strings.substr(data, frame.data, frame.end - frame.data),
            b";",
        ]
    )


def paint(indices: tf.Tensor, octets: tf.Tensor, frame: Frame) -> tf.Tensor:
    """The whole picture from a frame's indices.

    Args:
        indices: uint8 [rows, columns].
        octets: uint8 [n], the file.
        frame: From `first_frame`.

    Returns:
        uint8 [height, width, 3].
    """
    gray = tf.cast(tf.repeat(tf.range(256)[:, None], 3, axis=1), tf.uint8)

    def palette(place: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
        """Pillow does without a palette that is a gray ramp, and takes the file's for a frame whose own is one."""
        table = tf.reshape(octets[place[0] : place[0] + 3 * place[1]], [-1, 3])
        ramp = tf.reduce_all(table == gray[: tf.shape(table)[0]])
        # An index without a colour is black.
        padded = tf.pad(table, [[0, 256 - tf.shape(table)[0]], [0, 0]])
        return tf.cond(ramp, lambda: other, lambda: padded)

    table = palette(frame.own, palette(frame.common, gray))
    # Pillow fills what the frame leaves free with the transparent colour, else with the first.
    below = frame.height - frame.top - frame.rows
    right = frame.width - frame.left - frame.columns
    free = tf.cast(tf.maximum(frame.transparent, 0), tf.uint8)
    canvas = tf.pad(indices, [[frame.top, below], [frame.left, right]], constant_values=free)
    return tf.gather(table, tf.cast(canvas, tf.int32))


def _table_size(flags: tf.Tensor) -> tf.Tensor:
    return tf.where((flags & 128) > 0, tf.bitwise.left_shift(tf.constant(2, tf.int64), flags & 7), 0)


def _skip_extensions(octets: tf.Tensor, position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Where the first image descriptor is, or the end; and the transparent index that was declared on the way."""
    size = tf.size(octets, out_type=tf.int64)

    def more(position: tf.Tensor, _: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
        kind = take(octets, position, 1)[0]
        return (position < size) & (kind != 0x2C) & (kind != 0x3B) & (steps < _MAX_STEPS)

    def step(position: tf.Tensor, transparent: tf.Tensor, steps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        here = take(octets, position, 7)
        extension = here[0] == 0x21
        declares = extension & (here[1] == 0xF9) & (here[2] >= 4) & ((here[3] & 1) > 0)
        # Pillow steps over stray bytes one by one.
        after = tf.cond(extension, lambda: _skip_blocks(octets, position + 2), lambda: position + 1)
        after = tf.where(after == 0, size, after)
        return after, tf.where(declares, here[6], transparent), steps + 1

    start = (position, tf.constant(-1, tf.int64), tf.constant(0))
    position, transparent, _ = tf.while_loop(more, step, start, parallel_iterations=1)
    return position, transparent


def _skip_blocks(octets: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
    """One past the empty block that ends a chain of blocks; 0 where the file ends before it.

    Data comes in blocks of 255 bytes with a length byte each, so whole runs of those are stepped over at once.
    """
    size = tf.size(octets, out_type=tf.int64)

    def more(position: tf.Tensor, length: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
        return (length > 0) & (position < size) & (steps < _MAX_STEPS)

    def step(position: tf.Tensor, _: tf.Tensor, steps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        lengths = octets[position : position + 256 * _RUN : 256]
        full = tf.reduce_sum(tf.math.cumprod(tf.cast(lengths == 255, tf.int64)))
        position += 256 * full
        length = tf.cond(position < size, lambda: take(octets, position, 1)[0], lambda: tf.constant(255, tf.int64))
        whole_run = full == tf.size(lengths, out_type=tf.int64)
        after = tf.where(whole_run, position, position + 1 + length)
        return after, tf.where(whole_run, tf.constant(255, tf.int64), length), steps + 1

    start = (position, tf.constant(1, tf.int64), tf.constant(0))
    position, length, _ = tf.while_loop(more, step, start, parallel_iterations=1)
    return tf.where((length == 0) & (position <= size), position, 0)
