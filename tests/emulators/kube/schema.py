"""Kubernetes' schemas as the emulated API server uses them: to refuse, to find merge keys, to fill in defaults."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jsonschema

from tests.emulators.kube.kinds import Object
from tests.k8s.schemas import crds, validate

VERSION = "1.33.0"
"""The Kubernetes that is emulated."""

_DEFAULT_KEYS = {"protocol": "TCP"}
_ASIDE = ("uid", "resourceVersion", "creationTimestamp", "managedFields", "generation", "selfLink", "deletionTimestamp")


@functools.cache
def _definitions() -> Object:
    import kubernetes_validate

    folder = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / f"v{VERSION}-local-strict"
    found: Object = kubernetes_validate.utils.json.loads((folder / "_definitions.json").read_text())["$defs"]
    return found


@functools.cache
def _by_kind() -> dict[tuple[str, str], Object]:
    found = {}
    for definition in _definitions().values():
        properties = definition.get("properties", {})
        version, kind = (properties.get(each, {}).get("enum") for each in ("apiVersion", "kind"))
        if version and kind:
            found[version[0], kind[0]] = definition
    return found


def of(found: Object) -> Object:
    """The schema of an object; that of a kind of others has no merge keys, so its lists are replaced."""
    return _by_kind().get((found.get("apiVersion", ""), found.get("kind", "")), {})


def _resolved(schema: Object) -> Object:
    return _definitions()[schema["$ref"].removeprefix("#/$defs/")] if "$ref" in schema else schema


def child(schema: Object, key: str) -> Object:
    """The schema of a field."""
    properties = schema.get("properties", {})
    found = properties.get(key)
    if found is None:
        found = schema.get("additionalProperties", {})
    if not isinstance(found, dict):
        return {}
    # What the list is told by stands beside the reference to what its items are.
    return {**_resolved(found), **{name: value for name, value in found.items() if name.startswith("x-")}}


def items(schema: Object) -> Object:
    """The schema of a list's items."""
    return _resolved(schema.get("items", {}))


def merge_key(schema: Object) -> str | None:
    """What tells items apart in a strategic merge patch, where the list is merged at all."""
    merged = "merge" in schema.get("x-kubernetes-patch-strategy", "")
    return schema.get("x-kubernetes-patch-merge-key") if merged else None


def map_keys(schema: Object) -> tuple[str, ...]:
    """What tells items apart in a server-side apply; nothing where the list is one value."""
    if schema.get("x-kubernetes-list-type") == "map":
        return tuple(schema["x-kubernetes-list-map-keys"])
    key = merge_key(schema)
    return (key,) if key else ()


def identity(item: Object, keys: tuple[str, ...]) -> tuple[Any, ...]:
    """What an item is called."""
    return tuple(item.get(key, _DEFAULT_KEYS.get(key)) for key in keys)


def complaint(found: Object, *, strict: bool) -> str:
    """Why a server would refuse an object; "" where it would not."""
    told = {**found, "metadata": {key: value for key, value in found["metadata"].items() if key not in _ASIDE}}
    told.pop("status", None)
    if (found["apiVersion"], found["kind"]) in crds() or strict:
        try:
            validate(told, VERSION)
        except (jsonschema.ValidationError, Exception) as error:
            where = ".".join(map(str, getattr(error, "path", ())))
            return f"{where}: {str(getattr(error, 'message', error))[:300]}"
    return ""


def fill_defaults(found: Object) -> None:
    """The defaults that the controllers here look at, and those that kubectl shows."""
    kind, spec = found["kind"], found.get("spec", {})
    for name in ("annotations", "labels"):
        if not found["metadata"].get(name, True):
            del found["metadata"][name]
    if kind == "Deployment":
        spec.setdefault("replicas", 1)
        spec.setdefault("revisionHistoryLimit", 10)
        spec.setdefault("progressDeadlineSeconds", 600)
        spec.setdefault("strategy", {"type": "RollingUpdate"})
        if spec["strategy"].get("type", "RollingUpdate") == "RollingUpdate":
            rolling = spec["strategy"].setdefault("rollingUpdate", {})
            rolling.setdefault("maxSurge", "25%")
            rolling.setdefault("maxUnavailable", "25%")
        _pod_defaults(spec["template"]["spec"])
    elif kind == "ReplicaSet":
        spec.setdefault("replicas", 1)
    elif kind == "Pod":
        _pod_defaults(spec)
    elif kind == "Service":
        spec.setdefault("type", "ClusterIP")
        spec.setdefault("sessionAffinity", "None")
        for port in spec.get("ports", ()):
            port.setdefault("protocol", "TCP")
            port.setdefault("targetPort", port["port"])


def _pod_defaults(spec: Object) -> None:
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    for container in (*spec.get("containers", ()), *spec.get("initContainers", ())):
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("imagePullPolicy", "IfNotPresent")
        for port in container.get("ports", ()):
            port.setdefault("protocol", "TCP")
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            if name in container:
                for key, value in (
                    ("periodSeconds", 10),
                    ("timeoutSeconds", 1),
                    ("successThreshold", 1),
                    ("failureThreshold", 3),
                ):
                    container[name].setdefault(key, value)
                if "grpc" in container[name]:
                    container[name]["grpc"].setdefault("service", "")
                if "httpGet" in container[name]:
                    container[name]["httpGet"].setdefault("scheme", "HTTP")
