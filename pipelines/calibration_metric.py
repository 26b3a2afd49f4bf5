"""The calibration error as a metric of TFMA, which finds it through `module="pipelines.calibration_metric"`.

So it is measured like every other metric: over all images, on every slice, and beside the latest blessed model.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import apache_beam as beam
import numpy as np
from tensorflow_model_analysis.metrics import metric_types, metric_util

from pipelines.calibration import BINS, Bin, bin_of, calibration_error

__all__ = ["CALIBRATION_ERROR", "CalibrationError"]

CALIBRATION_ERROR = "calibration_error"

Sums = np.ndarray[Any, Any]


class CalibrationError(metric_types.Metric):  # type: ignore[misc]
    """The expected calibration error of the best answers, 0 to 1.

    Args:
        name: The metric's.
    """

    def __init__(self, name: str = CALIBRATION_ERROR) -> None:
        super().__init__(metric_util.merge_per_key_computations(_computations), name=name)


metric_types.register_metric(CalibrationError)


def _computations(
    name: str = CALIBRATION_ERROR, eval_config: Any = None, model_name: str = "", output_name: str = ""
) -> list[Any]:
    key = metric_types.MetricKey(name=name, model_name=model_name, output_name=output_name)
    return [metric_types.MetricComputation(keys=[key], preprocessors=None, combiner=_Sums(key, eval_config))]


class _Sums(beam.CombineFn):  # type: ignore[misc]
    """Per bin: images, the sum of their scores, how many are right."""

    def __init__(self, key: Any, eval_config: Any) -> None:
        super().__init__()
        self._key = key
        self._eval_config = eval_config

    def create_accumulator(self) -> Sums:
        return np.zeros((BINS, 3))

    def add_input(self, mutable_accumulator: Sums, element: Any) -> Sums:
        pairs = metric_util.to_label_prediction_example_weight(
            element, eval_config=self._eval_config, model_name=self._key.model_name, flatten=False
        )
        for label, prediction, _ in pairs:
            best = int(np.argmax(prediction))
            # The last place stands for an image without an answer, which has no score.
            score = 0.0 if best == prediction.size - 1 else float(np.ravel(prediction)[best])
            mutable_accumulator[bin_of(score)] += (1, score, best == int(np.ravel(label)[0]))
        return mutable_accumulator

    def merge_accumulators(self, accumulators: Iterable[Sums]) -> Sums:
        total = np.zeros((BINS, 3))
        for each in accumulators:
            total += each
        return total

    def extract_output(self, accumulator: Sums) -> dict[Any, float]:
        found = [
            Bin(images=int(images), score=scores / images, accuracy=rights / images)
            for images, scores, rights in accumulator
            if images
        ]
        return {self._key: calibration_error(found)}
