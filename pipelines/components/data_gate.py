"""DataGate: stops a run whose data is not what the schema says, with a report that a person can read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from tfx import v1 as tfx
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.dsl.components.base.executor_spec import ExecutorClassSpec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.artifact import Artifact
from tfx.types.component_spec import ChannelParameter, ComponentSpec

from signatures.errors import CheckFailed

__all__ = ["DataGate", "DataVerdict", "describe"]

REPORT_FILE = "anomalies.txt"


class DataVerdict(Artifact):  # type: ignore[misc]
    """There only where the data passed: `anomalies.txt` with what was tolerated."""

    TYPE_NAME = "pipelines.DataVerdict"


class DataGateSpec(ComponentSpec):  # type: ignore[misc]
    """What goes in and out."""

    PARAMETERS: ClassVar[dict[str, Any]] = {}
    INPUTS: ClassVar[dict[str, Any]] = {"anomalies": ChannelParameter(type=standard_artifacts.ExampleAnomalies)}
    OUTPUTS: ClassVar[dict[str, Any]] = {"verdict": ChannelParameter(type=DataVerdict)}


class Executor(BaseExecutor):  # type: ignore[misc]
    """Reads every split's anomalies."""

    def Do(  # noqa: N802
        self, input_dict: dict[str, list[Any]], output_dict: dict[str, list[Any]], exec_properties: dict[str, Any]
    ) -> None:
        del exec_properties
        anomalies = artifact_utils.get_single_instance(input_dict["anomalies"])
        found = []
        for split in artifact_utils.decode_split_names(anomalies.split_names):
            path = Path(artifact_utils.get_split_uri([anomalies], split)) / "SchemaDiff.pb"
            found += [f"{split}: {line}" for line in describe(path.read_bytes())]
        folder = Path(artifact_utils.get_single_uri(output_dict["verdict"]))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / REPORT_FILE).write_text("\n".join(found or ["no anomalies"]) + "\n", encoding="utf-8")
        if found:
            raise CheckFailed(
                f"The data is not what its schema says: {'; '.join(found)}. "
                "Repair the data, or accept it as it is with --accept-anomalies."
            )


class DataGate(BaseComponent):  # type: ignore[misc]
    """Stops on anomalies.

    Args:
        anomalies: From ExampleValidator.
    """

    SPEC_CLASS = DataGateSpec
    EXECUTOR_SPEC = ExecutorClassSpec(Executor)

    def __init__(self, *, anomalies: Any) -> None:
        super().__init__(spec=DataGateSpec(anomalies=anomalies, verdict=tfx.dsl.Channel(type=DataVerdict)))


def describe(serialized: bytes) -> list[str]:
    """One line per anomaly of a serialized `tensorflow_metadata` Anomalies.

    Args:
        serialized: What ExampleValidator wrote as `SchemaDiff.pb`.

    Returns:
        `feature: what is wrong`, by feature name.
    """
    from tensorflow_metadata.proto.v0 import anomalies_pb2

    anomalies = anomalies_pb2.Anomalies.FromString(serialized)
    lines = [f"{name}: {info.description}" for name, info in sorted(anomalies.anomaly_info.items())]
    if anomalies.HasField("dataset_anomaly_info"):
        lines.append(f"the data set: {anomalies.dataset_anomaly_info.description}")
    return lines
