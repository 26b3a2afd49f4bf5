from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from serving import requests
from serving.messages import message
from signatures.errors import UsageError
from signatures.spec import Signature, Tensor


def _inputs(**tensors):
    return {name: Tensor(dtype=dtype, shape=shape, meaning="") for name, (dtype, shape) in tensors.items()}


TOLD = {
    "serving_default": Signature(
        inputs=_inputs(
            image_bytes=("string", (None,)),
            candidate_labels=("string", (None, None)),
            question=("string", (None,)),
            boxes=("int32", (None, None, 4)),
        ),
        outputs={},
    ),
    "paint": Signature(inputs=_inputs(prompt=("string", (None,)), steps=("int64", (None,))), outputs={}),
    "watch": Signature(inputs=_inputs(frames_bytes=("string", (None, None))), outputs={}),
}


def build(images, signature="serving_default", **inputs):
    return requests.build(images, signature, inputs, lambda: TOLD)


def test_nothing_is_asked_where_nothing_is_needed():
    request = requests.build([b"a", b"b"], "serving_default", {}, lambda: pytest.fail("asked"))
    assert request.inputs["image_bytes"].tolist() == [b"a", b"b"]
    assert (request.count, request.single) == (2, False)


def test_an_input_is_the_same_for_all_images_or_one_for_each():
    request = build([b"a", b"b"], candidate_labels=["cat", "dog"], question=["one?", "two?"])
    assert request.inputs["candidate_labels"].tolist() == [[b"cat", b"dog"]] * 2
    assert request.inputs["question"].tolist() == [b"one?", b"two?"]
    assert build([b"a", b"b"], question="Wo?").inputs["question"].tolist() == [b"Wo?"] * 2
    each = build([b"a", b"b"], candidate_labels=[["cat"], ["dog"]]).inputs["candidate_labels"]
    assert each.tolist() == [[b"cat"], [b"dog"]]


def test_numbers_get_their_dtype():
    boxes = build(b"a", boxes=[[1, 2, 3, 4]]).inputs["boxes"]
    assert (boxes.dtype, boxes.shape) == (np.int32, (1, 1, 4))


def test_points_go_along_with_a_shrunk_image():
    packed = io.BytesIO()
    Image.new("RGB", (400, 200)).save(packed, "PNG")
    told = {"serving_default": Signature(inputs=_inputs(points=("float32", (None, None, 2))), outputs={})}
    request = requests.build(
        packed.getvalue(), "serving_default", {"points": [[100, 100], [400, 0]]}, lambda: told, max_side=40
    )
    assert request.inputs["points"].tolist() == [[[10.0, 10.0], [40.0, 0.0]]]
    assert request.inputs["points"].dtype == np.float32


@pytest.mark.parametrize(("signature", "name"), [("from_examples", "examples"), ("classify", "inputs")])
def test_images_go_into_examples(signature, name):
    inputs = build([b"a", b"b"], signature).inputs
    found = [type(message("Example")).FromString(data) for data in inputs[name]]
    assert [each.features.feature["image/encoded"].bytes_list.value[0] for each in found] == [b"a", b"b"]


def test_none_is_left_out():
    assert set(build(b"a", question=None).inputs) == {"image_bytes"}


def test_a_task_without_images():
    request = build(None, "paint", prompt="a cat", steps=5)
    assert (request.inputs["prompt"].tolist(), request.inputs["steps"].tolist()) == ([b"a cat"], [5])
    assert (request.count, request.single) == (1, True)
    request = build(None, "paint", prompt=["a cat", "a dog"], steps=5)
    assert (request.inputs["steps"].tolist(), request.count, request.single) == ([5, 5], 2, False)


def test_inputs_of_encoded_images_take_images(tmp_path):
    (tmp_path / "b.png").write_bytes(b"B")
    frames = build(None, "watch", frames_bytes=[b"A", tmp_path / "b.png"]).inputs["frames_bytes"]
    assert frames.tolist() == [[b"A", b"B"]]


@pytest.mark.parametrize(
    ("inputs", "part"),
    [
        ({"qestion": "x"}, "no input 'qestion', only image_bytes, candidate_labels, question, boxes. Did you mean"),
        ({"question": 3}, "'question' wants string values"),
        ({"candidate_labels": [["a"], ["b", "c"]]}, "the lists differ in length"),
        ({"boxes": [["x"]]}, "'boxes' wants int32 values"),
        ({"question": ["a", "b", "c"]}, "has shape [3], wanted 0 axes (the same for every image) or 1 with 2 first"),
        ({"boxes": 3}, "has shape []"),
    ],
)
def test_inputs_that_do_not_fit(inputs, part):
    with pytest.raises(UsageError) as caught:
        build([b"a", b"b"], **inputs)
    assert part in str(caught.value)


def test_an_unknown_signature_is_told_before_anything_is_sent():
    with pytest.raises(UsageError, match=r"no signature 'pant'.*Did you mean 'paint'"):
        build(None, "pant", prompt="x")


def test_what_cannot_be_read_leaves_its_place(tmp_path):
    encoded, merge = requests.readable([b"a", tmp_path / "missing", b"b", 3])
    assert encoded == [b"a", b"b"]
    merged = merge(["A", "B"])
    assert (merged[0], merged[2]) == ("A", "B")
    assert "There is no file" in merged[1].error
    assert "wanted an image" in merged[3].error
