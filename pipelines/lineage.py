"""What happened, read back from ML Metadata: executions, their outputs and their times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from signatures.errors import UsageError

__all__ = ["Artifact", "Execution", "last_run", "origins"]

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
        settings: What it was told, by name; paths, shares and the like.
    """

    id: int
    component: str
    state: str
    seconds: float
    inputs: tuple[int, ...]
    outputs: Mapping[str, Artifact]
    settings: Mapping[str, Any] = field(default_factory=dict)


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


def origins(metadata: Path, version: int, *, base: Path | None = None) -> tuple[Execution, ...]:
    """All that a pushed version came from, over every run that took part: from the images to the push.

    Args:
        metadata: The SQLite file.
        version: The version's number on its base path.
        base: That base path; None is whichever has such a version.

    Returns:
        The executions in the order they ran.

    Raises:
        UsageError: There is no metadata, or it knows of no such push.
    """
    from pipelines.components.base_path_pusher import NEW, PATH, VERSION

    if not metadata.is_file():
        raise UsageError(f"There is no {metadata}. Give the --root that the pipeline ran with.")
    store = _open(metadata)
    pushes = [
        artifact.id
        for artifact in store.get_artifacts_by_type("PushedModel")
        for properties in [{name: _value(value) for name, value in artifact.custom_properties.items()}]
        if properties.get(NEW) and properties.get(VERSION) == version
        if base is None or Path(properties[PATH]).parent == base
    ]
    if not pushes:
        raise UsageError(f"{metadata} knows of no push of version {version}. Look at its runs: vitrina pipeline show")
    open_artifacts, found = [max(pushes)], set[int]()
    while open_artifacts:
        events = store.get_events_by_artifact_ids(open_artifacts)
        # A resolver's outputs are internal: it found the artifact, and did not make it.
        made = {event.execution_id for event in events if event.type == _made()} - found
        found |= made
        taken = store.get_events_by_execution_ids(list(made)) if made else []
        open_artifacts = sorted({event.artifact_id for event in taken if event.type not in _outputs()})
    every = sorted(store.get_executions_by_id(list(found)), key=lambda execution: execution.id)
    return tuple(_execution(store, execution) for execution in every)


def _made() -> int:
    from ml_metadata.proto import metadata_store_pb2

    return int(metadata_store_pb2.Event.OUTPUT)


def _outputs() -> set[int]:
    from ml_metadata.proto import metadata_store_pb2

    return {_made(), metadata_store_pb2.Event.INTERNAL_OUTPUT}


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
    names = {event.artifact_id: _key(event) for event in events if event.type in _outputs()}
    artifacts = {artifact.id: artifact for artifact in store.get_artifacts_by_id(list(names))} if names else {}
    return Execution(
        id=execution.id,
        component=_component(store, execution),
        state=metadata_store_pb2.Execution.State.Name(execution.last_known_state),
        seconds=(execution.last_update_time_since_epoch - execution.create_time_since_epoch) / 1000,
        inputs=tuple(event.artifact_id for event in events if event.type == metadata_store_pb2.Event.INPUT),
        outputs={names[number]: _artifact(store, artifact) for number, artifact in artifacts.items()},
        settings={name: _value(value) for name, value in execution.custom_properties.items()},
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
