"""Reads what Evaluator and ImageGen wrote, as plain numbers and lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["failures", "ingest_report", "metrics", "per_class", "serving_failures", "serving_report"]

COUNT = "example_count"


def metrics(evaluation: Path) -> dict[str, float]:
    """The candidate's figures over the whole eval split.

    Args:
        evaluation: The folder of a ModelEvaluation artifact.

    Returns:
        `accuracy` and `top_k_accuracy` (0 to 1) and `images`; `baseline_accuracy` where an earlier blessed model was
        measured beside it.
    """
    from pipelines.evaluation import ACCURACY, BASELINE, CANDIDATE, TOP_K_ACCURACY

    overall = _values(evaluation)[""]
    own = overall[CANDIDATE]
    found = {"accuracy": own[ACCURACY], "top_k_accuracy": own[TOP_K_ACCURACY], "images": own[COUNT]}
    if BASELINE in overall:
        found["baseline_accuracy"] = overall[BASELINE][ACCURACY]
    return found


def per_class(evaluation: Path) -> dict[str, dict[str, float]]:
    """The candidate's `accuracy` (0 to 1) and `images` per class name."""
    from pipelines.evaluation import ACCURACY, CANDIDATE

    return {
        name: {"accuracy": models[CANDIDATE][ACCURACY], "images": models[CANDIDATE][COUNT]}
        for name, models in sorted(_values(evaluation).items())
        if name
    }


def _values(evaluation: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Class name ("" for all) -> model name -> metric name -> value."""
    import tensorflow_model_analysis as tfma

    from pipelines.evaluation import CANDIDATE

    found: dict[str, dict[str, dict[str, float]]] = {}
    for record in tfma.load_metrics(str(evaluation)):
        keys = record.slice_key.single_slice_keys
        name = keys[0].bytes_value.decode() if keys else ""
        for item in record.metric_keys_and_values:
            if item.value.WhichOneof("type") == "double_value" and not item.key.is_diff:
                model = found.setdefault(name, {}).setdefault(item.key.model_name or CANDIDATE, {})
                model[item.key.name] = item.value.double_value.value
    return found


def failures(evaluation: Path) -> tuple[str, ...]:
    """Why a model was not blessed: one line per threshold that did not hold; empty where all did."""
    import tensorflow_model_analysis as tfma

    result = tfma.load_validation_result(str(evaluation))
    if result is None or result.validation_ok:
        return ()
    lines = [_line(failure) for slice_ in result.metric_validations_per_slice for failure in slice_.failures]
    return tuple(lines) or ("a slice that has a threshold holds no images",)


def _line(failure: Any) -> str:
    """Such as `accuracy 0.9000 is below 0.9500` or `accuracy 0.4000 less than the latest blessed model's, ...`."""
    name = failure.metric_key.name.removeprefix("sparse_categorical_")
    value = failure.metric_value.double_value.value
    if failure.metric_key.is_diff:
        # Without the hair's width that `eval_config` adds.
        allowed = round(max(-failure.metric_threshold.change_threshold.absolute.value, 0), 6)
        return f"{name} {-value:.4g} less than the latest blessed model's; at most {allowed:.4g} is allowed"
    return f"{name} {value:.4f} is below {failure.metric_threshold.value_threshold.lower_bound.value:.4f}"


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
