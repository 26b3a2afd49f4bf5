"""DataGate: stops a run whose data is not what it should be, with what DataCheck found."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, ClassVar

from tfx import v1 as tfx
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.dsl.components.base.executor_spec import ExecutorClassSpec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.artifact import Artifact
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from pipelines import data_report
from pipelines.data import TRAIN
from signatures.errors import CheckFailed

__all__ = ["BASELINE_FILE", "DataFindings", "DataGate", "DataVerdict"]

#: What the next data is compared with: the statistics of what is trained on.
BASELINE_FILE = "FeatureStats.pb"
SPAN = "span"
LISTED = 8


class DataFindings(Artifact):  # type: ignore[misc]
    """What DataCheck writes: `report.html`, `report.json` and `anomalies.txt`."""

    TYPE_NAME = "pipelines.DataFindings"


class DataVerdict(Artifact):  # type: ignore[misc]
    """There only where the data passed: `FeatureStats.pb` of what is trained on, and `anomalies.txt`.

    Its custom property `span` says which span it is of.
    """

    TYPE_NAME = "pipelines.DataVerdict"


class DataGateSpec(ComponentSpec):  # type: ignore[misc]
    """What goes in and out."""

    PARAMETERS: ClassVar[dict[str, Any]] = {"accept": ExecutionParameter(type=int)}
    INPUTS: ClassVar[dict[str, Any]] = {
        "findings": ChannelParameter(type=DataFindings),
        "statistics": ChannelParameter(type=standard_artifacts.ExampleStatistics),
    }
    OUTPUTS: ClassVar[dict[str, Any]] = {"verdict": ChannelParameter(type=DataVerdict)}


class Executor(BaseExecutor):  # type: ignore[misc]
    """Reads the report, and keeps what the next data is compared with."""

    def Do(  # noqa: N802
        self, input_dict: dict[str, list[Any]], output_dict: dict[str, list[Any]], exec_properties: dict[str, Any]
    ) -> None:
        folder = Path(artifact_utils.get_single_uri(input_dict["findings"]))
        found = data_report.read(folder)["findings"]
        if found and not exec_properties["accept"]:
            more = f"; and {len(found) - LISTED} more" if len(found) > LISTED else ""
            raise CheckFailed(
                f"The data is not what it should be: {'; '.join(found[:LISTED])}{more}. Repair the data, or accept it "
                f"as it is with --accept-anomalies. The report is {folder / data_report.HTML_FILE}"
            )
        statistics = artifact_utils.get_single_instance(input_dict["statistics"])
        verdict = artifact_utils.get_single_instance(output_dict["verdict"])
        Path(verdict.uri).mkdir(parents=True, exist_ok=True)
        source = Path(artifact_utils.get_split_uri([statistics], TRAIN)) / BASELINE_FILE
        shutil.copyfile(source, Path(verdict.uri) / BASELINE_FILE)
        shutil.copyfile(folder / data_report.TEXT_FILE, Path(verdict.uri) / data_report.TEXT_FILE)
        verdict.set_int_custom_property(SPAN, statistics.span)


class DataGate(BaseComponent):  # type: ignore[misc]
    """Stops on what DataCheck found.

    Args:
        findings: From DataCheck.
        statistics: What it looked at.
        accept: Go on all the same.
    """

    SPEC_CLASS = DataGateSpec
    EXECUTOR_SPEC = ExecutorClassSpec(Executor)

    def __init__(self, *, findings: Any, statistics: Any, accept: bool) -> None:
        super().__init__(
            spec=DataGateSpec(
                findings=findings,
                statistics=statistics,
                accept=int(accept),
                verdict=tfx.dsl.Channel(type=DataVerdict),
            )
        )
