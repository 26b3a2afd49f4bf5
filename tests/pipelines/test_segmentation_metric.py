"""Counts of pixels and mean IoU, against sums by hand; through TFMA's own combiner."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pipelines.judged_masks import iou, mean_iou, pixel_confusion
from pipelines.masks import read_mask
from signatures.errors import CheckFailed


def png(ids: object) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(np.asarray(ids, np.uint8)).save(encoded, "PNG")
    return encoded.getvalue()


TRUTH = png([[0, 0, 2], [2, 255, 2]])
ANSWER = png([[0, 1, 2], [0, 1, 2]])
LABELS = ("ground", "disc", "box")


def test_pixels_that_count_by_what_they_are_and_were_answered() -> None:
    counts = pixel_confusion(TRUTH, ("ground", "box"), ANSWER, LABELS, LABELS)
    assert counts.tolist() == [[1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 2, 0]]
    np.testing.assert_allclose(iou(counts), [1 / 3, 0, 2 / 3])
    assert mean_iou(counts) == pytest.approx(1 / 3)


def test_the_names_decide_whatever_the_order_of_ids() -> None:
    # The model has the classes in another order, and the data's ids are not its own.
    counts = pixel_confusion(TRUTH, ("ground", "box"), png([[2, 2, 0], [0, 0, 0]]), ("box", "disc", "ground"), LABELS)
    assert mean_iou(counts) == 1.0


def test_no_answer_counts_as_wrong_and_an_unknown_class_stops() -> None:
    for answer in (b"", png([[0]])):
        counts = pixel_confusion(TRUTH, ("ground", "box"), answer, LABELS, LABELS)
        assert counts[:, -1].tolist() == [2, 0, 3]
        assert mean_iou(counts) == 0.0
    with pytest.raises(CheckFailed, match="does not know: tree"):
        pixel_confusion(TRUTH, ("ground", "tree"), ANSWER, LABELS, LABELS)


def test_a_mask_whose_ground_is_ignored() -> None:
    mask = read_mask(png([[0, 1], [2, 2]]), size=(2, 2), classes=3, ignore=0)
    counts = pixel_confusion(mask.encoded, ("disc", "box"), png([[0, 1], [2, 2]]), LABELS, LABELS)
    assert counts.sum() == 3
    assert mean_iou(counts) == 1.0


def test_tfma_sums_over_images_and_workers() -> None:
    pytest.importorskip("tensorflow_model_analysis", reason="the tfx extra is not installed in this lane")
    from tensorflow_model_analysis.metrics import metric_types

    from pipelines.segmentation_metric import MEAN_IOU, PIXEL_ACCURACY, WORST_IOU, _computations

    counts = pixel_confusion(TRUTH, ("ground", "box"), ANSWER, LABELS, LABELS)
    perfect = pixel_confusion(TRUTH, ("ground", "box"), png([[0, 0, 2], [2, 0, 2]]), LABELS, LABELS)
    total = counts + perfect

    def measured(name: str) -> dict[str, float]:
        (computation,) = _computations(name)
        combiner = computation.combiner
        parts = []
        for each in (counts, perfect):
            inputs = metric_types.StandardMetricInputs(
                label=np.array([0]), prediction=each.ravel().astype(np.float64), example_weight=np.array([1.0])
            )
            parts.append(combiner.add_input(combiner.create_accumulator(), inputs))
        merged = combiner.merge_accumulators([combiner.create_accumulator(), *parts])
        return {key.name: value for key, value in combiner.extract_output(merged).items()}

    assert measured(MEAN_IOU) == {
        "mean_iou": pytest.approx(mean_iou(total)),
        **{f"iou_of_class_{number}": pytest.approx(value) for number, value in enumerate(iou(total))},
    }
    assert measured(WORST_IOU) == {"worst_class_iou": 0.0}
    assert measured(PIXEL_ACCURACY) == {"pixel_accuracy": pytest.approx(8 / 10)}
