"""A servable to Kubernetes manifests: `k8s/base` and components filled in, as plain YAML for `kubectl apply -f -`.

The same arguments always give the same text, so what is rendered can be kept in git and compared.
"""

from __future__ import annotations

import math
import re
from typing import Any

from k8s.kustomize import BASE, Object, build, map_strings, to_yaml
from k8s.locations import Location
from k8s.settings import ANNOTATION, CANARY, STABLE, Settings, cpus

__all__ = ["BASE", "MANAGED_BY", "Settings", "canary_name", "objects", "render"]

#: What the base calls everything that `render` names: objects, labels, the model and its paths.
PLACEHOLDER = "servable"

MANAGED_BY = "app.kubernetes.io/managed-by"
_BATCHING_FLAGS = ("--enable_batching", "--batching_parameters_file")
#: A version that is still being copied wants patience. A pinned one is there, and where it cannot be loaded the server
#: is to end soon, and not after five minutes, so that the roll-out is seen to be stuck.
_FAIL_FAST = ("--max_num_load_retries=1", "--load_retry_interval_micros=1000000")
#: What applies first: what others name comes before them.
_ORDER = ("ServiceAccount", "ConfigMap", "Service", "Deployment")
#: What a canary shares with the Deployment that it is tried beside.
_SHARED = ("ServiceAccount", "PodDisruptionBudget", "HorizontalPodAutoscaler", "ScaledObject", "HTTPRoute", "GRPCRoute")


def render(location: str, *, name: str, **settings: Any) -> str:
    """Manifests that serve one servable on stock TF Serving.

    Args:
        location: The servable's base path as the cluster sees it: `gs://BUCKET/PATH`, `s3://BUCKET/PATH`,
            `pvc://CLAIM/PATH`, `image://IMAGE`, or a folder that every node has.
        name: What the objects and the model are called, such as `digits`; clients ask for `/v1/models/digits`.
        **settings: The rest of `Settings`: `namespace`, `version`, `replicas`, `cpu`, `memory`, `components`, ...

    Returns:
        YAML of several documents, in an order that can be applied.

    Raises:
        UsageError: A name that Kubernetes refuses, no replicas, or a location that a cluster cannot read.
        MissingExtra: PyYAML is not installed.

    Example:
        >>> print(render("gs://bucket/models/digits", name="digits", namespace="vision"))  # doctest: +SKIP
    """
    return to_yaml(objects(Settings(location=location, name=name, **settings)))


def objects(settings: Settings, *, on_trial: int | None = None) -> list[Object]:
    """What `render` writes, as plain data.

    Args:
        settings: What to serve, and how.
        on_trial: None for all of it. A number of pods for a canary of its own: the same settings under the name
            `NAME-canary`, with so many pods and without what it shares with the Deployment that it stands beside.

    Returns:
        The objects, what others name first.
    """
    if on_trial is not None:
        settings = settings.replace(replicas=on_trial, canary=None)
    found = build(
        BASE, settings.all_components, change=lambda built: _fill(built, settings, canary=on_trial is not None)
    )
    if on_trial is not None:
        found = [each for each in found if each["kind"] not in _SHARED and not _is_dashboard(each)]
    for each in found:
        each["metadata"].setdefault("labels", {})[MANAGED_BY] = "vitrina"
        if settings.namespace is not None:
            each["metadata"]["namespace"] = settings.namespace
    return sorted(found, key=lambda each: _ORDER.index(each["kind"]) if each["kind"] in _ORDER else len(_ORDER))


def canary_name(name: str) -> str:
    """What the Deployment, the Service and the rest of a canary beside `name` are called."""
    return f"{name}-canary"


def _fill(built: list[Object], settings: Settings, *, canary: bool) -> None:
    """Names everything and puts the settings in."""
    called = canary_name(settings.name) if canary else settings.name
    built[:] = [_named(each, settings.name, called) for each in built]
    by_kind = {each["kind"]: each for each in built}
    if settings.service_account is not None:
        built.remove(by_kind["ServiceAccount"])
    if settings.replicas is not None:
        built[:] = [each for each in built if each["kind"] not in ("HorizontalPodAutoscaler", "ScaledObject")]
    (config,) = (each for each in built if each["kind"] == "ConfigMap" and not _is_dashboard(each))
    _fill_deployment(by_kind["Deployment"], settings)
    if canary:
        account = settings.service_account or settings.name
        by_kind["Deployment"]["spec"]["template"]["spec"]["serviceAccountName"] = account
    _fill_config(config["data"], settings)
    _fill_scale(by_kind, settings)
    for kind in ("HTTPRoute", "GRPCRoute"):
        if kind in by_kind and settings.gateway is not None:
            by_kind[kind]["spec"]["parentRefs"][0]["name"] = settings.gateway


def _named(found: Object, model: str, called: str) -> Object:
    """Every placeholder replaced: by the model's name in paths, settings and queries, by the objects' elsewhere."""
    as_model = re.compile(rf'(models/|name: "|model_name=~?\\?"){PLACEHOLDER}\b')
    anywhere = re.compile(rf"\b{PLACEHOLDER}\b")

    def change(text: str) -> str:
        marked = as_model.sub(lambda match: f"{match[1]}\0", text)
        return anywhere.sub(called, marked).replace("\0", model)

    named: Object = map_strings(found, change)
    if "data" in named:
        named["data"] = {anywhere.sub(called, key): value for key, value in named["data"].items()}
    return named


def _fill_deployment(deployment: Object, settings: Settings) -> None:
    deployment["metadata"]["annotations"] = {ANNOTATION: settings.to_json()}
    if settings.replicas is not None:
        deployment["spec"] = {"replicas": settings.replicas, **deployment["spec"]}
    pod = deployment["spec"]["template"]["spec"]
    if settings.service_account is not None:
        pod["serviceAccountName"] = settings.service_account
    (container,) = pod["containers"]
    for each in (container, *pod.get("initContainers", ())):
        if settings.image is not None and each["image"].startswith("tensorflow/serving:"):
            each["image"] = settings.image
    requests, limits = container["resources"]["requests"], container["resources"]["limits"]
    if settings.cpu is not None:
        requests["cpu"] = settings.cpu
    if settings.memory is not None:
        requests["memory"] = limits["memory"] = settings.memory
    if settings.version is not None:
        container["args"] += _FAIL_FAST
    if settings.max_batch == 0:
        container["args"] = [each for each in container["args"] if not each.startswith(_BATCHING_FLAGS)]
    only = settings.version if settings.canary is None else None
    Location.parse(settings.location).fill(settings.reader, pod, version=only)


def _fill_config(data: dict[str, str], settings: Settings) -> None:
    where = Location.parse(settings.location).base_path(settings.reader, settings.name)
    models = re.sub(r'base_path: "[^"]*"', lambda _: f'base_path: "{where}"', data["models.config"])
    data["models.config"] = models.replace("  }\n}\n", f"{_versions(settings)}  }}\n}}\n")
    if settings.max_batch == 0:
        del data["batching.config"]
    elif settings.max_batch is not None:
        batching = _with_value(data["batching.config"], "max_execution_batch_size", settings.max_batch)
        batching = re.sub(r"what runs at once are \d+", f"what runs at once are {settings.max_batch}", batching)
        data["batching.config"] = batching
        if settings.max_batch > 128:
            data["batching.config"] = _with_value(batching, "max_batch_size", settings.max_batch).replace(
                "up to 128 images", f"up to {settings.max_batch} images"
            )
    if settings.cpu is not None and "batching.config" in data:
        threads = max(math.ceil(cpus(settings.cpu)), 1)
        data["batching.config"] = _with_value(data["batching.config"], "num_batch_threads", threads)


def _with_value(text: str, field: str, value: int) -> str:
    return re.sub(rf"^{field} {{ value: \d+ }}$", f"{field} {{ value: {value} }}", text, flags=re.MULTILINE)


def _versions(settings: Settings) -> str:
    """Which versions are served under which label; nothing where the server follows its base path."""
    if settings.version is None:
        return ""
    labels = {STABLE: settings.version, **({CANARY: settings.canary} if settings.canary is not None else {})}
    lines = ["    model_version_policy {", "      specific {"]
    lines += [f"        versions: {version}" for version in sorted(set(labels.values()))]
    lines += ["      }", "    }"]
    for label, version in labels.items():
        lines += ["    version_labels {", f'      key: "{label}"', f"      value: {version}", "    }"]
    return "".join(f"{line}\n" for line in lines)


def _fill_scale(by_kind: dict[str, Object], settings: Settings) -> None:
    if "HorizontalPodAutoscaler" in by_kind:
        spec = by_kind["HorizontalPodAutoscaler"]["spec"]
        spec["minReplicas"], spec["maxReplicas"] = settings.min_replicas, settings.max_replicas
    if "ScaledObject" in by_kind:
        spec = by_kind["ScaledObject"]["spec"]
        spec["minReplicaCount"], spec["maxReplicaCount"] = settings.min_replicas, settings.max_replicas
        spec["fallback"]["replicas"] = max(
            settings.min_replicas, min(spec["fallback"]["replicas"], settings.max_replicas)
        )


def _is_dashboard(found: Object) -> bool:
    return "grafana_dashboard" in found["metadata"].get("labels", {})
