from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from pipelines import examples
from signatures.errors import VitrinaError


def encode(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def test_the_bytes_stay_as_they_are() -> None:
    encoded = encode(np.zeros((3, 5, 3), np.uint8), "JPEG")
    feature = examples.to_example(encoded, label=2, text="rose", filename="rose/1.jpg").features.feature
    assert feature["image/encoded"].bytes_list.value == [encoded]
    assert feature["image/class/label"].int64_list.value == [2]
    assert feature["image/class/text"].bytes_list.value == [b"rose"]
    assert feature["image/filename"].bytes_list.value == [b"rose/1.jpg"]
    assert feature["image/format"].bytes_list.value == [b"JPEG"]
    assert feature["image/digest"].bytes_list.value == [hashlib.sha256(encoded).hexdigest().encode()]
    counted_later = {examples.COPIES, examples.BOTH_SIDES}
    assert set(examples.measured("image-classification")) - counted_later <= set(feature)


def test_measures() -> None:
    pixels = np.zeros((2, 4), np.uint8)
    pixels[:, :2] = 255
    found = examples.measure(encode(pixels))
    assert (found.format, found.width, found.height, found.channels) == ("PNG", 4, 2, 1)
    assert found.brightness == pytest.approx(0.5)
    assert found.contrast == pytest.approx(0.5)


@pytest.mark.parametrize("spoil", ["empty", "text", "cut"])
def test_what_is_no_image_says_why(spoil: str) -> None:
    rng = np.random.default_rng(0)
    whole = encode(rng.integers(0, 255, (40, 40, 3), np.uint8))
    encoded = {"empty": b"", "text": b"not an image", "cut": whole[: len(whole) // 2]}[spoil]
    with pytest.raises(VitrinaError, match=r"image|empty"):
        examples.to_example(encoded, label=0, text="a", filename="a/1.png")
