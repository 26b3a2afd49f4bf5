"""TFMA on the signature that clients call: `serving_default` gets each Example's encoded bytes.

TFMA itself hands a signature with one string input the whole serialized Example. The extractor here feeds
`image/encoded` into `image_bytes` and turns the answer (labels and scores, best first) back into a vector of scores
in label order, which is what TFMA's metrics take.

`custom_extractors` is found by the Evaluator through `module_path="pipelines.evaluation"`.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2

from pipelines.data import CLASSIFICATION, SEGMENTATION
from pipelines.examples import ENCODED, LABEL, MASK, PRESENT, TEXT
from pipelines.judged_masks import answers_of, pixel_confusion
from pipelines.segmentation_metric import MEAN_IOU, PIXEL_ACCURACY, WORST_IOU
from pipelines.settings import Bar
from signatures.errors import CheckFailed
from signatures.spec import Card

__all__ = [
    "ACCURACY",
    "BASELINE",
    "CANDIDATE",
    "TOP_K",
    "TOP_K_ACCURACY",
    "Answers",
    "custom_extractors",
    "eval_config",
    "scores_in_label_order",
]

ACCURACY = "sparse_categorical_accuracy"
TOP_K_ACCURACY = "sparse_top_k_categorical_accuracy"
#: As many answers as a servable gives where nothing else was asked for.
TOP_K = 5
CANDIDATE = "candidate"
BASELINE = "baseline"
SIGNATURE = "serving_default"
BATCH = 64
#: Images per call of a segmenter, whose answers are large.
MASKS = 8


def eval_config(bar: Bar, *, slices: Sequence[str] = (), task: str = CLASSIFICATION) -> Any:
    """What is measured, on which slices, and what blesses.

    Args:
        bar: What a model has to reach.
        slices: Features of the Examples by whose values the figures are given too, besides the class.
        task: One of `data.TASKS`.

    Returns:
        A `tfma.EvalConfig`.
    """
    if task == SEGMENTATION:
        return _segmentation_config(bar, slices)
    overall = tfma.SlicingSpec()
    by_class = tfma.SlicingSpec(feature_keys=[TEXT])
    accuracy = [(overall, _least(bar.threshold, bar.max_loss))]
    if bar.class_threshold is not None or bar.max_class_loss is not None:
        accuracy.append((by_class, _least(bar.class_threshold, bar.max_class_loss)))
    top_k = [] if bar.top_k_threshold is None else [(overall, _least(bar.top_k_threshold))]
    calibrated = [] if bar.max_calibration_error is None else [(overall, _most(bar.max_calibration_error))]
    metrics = [
        tfma.MetricConfig(class_name="ExampleCount"),
        tfma.MetricConfig(class_name="SparseCategoricalAccuracy", per_slice_thresholds=_per_slice(accuracy)),
        tfma.MetricConfig(
            class_name="SparseTopKCategoricalAccuracy",
            config=f'{{"k": {TOP_K}}}',
            per_slice_thresholds=_per_slice(top_k),
        ),
        tfma.MetricConfig(
            class_name="CalibrationError",
            module="pipelines.calibration_metric",
            per_slice_thresholds=_per_slice(calibrated),
        ),
        tfma.MetricConfig(class_name="MultiClassConfusionMatrixAtThresholds", config='{"thresholds": [0.5]}'),
    ]
    return tfma.EvalConfig(
        model_specs=[
            tfma.ModelSpec(name=CANDIDATE, signature_name=SIGNATURE, label_key=LABEL),
            tfma.ModelSpec(name=BASELINE, signature_name=SIGNATURE, label_key=LABEL, is_baseline=True),
        ],
        slicing_specs=[overall, by_class, *(tfma.SlicingSpec(feature_keys=[name]) for name in slices if name != TEXT)],
        metrics_specs=[tfma.MetricsSpec(metrics=metrics)],
    )


def _segmentation_config(bar: Bar, slices: Sequence[str]) -> Any:
    """Mean IoU in accuracy's place; the bar of every class is that of the worst one."""
    overall = tfma.SlicingSpec()
    worst = (
        []
        if bar.class_threshold is None and bar.max_class_loss is None
        else [(overall, _least(bar.class_threshold, bar.max_class_loss))]
    )
    metrics = [tfma.MetricConfig(class_name="ExampleCount")]
    for name, thresholds in (
        (MEAN_IOU, [(overall, _least(bar.threshold, bar.max_loss))]),
        (WORST_IOU, worst),
        (PIXEL_ACCURACY, []),
    ):
        metrics.append(
            tfma.MetricConfig(
                class_name="MeanIoU",
                module="pipelines.segmentation_metric",
                config=json.dumps({"name": name}),
                per_slice_thresholds=_per_slice(thresholds),
            )
        )
    return tfma.EvalConfig(
        model_specs=[
            tfma.ModelSpec(name=CANDIDATE, signature_name=SIGNATURE, label_key=MASK),
            tfma.ModelSpec(name=BASELINE, signature_name=SIGNATURE, label_key=MASK, is_baseline=True),
        ],
        slicing_specs=[overall, *(tfma.SlicingSpec(feature_keys=[name]) for name in slices)],
        metrics_specs=[tfma.MetricsSpec(metrics=metrics)],
    )


def _least(value: float | None, max_loss: float | None = None) -> Any:
    """At least `value`, and at most `max_loss` below the latest blessed model."""
    found = tfma.MetricThreshold()
    if value is not None:
        found.value_threshold.CopyFrom(tfma.GenericValueThreshold(lower_bound={"value": value}))
    if max_loss is not None:
        # TFMA compares changes with >, so that an equal model needs a hair's width.
        found.change_threshold.CopyFrom(
            tfma.GenericChangeThreshold(
                direction=tfma.MetricDirection.HIGHER_IS_BETTER, absolute={"value": -max_loss - 1e-9}
            )
        )
    return found


def _most(value: float) -> Any:
    return tfma.MetricThreshold(value_threshold=tfma.GenericValueThreshold(upper_bound={"value": value}))


def _per_slice(thresholds: Sequence[tuple[Any, Any]]) -> list[Any]:
    """Each for its slices alone: a plain `threshold` would hold for every slice that is measured."""
    return [
        config_pb2.PerSliceMetricThreshold(slicing_specs=[slices], threshold=threshold)
        for slices, threshold in thresholds
    ]


def custom_extractors(eval_shared_model: Any, eval_config: Any, tensor_adapter_config: Any) -> list[Any]:
    """TFMA's own extractors with the predictions taken from the bytes signature.

    Args:
        eval_shared_model: One model, or the candidate and the baseline.
        eval_config: The `tfma.EvalConfig` in force.
        tensor_adapter_config: Passed on.

    Returns:
        The extractors in order.
    """
    models = eval_shared_model if isinstance(eval_shared_model, list) else [eval_shared_model]
    paths = {model.model_name: model.model_path for model in models}
    predict = tfma.extractors.Extractor(
        stage_name="ExtractServedPredictions", ptransform=beam.ParDo(Answers(paths, first=next(iter(paths))))
    )
    return list(
        tfma.default_extractors(
            eval_shared_model=eval_shared_model,
            eval_config=eval_config,
            tensor_adapter_config=tensor_adapter_config,
            custom_predict_extractor=predict,
        )
    )


class Answers(beam.DoFn):  # type: ignore[misc]
    """Asks each model's `serving_default` about a batch of encoded images.

    The candidate's labels say which id a class name has; a name it does not know can only be answered wrongly.

    Args:
        paths: Model name -> SavedModel folder.
        first: The name of the candidate.
    """

    def __init__(self, paths: Mapping[str, str], first: str) -> None:
        super().__init__()
        self._paths = dict(paths)
        self._first = first
        self._models: dict[str, Any] = {}
        self._cards: dict[str, Card] = {}
        self._labels: tuple[str, ...] = ()

    def setup(self) -> None:
        """Loads the models, once per worker."""
        import tensorflow as tf

        self._cards = {name: Card.read(Path(path)) for name, path in self._paths.items()}
        self._labels = self._cards[self._first].labels
        self._models = {name: tf.saved_model.load(path) for name, path in self._paths.items()}

    def process(self, element: Mapping[str, Any]) -> Any:
        """Adds labels and predictions to one batch of TFMA's extracts."""
        extracts = dict(copy.copy(element))
        features = extracts[tfma.FEATURES_KEY]
        images = [bytes(value) for value in np.ravel(features[ENCODED])]
        if self._cards[self._first].task == SEGMENTATION:
            yield self._with_counts(extracts, images)
            return
        texts = [bytes(value).decode() for value in np.ravel(features[TEXT])]
        ids = {text: number for number, text in enumerate(self._labels)}
        unknown = sorted({text for text in texts if text not in ids})
        if unknown:
            raise CheckFailed(
                f"The eval split has classes that the model does not know: {', '.join(unknown)} (it knows "
                f"{', '.join(self._labels)}). Train on data with every class."
            )
        scores = {name: self._ask(model, images) for name, model in self._models.items()}
        labels = np.array([ids[text] for text in texts], np.int64)
        extracts[tfma.LABELS_KEY] = labels if len(scores) == 1 else dict.fromkeys(scores, labels)
        extracts[tfma.PREDICTIONS_KEY] = scores[self._first] if len(scores) == 1 else scores
        yield extracts

    def _with_counts(self, extracts: dict[str, Any], images: Sequence[bytes]) -> dict[str, Any]:
        """Adds each image's counts of pixels, as predictions."""
        features = extracts[tfma.FEATURES_KEY]
        masks = [bytes(value) for value in np.ravel(features[MASK])]
        present = _names(features[PRESENT], len(images))
        counts = {
            name: np.stack(
                [
                    pixel_confusion(mask, names, answer, self._cards[name].labels, self._labels).ravel()
                    for mask, names, answer in zip(masks, present, self._masks(model, images), strict=True)
                ]
            ).astype(np.float64)
            for name, model in self._models.items()
        }
        labels = np.zeros(len(images), np.int64)
        several = len(counts) > 1
        extracts[tfma.LABELS_KEY] = dict.fromkeys(counts, labels) if several else labels
        extracts[tfma.PREDICTIONS_KEY] = counts if several else counts[self._first]
        return extracts

    def _masks(self, model: Any, images: Sequence[bytes]) -> list[bytes]:
        signature = model.signatures[SIGNATURE]
        parts = [images[start : start + MASKS] for start in range(0, len(images), MASKS)]
        return [mask for part in parts for mask in answers_of(signature, part)]

    def _ask(self, model: Any, images: Sequence[bytes]) -> np.ndarray[Any, Any]:
        import tensorflow as tf

        parts = []
        for start in range(0, len(images), BATCH):
            answer = model.signatures[SIGNATURE](image_bytes=tf.constant(images[start : start + BATCH], tf.string))
            parts.append(scores_in_label_order(answer["labels"].numpy(), answer["scores"].numpy(), self._labels))
        return np.concatenate(parts)


def _names(values: Any, images: int) -> list[list[str]]:
    """A feature of several strings per image, however TFMA packed it."""
    if hasattr(values, "row_splits") or hasattr(values, "nested_row_splits"):
        rows = values.to_list() if hasattr(values, "to_list") else list(values)
    elif hasattr(values, "dense_shape"):
        rows = [[] for _ in range(images)]
        for (row, *_), value in zip(np.asarray(values.indices), np.asarray(values.values), strict=True):
            rows[int(row)].append(value)
    else:
        rows = [np.ravel(row) for row in values]
    return [[bytes(value).decode() for value in np.ravel(row) if value not in (b"", None)] for row in rows]


def scores_in_label_order(
    names: np.ndarray[Any, Any], scores: np.ndarray[Any, Any], labels: Sequence[str]
) -> np.ndarray[Any, Any]:
    """Top-k answers as a dense vector with one more place for "no answer".

    Args:
        names: Label names as bytes, best first, [b, k]; "" where an item could not be read.
        scores: float32 [b, k].
        labels: All names in id order; answers that are not among them are left out.

    Returns:
        float32 [b, len(labels) + 1], 0 where a label is not among the k. Rows without any answer have a 1 in the last
        place, which is no label's id: they count as wrong, never as label 0.
    """
    ids = {label.encode(): number for number, label in enumerate(labels)}
    dense = np.zeros((len(names), len(labels) + 1), np.float32)
    for row, (row_names, row_scores) in enumerate(zip(names, scores, strict=True)):
        known = [(ids[name], score) for name, score in zip(row_names, row_scores, strict=True) if name in ids]
        for number, score in known:
            dense[row, number] = score
        if not known:
            dense[row, -1] = 1.0
    return dense
