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

from pipelines import own_answers
from pipelines.data import EVAL
from pipelines.examples import encoded_images
from pipelines.serving_check import Serving, check_served

__all__ = ["ServingCheck"]

#: As TFX's InfraValidator marks its verdict, so that its own pushers understand it.
BLESSED = "blessed"
FILES = {True: "INFRA_BLESSED", False: "INFRA_NOT_BLESSED"}
IMAGES = 16


class ServingCheckSpec(ComponentSpec):  # type: ignore[misc]
    """What goes in and out; a limit of 0 is none."""

    PARAMETERS: ClassVar[dict[str, Any]] = {
        "server": ExecutionParameter(type=str),
        "image": ExecutionParameter(type=str),
        "namespace": ExecutionParameter(type=str),
        "max_latency_ms": ExecutionParameter(type=float),
        "max_size_mb": ExecutionParameter(type=float),
    }
    INPUTS: ClassVar[dict[str, Any]] = {
        "model": ChannelParameter(type=standard_artifacts.Model),
        "model_run": ChannelParameter(type=standard_artifacts.ModelRun),
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
            folder=folder,
            own=own_answers.read(
                Path(artifact_utils.get_single_uri(input_dict["model_run"])) / own_answers.ANSWERS_FILE
            ),
            serving=Serving(
                kind=exec_properties["server"],
                image=exec_properties["image"],
                namespace=exec_properties["namespace"],
                max_latency_ms=exec_properties["max_latency_ms"] or None,
                max_size_mb=exec_properties["max_size_mb"] or None,
            ),
        )
        report.write(folder)
        (folder / FILES[report.ok]).touch()
        blessing.set_int_custom_property(BLESSED, int(report.ok))


class ServingCheck(BaseComponent):  # type: ignore[misc]
    """Validates a model by serving it.

    Args:
        model: The trained model.
        model_run: Where the trainer wrote down what the trained model answers.
        examples: Some images of its eval split are asked about.
        serving: By what it is served, and its limits.
    """

    SPEC_CLASS = ServingCheckSpec
    EXECUTOR_SPEC = ExecutorClassSpec(Executor)

    def __init__(self, *, model: Any, model_run: Any, examples: Any, serving: Serving) -> None:
        super().__init__(
            spec=ServingCheckSpec(
                model=model,
                model_run=model_run,
                examples=examples,
                server=serving.kind,
                image=serving.image,
                namespace=serving.namespace,
                max_latency_ms=float(serving.max_latency_ms or 0.0),
                max_size_mb=float(serving.max_size_mb or 0.0),
                blessing=tfx.dsl.Channel(type=standard_artifacts.InfraBlessing),
            )
        )
