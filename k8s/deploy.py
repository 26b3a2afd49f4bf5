"""The verbs on one servable in a cluster: apply, status, delete. Canaries are in `canary.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from k8s import apply as applying
from k8s import diagnosis, rollout
from k8s.apply import Change
from k8s.cluster import Cluster
from k8s.kustomize import Object
from k8s.render import canary_name, objects
from k8s.settings import ANNOTATION, Settings
from signatures.errors import UsageError

__all__ = [
    "CANARY_STATE",
    "PREVIOUS",
    "Status",
    "annotations_of",
    "apply",
    "bring",
    "delete",
    "deployment",
    "silent",
    "status",
    "with_annotations",
]

PREVIOUS = "vitrina.dev/previous"
"""Where a Deployment carries the settings that a rollback goes back to."""

CANARY_STATE = "vitrina.dev/canary"
"""Where a Deployment carries what canary stands beside it."""

TIMEOUT = 900.0
"""Seconds for a roll-out, as the Deployment's own deadline."""

Listener = Callable[[str], None]


def silent(_: str) -> None:
    """Tells nobody."""


def apply(
    location: str,
    *,
    name: str,
    cluster: Cluster | None = None,
    dry_run: bool = False,
    force: bool = False,
    wait: bool = True,
    timeout: float = TIMEOUT,
    tell: Listener = silent,
    **settings: Any,
) -> list[Change]:
    """Brings a servable to a cluster, or another version or other settings of it, without a gap.

    Args:
        location: The servable's base path as the cluster sees it, see `Location.parse`.
        name: What the objects and the model are called.
        cluster: Where; None is where kubectl would go, in the settings' namespace.
        dry_run: Only say what would change.
        force: Take fields over that others manage.
        wait: Stay until every pod is new and available.
        timeout: Seconds for that.
        tell: Called with a line of progress.
        **settings: The rest of `Settings`: `namespace`, `version`, `replicas`, `cpu`, ...

    Returns:
        What changed, or would.

    Raises:
        UsageError: A canary is on trial, which wants a decision first.
        CheckFailed: The roll-out is stuck; the message says why. What served before still does.
        ApiError: The server refuses something.
    """
    told = Settings(location=location, name=name, **settings)
    cluster = cluster or Cluster(namespace=told.namespace)
    live = cluster.get("Deployment", name)
    annotations = annotations_of(live)
    if CANARY_STATE in annotations:
        raise UsageError(f"{name} has a canary on trial. Decide first: vitrina k8s promote {name}, or rollback.")
    wanted = with_annotations(objects(told), {PREVIOUS: previous(annotations, told)})
    if dry_run:
        return applying.plan(cluster, wanted, force=force)
    return bring(cluster, name, wanted, force=force, wait=wait, timeout=timeout, tell=tell)


def bring(
    cluster: Cluster,
    name: str,
    wanted: Sequence[Object],
    *,
    force: bool = False,
    wait: bool = True,
    timeout: float = TIMEOUT,
    tell: Listener = silent,
) -> list[Change]:
    """Applies objects, waits for the roll-out, and clears away what nothing needs any more.

    Args:
        cluster: Where.
        name: The Deployment's.
        wanted: All that is wanted of this servable.
        force: Take fields over that others manage.
        wait: Stay until every pod is new and available.
        timeout: Seconds for that.
        tell: Called with a line of progress.

    Returns:
        What changed.

    Raises:
        CheckFailed: The roll-out is stuck.
        ApiError: The server refuses something.
    """
    changes = applying.apply(cluster, wanted, force=force)
    for change in changes:
        if change.action != "keep":
            tell(str(change))
    if wait:
        rollout.wait(cluster, name, timeout=timeout, tell=tell)
        rollout.tidy(cluster, name)
    return changes


def with_annotations(wanted: list[Object], told: Mapping[str, str | None]) -> list[Object]:
    """The same objects; the Deployment with these annotations besides, None left out."""
    for found in wanted:
        if found["kind"] == "Deployment":
            found["metadata"]["annotations"] |= {key: value for key, value in told.items() if value is not None}
    return wanted


def previous(annotations: Mapping[str, str], settings: Settings) -> str | None:
    """What a rollback after applying these settings goes back to: what is there, or what that went back to."""
    there = annotations.get(ANNOTATION)
    return annotations.get(PREVIOUS) if there in (None, settings.to_json()) else there


def deployment(cluster: Cluster, name: str) -> Object:
    """A servable's Deployment.

    Raises:
        UsageError: There is none.
    """
    found = cluster.get("Deployment", name)
    if found is None:
        raise UsageError(
            f"There is no Deployment {name} in the namespace {cluster.namespace} of {cluster.server}. Give "
            "--namespace or --context, or bring it there with: vitrina k8s apply"
        )
    return found


def annotations_of(found: Object | None) -> dict[str, str]:
    """An object's annotations; none of an object that is not there."""
    return dict((found or {}).get("metadata", {}).get("annotations") or {})


def delete(name: str, *, cluster: Cluster | None = None, tell: Listener = silent) -> list[Change]:
    """Deletes a servable and its canary, everything that `apply` and `canary` made.

    Args:
        name: As it was applied.
        cluster: Where; None is where kubectl would go.
        tell: Called with a line for each object.

    Returns:
        What was deleted.

    Raises:
        UsageError: There is nothing of that name.
    """
    cluster = cluster or Cluster()
    changes = [*applying.remove(cluster, canary_name(name)), *applying.remove(cluster, name)]
    if not changes:
        raise UsageError(f"There is nothing of {name} in the namespace {cluster.namespace} of {cluster.server}.")
    for change in changes:
        tell(str(change))
    return changes


@dataclass(frozen=True, kw_only=True)
class Status:
    """How a servable is in a cluster.

    Args:
        name: Its name.
        namespace: Where.
        ready: Whether every pod that there should be takes requests, and the roll-out is done.
        progress: How far the roll-out is, in words.
        location: Where the servable is read.
        version: The pinned version; None follows the base path.
        previous: The version that a rollback goes back to; None where nothing is known of one.
        canary: What is on trial: `version`, `by`, `weight`; None where nothing is.
        pods: Pod -> version -> state, as each server tells.
        canary_pods: The same of a canary with pods of its own.
        problems: What is in the way, in words.
    """

    name: str
    namespace: str
    ready: bool
    progress: str
    location: str
    version: int | None
    previous: int | None
    canary: Mapping[str, Any] | None
    pods: Mapping[str, Mapping[int, str]]
    canary_pods: Mapping[str, Mapping[int, str]]
    problems: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return asdict(self)


def status(name: str, *, cluster: Cluster | None = None) -> Status:
    """Asks the cluster, and every pod's server.

    Args:
        name: As it was applied.
        cluster: Where; None is where kubectl would go.

    Raises:
        UsageError: There is no such Deployment.
        VitrinaError: It was not made by `vitrina k8s apply`.
    """
    import json

    cluster = cluster or Cluster()
    found = deployment(cluster, name)
    annotations = annotations_of(found)
    settings = Settings.from_annotations(annotations, name=name)
    progress = rollout.Progress.of(found)
    canary = json.loads(annotations[CANARY_STATE]) if CANARY_STATE in annotations else None
    earlier = json.loads(annotations[PREVIOUS]) if PREVIOUS in annotations else {}
    problems = [each.told for each in diagnosis.diagnose(cluster, name)]
    beside: Mapping[str, Mapping[int, str]] = {}
    if canary is not None and canary["by"] == "weights":
        beside = rollout.served_versions(cluster, canary_name(name), name)
        problems += [each.told for each in diagnosis.diagnose(cluster, canary_name(name))]
    return Status(
        name=name,
        namespace=cluster.namespace,
        ready=progress.done,
        progress=str(progress),
        location=settings.location,
        version=settings.version,
        previous=earlier.get("version"),
        canary=canary,
        pods=rollout.served_versions(cluster, name, name),
        canary_pods=beside,
        problems=tuple(problems),
    )
