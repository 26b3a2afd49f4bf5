"""TargetPusher: makes a version that was pushed to its base path live somewhere else, or says why it is not.

A target that refuses the version fails neither the run nor what serves there: the artifact says so.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, ClassVar

from tfx import v1 as tfx
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.dsl.components.base.executor_spec import ExecutorClassSpec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.artifact import Artifact
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from pipelines.components.base_path_pusher import PATH, PUSHED
from pipelines.pushers import Release, find
from signatures.errors import VitrinaError

__all__ = ["LIVE", "TARGET", "TOLD", "Deployment", "TargetPusher"]

#: Custom properties of a `deployment` artifact.
LIVE = "live"
TARGET = "target"
TOLD = "told"

log = logging.getLogger("pipelines.push")


class Deployment(Artifact):  # type: ignore[misc]
    """Whether a version went live on a target."""

    TYPE_NAME = "pipelines.Deployment"


class TargetPusherSpec(ComponentSpec):  # type: ignore[misc]
    """`started` differs per run, so that the cache never stands in for a push."""

    PARAMETERS: ClassVar[dict[str, Any]] = {
        "target": ExecutionParameter(type=str),
        "title": ExecutionParameter(type=str),
        "started": ExecutionParameter(type=str),
    }
    INPUTS: ClassVar[dict[str, Any]] = {"pushed_model": ChannelParameter(type=standard_artifacts.PushedModel)}
    OUTPUTS: ClassVar[dict[str, Any]] = {"deployment": ChannelParameter(type=Deployment)}


class Executor(BaseExecutor):  # type: ignore[misc]
    """Unpacks TFX's dictionaries and calls `pipelines.pushers`."""

    def Do(  # noqa: N802
        self, input_dict: dict[str, list[Any]], output_dict: dict[str, list[Any]], exec_properties: dict[str, Any]
    ) -> None:
        pushed = artifact_utils.get_single_instance(input_dict["pushed_model"])
        out = artifact_utils.get_single_instance(output_dict["deployment"])
        Path(out.uri).mkdir(parents=True, exist_ok=True)
        target = exec_properties["target"]
        live, told = 0, "nothing was pushed"
        if pushed.get_int_custom_property(PUSHED):
            version = Path(pushed.get_string_custom_property(PATH))
            release = Release(base=version.parent, version=int(version.name), name=exec_properties["title"])
            try:
                told = find(target).release(target, release, log.info)
                live = 1
            except VitrinaError as error:
                told = " ".join(str(error).split())
        out.set_int_custom_property(LIVE, live)
        out.set_string_custom_property(TARGET, target)
        out.set_string_custom_property(TOLD, told)


class TargetPusher(BaseComponent):  # type: ignore[misc]
    """Makes a pushed version live on a target.

    Args:
        pushed_model: Where BasePathPusher put it.
        target: As `pipelines.pushers.find` takes it.
        title: The pipeline's name.
        started: A string that no other run has.
    """

    SPEC_CLASS = TargetPusherSpec
    EXECUTOR_SPEC = ExecutorClassSpec(Executor)

    def __init__(self, *, pushed_model: Any, target: str, title: str, started: str) -> None:
        super().__init__(
            spec=TargetPusherSpec(
                pushed_model=pushed_model,
                target=target,
                title=title,
                started=started,
                deployment=tfx.dsl.Channel(type=Deployment),
            )
        )
