from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from serving import images
from signatures.errors import UsageError, VitrinaError

RGB = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)


def _decoded(data):
    return np.asarray(Image.open(io.BytesIO(data)))


def test_files_and_bytes_pass_unchanged(tmp_path, photos):
    path = tmp_path / "photo.jpg"
    path.write_bytes(photos[0])
    assert images.encode(path) == images.encode(str(path)) == images.encode(photos[0]) == photos[0]
    assert images.encode(bytearray(b"no image")) == b"no image"  # the server says so, per item


@pytest.mark.parametrize("array", [RGB, RGB[..., 0], RGB[..., :1], np.dstack([RGB, RGB[..., 0]]), RGB[::-1, ::2]])
def test_arrays_become_png_without_loss(array):
    np.testing.assert_array_equal(_decoded(images.encode(array)), np.squeeze(array))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"])
def test_pillow_images_become_png_without_loss(mode):
    source = Image.fromarray(RGB).convert(mode) if mode != "I;16" else Image.fromarray(RGB[..., 0].astype(np.uint16))
    read = Image.open(io.BytesIO(images.encode(source)))
    np.testing.assert_array_equal(np.asarray(read.convert("RGBA")), np.asarray(source.convert("RGBA")))


def test_a_pillow_image_is_sent_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    packed = io.BytesIO()
    Image.fromarray(RGB).save(packed, "PNG", exif=exif)
    opened = Image.open(io.BytesIO(packed.getvalue()))
    np.testing.assert_array_equal(_decoded(images.encode(opened)), np.rot90(RGB, -1))


@pytest.mark.parametrize(
    "wrong",
    [
        RGB.astype(np.float32) / 255,
        RGB.astype(np.int64),
        RGB[..., :2],
        RGB[0, 0],
        RGB[:0],
        np.zeros((1, 1, 1, 1, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused_with_advice(wrong):
    with pytest.raises(UsageError, match=r"wanted uint8 \[h, w, 3\]"):
        images.encode(wrong)


def test_what_is_no_image_at_all(tmp_path):
    with pytest.raises(UsageError, match="Got a int, wanted an image"):
        images.encode(3)
    with pytest.raises(UsageError, match="There is no file"):
        images.encode(tmp_path / "missing.png")
    with pytest.raises(UsageError, match="is a folder"):
        images.encode(tmp_path)
    with pytest.raises(VitrinaError, match="cannot be read"):
        images.encode(tmp_path / ("long" * 100))


def test_batches_are_lists_and_four_axes():
    assert images.is_batch([b"a"])
    assert images.is_batch((RGB,))
    assert images.is_batch(RGB[None])
    assert not any(images.is_batch(one) for one in ("a.png", b"a", bytearray(b"a"), RGB, Image.fromarray(RGB)))


def test_shrinking_keeps_the_ratio_and_tells_the_scale(photos):
    data, (x, y) = images.shrink(photos[0], 100)
    small = Image.open(io.BytesIO(data))
    assert small.format == "JPEG"
    assert small.size == (100, 67)
    assert (x, y) == (640 / 100, 427 / 67)
    assert len(data) < len(photos[0]) / 5


def test_shrinking_leaves_small_images_and_other_bytes_alone(photos):
    for data in (photos[0], b"no image", b"", photos[0][:200]):
        assert images.shrink(data, 640) == (data, (1.0, 1.0))


def test_shrinking_turns_upright_first():
    exif = Image.Exif()
    exif[0x0112] = 8
    packed = io.BytesIO()
    Image.fromarray(np.zeros((40, 80, 3), np.uint8)).save(packed, "JPEG", exif=exif)
    data, scale = images.shrink(packed.getvalue(), 20)
    assert Image.open(io.BytesIO(data)).size == (10, 20)
    assert scale == (4.0, 4.0)


@pytest.mark.parametrize("mode", ["P", "1", "LA", "I;16", "CMYK"])
def test_shrinking_takes_every_mode(mode):
    packed = io.BytesIO()
    source = Image.fromarray(np.zeros((40, 80), np.uint16)) if mode == "I;16" else Image.new(mode, (80, 40))
    source.save(packed, "TIFF" if mode == "CMYK" else "PNG")
    assert Image.open(io.BytesIO(images.shrink(packed.getvalue(), 8)[0])).size[0] == 8


def test_shrinking_to_nothing_is_refused(photos):
    with pytest.raises(UsageError, match="at least 1"):
        images.shrink(photos[0], 0)


def test_pixels_are_upright_rgb(photos):
    assert images.pixels(photos[0]).shape == (427, 640, 3)
    assert images.pixels(images.encode(RGB[..., 0])).shape == (5, 7, 3)
    with pytest.raises(UsageError, match="cannot be read"):
        images.pixels(b"no image")


def test_an_image_of_the_caller_stays_as_it_was(photos):
    opened = Image.open(io.BytesIO(photos[0]))
    data, _ = images.shrink(opened, 50)
    assert Image.open(io.BytesIO(data)).size == (50, 33)
    assert opened.size == (640, 427)
    assert opened.load() is not None


def test_arrays_shrink_without_a_detour_and_become_pixels_as_they_are():
    data, scale = images.shrink(np.zeros((40, 80, 3), np.uint8), 20)
    assert Image.open(io.BytesIO(data)).size == (20, 10)
    assert scale == (4.0, 4.0)
    np.testing.assert_array_equal(images.pixels(RGB), RGB)
    np.testing.assert_array_equal(images.pixels(np.dstack([RGB, RGB[..., 0]])), RGB)


class _Tensor:
    """As other libraries' arrays are."""

    def __init__(self, values):
        self._values = values

    def __array__(self, dtype=None, copy=None):
        return self._values


def test_arrays_of_other_libraries():
    np.testing.assert_array_equal(_decoded(images.encode(_Tensor(RGB))), RGB)
    assert images.is_batch(_Tensor(RGB[None]))
    with pytest.raises(UsageError, match="Got an array of float32"):
        images.encode(_Tensor(RGB.astype(np.float32)))


def test_what_can_be_walked_through_is_streamed():
    with pytest.raises(UsageError, match=r"Got a generator.* Client\.stream"):
        images.encode(image for image in (RGB, RGB))


def test_a_pillow_image_of_a_truncated_file(photos):
    for act in (images.encode, images.readable, images.pixels):
        with pytest.raises(UsageError, match="cannot be read"):
            act(Image.open(io.BytesIO(photos[0][:20_000])))
