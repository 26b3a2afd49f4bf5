"""Brings a cluster to what was rendered: shows the difference, applies, and removes what is rendered no more."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from k8s.cluster import KINDS, MANAGER, ApiError, Cluster
from k8s.kustomize import Object, to_yaml
from k8s.render import MANAGED_BY

__all__ = ["INSTANCE", "Change", "apply", "plan", "remove", "unused_config_maps"]

INSTANCE = "app.kubernetes.io/instance"
"""The label that says what an object belongs to."""

#: Kinds that are made of others and go with them, and what nobody renders.
_NOT_RENDERED = ("Pod", "Event", "ReplicaSet")
_HANDOVER = f"{MANAGER}-handover"
_VOLATILE = ("managedFields", "resourceVersion", "generation", "creationTimestamp", "uid", "selfLink")
_REVISION = "deployment.kubernetes.io/revision"

Action = Literal["create", "change", "keep", "delete"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """What happens, or would happen, to one object.

    Args:
        kind: Such as `Deployment`.
        name: Its name.
        action: `create`, `change`, `keep` where it is as wanted, or `delete`.
        diff: Unified, of YAML; "" for `keep`.
    """

    kind: str
    name: str
    action: Action
    diff: str = ""

    def __str__(self) -> str:
        return f"{self.action:<6} {self.kind} {self.name}"


def plan(cluster: Cluster, objects: Sequence[Object], *, force: bool = False) -> list[Change]:
    """What `apply` would do; the server itself says so, by a dry run.

    Args:
        cluster: Where.
        objects: All that is wanted of one servable.
        force: Take fields over that others manage.

    Returns:
        A change for each object, and one for each that is there and not wanted any more.

    Raises:
        ApiError: The server refuses one of them.
    """
    changes = []
    for wanted in objects:
        live = cluster.get(wanted["kind"], wanted["metadata"]["name"])
        result = cluster.apply(_with_present_replicas(wanted, live), dry_run=True, force=force)
        changes.append(_change(wanted, live, result))
    for kind, name in _not_wanted(cluster, objects):
        changes.append(Change(kind=kind, name=name, action="delete", diff=f"- {kind} {name}\n"))
    return changes


def apply(cluster: Cluster, objects: Sequence[Object], *, force: bool = False) -> list[Change]:
    """Applies every object and deletes what is not wanted any more. Repeated, it changes nothing.

    ConfigMaps that an earlier roll-out may go back to stay; see `unused_config_maps`.

    Args:
        cluster: Where.
        objects: All that is wanted of one servable.
        force: Take fields over that others manage.

    Returns:
        What changed.

    Raises:
        ApiError: The server refuses one of them.
    """
    # The server looks at all of them before any is changed, so that what it refuses leaves nothing half done.
    changes = plan(cluster, objects, force=force)
    for wanted in objects:
        if wanted["kind"] == "Deployment" and "replicas" not in wanted["spec"]:
            live = cluster.get("Deployment", wanted["metadata"]["name"])
            if _with_present_replicas(wanted, live) is not wanted:
                _hand_over_replicas(cluster, wanted, live)
        cluster.apply(wanted, force=force)
    for change in changes:
        if change.action == "delete":
            cluster.delete(change.kind, change.name)
    return changes


def remove(cluster: Cluster, name: str) -> list[Change]:
    """Deletes everything that belongs to a servable.

    Args:
        cluster: Where.
        name: As it was applied.

    Returns:
        What was deleted.

    Raises:
        ApiError: The server refuses.
    """
    changes = []
    # What brings requests and pods goes first.
    order = ("HTTPRoute", "GRPCRoute", "Service", "ScaledObject", "HorizontalPodAutoscaler", "Deployment")
    for kind in (*order, *(kind for kind in KINDS if kind not in order)):
        gone = [found for found in _belonging(cluster, kind, name) if cluster.delete(kind, found)]
        changes += [Change(kind=kind, name=found, action="delete") for found in gone]
    return changes


def unused_config_maps(cluster: Cluster, name: str) -> list[str]:
    """ConfigMaps of a servable that no roll-out, present or kept for undoing, mounts.

    Args:
        cluster: Where.
        name: As it was applied.
    """
    templates = [found["spec"]["template"] for found in cluster.find("ReplicaSet", {INSTANCE: name})]
    templates += [found["spec"]["template"] for found in cluster.find("Deployment", {INSTANCE: name})]
    used = {
        volume["configMap"]["name"]
        for template in templates
        for volume in template["spec"].get("volumes", ())
        if "configMap" in volume
    }
    present = _belonging(cluster, "ConfigMap", name)
    return [found for found in present if found.startswith(f"{name}-config-") and found not in used]


def _belonging(cluster: Cluster, kind: str, name: str) -> list[str]:
    if kind in _NOT_RENDERED:
        return []
    try:
        found = cluster.find(kind, {MANAGED_BY: "vitrina", INSTANCE: name})
    except ApiError as error:
        if error.status == 403:  # who may not see a kind has made none of it
            return []
        raise
    return [each["metadata"]["name"] for each in found]


def _not_wanted(cluster: Cluster, objects: Sequence[Object]) -> list[tuple[str, str]]:
    """What is there and not among the objects, ConfigMaps of the server excepted: older roll-outs may need them."""
    (name,) = {found["metadata"]["labels"][INSTANCE] for found in objects}
    wanted = {(found["kind"], found["metadata"]["name"]) for found in objects}
    return [
        (kind, found)
        for kind in KINDS
        for found in _belonging(cluster, kind, name)
        if (kind, found) not in wanted and not (kind == "ConfigMap" and found.startswith(f"{name}-config-"))
    ]


def _with_present_replicas(wanted: Object, live: Object | None) -> Object:
    """The same object, or one that keeps the replicas that an autoscaler goes on from.

    Who applied a number of replicas and then leaves it out gives it up, and the server sets it to 1.
    """
    if wanted["kind"] != "Deployment" or live is None or "replicas" in wanted["spec"]:
        return wanted
    owned = any(
        entry["manager"] == MANAGER and "f:replicas" in entry.get("fieldsV1", {}).get("f:spec", {})
        for entry in live["metadata"].get("managedFields", ())
    )
    if not owned:
        return wanted
    kept = copy.deepcopy(wanted)
    kept["spec"]["replicas"] = live["spec"]["replicas"]
    return kept


def _hand_over_replicas(cluster: Cluster, wanted: Object, live: Object | None) -> None:
    """Another manager holds the number, so that it stays when we leave it out."""
    assert live is not None
    metadata = {key: wanted["metadata"][key] for key in ("name", "namespace") if key in wanted["metadata"]}
    # A Deployment is not valid without these, so they come along; they are as they are.
    spec = {key: live["spec"][key] for key in ("replicas", "selector")}
    labels = {"metadata": {"labels": live["spec"]["selector"]["matchLabels"]}}
    partial = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {**spec, "template": labels},
    }
    cluster.apply(partial, manager=_HANDOVER, force=True)


def _change(wanted: Object, live: Object | None, result: Object) -> Change:
    name = wanted["metadata"]["name"]
    before = "" if live is None else to_yaml([_readable({**live, "kind": wanted["kind"]})])
    after = to_yaml([_readable(result)])
    if before == after:
        return Change(kind=wanted["kind"], name=name, action="keep")
    lines = difflib.unified_diff(
        before.splitlines(),
        after.splitlines(),
        f"live/{wanted['kind']}/{name}",
        f"new/{wanted['kind']}/{name}",
        lineterm="",
    )
    return Change(
        kind=wanted["kind"], name=name, action="create" if live is None else "change", diff="\n".join(lines) + "\n"
    )


def _readable(found: Object) -> Object:
    """Without what the server keeps for itself, keys in one order."""
    metadata = {key: value for key, value in found["metadata"].items() if key not in _VOLATILE}
    metadata["annotations"] = {key: value for key, value in metadata.get("annotations", {}).items() if key != _REVISION}
    if not metadata["annotations"]:
        del metadata["annotations"]
    readable: Object = _sorted({**{key: found[key] for key in found if key != "status"}, "metadata": metadata})
    return readable


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value
