"""ModelReport: what metadata and artifacts say of a model, as a card for people."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from tfx import v1 as tfx
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.dsl.components.base.executor_spec import ExecutorClassSpec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.artifact import Artifact
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import path_utils

from pipelines import verdict
from pipelines.components.image_gen import IngestReport
from pipelines.data import EVAL, SEGMENTATION, TRAIN
from pipelines.evaluation import TOP_K
from pipelines.examples import TEXT
from pipelines.judged import calibration, confusion, judge
from pipelines.judged_masks import gallery, judge_masks
from pipelines.model_card import Facts, to_html, to_markdown
from pipelines.settings import Bar
from pipelines.trainer import HISTORY
from signatures.spec import Card

__all__ = ["FILES", "ModelReport", "PeopleCard"]

#: What a push puts into `assets.extra` of the servable.
FILES = ("model_card.md", "model_card.html")
MISTAKES = 24


class PeopleCard(Artifact):  # type: ignore[misc]
    """`model_card.md` and `model_card.html`."""

    TYPE_NAME = "pipelines.PeopleCard"


class ModelReportSpec(ComponentSpec):  # type: ignore[misc]
    """What goes in and out."""

    PARAMETERS: ClassVar[dict[str, Any]] = {
        "title": ExecutionParameter(type=str),
        "source": ExecutionParameter(type=str),
        "schedule": ExecutionParameter(type=str),
        "data": ExecutionParameter(type=str),
        "bar": ExecutionParameter(type=str),
    }
    INPUTS: ClassVar[dict[str, Any]] = {
        "model": ChannelParameter(type=standard_artifacts.Model),
        "model_run": ChannelParameter(type=standard_artifacts.ModelRun),
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "ingest": ChannelParameter(type=IngestReport),
        "evaluation": ChannelParameter(type=standard_artifacts.ModelEvaluation),
        "serving": ChannelParameter(type=standard_artifacts.InfraBlessing),
    }
    OUTPUTS: ClassVar[dict[str, Any]] = {"card": ChannelParameter(type=PeopleCard)}


class Executor(BaseExecutor):  # type: ignore[misc]
    """Unpacks TFX's dictionaries and calls `pipelines.model_card`."""

    def Do(  # noqa: N802
        self, input_dict: dict[str, list[Any]], output_dict: dict[str, list[Any]], exec_properties: dict[str, Any]
    ) -> None:
        folders = {
            name: Path(artifact_utils.get_single_uri(input_dict[name]))
            for name in ("model_run", "ingest", "evaluation", "serving")
        }
        model = Path(path_utils.serving_model_path(artifact_utils.get_single_uri(input_dict["model"])))
        split = Path(artifact_utils.get_split_uri(input_dict["examples"], EVAL))
        card = Card.read(model)
        lineage = [
            ("data", exec_properties["data"]),
            ("started from", exec_properties["source"]),
            *_lineage(input_dict),
        ]
        facts = _facts(folders, card, _answers(model, card, split, folders), exec_properties, lineage)
        out = Path(artifact_utils.get_single_uri(output_dict["card"]))
        out.mkdir(parents=True, exist_ok=True)
        (out / FILES[0]).write_text(to_markdown(facts), encoding="utf-8")
        (out / FILES[1]).write_text(to_html(facts), encoding="utf-8")


class ModelReport(BaseComponent):  # type: ignore[misc]
    """Writes a model's card for people.

    Args:
        title: The model's name.
        source: The checkpoint that training started from.
        schedule: How it was trained.
        data: The images, as the command took them.
        bar: What it had to reach.
        **channels: Those of `ModelReportSpec.INPUTS`.
    """

    SPEC_CLASS = ModelReportSpec
    EXECUTOR_SPEC = ExecutorClassSpec(Executor)

    def __init__(
        self, *, title: str, source: str, schedule: Mapping[str, Any], data: str, bar: Bar, **channels: Any
    ) -> None:
        super().__init__(
            spec=ModelReportSpec(
                title=title,
                source=source,
                schedule=json.dumps(schedule, sort_keys=True),
                data=data,
                bar=json.dumps(asdict(bar), sort_keys=True),
                card=tfx.dsl.Channel(type=PeopleCard),
                **channels,
            )
        )


def _lineage(inputs: Mapping[str, Sequence[Any]]) -> list[tuple[str, str]]:
    """Every artifact that this card was made from, as the metadata knows it."""
    found = []
    for name, artifacts in sorted(inputs.items()):
        for artifact in artifacts:
            number = f" {artifact.id}" if artifact.id else ""
            found.append((f"{name} ({artifact.type_name}{number})", artifact.uri))
            if name == "examples" and artifact.span:
                found.append(("span", f"{artifact.span}, version {artifact.version}"))
    return found


def _answers(model: Path, card: Card, split: Path, folders: Mapping[str, Path]) -> dict[str, Any]:
    """What the candidate answers to what is held out, as `Facts` takes it."""
    measured = verdict.metrics(folders["evaluation"])
    if card.task == SEGMENTATION:
        masks = list(judge_masks(model, split))
        ingest = verdict.ingest_report(folders["ingest"])
        classes = verdict.class_iou(folders["evaluation"], card.labels)
        return {
            "accuracy": measured["mean_iou"],
            "baseline_accuracy": measured.get("baseline_mean_iou"),
            "measure": "mean IoU",
            "per_class": {
                name: {**each, "images": ingest["classes"][EVAL].get(name, 0)} for name, each in classes.items()
            },
            "confusion": np.sum([each.confusion for each in masks], axis=0).tolist(),
            "mistakes": gallery(masks, MISTAKES),
            "held_out_images": ingest["counts"][EVAL],
            "trained_on_images": ingest["counts"][TRAIN],
        }
    judged = judge(model, split)
    wrong = sorted((item for item in judged if item.answered != item.actual), key=lambda item: -item.score)
    return {
        "accuracy": measured["accuracy"],
        "baseline_accuracy": measured.get("baseline_accuracy"),
        "per_class": verdict.per_class(folders["evaluation"]),
        "confusion": confusion(judged, card.labels),
        "mistakes": wrong[:MISTAKES],
        "top_k_accuracy": measured["top_k_accuracy"],
        "top_k": TOP_K,
        "calibration": calibration(judged),
    }


def _facts(
    folders: Mapping[str, Path],
    card: Card,
    answers: Mapping[str, Any],
    exec_properties: Mapping[str, Any],
    lineage: Sequence[tuple[str, str]],
) -> Facts:
    ingest = verdict.ingest_report(folders["ingest"])
    serving = verdict.serving_report(folders["serving"])
    slices = verdict.per_slice(folders["evaluation"])
    slices.pop(TEXT, None)
    return Facts(
        title=exec_properties["title"],
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        task=card.task,
        source=exec_properties["source"],
        model_class=card.source.cls,
        labels=card.labels,
        trained=ingest["classes"][TRAIN],
        held_out=ingest["classes"][EVAL],
        set_aside=len(ingest["bad"]),
        slices=slices,
        checks=verdict.checks(folders["evaluation"], Bar(**json.loads(exec_properties["bar"])), serving),
        size_mb=serving["size_mb"],
        lineage=lineage,
        history=json.loads((folders["model_run"] / HISTORY).read_text(encoding="utf-8")),
        latency_ms=serving["latency_ms"],
        server=serving["server"],
        parity=card.parity,
        schedule=json.loads(exec_properties["schedule"]),
        packages=card.packages,
        **answers,
    )
