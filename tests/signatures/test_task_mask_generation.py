from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from signatures.errors import UsageError
from tests.signatures import checkpoints

POINTS = np.array([[[60, 45], [10, 80.5]], [[20, 100], [0, 0]], [[150, 15], [3, 30]]], np.float32)
LABELS = np.array([[1, 0], [1, -10], [1, 1]], np.int32)


@pytest.fixture(scope="module")
def sam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.save_sam(tmp_path_factory.mktemp("sam"))


@pytest.fixture(scope="module")
def served(sam: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return checkpoints.export(sam, tmp_path_factory.mktemp("models"))


def wanted(sam: Path, image: Image.Image, points: Any, labels: Any, **options: Any) -> tuple[Any, Any]:
    """Masks and scores of transformers' own classes, for one image."""
    from transformers import SamProcessor, TFSamModel

    processor = SamProcessor.from_pretrained(sam)
    encoding = processor(image, input_points=[points.tolist()], input_labels=[labels.tolist()], return_tensors="tf")
    original, reshaped = encoding.pop("original_sizes"), encoding.pop("reshaped_input_sizes")
    outputs = TFSamModel.from_pretrained(sam)(**encoding, **options)
    masks = processor.post_process_masks(outputs.pred_masks, original, reshaped, return_tensors="tf")
    return masks[0][0].numpy(), outputs.iou_scores.numpy()[0, 0]


def masks_of(pngs: Any) -> list[np.ndarray[Any, Any]]:
    return [np.asarray(Image.open(io.BytesIO(png))) for png in pngs]


def test_masks_and_scores_are_those_of_transformers(sam: Path, served: Any) -> None:
    encoded, images = checkpoints.pictures(3)
    answer = checkpoints.ask(served[1], image_bytes=encoded, points=POINTS, point_labels=LABELS)
    assert answer["error"].tolist() == [b"", b"", b""]
    for index, image in enumerate(images):
        masks, scores = wanted(sam, image, POINTS[index], LABELS[index])
        got = masks_of(answer["mask_bytes"][index])
        assert [mask.shape for mask in got] == [(image.height, image.width)] * 3
        assert {*np.unique(got)} <= {0, 255}
        np.testing.assert_allclose(answer["scores"][index], scores, atol=1e-4)
        assert np.mean((np.stack(got) > 0) != masks) < 1e-3
        assert 0 < masks.mean() < 1  # there is something to get wrong


def test_one_mask_on_request(sam: Path) -> None:
    _, images = checkpoints.pictures(1)
    answer = checkpoints.bound(sam, single_mask=True)(images, points=POINTS[:1], point_labels=LABELS[:1])
    masks, scores = wanted(sam, images[0], POINTS[0], LABELS[0], multimask_output=False)
    assert answer["mask_bytes"].shape == answer["scores"].shape == (1, 1)
    np.testing.assert_allclose(answer["scores"][0], scores, atol=1e-4)
    assert np.mean((np.stack(masks_of(answer["mask_bytes"][0])) > 0) != masks) < 1e-3


def test_a_bad_image_leaves_its_neighbours_alone(served: Any) -> None:
    encoded, _ = checkpoints.pictures(2)
    alone = checkpoints.ask(served[1], image_bytes=encoded[1:], points=POINTS[1:2], point_labels=LABELS[1:2])
    both = checkpoints.ask(served[1], image_bytes=[b"junk", encoded[1]], points=POINTS[:2], point_labels=LABELS[:2])
    assert both["error"][0]
    assert both["mask_bytes"][0].tolist() == [b"", b"", b""]
    assert not both["scores"][0].any()
    assert both["mask_bytes"][1].tolist() == alone["mask_bytes"][0].tolist()


def test_every_signature_takes_the_points(served: Any) -> None:
    _, images = checkpoints.pictures(1)
    pixels = checkpoints.ask(
        served[1], "pixels", pixels=np.asarray(images[0])[None], points=POINTS[:1], point_labels=LABELS[:1]
    )
    raw = checkpoints.ask(
        served[1],
        "model",
        pixel_values=np.zeros((2, 3, 64, 64)),
        input_points=np.ones((2, 1, 1, 2)),
        input_labels=np.ones((2, 1, 1)),
    )
    assert pixels["mask_bytes"].shape == (1, 3)
    assert set(raw) == {"pred_masks", "iou_scores"}
    assert raw["iou_scores"].shape == (2, 1, 3)


def test_other_models_are_refused(tiny_vit: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no TensorFlow class|takes points"):
        checkpoints.export(tiny_vit, tmp_path, task="mask-generation")
