from __future__ import annotations

import io
import struct
import textwrap
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from signatures import headers
from signatures.headers import NAMES, read_header
from tests.signatures.pictures import (
    bmp,
    chunk,
    claims,
    encode,
    gif,
    in_jpeg,
    in_png,
    noise,
    segment,
    tiff,
)

tf = pytest.importorskip("tensorflow")

JPEG, PNG = encode(noise(20, 30), "JPEG"), encode(noise(20, 30), "PNG")
EXIF, XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"


@pytest.fixture(scope="module")
def read():
    """The header as plain numbers, from ops in a graph."""

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
    def run(data):
        return read_header(data)[0]

    def call(data: bytes) -> headers.Header:
        found = headers.Header(*(value.numpy() for value in run(data)))
        return found._replace(problem=found.problem.decode())

    return call


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "WebP"])
@settings(max_examples=10, deadline=None)
@given(height=st.integers(1, 300), width=st.integers(1, 300))
def test_format_and_size(read, kind, height, width):
    header = read(encode(Image.new("RGB", (width, height), (1, 2, 3)), kind.upper()))
    assert (NAMES[header.kind], header.height, header.width) == (kind, height, width)
    assert (header.orientation, header.problem) == (1, "")


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=200), seed=st.sampled_from([b"", b"\xff\xd8\xff", PNG[:30], b"BM", b"GIF89a", b"RIFF"]))
def test_nothing_raises(read, data, seed):
    assert read(seed + data).orientation == 1


@settings(max_examples=60, deadline=None)
@given(
    data=st.sampled_from(
        [JPEG, PNG, encode(noise(9, 9), "BMP"), encode(noise(9, 9), "GIF"), encode(noise(9, 9), "WEBP")]
    ),
    cut=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
)
def test_damage_never_raises(read, data, cut, flips):
    damaged = bytearray(data)
    for place, value in flips:
        damaged[int(place * (len(damaged) - 1))] = value
    assert 1 <= read(bytes(damaged[: int(cut * len(damaged))])).orientation <= 8


@settings(max_examples=20, deadline=None)
@given(height=st.integers(1, 2**32 - 1), width=st.integers(1, 2**32 - 1))
def test_a_png_may_claim_anything(read, height, width):
    header = read(claims(height, width))
    assert (header.height, header.width) == (height, width)


def test_a_gif_frame_larger_than_its_screen_counts(read):
    header = read(gif(np.zeros((7, 9), np.uint8), screen=(3, 4), corner=(2, 5)))
    assert (header.height, header.width) == (9, 14)


def orientation_of(data: bytes) -> int:
    """What Pillow finds."""
    image = Image.open(io.BytesIO(data))
    image.load()
    found = image.getexif().get(0x0112, 1)
    return found if found in range(1, 9) else 1


@pytest.mark.parametrize("little", [True, False])
@pytest.mark.parametrize("kind", [3, 4])
@pytest.mark.parametrize("value", range(10))
def test_orientation_from_exif(read, little, kind, value):
    content = tiff(value, little=little, kind=kind, gap=value)
    files = {
        "jpeg": in_jpeg(JPEG, segment(0xE1, EXIF + content)),
        "jpeg behind others": in_jpeg(
            JPEG, segment(0xED, b"Photoshop 3.0\0" + bytes(300)), segment(0xE1, EXIF + content)
        ),
        "png": in_png(PNG, chunk(b"eXIf", content)),
        "png at the end": in_png(PNG, chunk(b"eXIf", content), before=b"IEND"),
        "png with prefix": in_png(PNG, chunk(b"eXIf", EXIF + content)),
        "webp": encode(noise(9, 9), "WEBP", exif=EXIF + content),
    }
    for name, data in files.items():
        assert read(data).orientation == orientation_of(data) == (value if 1 <= value <= 8 else 1), name


def test_orientation_from_exif_in_several_segments(read):
    content = tiff(6)
    for cut in (0, 4, 9, 21, len(content)):
        halves = [segment(0xE1, EXIF + part) for part in (content[:cut], content[cut:])]
        data = in_jpeg(JPEG, *halves)
        assert read(data).orientation == orientation_of(data) == 6, cut


@settings(max_examples=150, deadline=None)
@given(
    order=st.sampled_from("<>"),
    entries=st.lists(
        st.tuples(
            st.sampled_from([0x0112, 0x0112, 0x010F, 0x8769]),
            st.integers(0, 17),
            st.sampled_from([0, 1, 1, 1, 2, 5, 1000]),
            st.integers(0, 9),
            st.booleans(),
        ),
        min_size=1,
        max_size=3,
    ),
    more=st.integers(-1, 1),
)
def test_orientation_from_any_directory(read, order, entries, more):
    """Types, counts, values elsewhere or beyond the end, entries given twice or missing: as Pillow reads them."""
    elsewhere, start = b"", 14 + 12 * len(entries)
    directory = struct.pack(order + "H", len(entries) + more)
    for tag, kind, count, value, inside in entries:
        form = {3: "H", 4: "I", 5: "II", 8: "h", 9: "i", 10: "ii", 11: "f", 12: "d", 13: "I", 16: "Q"}.get(kind, "B")
        data = struct.pack(order + form, value, 1) if form in ("II", "ii") else struct.pack(order + form, value)
        if len(data) * count > 4:
            place = struct.pack(order + "I", start + len(elsewhere) if inside else 5000)
            elsewhere += data * min(count, 9)
            data = place
        directory += struct.pack(order + "HHI", tag, kind, count) + data.ljust(4, b"\0")[:4]
    content = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8) + directory + bytes(4) + elsewhere
    xmp = segment(0xE1, XMP + b"<tiff:Orientation>5</tiff:Orientation>")
    data = in_jpeg(JPEG, xmp, segment(0xE1, EXIF + content))
    assert read(data).orientation == orientation_of(data)


@pytest.mark.parametrize("value", [2, 5])
def test_orientation_from_text_in_a_png(read, value):
    profile = EXIF + tiff(value)
    lines = "\n".join(textwrap.wrap(profile.hex(), 72))
    raw = f"\nexif\n{len(profile):8}\n{lines}\n".encode()
    xmp = f"<tiff:Orientation>{value}</tiff:Orientation>".encode()
    for name, text in ((b"Raw profile type exif\0", raw), (b"XML:com.adobe.xmp\0", xmp)):
        chunks = {
            "tEXt": chunk(b"tEXt", name + text),
            "zTXt": chunk(b"zTXt", name + b"\0" + zlib.compress(text)),
            "iTXt": chunk(b"iTXt", name + b"\0\0en\0word\0" + text),
            "iTXt, compressed": chunk(b"iTXt", name + b"\1\0en\0word\0" + zlib.compress(text)),
        }
        for kind, part in chunks.items():
            data = in_png(PNG, part)
            assert read(data).orientation == orientation_of(data) == value, (name, kind)
    spoilt = in_png(PNG, chunk(b"zTXt", b"XML:com.adobe.xmp\0\0no zlib at all"))
    assert read(spoilt).orientation == orientation_of(spoilt) == 1


def test_metadata_of_a_webp_counts_where_its_head_announces_it(read):
    data = bytearray(encode(noise(9, 9), "WEBP", exif=EXIF + tiff(6)))
    data[data.index(b"VP8X") + 8] &= ~8
    assert read(bytes(data)).orientation == orientation_of(bytes(data)) == 1


@pytest.mark.parametrize("value", [0, 3, 6, 9])
@pytest.mark.parametrize("text", ['<a tiff:Orientation="{}"/>', "<tiff:Orientation>{}</tiff:Orientation>", "<a/>"])
def test_orientation_from_xmp(read, text, value):
    content = text.format(value).encode()
    international = b"XML:com.adobe.xmp\0\0\0\0\0"
    files = {
        "jpeg": in_jpeg(JPEG, segment(0xE1, XMP + content)),
        "jpeg, not UTF-8": in_jpeg(JPEG, segment(0xE1, XMP + b"\xff\xfe\x80" + content)),
        "jpeg, extended XMP": in_jpeg(JPEG, segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + content)),
        "jpeg, EXIF wins": in_jpeg(JPEG, segment(0xE1, XMP + content), segment(0xE1, EXIF + tiff(8))),
        "jpeg, EXIF wins with nothing": in_jpeg(JPEG, segment(0xE1, XMP + content), segment(0xE1, EXIF + tiff(0))),
        "png": in_png(PNG, chunk(b"iTXt", international + content)),
        "webp": encode(noise(9, 9), "WEBP", xmp=content),
    }
    for name, data in files.items():
        assert read(data).orientation == orientation_of(data), name


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (bmp(np.zeros((3, 12), np.uint8), 32, masks=(0xF, 0xF0, 0xF00, 0)), "only plain ones are read"),
        (encode(noise(9, 9), "GIF")[:-20], "ends before its first frame does"),
        (JPEG[:150], "ends before its picture begins"),
        # Of 2 GB, for which TensorFlow's own op takes memory.
        (PNG[:33] + b"\x7f\0\0\0iTXt", "truncated or corrupt"),
        (PNG[:-14], "truncated or corrupt"),
        (in_png(PNG, chunk(b"tEXt", b"a\0b") * 10_000), "more than 10,000 chunks"),
        (encode(noise(9, 9), "WEBP", save_all=True, append_images=[noise(9, 9, 1)]), "animated"),
    ],
)
def test_what_is_not_read_is_said(read, data, problem):
    assert problem in read(data).problem
