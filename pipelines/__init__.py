"""Retraining with TFX: data, training, evaluation, blessing, push."""

from __future__ import annotations

import importlib
from typing import Any

#: Our artifact types -> where each is. Vertex AI knows a type by one dotted name, such as `pipelines.IngestReport`,
#: by which a container finds its class; so each can be had from here, imported on first use.
_ARTIFACTS = {
    "Deployment": "pipelines.components.target_pusher",
    "DataFindings": "pipelines.components.data_gate",
    "DataVerdict": "pipelines.components.data_gate",
    "IngestReport": "pipelines.components.image_gen",
    "PeopleCard": "pipelines.components.model_report",
    "SkewReport": "pipelines.components.skew_check",
}


def __getattr__(name: str) -> Any:
    if name not in _ARTIFACTS:
        raise AttributeError(f"module 'pipelines' has no attribute {name!r}")
    return getattr(importlib.import_module(_ARTIFACTS[name]), name)
