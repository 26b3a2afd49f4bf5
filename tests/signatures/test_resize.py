from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from signatures import resize as module
from signatures.preprocessing import RESAMPLE_NAMES, pass_order
from signatures.resize import FILTERS, ORDERS, Window, resize
from tests.signatures.pictures import noise

tf = pytest.importorskip("tensorflow")


def compiled(resample: str, order: str):
    @tf.function(
        input_signature=[tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec([2], tf.int32)], autograph=False
    )
    def run(image, size):
        return resize(image, size, resample=resample, order=order)

    return run


@pytest.fixture(scope="module")
def run():
    """Resizes with the ops, each filter and order traced once."""
    known = {}

    def call(image: Image.Image, height: int, width: int, resample: str, order: str) -> np.ndarray:
        key = (resample, order)
        if key not in known:
            known[key] = compiled(resample, order)
        return known[key](np.asarray(image), [height, width]).numpy()

    return call


def pillow(image: Image.Image, height: int, width: int, resample: str) -> np.ndarray:
    return np.asarray(image.resize((width, height), Image.Resampling(RESAMPLE_NAMES.index(resample))))


# Pillow's algorithm once more, in plain Python: the reference for the order that another Pillow than this one takes.

KERNELS = {
    "bilinear": (1.0, lambda x: max(0.0, 1.0 - abs(x))),
    "lanczos": (3.0, lambda x: np.sinc(x) * np.sinc(x / 3.0) if -3.0 <= x < 3.0 else 0.0),
}


def one_axis(image: np.ndarray, target: int, resample: str) -> np.ndarray:
    reach, kernel = KERNELS[resample]
    source = image.shape[0]
    scale = source / target
    stretch = max(scale, 1.0)
    lines = []
    for i in range(target):
        centre = (i + 0.5) * scale
        first = max(int(centre - reach * stretch + 0.5), 0)
        last = min(int(centre + reach * stretch + 0.5), source)
        weights = [kernel((x - centre + 0.5) / stretch) for x in range(first, last)]
        total = sum(weights)
        fixed = [math.trunc(w / total * 2**22 + math.copysign(0.5, w)) for w in weights]
        sums = sum(image[first + k].astype(np.int64) * w for k, w in enumerate(fixed)) + (1 << 21)
        lines.append(np.clip(sums >> 22, 0, 255).astype(np.uint8))
    return np.stack(lines)


def by_hand(image: Image.Image, height: int, width: int, resample: str, vertical_first: bool) -> np.ndarray:
    def vertical(pixels: np.ndarray) -> np.ndarray:
        return pixels if pixels.shape[0] == height else one_axis(pixels, height, resample)

    def horizontal(pixels: np.ndarray) -> np.ndarray:
        if pixels.shape[1] == width:
            return pixels
        return one_axis(pixels.swapaxes(0, 1), width, resample).swapaxes(0, 1)

    pixels = np.asarray(image)
    return horizontal(vertical(pixels)) if vertical_first else vertical(horizontal(pixels))


SIDE = st.one_of(st.integers(1, 12), st.integers(1, 160))


@pytest.mark.parametrize("resample", FILTERS)
@settings(max_examples=25, deadline=None)
@given(source=st.tuples(SIDE, SIDE), target=st.tuples(SIDE, SIDE), seed=st.integers(0, 99))
def test_any_size_is_exact_to_the_pillow_that_is_installed(run, resample, source, target, seed):
    image = noise(*source, seed)
    got = run(image, *target, resample, pass_order())
    np.testing.assert_array_equal(got, pillow(image, *target, resample))


@pytest.mark.parametrize("resample", FILTERS)
@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((1, 500), (64, 64)),
        ((500, 1), (64, 64)),
        ((3000, 40), (50, 60)),
        ((40, 3000), (50, 60)),
        ((700, 900), (224, 224)),
    ],
)
def test_long_pictures_are_exact(run, resample, source, target):
    image = noise(*source)
    np.testing.assert_array_equal(run(image, *target, resample, pass_order()), pillow(image, *target, resample))


# Drawn with Pillow 13.0.0: height and width of source and target, and whether the vertical pass came first.
PILLOW_13 = [
    ((100, 300), (224, 224), False),
    ((300, 100), (224, 224), True),
    ((427, 640), (224, 224), False),
    ((427, 33), (100, 5), True),
    ((200, 640), (5, 20), False),
    ((400, 200), (20, 1), False),
    ((500, 427), (300, 333), True),
    ((20, 400), (2, 224), False),
    ((200, 300), (3, 224), True),
    ((10, 5), (2, 300), True),
    ((300, 2), (500, 333), False),
    # At the edge: 20 rows less against 10 columns less is not yet more than twice.
    ((60, 40), (40, 30), False),
    ((60, 40), (39, 30), True),
]


@pytest.mark.parametrize("resample", ["bilinear", "lanczos"])
@pytest.mark.parametrize(("source", "target", "vertical_first"), PILLOW_13)
def test_pillow_13_takes_the_passes_in_its_own_order(run, resample, source, target, vertical_first):
    image = noise(*source)
    got = run(image, *target, resample, "pillow-13")
    np.testing.assert_array_equal(got, by_hand(image, *target, resample, vertical_first))
    if pass_order() == "pillow-13":
        np.testing.assert_array_equal(got, pillow(image, *target, resample))


@pytest.mark.parametrize(("source", "vertical_first"), [((400, 4), False), ((401, 4), True)])
def test_pillow_12_takes_very_tall_pictures_vertically_first(run, source, vertical_first):
    image = noise(*source)
    got = run(image, 50, 60, "lanczos", "pillow-12")
    np.testing.assert_array_equal(got, by_hand(image, 50, 60, "lanczos", vertical_first))
    assert not np.array_equal(got, by_hand(image, 50, 60, "lanczos", not vertical_first))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("resample", ["nearest", "bicubic"])
def test_a_window_is_the_same_part_of_the_whole(run, resample, order):
    image = noise(90, 70)
    whole = run(image, 60, 80, resample, order)
    window = Window(*(tf.constant(value) for value in (7, 30, 41, 22)))
    part = resize(np.asarray(image), tf.constant([60, 80]), resample=resample, order=order, window=window)
    np.testing.assert_array_equal(part, whole[7:48, 30:52])


@pytest.mark.parametrize("elements", [1000, 100])
def test_slices_do_not_show(monkeypatch, elements):
    """Of several rows each, or of a part of one row where even that is too long."""
    image = noise(120, 90)
    whole = compiled("bicubic", "pillow-12")(np.asarray(image), [40, 50])
    monkeypatch.setattr(module, "_SLICE_ELEMENTS", elements)
    np.testing.assert_array_equal(compiled("bicubic", "pillow-12")(np.asarray(image), [40, 50]), whole)
