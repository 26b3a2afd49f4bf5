"""Pictures and encoded files for tests, made here so that nothing is downloaded."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache

import numpy as np
from PIL import Image


@cache
def photo(height: int = 427, width: int = 640) -> Image.Image:
    """A photograph (scikit-learn's `china.jpg`) at a size."""
    from sklearn.datasets import load_sample_image

    return Image.fromarray(load_sample_image("china.jpg")).resize((width, height), Image.Resampling.LANCZOS)


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    """Random pixels: the hardest case for every rounding."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    """An encoded file as Pillow writes it."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def with_orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def claims(height: int, width: int) -> bytes:
    """A PNG of a few bytes whose header claims a size."""
    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + size + b"\x08\x02\x00\x00\x00" + bytes(40)


# Writers for what Pillow reads but does not write.


def chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def segment(marker: int, data: bytes) -> bytes:
    """A JPEG segment."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def _packed(row: np.ndarray, bits: int) -> bytes:
    if bits == 16:
        return row.astype(">u2").tobytes()
    return np.packbits(np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, 8 - bits :].ravel()).tobytes()


_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def png(
    samples: np.ndarray,
    bits: int,
    color_type: int,
    *,
    palette: np.ndarray | None = None,
    transparency: bytes | None = None,
    interlaced: bool = False,
    extra: bytes = b"",
) -> bytes:
    """A PNG of any kind from samples [h, w] or [h, w, c] below 2**bits."""
    height, width = samples.shape[:2]
    samples = samples.reshape(height, width, -1)
    data = b""
    for top, left, down, right in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        part = samples[top::down, left::right]
        if part.size:
            data += b"".join(b"\0" + _packed(row, bits) for row in part.reshape(part.shape[0], -1))
    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, int(interlaced))
    parts = [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), extra]
    if palette is not None:
        parts.append(chunk(b"PLTE", palette.astype(np.uint8).tobytes()))
    if transparency is not None:
        parts.append(chunk(b"tRNS", transparency))
    return b"".join([*parts, chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")])


def bmp(
    samples: np.ndarray,
    bits: int,
    *,
    palette: np.ndarray | None = None,
    masks: tuple[int, ...] = (),
    top_down: bool = False,
    old: bool = False,
) -> bytes:
    """A BMP of any plain kind from samples [h, w] or [h, w * bytes per pixel]."""
    height, width = samples.shape[0], samples.shape[1] * 8 // max(bits, 8) if bits > 16 else samples.shape[1]
    stride = (width * bits + 31) // 32 * 4
    stored = samples if top_down else samples[::-1]
    lines = [row.astype("<u2").tobytes() if bits == 16 else _packed(row, min(bits, 8)) for row in stored]
    body = b"".join(line.ljust(stride, b"\0") for line in lines)
    colors = b"" if palette is None else palette[:, ::-1].astype(np.uint8).tobytes()
    if old:
        header = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        high = -height if top_down else height
        size = 108 if masks else 40
        header = struct.pack("<IiiHHIIiiII", size, width, high, 1, bits, 3 if masks else 0, len(body), 0, 0, 0, 0)
        header += struct.pack(f"<{len(masks)}I", *masks).ljust(size - 40, b"\0")
        if palette is not None:
            colors = np.pad(palette[:, ::-1], ((0, 0), (0, 1))).astype(np.uint8).tobytes()
    offset = 14 + len(header) + len(colors)
    return b"BM" + struct.pack("<IHHI", offset + len(body), 0, 0, offset) + header + colors + body


def gif(
    indices: np.ndarray,
    *,
    screen: tuple[int, int],
    corner: tuple[int, int] = (0, 0),
    palette: np.ndarray | None = None,
    own: np.ndarray | None = None,
    transparent: int | None = None,
    interlaced: bool = False,
    block: int = 255,
    before: bytes = b"",
) -> bytes:
    """A GIF with one frame of 8-bit indices [h, w] at a corner (row, column) of a screen (height, width)."""

    def flags(table: np.ndarray | None) -> int:
        return 0 if table is None else 0x80 | (len(table).bit_length() - 2)

    def colors(table: np.ndarray | None) -> bytes:
        return b"" if table is None else table.astype(np.uint8).tobytes()

    rows = np.concatenate([indices[0::8], indices[4::8], indices[2::4], indices[1::2]]) if interlaced else indices
    codes: list[int] = []
    for position, index in enumerate(rows.ravel()):
        # Clearing the dictionary often keeps every code at nine bits.
        codes += [256, int(index)] if position % 200 == 0 else [int(index)]
    bits = sum(code << (9 * i) for i, code in enumerate([*codes, 257]))
    data = bits.to_bytes((9 * (len(codes) + 1) + 7) // 8, "little")
    blocks = b"".join(bytes([len(data[i : i + block])]) + data[i : i + block] for i in range(0, len(data), block))
    control = b"" if transparent is None else bytes([0x21, 0xF9, 4, 1, 0, 0, transparent, 0])
    head = b"GIF89a" + struct.pack("<HH", screen[1], screen[0]) + bytes([flags(palette), 0, 0]) + colors(palette)
    place = struct.pack("<HHHH", corner[1], corner[0], indices.shape[1], indices.shape[0])
    frame = b"," + place + bytes([flags(own) | (0x40 if interlaced else 0)]) + colors(own)
    return head + before + control + frame + b"\x08" + blocks + b"\0;"


def tiff(orientation: int, *, little: bool = True, kind: int = 3, gap: int = 0) -> bytes:
    """EXIF content that gives an orientation as TIFF type `kind`, its directory `gap` bytes further on than need be."""
    order = "<" if little else ">"
    value = struct.pack(order + ("HH" if kind == 3 else "I"), *((orientation, 0) if kind == 3 else (orientation,)))
    entries = [struct.pack(order + "HHI", 0x010F, 2, 4) + b"abc\0", struct.pack(order + "HHI", 0x0112, kind, 1) + value]
    head = (b"II*\0" if little else b"MM\0*") + struct.pack(order + "I", 8 + gap) + bytes(gap)
    return head + struct.pack(order + "H", len(entries)) + b"".join(entries) + bytes(4)


def in_jpeg(data: bytes, *segments: bytes) -> bytes:
    """A JPEG with segments put before its own."""
    return data[:2] + b"".join(segments) + data[2:]


def in_png(data: bytes, *chunks: bytes, before: bytes = b"IDAT") -> bytes:
    """A PNG with chunks put before one of its own."""
    place = data.index(before) - 4
    return data[:place] + b"".join(chunks) + data[place:]


def rle_bmp(height: int, width: int) -> bytes:
    """A BMP of one colour with run-length coding, width at most 255."""
    rows = bytes([width, 7, 0, 0]) * height + b"\0\1"
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(rows), 0, 0, 256, 0)
    offset = 14 + len(header) + 1024
    return b"BM" + struct.pack("<IHHI", offset + len(rows), 0, 0, offset) + header + bytes(range(256)) * 4 + rows
