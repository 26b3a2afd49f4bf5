"""ImageGen: images to Examples with the encoded bytes, train and eval split, and a report.

Inputs: none. Outputs: `examples` (TFRecords, gzip; `labels.json` beside the splits) and `report` (`report.json`: counts
per split, labels, and each file set aside with its reason; `bad.txt`: those alone, a line each). Whether that is too
much is IngestGate's to say: what a component leaves that fails, TFX removes.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from tfx import v1 as tfx
from tfx.components.util import examples_utils
from tfx.dsl.components.base.base_beam_component import BaseBeamComponent
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.dsl.components.base.executor_spec import BeamExecutorSpec
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.artifact import Artifact
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from pipelines.data import find
from pipelines.data.spans import named
from pipelines.examples import LABELS_FILE
from pipelines.ingest import SPLITS, ingest
from pipelines.masks import IGNORE

__all__ = ["BAD_FILE", "REPORT_FILE", "ImageGen", "IngestReport"]

REPORT_FILE = "report.json"
BAD_FILE = "bad.txt"


class IngestReport(Artifact):  # type: ignore[misc]
    """What was read and what was set aside: `report.json`."""

    TYPE_NAME = "pipelines.IngestReport"


class ImageGenSpec(ComponentSpec):  # type: ignore[misc]
    """`fingerprint` is there for the cache alone: it changes with the files below `data`."""

    PARAMETERS: ClassVar[dict[str, Any]] = {
        "data": ExecutionParameter(type=str),
        "fingerprint": ExecutionParameter(type=str),
        "eval_share": ExecutionParameter(type=float),
        "labels": ExecutionParameter(type=str),
        "ignore_index": ExecutionParameter(type=int),
    }
    INPUTS: ClassVar[dict[str, Any]] = {}
    OUTPUTS: ClassVar[dict[str, Any]] = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "report": ChannelParameter(type=IngestReport),
    }


class Executor(BaseBeamExecutor):  # type: ignore[misc]
    """Unpacks TFX's dictionaries and calls `pipelines.ingest`."""

    def Do(  # noqa: N802
        self, input_dict: dict[str, list[Any]], output_dict: dict[str, list[Any]], exec_properties: dict[str, Any]
    ) -> None:
        del input_dict
        examples = artifact_utils.get_single_instance(output_dict["examples"])
        report = artifact_utils.get_single_instance(output_dict["report"])
        examples.split_names = artifact_utils.encode_split_names(list(SPLITS))
        examples_utils.set_payload_format(examples, example_gen_pb2.PayloadFormat.FORMAT_TF_EXAMPLE)
        examples_utils.set_file_format(examples, "tfrecords_gzip")
        examples.span, examples.version = named(exec_properties["data"])
        labels = json.loads(exec_properties["labels"])
        data = find(exec_properties["data"], labels and tuple(labels))
        Path(report.uri).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=report.uri) as scratch:
            found = ingest(
                data,
                make_pipeline=self._make_beam_pipeline,
                eval_share=exec_properties["eval_share"],
                split_folders={split: artifact_utils.get_split_uri([examples], split) for split in SPLITS},
                scratch=Path(scratch),
                ignore=exec_properties["ignore_index"],
            )
        bad = "".join(f"{item['filename']}\t{item['reason']}\n" for item in found["bad"])
        (Path(report.uri) / BAD_FILE).write_text(bad, encoding="utf-8")
        (Path(report.uri) / REPORT_FILE).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        (Path(examples.uri) / LABELS_FILE).write_text(json.dumps(found["labels"]) + "\n", encoding="utf-8")


class ImageGen(BaseBeamComponent):  # type: ignore[misc]
    """Reads images with labels or masks, whatever holds them.

    Args:
        data: As the command takes it (see `pipelines.data`).
        fingerprint: Changes with the data, for the cache.
        eval_share: The share held out by content hash, where `data` gives no split of its own.
        labels: The classes of masks in id order, in place of what the data says; None leaves it to that.
        ignore_index: The id of a mask's pixels that count for nothing.
    """

    SPEC_CLASS = ImageGenSpec
    EXECUTOR_SPEC = BeamExecutorSpec(Executor)

    def __init__(
        self,
        *,
        data: str,
        fingerprint: str,
        eval_share: float,
        labels: Sequence[str] | None = None,
        ignore_index: int = IGNORE,
    ) -> None:
        super().__init__(
            spec=ImageGenSpec(
                data=data,
                fingerprint=fingerprint,
                eval_share=float(eval_share),
                labels=json.dumps(list(labels) if labels else None),
                ignore_index=ignore_index,
                examples=tfx.dsl.Channel(type=standard_artifacts.Examples),
                report=tfx.dsl.Channel(type=IngestReport),
            )
        )
