from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from serving import results
from serving.results import Result
from serving.results.detection import Box


def strings(*values):
    array = np.empty(len(values), dtype=object)
    array[:] = [value.encode() if isinstance(value, str) else value for value in values]
    return array


def png(pixels):
    packed = io.BytesIO()
    Image.fromarray(pixels).save(packed, "PNG")
    return packed.getvalue()


def one(**outputs):
    """The answer to a batch of one."""
    return results.read({name: np.asarray(value)[None] for name, value in outputs.items()}, 1)[0]


CASES = {
    "Classification": {"labels": strings("a", "grün"), "scores": np.float32([0.9, 0.1])},
    "Detection": {
        "boxes": np.float32([[1, 2, 3, 4], [0, 0, 0, 0]]),
        "labels": strings("cat", ""),
        "scores": np.float32([0.9, 0]),
        "num_detections": np.int32(1),
    },
    "Segmentation": {
        "mask_bytes": png(np.uint8([[0, 1], [1, 1]])),
        "segment_ids": np.int32([1, -1]),
        "segment_labels": strings("road", ""),
        "segment_scores": np.float32([0.5, 0]),
        "segment_areas": np.float32([0.75, 0]),
    },
    "Depth": {
        "depth_bytes": png(np.uint16([[0, 1000]])),
        "depth_scale": np.float32(0.5),
        "depth_offset": np.float32(2),
    },
    "Embedding": {"embedding": np.float32([3, 4])},
    "Text": {"text": np.array(b"two cats", dtype=object)},
    "Answers": {"answers": strings("2", "two"), "scores": np.float32([0.7, 0.2])},
    "Masks": {"mask_bytes": strings(png(np.uint8([[255]]))), "scores": np.float32([0.8])},
    "Picture": {"image_bytes": np.array(png(np.zeros((2, 3, 3), np.uint8)), dtype=object)},
}


def case(name):
    outputs = dict(CASES[name])
    for key, value in outputs.items():
        if isinstance(value, bytes):
            outputs[key] = np.array(value, dtype=object)
    return outputs


@pytest.mark.parametrize("name", CASES)
def test_every_kind_reads_its_outputs(name):
    answer = one(**case(name), error=np.array(b"", dtype=object))
    assert type(answer).__name__ == name
    assert answer == one(**case(name))  # `error` or not, as the `pixels` signature has none
    assert all(len(row) == len(answer.COLUMNS) for row in answer.rows())
    assert answer.rows()
    assert json.loads(json.dumps(answer.to_json()))["error"] == ""
    assert name in repr(answer)


@pytest.mark.parametrize("name", CASES)
def test_an_error_leaves_an_empty_answer_of_the_same_kind(name):
    zeros = {key: np.zeros_like(value) if value.dtype != object else value for key, value in case(name).items()}
    answer = one(**zeros, error=np.array(b"too dark", dtype=object))
    assert type(answer).__name__ == name
    assert answer.error == "too dark"
    assert answer != one(**case(name))
    fields = answer.to_json()
    assert fields.pop("error") == "too dark"
    assert all(value in ([], "", 0.0, {"b64": ""}) for value in fields.values())


def test_every_kind_has_a_case():
    kinds = {frozenset(case(name)) for name in CASES}
    assert kinds == set(results.kinds()) - {frozenset({"classes", "scores"})}


def test_padding_is_taken_away():
    assert one(**case("Detection")).labels == ("cat",)
    assert one(**case("Detection")).boxes == (Box(xmin=1, ymin=2, xmax=3, ymax=4),)
    assert [segment.label for segment in one(**case("Segmentation")).segments] == ["road"]


def test_boxes_come_back_in_pixels_of_the_unshrunk_image():
    outputs = {name: np.asarray(value)[None] for name, value in case("Detection").items()}
    (answer,) = results.read(outputs, 1, [(2.0, 10.0)])
    assert answer.boxes == (Box(xmin=2, ymin=20, xmax=6, ymax=40),)


@pytest.mark.parametrize("name", ["Segmentation", "Masks", "Depth"])
def test_masks_and_depths_come_back_as_large_as_the_unshrunk_image(name):
    outputs = {key: np.asarray(value)[None] for key, value in case(name).items()}
    small, same = one(**case(name)), results.read(outputs, 1, [(1.0, 1.0)])[0]
    (large,) = results.read(outputs, 1, [(3.0, 2.0)])
    assert same == small
    before, after = (_pixels(answer) for answer in (small, large))
    assert after.dtype == before.dtype
    if name == "Depth":  # interpolated between the same ends
        assert after.shape == (before.shape[0] * 2, before.shape[1] * 3)
        assert (after.min(), after.max()) == (before.min(), before.max())
    else:
        assert np.array_equal(after, np.kron(before, np.ones((2, 3), before.dtype)))


def _pixels(answer):
    image = getattr(answer, "mask", None) or getattr(answer, "image", None) or answer.masks[0]
    return np.asarray(image, dtype=np.uint16 if image.mode.startswith("I") else np.uint8)


def test_pictures_open():
    assert one(**case("Segmentation")).mask.size == (2, 2)
    assert one(**case("Picture")).image.size == (3, 2)
    assert one(**case("Masks")).masks[0].size == (1, 1)
    assert one(**case("Depth")).depth.tolist() == [[2.0, 502.0]]


def test_a_batch_is_split():
    outputs = {"labels": np.stack([strings("a"), strings("b")]), "scores": np.float32([[1], [2]])}
    assert [answer.labels for answer in results.read(outputs, 2)] == [("a",), ("b",)]


def test_unknown_outputs_stay_as_they_are():
    answer = one(heat=np.float32([[1, 2]]), note=np.array(b"x" * 100, dtype=object), count=np.int64(3))
    assert type(answer) is Result
    assert answer.outputs["count"] == 3
    assert dict(answer.rows()) == {"heat": "float32 [1, 2]", "note": "100 bytes", "count": "3"}
    assert answer.to_json()["heat"] == [[1.0, 2.0]]


def test_json_has_the_digits_of_float32():
    assert results.plain(float(np.float32(0.1))) == 0.1
    assert results.plain(np.float32([0.1])) == [0.1]
    assert results.plain(0.1234567890123) == 0.1234567890123
    assert results.plain(b"\xff") == {"b64": "/w=="}


def test_answers_are_compared_by_value():
    first, second = one(embedding=np.float32([1, 2])), one(embedding=np.float32([1, 3]))
    assert first == one(embedding=np.float32([1, 2]))
    assert first != second
    assert first != one(**case("Text"))
    assert one(any=np.float32([1])) == one(any=np.float32([1]))
    assert len({one(**case("Text")), one(**case("Text"))}) == 1


CONTRACT = {
    "image-classification": ("labels", "scores"),
    "zero-shot-image-classification": ("labels", "scores"),
    "image-segmentation": ("mask_bytes", "segment_ids", "segment_labels", "segment_scores", "segment_areas"),
    "object-detection": ("boxes", "labels", "scores", "num_detections"),
    "zero-shot-object-detection": ("boxes", "labels", "scores", "num_detections"),
    "depth-estimation": ("depth_bytes", "depth_scale", "depth_offset"),
    "image-feature-extraction": ("embedding",),
    "image-to-text": ("text",),
    "visual-question-answering": ("answers", "scores"),
    "document-question-answering": ("answers", "scores"),
    "mask-generation": ("mask_bytes", "scores"),
    "video-classification": ("labels", "scores"),
    "image-to-image": ("image_bytes",),
    "text-to-image": ("image_bytes",),
}


def test_every_task_has_a_typed_answer():
    from signatures.tasks import TASKS

    told = {name: tuple(TASKS[name].outputs) for name in TASKS}
    for name, outputs in {**CONTRACT, **told}.items():
        assert frozenset(outputs) in results.kinds(), name
