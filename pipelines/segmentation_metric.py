"""Intersection over union as a metric of TFMA, which finds it through `module="pipelines.segmentation_metric"`.

A prediction is an image's counts of pixels, flat: [classes, classes + 1] as `pipelines.judged_masks` makes them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import apache_beam as beam
import numpy as np
from tensorflow_model_analysis.metrics import metric_types, metric_util

from pipelines.judged_masks import iou, mean_iou

__all__ = ["CLASS_IOU", "MEAN_IOU", "PIXEL_ACCURACY", "WORST_IOU", "MeanIoU"]

MEAN_IOU = "mean_iou"
WORST_IOU = "worst_class_iou"
PIXEL_ACCURACY = "pixel_accuracy"
#: Followed by the class's id.
CLASS_IOU = "iou_of_class_"

Counts = Any


class MeanIoU(metric_types.Metric):  # type: ignore[misc]
    """Mean IoU over all pixels, 0 to 1, with the IoU of the worst class and the share of pixels that are right.

    Args:
        name: One of `MEAN_IOU`, `WORST_IOU` and `PIXEL_ACCURACY`; the first also gives each class's.
    """

    def __init__(self, name: str = MEAN_IOU) -> None:
        super().__init__(metric_util.merge_per_key_computations(_computations), name=name)


metric_types.register_metric(MeanIoU)


def _computations(
    name: str = MEAN_IOU, eval_config: Any = None, model_name: str = "", output_name: str = ""
) -> list[Any]:
    key = metric_types.MetricKey(name=name, model_name=model_name, output_name=output_name)
    return [metric_types.MetricComputation(keys=[key], preprocessors=None, combiner=_Sums(key, eval_config))]


class _Sums(beam.CombineFn):  # type: ignore[misc]
    """The counts of all images."""

    def __init__(self, key: Any, eval_config: Any) -> None:
        super().__init__()
        self._key = key
        self._eval_config = eval_config

    def create_accumulator(self) -> Counts:
        return np.zeros(0)

    def add_input(self, mutable_accumulator: Counts, element: Any) -> Counts:
        pairs = metric_util.to_label_prediction_example_weight(
            element, eval_config=self._eval_config, model_name=self._key.model_name, flatten=False
        )
        for _, prediction, _ in pairs:
            mutable_accumulator = _sum(mutable_accumulator, np.ravel(prediction))
        return mutable_accumulator

    def merge_accumulators(self, accumulators: Iterable[Counts]) -> Counts:
        total = self.create_accumulator()
        for each in accumulators:
            total = _sum(total, each)
        return total

    def extract_output(self, accumulator: Counts) -> dict[Any, float]:
        # n * (n + 1) counts are of n classes.
        classes = (math.isqrt(4 * accumulator.size + 1) - 1) // 2
        counts = np.reshape(accumulator, (classes, classes + 1))
        each = iou(counts)
        if self._key.name == WORST_IOU:
            return {self._key: 0.0 if np.isnan(each).all() else float(np.nanmin(each))}
        if self._key.name == PIXEL_ACCURACY:
            return {self._key: float(np.trace(counts) / max(counts.sum(), 1))}
        single = {
            metric_types.MetricKey(
                name=f"{CLASS_IOU}{number}", model_name=self._key.model_name, output_name=self._key.output_name
            ): float(value)
            for number, value in enumerate(each)
            if not np.isnan(value)
        }
        return {self._key: mean_iou(counts), **single}


def _sum(one: Counts, other: Counts) -> Counts:
    if not one.size or not other.size:
        return one if one.size else other
    return one + other
