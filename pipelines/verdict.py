"""Reads what Evaluator and ImageGen wrote, as plain numbers and lines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.model_card import Check
from pipelines.settings import Bar

__all__ = [
    "checks",
    "class_iou",
    "failures",
    "headline",
    "ingest_report",
    "metrics",
    "per_class",
    "per_slice",
    "serving_failures",
    "serving_report",
]

COUNT = "example_count"
OVERALL = ("", "")


def metrics(evaluation: Path) -> dict[str, float]:
    """The candidate's figures over the whole eval split.

    Args:
        evaluation: The folder of a ModelEvaluation artifact.

    Returns:
        `accuracy`, `top_k_accuracy` and `calibration_error` (0 to 1) and `images`; `baseline_accuracy` where an earlier
        blessed model was measured beside it. Of a segmenter `mean_iou`, `worst_class_iou`, `pixel_accuracy`, `images`
        and `baseline_mean_iou`.
    """
    from pipelines.calibration_metric import CALIBRATION_ERROR
    from pipelines.evaluation import ACCURACY, BASELINE, CANDIDATE, TOP_K_ACCURACY
    from pipelines.segmentation_metric import MEAN_IOU, PIXEL_ACCURACY, WORST_IOU

    overall = _values(evaluation)[OVERALL]
    own = overall[CANDIDATE]
    if MEAN_IOU in own:
        found = {name: own[name] for name in (MEAN_IOU, WORST_IOU, PIXEL_ACCURACY)} | {"images": own[COUNT]}
        if BASELINE in overall:
            found[f"baseline_{MEAN_IOU}"] = overall[BASELINE][MEAN_IOU]
        return found
    found = {
        "accuracy": own[ACCURACY],
        "top_k_accuracy": own[TOP_K_ACCURACY],
        "calibration_error": own[CALIBRATION_ERROR],
        "images": own[COUNT],
    }
    if BASELINE in overall:
        found["baseline_accuracy"] = overall[BASELINE][ACCURACY]
    return found


def headline(measured: Mapping[str, float]) -> str:
    """The one of `metrics` that `threshold` is about: `accuracy`, or `mean_iou` of a segmenter."""
    return "mean_iou" if "mean_iou" in measured else "accuracy"


def per_class(evaluation: Path) -> dict[str, dict[str, float]]:
    """The candidate's `accuracy` (0 to 1) and `images` per class name, and `baseline_accuracy` where there is one."""
    from pipelines.examples import TEXT

    return per_slice(evaluation).get(TEXT, {})


def class_iou(evaluation: Path, labels: Sequence[str]) -> dict[str, dict[str, float]]:
    """A segmenter's IoU per class name, under the keys of `per_class` (`images` is left to the caller)."""
    from pipelines.evaluation import BASELINE, CANDIDATE
    from pipelines.segmentation_metric import CLASS_IOU

    overall = _values(evaluation)[OVERALL]
    found: dict[str, dict[str, float]] = {}
    for model, key in ((CANDIDATE, "accuracy"), (BASELINE, "baseline_accuracy")):
        for number, name in enumerate(labels):
            value = overall.get(model, {}).get(f"{CLASS_IOU}{number}")
            if value is not None and (model == CANDIDATE or name in found):
                found.setdefault(name, {})[key] = value
    return found


def per_slice(evaluation: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Feature -> its value -> the figures that `per_class` gives per class."""
    from pipelines.evaluation import ACCURACY, BASELINE, CANDIDATE
    from pipelines.segmentation_metric import MEAN_IOU

    found: dict[str, dict[str, dict[str, float]]] = {}
    for (feature, value), models in sorted(_values(evaluation).items()):
        if feature:
            name = ACCURACY if ACCURACY in models[CANDIDATE] else MEAN_IOU
            figures = {"accuracy": models[CANDIDATE][name], "images": models[CANDIDATE][COUNT]}
            if BASELINE in models:
                figures["baseline_accuracy"] = models[BASELINE][name]
            found.setdefault(feature, {})[value] = figures
    return found


def _values(evaluation: Path) -> dict[tuple[str, str], dict[str, dict[str, float]]]:
    """(Feature, its value) or `OVERALL` -> model name -> metric name -> value."""
    import tensorflow_model_analysis as tfma

    from pipelines.evaluation import CANDIDATE

    found: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
    for record in tfma.load_metrics(str(evaluation)):
        where = _slice(record.slice_key)
        for item in record.metric_keys_and_values:
            if item.value.WhichOneof("type") == "double_value" and not item.key.is_diff:
                model = found.setdefault(where, {}).setdefault(item.key.model_name or CANDIDATE, {})
                model[item.key.name] = item.value.double_value.value
    return found


def _slice(key: Any) -> tuple[str, str]:
    if not key.single_slice_keys:
        return OVERALL
    (single,) = key.single_slice_keys
    value = getattr(single, single.WhichOneof("kind"))
    return single.column, value.decode() if isinstance(value, bytes) else str(value)


def failures(evaluation: Path) -> tuple[str, ...]:
    """Why a model was not blessed: one line per threshold that did not hold; empty where all did."""
    import tensorflow_model_analysis as tfma

    result = tfma.load_validation_result(str(evaluation))
    if result is None or result.validation_ok:
        return ()
    lines = [
        _line(failure, _slice(slice_.slice_key))
        for slice_ in result.metric_validations_per_slice
        for failure in slice_.failures
    ]
    return tuple(lines) or ("a slice that has a threshold holds no images",)


def _line(failure: Any, where: tuple[str, str]) -> str:
    """Such as `accuracy 0.9000 is below 0.9500` or `accuracy of class cat 0.4 less than the latest blessed model's`."""
    from pipelines.examples import TEXT

    name = failure.metric_key.name.replace("sparse_", "").replace("categorical_", "").replace("_", " ")
    if where != OVERALL:
        name += f" of class {where[1]}" if where[0] == TEXT else f" where {where[0]} is {where[1]}"
    value = failure.metric_value.double_value.value
    if failure.metric_key.is_diff:
        # Without the hair's width that `eval_config` adds.
        allowed = round(max(-failure.metric_threshold.change_threshold.absolute.value, 0), 6)
        return f"{name} {-value:.4g} less than the latest blessed model's; at most {allowed:.4g} is allowed"
    bound = failure.metric_threshold.value_threshold
    if bound.HasField("upper_bound"):
        return f"{name} {value:.4f} is above {bound.upper_bound.value:.4f}"
    return f"{name} {value:.4f} is below {bound.lower_bound.value:.4f}"


def checks(evaluation: Path, bar: Bar, report: Mapping[str, Any]) -> list[Check]:
    """All that a candidate had to hold, what does hold included.

    Args:
        evaluation: The folder of a ModelEvaluation artifact.
        bar: What was asked for.
        report: ServingCheck's, as `serving_report` gives it.
    """
    measured, classes = metrics(evaluation), per_class(evaluation)
    if headline(measured) == "mean_iou":
        return [*_segmentation_checks(measured, bar), *_served_checks(report)]
    worst = min(classes.items(), key=lambda item: item[1]["accuracy"], default=("", {"accuracy": 0.0}))
    found = [_check("accuracy", measured["accuracy"], least=bar.threshold)]
    if "baseline_accuracy" in measured:
        change = measured["accuracy"] - measured["baseline_accuracy"]
        found.append(_check("accuracy against the latest blessed model", change, least=-bar.max_loss, signed=True))
    if bar.top_k_threshold is not None:
        found.append(_check("top 5 accuracy", measured["top_k_accuracy"], least=bar.top_k_threshold))
    if bar.class_threshold is not None:
        found.append(
            _check(f"accuracy of the worst class, {worst[0]}", worst[1]["accuracy"], least=bar.class_threshold)
        )
    changes = {
        name: each["accuracy"] - each["baseline_accuracy"]
        for name, each in classes.items()
        if "baseline_accuracy" in each
    }
    if bar.max_class_loss is not None and changes:
        name = min(changes, key=lambda name: changes[name])
        told = f"class {name} against the latest blessed model"
        found.append(_check(told, changes[name], least=-bar.max_class_loss, signed=True))
    if bar.max_calibration_error is not None:
        value, most = measured["calibration_error"], bar.max_calibration_error
        found.append(Check(name="calibration error", ok=value <= most, told=f"{value:.4f}, at most {most:g}"))
    return [*found, *_served_checks(report)]


def _segmentation_checks(measured: Mapping[str, float], bar: Bar) -> list[Check]:
    found = [_check("mean IoU", measured["mean_iou"], least=bar.threshold)]
    if "baseline_mean_iou" in measured:
        change = measured["mean_iou"] - measured["baseline_mean_iou"]
        found.append(_check("mean IoU against the latest blessed model", change, least=-bar.max_loss, signed=True))
    if bar.class_threshold is not None:
        found.append(_check("IoU of the worst class", measured["worst_class_iou"], least=bar.class_threshold))
    return found


def _served_checks(report: Mapping[str, Any]) -> list[Check]:
    return [Check(name=item["check"], ok=item["ok"], told=item["told"]) for item in report["findings"]]


def _check(name: str, value: float, *, least: float, signed: bool = False) -> Check:
    """A hair's width is allowed, as `eval_config` does it."""
    shown = f"{value:+.4f}" if signed else f"{value:.4f}"
    return Check(name=name, ok=value >= least - 1e-9, told=f"{shown}, at least {least:g}")


def serving_report(folder: Path) -> dict[str, Any]:
    """ServingCheck's `serving.json`."""
    found = json.loads((folder / "serving.json").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def serving_failures(report: dict[str, Any]) -> tuple[str, ...]:
    """What did not hold when the model was served, a line each."""
    return tuple(f"{finding['check']}: {finding['told']}" for finding in report["findings"] if not finding["ok"])


def ingest_report(folder: Path) -> dict[str, Any]:
    """ImageGen's `report.json`."""
    found = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found
