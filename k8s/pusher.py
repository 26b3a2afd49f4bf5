"""What a pipeline calls with a version that it has pushed: the roll-out on a cluster, under the canary's rule."""

from __future__ import annotations

import time
from collections.abc import Callable

from k8s import rollout
from k8s.canary import canary, rollback
from k8s.cluster import Cluster
from k8s.deploy import CANARY_STATE, TIMEOUT, annotations_of, apply, silent
from k8s.locations import Location
from k8s.rule import Rule
from k8s.settings import Settings
from signatures.errors import CheckFailed, UsageError

__all__ = ["push"]

_POLL_SECONDS = 1.0


def push(
    *,
    namespace: str,
    name: str,
    location: str,
    version: int,
    tell: Callable[[str], None] = silent,
    rule: Rule | None = None,
    cluster: Cluster | None = None,
    timeout: float = TIMEOUT,
) -> str:
    """Makes a version live.

    Where there is no such servable yet, it is applied, pinned to the version. One that is pinned gets it as a canary,
    by weights where it has a Gateway and else by labels. One that follows its base path takes it up by itself, and is
    waited for.

    Args:
        namespace: Where.
        name: The servable's.
        location: The base path as the pipeline sees it. A cluster that mounts it from a claim sees another one, so only
            buckets are compared.
        version: The version's number there.
        tell: Called with a line of progress.
        rule: What is tolerated of a canary; None is `Rule()`.
        cluster: Where; None is where kubectl would go.
        timeout: Seconds for each roll-out.

    Returns:
        Where it is live, in words.

    Raises:
        CheckFailed: The version was not taken, or is on trial with too few requests to decide; what served serves on.
        UsageError: It was pushed to another place than the servable reads.
    """
    cluster = cluster or Cluster(namespace=namespace)
    live = f"version {version} of {name} serves in the namespace {namespace}"
    found = cluster.get("Deployment", name)
    if found is None:
        apply(location, name=name, namespace=namespace, version=version, cluster=cluster, timeout=timeout, tell=tell)
        return live
    annotations = annotations_of(found)
    settings = Settings.from_annotations(annotations, name=name)
    _check_same_place(settings, location)
    if CANARY_STATE in annotations:
        tell("a version of before is still on trial; the new one takes its place")
        rollback(name, cluster=cluster, timeout=timeout, tell=tell)
    elif settings.version is None:
        _wait_for(cluster, name, version, timeout)
        return f"{live}, which follows its base path"
    if settings.version == version:
        return live
    by = "labels" if settings.gateway is None else "weights"
    canary(name, version, by=by, rule=rule, cluster=cluster, timeout=timeout, tell=tell)  # type: ignore[arg-type]
    return live


def _check_same_place(settings: Settings, location: str) -> None:
    reads, pushed = Location.parse(settings.location), Location.parse(location)
    comparable = ("gs", "s3")
    if reads.scheme in comparable and pushed.scheme in comparable and reads != pushed:
        raise UsageError(
            f"The version was pushed to {location}, but {settings.name} reads {settings.location}. Push there, or "
            "apply it with the other location."
        )


def _wait_for(cluster: Cluster, name: str, version: int, timeout: float) -> None:
    until = time.monotonic() + timeout
    while True:
        served = rollout.served_versions(cluster, name, name)
        behind = [pod for pod, states in served.items() if states.get(version) != "AVAILABLE"]
        if served and not behind:
            return
        ended = [pod for pod in behind if served[pod].get(version) == "END"]
        if ended or time.monotonic() > until:
            state = "could not load it" if ended else f"have not taken it up within {timeout:.0f} s"
            raise CheckFailed(f"Version {version} of {name}: {', '.join(ended or behind)} {state}.")
        time.sleep(_POLL_SECONDS)
