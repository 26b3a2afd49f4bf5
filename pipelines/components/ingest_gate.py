"""IngestGate: stops a run of whose images too many cannot be used, or that lacks what training or judging needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.dsl.components.base.executor_spec import ExecutorClassSpec
from tfx.types import artifact_utils
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from pipelines import verdict
from pipelines.components.image_gen import BAD_FILE, IngestReport
from pipelines.ingest import check

__all__ = ["IngestGate"]


class IngestGateSpec(ComponentSpec):  # type: ignore[misc]
    """What goes in; `data` is for the message alone."""

    PARAMETERS: ClassVar[dict[str, Any]] = {
        "data": ExecutionParameter(type=str),
        "max_bad_share": ExecutionParameter(type=float),
        "max_leak_share": ExecutionParameter(type=float),
    }
    INPUTS: ClassVar[dict[str, Any]] = {"report": ChannelParameter(type=IngestReport)}
    OUTPUTS: ClassVar[dict[str, Any]] = {}


class Executor(BaseExecutor):  # type: ignore[misc]
    """Unpacks TFX's dictionaries and calls `pipelines.ingest.check`."""

    def Do(  # noqa: N802
        self, input_dict: dict[str, list[Any]], output_dict: dict[str, list[Any]], exec_properties: dict[str, Any]
    ) -> None:
        del output_dict
        folder = Path(artifact_utils.get_single_uri(input_dict["report"]))
        check(
            verdict.ingest_report(folder),
            exec_properties["data"],
            max_bad_share=exec_properties["max_bad_share"],
            max_leak_share=exec_properties["max_leak_share"],
            where=folder / BAD_FILE,
        )


class IngestGate(BaseComponent):  # type: ignore[misc]
    """Stops where the images are not good enough to go on with.

    Args:
        report: From ImageGen.
        data: The data's name.
        max_bad_share: The share of images that may be set aside, 0 to 1.
        max_leak_share: The share of what is held out that may be trained on, too, 0 to 1.
    """

    SPEC_CLASS = IngestGateSpec
    EXECUTOR_SPEC = ExecutorClassSpec(Executor)

    def __init__(self, *, report: Any, data: str, max_bad_share: float, max_leak_share: float) -> None:
        super().__init__(
            spec=IngestGateSpec(
                report=report, data=data, max_bad_share=float(max_bad_share), max_leak_share=float(max_leak_share)
            )
        )
