"""SkewCheck: stops a run whose servable would see other pixels than its model was trained on."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from tfx import v1 as tfx
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.dsl.components.base.executor_spec import ExecutorClassSpec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.artifact import Artifact
from tfx.types.component_spec import ChannelParameter, ComponentSpec
from tfx.utils import path_utils

from pipelines.data import TRAIN
from pipelines.skew import measure_skew
from pipelines.trainer import CHECKPOINT
from signatures.errors import CheckFailed

__all__ = ["REPORT_FILE", "SkewCheck", "SkewReport"]

REPORT_FILE = "skew.json"
IMAGES = 64


class SkewReport(Artifact):  # type: ignore[misc]
    """What was compared: `skew.json`."""

    TYPE_NAME = "pipelines.SkewReport"


class SkewCheckSpec(ComponentSpec):  # type: ignore[misc]
    """What goes in and out."""

    PARAMETERS: ClassVar[dict[str, Any]] = {}
    INPUTS: ClassVar[dict[str, Any]] = {
        "model": ChannelParameter(type=standard_artifacts.Model),
        "model_run": ChannelParameter(type=standard_artifacts.ModelRun),
        "examples": ChannelParameter(type=standard_artifacts.Examples),
    }
    OUTPUTS: ClassVar[dict[str, Any]] = {"report": ChannelParameter(type=SkewReport)}


class Executor(BaseExecutor):  # type: ignore[misc]
    """Unpacks TFX's dictionaries and calls `pipelines.skew`."""

    def Do(  # noqa: N802
        self, input_dict: dict[str, list[Any]], output_dict: dict[str, list[Any]], exec_properties: dict[str, Any]
    ) -> None:
        del exec_properties
        skew = measure_skew(
            Path(path_utils.serving_model_path(artifact_utils.get_single_uri(input_dict["model"]))),
            Path(artifact_utils.get_single_uri(input_dict["model_run"])) / CHECKPOINT,
            Path(artifact_utils.get_split_uri(input_dict["examples"], TRAIN)),
            limit=IMAGES,
        )
        folder = Path(artifact_utils.get_single_uri(output_dict["report"]))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / REPORT_FILE).write_text(json.dumps(asdict(skew)) + "\n", encoding="utf-8")
        if not skew.ok:
            raise CheckFailed(
                f"The servable sees other pixels than its model was trained on: they differ by up to "
                f"{skew.pixels:g} grey levels on {skew.images} training images, but training and serving share one "
                "preprocessing. Nothing was pushed; please report it."
            )


class SkewCheck(BaseComponent):  # type: ignore[misc]
    """Compares what training saw with what serving sees.

    Args:
        model: The trained model.
        model_run: Where its checkpoint is.
        examples: What it was trained on.
    """

    SPEC_CLASS = SkewCheckSpec
    EXECUTOR_SPEC = ExecutorClassSpec(Executor)

    def __init__(self, *, model: Any, model_run: Any, examples: Any) -> None:
        super().__init__(
            spec=SkewCheckSpec(
                model=model, model_run=model_run, examples=examples, report=tfx.dsl.Channel(type=SkewReport)
            )
        )
