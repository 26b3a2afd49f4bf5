"""BasePathPusher: a blessed model to a TF Serving base path; one that is not blessed goes nowhere.

TFX's own Pusher names versions by the clock and copies in place; this one takes the next number and renames.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from tfx import v1 as tfx
from tfx.components.util import model_utils
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.dsl.components.base.executor_spec import ExecutorClassSpec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import path_utils

from pipelines.components.model_report import PeopleCard
from pipelines.push import push
from pipelines.serving_check import WARMUP_FILE

__all__ = ["PATH", "PUSHED", "VERSION", "BasePathPusher"]

#: Custom properties of the `pushed_model` artifact.
PUSHED = "pushed"
PATH = "pushed_destination"
VERSION = "pushed_version"
NEW = "pushed_new"


class BasePathPusherSpec(ComponentSpec):  # type: ignore[misc]
    """`started` differs per run, so that the cache never stands in for a push."""

    PARAMETERS: ClassVar[dict[str, Any]] = {
        "base": ExecutionParameter(type=str),
        "keep": ExecutionParameter(type=int),
        "started": ExecutionParameter(type=str),
    }
    INPUTS: ClassVar[dict[str, Any]] = {
        "model": ChannelParameter(type=standard_artifacts.Model),
        "blessing": ChannelParameter(type=standard_artifacts.ModelBlessing),
        "serving_blessing": ChannelParameter(type=standard_artifacts.InfraBlessing),
        "card": ChannelParameter(type=PeopleCard),
    }
    OUTPUTS: ClassVar[dict[str, Any]] = {"pushed_model": ChannelParameter(type=standard_artifacts.PushedModel)}


class Executor(BaseExecutor):  # type: ignore[misc]
    """Unpacks TFX's dictionaries and calls `pipelines.push`."""

    def Do(  # noqa: N802
        self, input_dict: dict[str, list[Any]], output_dict: dict[str, list[Any]], exec_properties: dict[str, Any]
    ) -> None:
        out = artifact_utils.get_single_instance(output_dict["pushed_model"])
        Path(out.uri).mkdir(parents=True, exist_ok=True)
        good = model_utils.is_model_blessed(artifact_utils.get_single_instance(input_dict["blessing"]))
        served = artifact_utils.get_single_instance(input_dict["serving_blessing"])
        if not (good and model_utils.is_infra_validated(served)):
            out.set_int_custom_property(PUSHED, 0)
            return
        model = artifact_utils.get_single_instance(input_dict["model"])
        done = push(
            Path(path_utils.serving_model_path(model.uri)),
            Path(exec_properties["base"]),
            keep=exec_properties["keep"] or None,
            extra=_extra(Path(artifact_utils.get_single_uri(input_dict["card"])), Path(served.uri)),
        )
        out.set_int_custom_property(PUSHED, 1)
        out.set_int_custom_property(NEW, int(done.new))
        out.set_int_custom_property(VERSION, done.version)
        out.set_string_custom_property(PATH, str(done.path))


def _extra(card: Path, served: Path) -> list[Path]:
    """The card for people, and the warmup requests that the candidate was served with."""
    warmup = served / WARMUP_FILE
    return [*sorted(card.iterdir()), *([warmup] if warmup.is_file() else [])]


class BasePathPusher(BaseComponent):  # type: ignore[misc]
    """Pushes to a folder.

    Args:
        model: The trained model.
        blessing: The evaluator's verdict.
        serving_blessing: The verdict of serving it.
        card: What is pushed with it for people.
        base: The TF Serving `model_base_path`.
        keep: How many versions stay there; None keeps all.
        started: A string that no other run has.
    """

    SPEC_CLASS = BasePathPusherSpec
    EXECUTOR_SPEC = ExecutorClassSpec(Executor)

    def __init__(
        self,
        *,
        model: Any,
        blessing: Any,
        serving_blessing: Any,
        card: Any,
        base: Path,
        keep: int | None,
        started: str,
    ) -> None:
        super().__init__(
            spec=BasePathPusherSpec(
                model=model,
                blessing=blessing,
                serving_blessing=serving_blessing,
                card=card,
                base=str(base),
                keep=keep or 0,
                started=started,
                pushed_model=tfx.dsl.Channel(type=standard_artifacts.PushedModel),
            )
        )
