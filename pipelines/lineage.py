"""What happened, read back from ML Metadata: executions, their outputs and their times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from signatures.errors import UsageError

__all__ = ["Artifact", "Execution", "last_run"]

RUN = "pipeline_run"
NODE = "node"


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One output.

    Args:
        id: In the metadata.
        kind: Its type, such as `Model`.
        uri: Its folder.
        properties: Custom properties by name.
    """

    id: int
    kind: str
    uri: str
    properties: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Execution:
    """One component's part in a run.

    Args:
        id: In the metadata.
        component: The node's name, such as `Trainer`.
        state: `COMPLETE`, `CACHED` (an earlier run's outputs were taken over), `FAILED`, ...
        seconds: From its start to its end.
        inputs: Ids of the artifacts that went in.
        outputs: What came out, by output name.
    """

    id: int
    component: str
    state: str
    seconds: float
    inputs: tuple[int, ...]
    outputs: Mapping[str, Artifact]


def last_run(metadata: Path, pipeline: str) -> tuple[Execution, ...]:
    """The executions of a pipeline's latest run, in the order they ran.

    Args:
        metadata: The SQLite file.
        pipeline: The pipeline's name.

    Returns:
        Its executions.

    Raises:
        UsageError: There is no metadata, or no run of that pipeline in it.
    """
    if not metadata.is_file():
        raise UsageError(f"There is no {metadata}. Run a pipeline first: vitrina pipeline run --root {metadata.parent}")
    store = _open(metadata)
    runs = [
        run
        for run in store.get_contexts_by_type(RUN)
        if any(parent.name == pipeline for parent in store.get_parent_contexts_by_context(run.id)) or _of(run, pipeline)
    ]
    if not runs:
        raise UsageError(f"{metadata} knows no run of a pipeline named {pipeline}. Run it first: vitrina pipeline run")
    latest = max(runs, key=lambda run: (run.create_time_since_epoch, run.id))
    return tuple(
        _execution(store, execution)
        for execution in sorted(store.get_executions_by_context(latest.id), key=lambda execution: execution.id)
    )


def _open(metadata: Path) -> Any:
    from ml_metadata.metadata_store import metadata_store
    from ml_metadata.proto import metadata_store_pb2

    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = str(metadata)
    config.sqlite.connection_mode = metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    return metadata_store.MetadataStore(config)


def _of(run: Any, pipeline: str) -> bool:
    """Run contexts are named `PIPELINE.RUN` or by the run alone, with the pipeline as a property or parent."""
    return bool(run.name.startswith(f"{pipeline}."))


def _execution(store: Any, execution: Any) -> Execution:
    from ml_metadata.proto import metadata_store_pb2

    events = store.get_events_by_execution_ids([execution.id])
    outputs = {metadata_store_pb2.Event.OUTPUT, metadata_store_pb2.Event.INTERNAL_OUTPUT}
    names = {event.artifact_id: _key(event) for event in events if event.type in outputs}
    artifacts = {artifact.id: artifact for artifact in store.get_artifacts_by_id(list(names))} if names else {}
    return Execution(
        id=execution.id,
        component=_component(store, execution),
        state=metadata_store_pb2.Execution.State.Name(execution.last_known_state),
        seconds=(execution.last_update_time_since_epoch - execution.create_time_since_epoch) / 1000,
        inputs=tuple(event.artifact_id for event in events if event.type == metadata_store_pb2.Event.INPUT),
        outputs={names[number]: _artifact(store, artifact) for number, artifact in artifacts.items()},
    )


def _component(store: Any, execution: Any) -> str:
    for context in store.get_contexts_by_execution(execution.id):
        if context.type == NODE:
            return str(context.name.rpartition(".")[2])
    return str(store.get_execution_types_by_id([execution.type_id])[0].name.rpartition(".")[2])


def _artifact(store: Any, artifact: Any) -> Artifact:
    return Artifact(
        id=artifact.id,
        kind=artifact.type or store.get_artifact_types_by_id([artifact.type_id])[0].name,
        uri=artifact.uri,
        properties={name: _value(value) for name, value in artifact.custom_properties.items()},
    )


def _key(event: Any) -> str:
    return next((step.key for step in event.path.steps if step.key), "")


def _value(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))
