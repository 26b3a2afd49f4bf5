from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from transformers import ViTImageProcessor
from transformers.image_utils import load_image

from signatures.preprocessing import from_processor_config
from signatures.processor import compile_processor, decode_batch
from tests.signatures.pictures import claims, encode, noise, photo, with_orientation

tf = pytest.importorskip("tensorflow")

VIT = {"image_processor_type": "ViTImageProcessor", "size": {"height": 64, "width": 48}, "resample": 2}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A SavedModel of the batch function, run in a v1 Session as TensorFlow Serving does."""
    processor = compile_processor(from_processor_config(VIT))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def run(image_bytes):
        features, error, sizes = decode_batch(image_bytes, processor)
        return {**features, "error": error, "sizes": sizes}

    module = tf.Module()
    module.run = run
    folder = str(tmp_path_factory.mktemp("model"))
    tf.saved_model.save(module, folder, signatures={"serving_default": run})
    # Not the default graph of the tests that follow.
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        signature = tf.compat.v1.saved_model.load(session, ["serve"], folder).signature_def["serving_default"]
    fetch = {name: info.name for name, info in signature.outputs.items()}
    yield lambda images: session.run(fetch, {signature.inputs["image_bytes"].name: images})
    session.close()


def reference(data: bytes) -> np.ndarray:
    settings = {key: value for key, value in VIT.items() if key != "image_processor_type"}
    image = load_image(Image.open(io.BytesIO(data)))
    return ViTImageProcessor(**settings)(image, return_tensors="np", input_data_format="channels_last")["pixel_values"]


GOOD = {
    "jpeg": encode(photo(), "JPEG", quality=90),
    "png": encode(noise(30, 50), "PNG"),
    "bmp": encode(noise(31, 51), "BMP"),
    "bmp-palette": encode(noise(31, 51).quantize(17), "BMP"),
    "gif": encode(noise(30, 50).quantize(), "GIF"),
    **{f"exif-{n}": encode(noise(40, 60), "JPEG", exif=with_orientation(n)) for n in range(1, 9)},
}

BAD = {
    b"": "empty",
    b"no image at all": "no image that is read here",
    GOOD["jpeg"][:3000]: "JPEG data is truncated or corrupt",
    GOOD["png"][:900]: "PNG data is truncated or corrupt",
    claims(65_535, 65_535): "claims 65535x65535 pixels, more than the 64,000,000",
}


def test_every_format_is_exact(served):
    answer = served(list(GOOD.values()))
    assert list(answer["error"]) == [b""] * len(GOOD)
    for name, data, got in zip(GOOD, GOOD.values(), answer["pixel_values"], strict=True):
        np.testing.assert_allclose(got, reference(data)[0], rtol=0, atol=1e-6, err_msg=name)


def test_bad_items_are_flagged_and_leave_their_neighbours_alone(served):
    images = [data for bad in BAD for data in (bad, GOOD["jpeg"])]
    answer = served(images)
    for i, reason in enumerate(BAD.values()):
        assert reason in answer["error"][2 * i].decode()
        assert not answer["pixel_values"][2 * i].any()
        assert answer["error"][2 * i + 1] == b""
        np.testing.assert_array_equal(answer["pixel_values"][2 * i + 1], reference(GOOD["jpeg"])[0])


def test_sizes_are_those_of_the_upright_source(served):
    answer = served([GOOD["exif-1"], GOOD["exif-6"], b""])
    assert answer["sizes"].tolist() == [[40, 60], [60, 40], [0, 0]]


@pytest.mark.parametrize("count", [0, 1, 5])
def test_any_batch_size(served, count):
    answer = served([GOOD["png"]] * count)
    assert answer["pixel_values"].shape == (count, 3, 64, 48)
    assert answer["error"].shape == (count,)


def test_pictures_that_keep_their_size_are_answered_where_they_agree():
    settings = from_processor_config({**VIT, "do_resize": False, "do_rescale": False, "do_normalize": False})
    processor = compile_processor(settings)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def run(image_bytes):
        features, error, _ = decode_batch(image_bytes, processor)
        return features["pixel_values"], error

    pixels = np.moveaxis(np.asarray(noise(31, 51)), 2, 0)
    values, error = run([b"", GOOD["bmp"], GOOD["png"], GOOD["bmp"]])
    assert [bool(reason) for reason in error.numpy()] == [True, False, True, False]
    assert b"another size than the first" in error.numpy()[2]
    np.testing.assert_array_equal(values.numpy(), [0 * pixels, pixels, 0 * pixels, pixels])
    values, error = run([b"", b"no image"])
    assert values.shape == (2, 3, 1, 1)
    assert all(error.numpy())


def test_a_picture_beyond_the_canvas_is_refused_alone():
    sam = {
        "image_processor_type": "SamImageProcessor",
        "size": {"longest_edge": 60},
        "pad_size": {"height": 40, "width": 60},
    }
    processor = compile_processor(from_processor_config(sam))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def run(image_bytes):
        features, error, _ = decode_batch(image_bytes, processor)
        return features["pixel_values"], error

    values, error = run([encode(noise(50, 30), "PNG"), GOOD["png"]])
    assert b"would be resized to 36x60, beyond the 60x40 of the processor's canvas" in error.numpy()[0]
    assert error.numpy()[1] == b""
    assert not values.numpy()[0].any()
    assert values.numpy()[1].any()
