"""Tries a new version beside the old one, and promotes it or goes back. The old version serves until promotion.

By labels, the servers of the one Deployment hold both versions, `stable` and `canary`, and clients choose by label. By
weights, a second Deployment holds the new one, and a Gateway shares requests between both.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, Literal

from k8s import apply as applying
from k8s import rollout
from k8s.apply import INSTANCE
from k8s.cluster import Cluster
from k8s.deploy import (
    CANARY_STATE,
    PREVIOUS,
    TIMEOUT,
    Listener,
    annotations_of,
    bring,
    deployment,
    silent,
    with_annotations,
)
from k8s.kustomize import Object
from k8s.render import canary_name, objects
from k8s.rule import Counts, Rule, Side, counts, judge, since
from k8s.settings import ANNOTATION, Settings
from signatures.errors import CheckFailed, UsageError, VitrinaError

__all__ = ["canary", "promote", "rollback"]

METRICS_PATH = "/monitoring/prometheus/metrics"

Way = Literal["labels", "weights"]


def canary(
    name: str,
    version: int,
    *,
    by: Way = "labels",
    weight: int = 10,
    pods: int = 1,
    rule: Rule | None = None,
    by_hand: bool = False,
    cluster: Cluster | None = None,
    timeout: float = TIMEOUT,
    tell: Listener = silent,
) -> str:
    """Starts a canary, watches it by the rule (see `k8s.rule`), and promotes it or rolls back.

    Args:
        name: As it was applied.
        version: The version to try, in the same place as the one that serves.
        by: `labels` or `weights`, see above.
        weight: By weights: how many of 100 requests the canary gets, 1 to 99.
        pods: By weights: how many pods of its own it has.
        rule: What is tolerated; None is `Rule()`.
        by_hand: Start it and leave the decision to `promote` and `rollback`.
        cluster: Where; None is where kubectl would go.
        timeout: Seconds for each roll-out.
        tell: Called with a line of progress.

    Returns:
        `promoted`, or `on trial` where it is left to people.

    Raises:
        UsageError: There is a canary already, or what is asked for cannot be.
        CheckFailed: The canary did not come up or did not do well, and was rolled back; or too few requests came to
            decide, and it is still on trial.
    """
    cluster = cluster or Cluster()
    rule = rule or Rule()
    found = deployment(cluster, name)
    annotations = annotations_of(found)
    settings = _checked(
        cluster, Settings.from_annotations(annotations, name=name), annotations, version, by, weight, pods
    )
    before = _look(cluster, name, name)
    state = {"version": version, "by": by, **({"weight": weight, "pods": pods} if by == "weights" else {})}
    tell(f"{name}: version {version} on trial by {by} beside version {settings.version}")
    try:
        _start(cluster, settings, annotations, state, timeout=timeout, tell=tell)
        if by_hand:
            return "on trial"
        verdict, why = _watch(cluster, settings, state, rule, before, tell)
    except CheckFailed as error:
        tell("rolling back")
        _end(cluster, name, timeout=timeout, tell=tell)
        told = f"Version {version} of {name} did not come up and was rolled back; version {settings.version} serves."
        raise CheckFailed(f"{told} {error}") from error
    except KeyboardInterrupt:
        tell(f"interrupted; version {version} stays on trial: vitrina k8s promote {name}, or rollback")
        raise
    if verdict == "undecided":
        raise CheckFailed(
            f"Version {version} of {name} is still on trial: {why}. Decide: vitrina k8s promote {name}, or rollback."
        )
    if verdict == "roll back":
        _end(cluster, name, timeout=timeout, tell=tell)
        raise CheckFailed(
            f"Version {version} of {name} did not do well and was rolled back: {why}. "
            f"Version {settings.version} serves on."
        )
    tell(f"promoting: {why}")
    promote(name, cluster=cluster, timeout=timeout, tell=tell)
    return "promoted"


def promote(name: str, *, cluster: Cluster | None = None, timeout: float = TIMEOUT, tell: Listener = silent) -> int:
    """Gives every request to the version on trial. A rollback later goes back to the one that served before.

    Args:
        name: As it was applied.
        cluster: Where; None is where kubectl would go.
        timeout: Seconds for the roll-out.
        tell: Called with a line of progress.

    Returns:
        The version that serves now.

    Raises:
        UsageError: No canary is on trial.
        CheckFailed: The roll-out is stuck; both versions serve on.
    """
    cluster = cluster or Cluster()
    annotations = annotations_of(deployment(cluster, name))
    state = _state(annotations, name)
    settings = Settings.from_annotations(annotations, name=name).replace(canary=None)
    promoted = settings.replace(version=state["version"])
    # While the pods change, a canary with pods of its own goes on taking its share.
    wanted = with_annotations(objects(promoted), {PREVIOUS: settings.to_json(), CANARY_STATE: json.dumps(state)})
    if state["by"] == "weights":
        _share(wanted, name, int(state["weight"]))
    bring(cluster, name, wanted, timeout=timeout, tell=tell)
    _settle(cluster, promoted, {PREVIOUS: settings.to_json()}, tell)
    return int(state["version"])


def rollback(
    name: str, *, cluster: Cluster | None = None, timeout: float = TIMEOUT, tell: Listener = silent
) -> int | None:
    """Ends a canary's trial; without one, goes back to the version before the last promotion or `apply`.

    Args:
        name: As it was applied.
        cluster: Where; None is where kubectl would go.
        timeout: Seconds for the roll-out.
        tell: Called with a line of progress.

    Returns:
        The version that serves now; None where the server follows its base path.

    Raises:
        UsageError: There is nothing to go back to.
        CheckFailed: The roll-out is stuck.
    """
    cluster = cluster or Cluster()
    annotations = annotations_of(deployment(cluster, name))
    if CANARY_STATE in annotations:
        return _end(cluster, name, timeout=timeout, tell=tell)
    if PREVIOUS not in annotations:
        raise UsageError(f"{name} has neither a canary nor a version before this one to go back to.")
    earlier = Settings.from_annotations({ANNOTATION: annotations[PREVIOUS]}, name=name)
    tell(f"{name}: back to version {earlier.version or 'that the base path has'}")
    wanted = with_annotations(objects(earlier), {PREVIOUS: annotations[ANNOTATION]})
    bring(cluster, name, wanted, timeout=timeout, tell=tell)
    return earlier.version


def _checked(
    cluster: Cluster, settings: Settings, annotations: Mapping[str, str], version: int, by: str, weight: int, pods: int
) -> Settings:
    """The settings with the version pinned that serves now."""
    name = settings.name
    if by not in ("labels", "weights"):
        raise UsageError(f"Got a canary by {by!r}, wanted labels or weights.")
    if not 1 <= weight <= 99:
        raise UsageError(f"Got the weight {weight}, wanted 1 to 99 of 100 requests.")
    if pods < 1:
        raise UsageError(f"Got {pods} pods for the canary, wanted one or more.")
    if CANARY_STATE in annotations:
        raise UsageError(
            f"{name} has version {_state(annotations, name)['version']} on trial already. Decide first: vitrina k8s "
            f"promote {name}, or rollback."
        )
    if by == "weights" and settings.gateway is None:
        raise UsageError(
            f"{name} was applied without --gateway, and weights are its routes'. Apply it with --gateway, or try "
            "--by labels."
        )
    if settings.version is None:
        settings = settings.replace(version=_served(cluster, name))
    if settings.version == version:
        raise UsageError(f"Version {version} of {name} serves already. Give another one to try.")
    return settings.replace(canary=version) if by == "labels" else settings


def _served(cluster: Cluster, name: str) -> int:
    """The version that every pod serves, where none is pinned."""
    best = {
        max((version for version, state in states.items() if state == "AVAILABLE"), default=None)
        for states in rollout.served_versions(cluster, name, name).values()
    }
    if len(best) != 1 or None in best:
        raise VitrinaError(
            f"The pods of {name} do not tell one version that all serve. Apply it with --version first, or look at: "
            f"vitrina k8s status {name}"
        )
    (version,) = best
    assert version is not None
    return version


def _start(
    cluster: Cluster, settings: Settings, annotations: Mapping[str, str], state: Mapping[str, Any], *, timeout: float,
    tell: Listener,
) -> None:  # fmt: skip
    """Both versions up, and the canary taking requests."""
    name, version = settings.name, state["version"]
    kept = {CANARY_STATE: json.dumps(state), PREVIOUS: annotations.get(PREVIOUS)}
    if state["by"] == "labels":
        bring(cluster, name, with_annotations(objects(settings), kept), timeout=timeout, tell=tell)
        for pod, states in rollout.served_versions(cluster, name, name).items():
            if not states:
                raise CheckFailed(
                    f"The server in {pod} could not be asked through the API server. Your account wants pods/proxy, "
                    "and a NetworkPolicy has to let the API server in."
                )
            if states.get(version) != "AVAILABLE":
                raise CheckFailed(
                    f"The server in {pod} has version {version} as {states.get(version, 'unknown')}, wanted AVAILABLE. "
                    f"See: kubectl logs {pod}"
                )
        return
    stable = with_annotations(objects(settings), kept)
    # Its record first, so that whatever happens from here on can be rolled back.
    bring(cluster, name, stable, timeout=timeout, tell=tell)
    beside = canary_name(name)
    bring(
        cluster, beside, objects(settings.replace(version=version), on_trial=state["pods"]), timeout=timeout, tell=tell
    )
    _share(stable, name, int(state["weight"]))
    applying.apply(cluster, stable)
    tell(f"{name}: {state['weight']} of 100 requests go to version {version}")


def _end(cluster: Cluster, name: str, *, timeout: float, tell: Listener) -> int | None:
    """As before the canary."""
    annotations = annotations_of(deployment(cluster, name))
    settings = Settings.from_annotations(annotations, name=name).replace(canary=None)
    state = _state(annotations, name) if CANARY_STATE in annotations else {"by": "labels", "version": None}
    kept, by = {PREVIOUS: annotations.get(PREVIOUS)}, state["by"]
    if settings.version is not None and settings.version == state["version"]:  # a promotion that got stuck
        settings = Settings.from_annotations({ANNOTATION: annotations[PREVIOUS]}, name=name).replace(canary=None)
        bring(cluster, name, with_annotations(objects(settings), {CANARY_STATE: json.dumps(state)}), timeout=timeout)
        kept = {}
    if by == "weights":
        _settle(cluster, settings, kept, tell)
    else:
        bring(cluster, name, with_annotations(objects(settings), kept), timeout=timeout, tell=tell)
    return settings.version


def _settle(cluster: Cluster, settings: Settings, annotations: Mapping[str, str | None], tell: Listener) -> None:
    """Requests to the one Deployment alone, and the record and the pods of the canary away."""
    applying.apply(cluster, with_annotations(objects(settings), annotations))
    for change in applying.remove(cluster, canary_name(settings.name)):
        tell(str(change))


def _share(wanted: list[Object], name: str, weight: int) -> None:
    """Gives the canary's Service a share in every route."""
    for found in wanted:
        if found["kind"] in ("HTTPRoute", "GRPCRoute"):
            for rule in found["spec"]["rules"]:
                (stable,) = (each for each in rule["backendRefs"] if each["name"] == name)
                rule["backendRefs"] = [
                    {**stable, "weight": 100 - weight},
                    {**stable, "name": canary_name(name), "weight": weight},
                ]


def _state(annotations: Mapping[str, str], name: str) -> dict[str, Any]:
    if CANARY_STATE not in annotations:
        raise UsageError(f"{name} has no canary on trial. Start one with: vitrina k8s canary {name} --version N")
    state: dict[str, Any] = json.loads(annotations[CANARY_STATE])
    return state


def _look(cluster: Cluster, instance: str, model: str, version: int | None = None) -> dict[str, Counts] | None:
    """Pod -> what it has counted; None where its page does not tell versions apart."""
    found = {}
    for pod in cluster.find("Pod", {INSTANCE: instance}):
        name = pod["metadata"]["name"]
        status, page = cluster.ask_pod(name, rollout.REST_PORT, METRICS_PATH)
        if status != 200:
            continue
        counted = counts(page, model, version=version)
        if counted is None:
            return None
        found[name] = counted
    return found


def _watch(
    cluster: Cluster,
    settings: Settings,
    state: Mapping[str, Any],
    rule: Rule,
    before: Mapping[str, Counts] | None,
    tell: Listener,
) -> tuple[str, str]:
    name, version, old_version = settings.name, int(state["version"]), settings.version
    by_version = state["by"] == "labels" and _look(cluster, name, name, version) is not None
    if state["by"] == "labels" and not by_version:
        tell("these servers count by model, not by version: compared is what they answered before the canary and since")

    def sides() -> tuple[dict[str, Counts], dict[str, Counts]]:
        if state["by"] == "weights":
            return _look(cluster, name, name) or {}, _look(cluster, canary_name(name), name) or {}
        if by_version:
            return _look(cluster, name, name, old_version) or {}, _look(cluster, name, name, version) or {}
        return dict(before or {}), _look(cluster, name, name) or {}

    first_old, first_new = sides() if state["by"] == "weights" or by_version else ({}, {})
    started, slow = time.monotonic(), False
    while True:
        time.sleep(min(rule.interval, max(rule.seconds, 0.1)))
        now_old, now_new = sides()
        old, new = Side.of(since(first_old, now_old)), Side.of(since(first_new, now_new))
        elapsed = time.monotonic() - started
        tell(f"{elapsed:.0f} of {rule.seconds:.0f} s: version {version}: {new}; version {old_version}: {old}")
        verdict, why, slow = judge(rule, old, new, elapsed=elapsed, slow_before=slow)
        if verdict != "wait":
            return verdict, why
