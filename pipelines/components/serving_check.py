"""ServingCheck: serves the candidate in a process of its own, asks it over both doors, and blesses or does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from tfx import v1 as tfx
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.dsl.components.base.executor_spec import ExecutorClassSpec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import path_utils

from pipelines.data import EVAL
from pipelines.examples import encoded_images
from pipelines.serving_check import check_served

__all__ = ["ServingCheck"]

#: As TFX's InfraValidator marks its verdict, so that its own pushers understand it.
BLESSED = "blessed"
FILES = {True: "INFRA_BLESSED", False: "INFRA_NOT_BLESSED"}
IMAGES = 16


class ServingCheckSpec(ComponentSpec):  # type: ignore[misc]
    """What goes in and out; a limit of 0 is none."""

    PARAMETERS: ClassVar[dict[str, Any]] = {
        "server": ExecutionParameter(type=str),
        "max_latency_ms": ExecutionParameter(type=float),
        "max_size_mb": ExecutionParameter(type=float),
    }
    INPUTS: ClassVar[dict[str, Any]] = {
        "model": ChannelParameter(type=standard_artifacts.Model),
        "examples": ChannelParameter(type=standard_artifacts.Examples),
    }
    OUTPUTS: ClassVar[dict[str, Any]] = {"blessing": ChannelParameter(type=standard_artifacts.InfraBlessing)}


class Executor(BaseExecutor):  # type: ignore[misc]
    """Unpacks TFX's dictionaries and calls `pipelines.serving_check`."""

    def Do(  # noqa: N802
        self, input_dict: dict[str, list[Any]], output_dict: dict[str, list[Any]], exec_properties: dict[str, Any]
    ) -> None:
        blessing = artifact_utils.get_single_instance(output_dict["blessing"])
        folder = Path(blessing.uri)
        folder.mkdir(parents=True, exist_ok=True)
        report = check_served(
            Path(path_utils.serving_model_path(artifact_utils.get_single_uri(input_dict["model"]))),
            encoded_images(Path(artifact_utils.get_split_uri(input_dict["examples"], EVAL)), limit=IMAGES),
            log=folder / "server.log",
            server=exec_properties["server"],
            max_latency_ms=exec_properties["max_latency_ms"] or None,
            max_size_mb=exec_properties["max_size_mb"] or None,
        )
        report.write(folder)
        (folder / FILES[report.ok]).touch()
        blessing.set_int_custom_property(BLESSED, int(report.ok))


class ServingCheck(BaseComponent):  # type: ignore[misc]
    """Validates a model by serving it.

    Args:
        model: The trained model.
        examples: Some images of its eval split are asked about.
        server: One of `pipelines.served.SERVERS`.
        max_latency_ms: The most that the 95th percentile of single requests may take; None is no limit.
        max_size_mb: The most that the servable's files may take, in millions of bytes; None is no limit.
    """

    SPEC_CLASS = ServingCheckSpec
    EXECUTOR_SPEC = ExecutorClassSpec(Executor)

    def __init__(
        self,
        *,
        model: Any,
        examples: Any,
        server: str,
        max_latency_ms: float | None = None,
        max_size_mb: float | None = None,
    ) -> None:
        super().__init__(
            spec=ServingCheckSpec(
                model=model,
                examples=examples,
                server=server,
                max_latency_ms=float(max_latency_ms or 0.0),
                max_size_mb=float(max_size_mb or 0.0),
                blessing=tfx.dsl.Channel(type=standard_artifacts.InfraBlessing),
            )
        )
