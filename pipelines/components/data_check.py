"""DataCheck: looks at the data's anomalies, its drift and its skew, and writes a report; DataGate stops on it.

They are two because TFX removes what a failing component wrote.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from tfx import v1 as tfx
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.dsl.components.base.executor_spec import ExecutorClassSpec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from pipelines import drift, serving_log, verdict
from pipelines.components.data_gate import BASELINE_FILE, SPAN, DataFindings, DataVerdict
from pipelines.components.image_gen import IngestReport
from pipelines.data import TRAIN
from pipelines.data_report import DataReport, describe
from pipelines.examples import IMAGE_MEASURES, PRESENT, TEXT

__all__ = ["DataCheck"]

STATISTICS_FILE = "FeatureStats.pb"
ANOMALIES_FILE = "SchemaDiff.pb"
#: Requests of the serving log that are looked at, the newest files first.
REQUESTS = 10_000


class DataCheckSpec(ComponentSpec):  # type: ignore[misc]
    """`log_fingerprint` is there for the cache alone."""

    PARAMETERS: ClassVar[dict[str, Any]] = {
        "data": ExecutionParameter(type=str),
        "log": ExecutionParameter(type=str),
        "log_fingerprint": ExecutionParameter(type=str),
        "max_drift": ExecutionParameter(type=float),
        "max_skew": ExecutionParameter(type=float),
    }
    INPUTS: ClassVar[dict[str, Any]] = {
        "statistics": ChannelParameter(type=standard_artifacts.ExampleStatistics),
        "anomalies": ChannelParameter(type=standard_artifacts.ExampleAnomalies),
        "ingest": ChannelParameter(type=IngestReport),
        "accepted": ChannelParameter(type=DataVerdict, optional=True),
    }
    OUTPUTS: ClassVar[dict[str, Any]] = {"findings": ChannelParameter(type=DataFindings)}


class Executor(BaseExecutor):  # type: ignore[misc]
    """Unpacks TFX's dictionaries and calls `pipelines.drift` and `pipelines.data_report`."""

    def Do(  # noqa: N802
        self, input_dict: dict[str, list[Any]], output_dict: dict[str, list[Any]], exec_properties: dict[str, Any]
    ) -> None:
        import tensorflow_data_validation as tfdv

        statistics = artifact_utils.get_single_instance(input_dict["statistics"])
        splits = artifact_utils.decode_split_names(statistics.split_names)
        loaded = {
            split: tfdv.load_stats_binary(f"{artifact_utils.get_split_uri([statistics], split)}/{STATISTICS_FILE}")
            for split in splits
        }
        previous, moved = _against_previous(
            input_dict.get("accepted") or [], loaded[TRAIN], exec_properties["max_drift"]
        )
        log, skewed = _against_log(exec_properties["log"], loaded[TRAIN], exec_properties["max_skew"])
        ingest = verdict.ingest_report(Path(artifact_utils.get_single_uri(input_dict["ingest"])))
        DataReport(
            data=exec_properties["data"],
            anomalies=_anomalies(artifact_utils.get_single_instance(input_dict["anomalies"])),
            drift=moved,
            skew=skewed,
            previous=previous,
            log=log,
            counts=ingest["counts"],
            classes=ingest["classes"],
            bad=len(ingest["bad"]),
            leaks=len(ingest["leaks"]),
            conflicts=len(ingest["conflicts"]),
            features={split: drift.summary(each) for split, each in loaded.items()},
        ).write(Path(artifact_utils.get_single_uri(output_dict["findings"])))


class DataCheck(BaseComponent):  # type: ignore[misc]
    """Reports on the data.

    Args:
        data: Its name.
        log: The serving log (see `pipelines.serving_log`); "" for none.
        max_drift: The largest distance from the data that was accepted before, 0 to 1.
        max_skew: The largest distance from what clients sent, 0 to 1.
        here: Whether the log lies on this machine, so that the cache sees it grow.
        **channels: Those of `DataCheckSpec.INPUTS`.
    """

    SPEC_CLASS = DataCheckSpec
    EXECUTOR_SPEC = ExecutorClassSpec(Executor)

    def __init__(
        self, *, data: str, log: str, max_drift: float, max_skew: float, here: bool = True, **channels: Any
    ) -> None:
        super().__init__(
            spec=DataCheckSpec(
                data=data,
                log=log,
                log_fingerprint=serving_log.fingerprint(log) if here else "",
                max_drift=float(max_drift),
                max_skew=float(max_skew),
                findings=tfx.dsl.Channel(type=DataFindings),
                **channels,
            )
        )


def _anomalies(artifact: Any) -> list[str]:
    found = []
    for split in artifact_utils.decode_split_names(artifact.split_names):
        path = Path(artifact_utils.get_split_uri([artifact], split)) / ANOMALIES_FILE
        found += [f"{split}: {line}" for line in describe(path.read_bytes())]
    return found


def _against_previous(accepted: list[Any], statistics: Any, most: float) -> tuple[str, list[drift.Distance]]:
    import tensorflow_data_validation as tfdv

    if not accepted:
        return "", []
    before_it = accepted[0]
    span = before_it.get_int_custom_property(SPAN)
    told = f"span {span}, which was accepted before" if span else "the data that was accepted before"
    before = tfdv.load_stats_binary(f"{before_it.uri}/{BASELINE_FILE}")
    return told, drift.distances(statistics, before, features=(TEXT, PRESENT, *IMAGE_MEASURES), most=most)


def _against_log(log: str, statistics: Any, most: float) -> tuple[str, list[drift.Distance]]:
    if not log:
        return "", []
    served, read, bad = drift.served_statistics(serving_log.images(log, limit=REQUESTS))
    told = f"{log}, {read} images ({bad} more that cannot be read)"
    found = [] if served is None else drift.distances(statistics, served, features=IMAGE_MEASURES, most=most)
    return told, found
