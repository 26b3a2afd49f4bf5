from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from PIL import Image
from transformers.image_utils import load_image

from signatures.decode import decode
from signatures.headers import read_header
from tests.signatures.pictures import (
    bmp,
    chunk,
    encode,
    gif,
    in_jpeg,
    in_png,
    noise,
    photo,
    png,
    segment,
    tiff,
    with_orientation,
)

tf = pytest.importorskip("tensorflow")

SIZES = [(1, 1), (1, 50), (50, 1), (17, 33), (64, 48)]
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def read():
    """Decodes by ops in a graph."""

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
    def run(data):
        header, octets = read_header(data)
        return decode(data, octets, header)

    return lambda data: run(data).numpy()


def reference(data: bytes) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(load_image(Image.open(io.BytesIO(data))))


def check(read, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        np.testing.assert_array_equal(read(data), reference(data), err_msg=name)


@pytest.mark.parametrize("size", SIZES)
def test_jpeg(read, size):
    image, hard = photo(*size), noise(*size)
    files = {f"{q} {s}": encode(image, "JPEG", quality=q, subsampling=s) for q in (5, 75, 100) for s in (0, 1, 2)}
    files |= {
        "noise": encode(hard, "JPEG", quality=95),
        "progressive": encode(hard, "JPEG", progressive=True),
        "restarts": encode(image, "JPEG", optimize=True, restart_marker_blocks=3),
        "gray": encode(image.convert("L"), "JPEG"),
        "gray progressive": encode(image.convert("L"), "JPEG", progressive=True),
        "rgb": encode(image, "JPEG", keep_rgb=True),
        "fill bytes": in_jpeg(encode(image, "JPEG"), b"\xff\xff", segment(0xFE, b"comment")),
    }
    check(read, files)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("options", [{"quality": 90}, {"subsampling": 2}, {"progressive": True}])
def test_jpeg_with_four_colors(read, size, options):
    inks = Image.fromarray(np.random.default_rng(1).integers(0, 256, (*size, 4), dtype=np.uint8), mode="CMYK")
    cmyk = encode(inks, "JPEG", **options)
    place = cmyk.index(b"Adobe")
    files = {
        "cmyk": cmyk,
        "photo": encode(photo(*size).convert("CMYK"), "JPEG", **options),
        "ycck": cmyk[: place + 11] + b"\2" + cmyk[place + 12 :],
        "without Adobe": cmyk[:place] + b"Other" + cmyk[place + 5 :],
    }
    check(read, files)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_png(read, size, interlaced):
    files = {}
    for bits in (1, 2, 4, 8, 16):
        gray = RNG.integers(0, 1 << bits, size)
        files[f"gray {bits}"] = png(gray, bits, 0, interlaced=interlaced)
        files[f"gray {bits}, one transparent"] = png(gray, bits, 0, interlaced=interlaced, transparency=b"\0\1")
        if bits <= 8:
            palette = RNG.integers(0, 256, (1 << bits, 3))
            some = {"palette": palette, "interlaced": interlaced}
            files[f"palette {bits}"] = png(gray, bits, 3, **some)
            files[f"palette {bits}, transparent"] = png(gray, bits, 3, **some, transparency=bytes([0, 128]))
            files[f"palette {bits}, short"] = png(gray, bits, 3, palette=palette[: max(1, 1 << bits >> 1)])
        if bits >= 8:
            for channels, color_type in ((2, 4), (3, 2), (4, 6)):
                samples = RNG.integers(0, 1 << bits, (*size, channels))
                files[f"type {color_type} {bits}"] = png(samples, bits, color_type, interlaced=interlaced)
    color = RNG.integers(0, 256, (*size, 3))
    files["gamma"] = png(color, 8, 2, extra=chunk(b"gAMA", (100_000).to_bytes(4, "big")))
    files["one transparent"] = png(color, 8, 2, transparency=bytes(6))
    check(read, files)


@pytest.mark.parametrize("top_down", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_bmp(read, size, top_down):
    files = {}
    for bits in (1, 4, 8):
        samples = RNG.integers(0, 1 << bits, size)
        palette = RNG.integers(0, 256, (1 << bits, 3))
        files[f"palette {bits}"] = bmp(samples, bits, palette=palette, top_down=top_down)
        files[f"old palette {bits}"] = bmp(samples, bits, palette=palette, old=True)
    words, wide = RNG.integers(0, 65536, size), RNG.integers(0, 256, (size[0], size[1] * 4))
    files["16"] = bmp(words, 16, top_down=top_down)
    files["16, 565"] = bmp(words, 16, top_down=top_down, masks=(0xF800, 0x7E0, 0x1F, 0))
    files["24"] = bmp(RNG.integers(0, 256, (size[0], size[1] * 3)), 24, top_down=top_down)
    files["32"] = bmp(wide, 32, top_down=top_down)
    files["32, RGBA"] = bmp(wide, 32, top_down=top_down, masks=(0xFF, 0xFF00, 0xFF0000, 0xFF000000))
    files["32, XBGR"] = bmp(wide, 32, top_down=top_down, masks=(0xFF000000, 0xFF0000, 0xFF00, 0))
    files["32, no masks"] = bmp(wide, 32, top_down=top_down, masks=(0, 0, 0, 0))
    files |= {mode: encode(photo(*size).convert(mode), "BMP") for mode in ("1", "L", "P", "RGB", "RGBA")}
    check(read, files)


@pytest.mark.parametrize("size", SIZES)
def test_gif(read, size):
    indices = RNG.integers(0, 256, size).astype(np.uint8)
    random, small = RNG.integers(0, 256, (256, 3)), RNG.integers(0, 256, (16, 3))
    ramp = np.repeat(np.arange(256)[:, None], 3, axis=1)
    height, width = size
    files = {
        "plain": gif(indices, screen=size, palette=random),
        "interlaced": gif(indices, screen=size, palette=random, interlaced=True),
        "no palette": gif(indices, screen=size),
        "short palette": gif(indices, screen=size, palette=small),
        "own palette": gif(indices, screen=size, palette=random, own=small),
        "own ramp": gif(indices, screen=size, palette=random, own=ramp),
        "ramp": gif(indices, screen=size, palette=ramp, transparent=7),
        "transparent": gif(indices, screen=size, palette=random, transparent=7),
        "small frame": gif(indices, screen=(height + 9, width + 5), corner=(4, 2), palette=random),
        "small, transparent": gif(
            indices, screen=(height + 9, width + 5), corner=(4, 2), palette=random, transparent=9
        ),
        "frame beyond the screen": gif(indices, screen=(2, 3), corner=(4, 2), palette=random),
        "tiny blocks": gif(indices, screen=size, palette=random, block=1),
        "blocks just short": gif(indices, screen=size, palette=random, block=254),
        "comment": gif(indices, screen=size, palette=random, before=b"!\xfe\x03abc\x02de\0"),
        "stray bytes": gif(indices, screen=size, palette=random, before=b"\0\0"),
        "animated": encode(photo(*size), "GIF", save_all=True, append_images=[noise(*size), photo(*size)]),
    }
    check(read, files)


@pytest.mark.skipif(not hasattr(tf.io, "decode_webp"), reason="this TensorFlow reads no WebP")
@pytest.mark.parametrize("size", SIZES)
def test_webp(read, size):
    with_alpha = Image.fromarray(RNG.integers(0, 256, (*size, 4), dtype=np.uint8))
    files = {
        "lossy": encode(photo(*size), "WEBP"),
        "lossless": encode(noise(*size), "WEBP", lossless=True),
        "alpha": encode(with_alpha, "WEBP"),
        "lossless alpha": encode(with_alpha, "WEBP", lossless=True, exact=True),
        "turned": encode(noise(*size), "WEBP", exif=with_orientation(6)),
    }
    check(read, files)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_turns_the_picture(read, orientation):
    image = noise(20, 30)
    files = {
        "jpeg": encode(image, "JPEG", exif=with_orientation(orientation)),
        "png": in_png(encode(image, "PNG"), chunk(b"eXIf", tiff(orientation, little=False))),
    }
    check(read, files)


@pytest.mark.parametrize(
    "data",
    [
        encode(photo(40, 60), "JPEG")[:-60],
        encode(noise(40, 60), "PNG")[:-60],
        encode(noise(40, 60), "BMP")[:-60],
        encode(photo(40, 60).convert("CMYK"), "JPEG")[:-60],
        encode(noise(4, 4).quantize(), "BMP")[:60],
    ],
    ids=["jpeg", "png", "bmp", "cmyk", "bmp palette"],
)
def test_truncated_data_gives_an_empty_picture(read, data):
    with pytest.raises((OSError, ValueError)):
        reference(data)
    assert read(data).shape == (0, 0, 3)


def test_a_wrong_checksum_gives_an_empty_picture(read):
    data = bytearray(encode(noise(9, 9), "PNG"))
    data[data.index(b"IEND") - 5] ^= 1
    assert read(bytes(data)).shape == (0, 0, 3)
