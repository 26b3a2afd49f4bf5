"""Which kinds of objects the emulated API server knows: Kubernetes' own, and those of the schemas in tests/k8s/crds."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from tests.k8s.schemas import crds

Object = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """One resource.

    Args:
        group: "" for the core.
        version: Such as `v1`.
        kind: Such as `Deployment`.
        plural: Such as `deployments`.
        namespaced: Whether its objects live in namespaces.
        scale: Whether it has the subresource `scale`.
        short: Names that kubectl takes for it.
    """

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    scale: bool = False
    short: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def root(self) -> str:
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"


_OWN = (
    Kind("", "v1", "Namespace", "namespaces", namespaced=False, short=("ns",)),
    Kind("", "v1", "Node", "nodes", namespaced=False, short=("no",)),
    Kind("", "v1", "Pod", "pods", short=("po",)),
    Kind("", "v1", "Service", "services", short=("svc",)),
    Kind("", "v1", "ConfigMap", "configmaps", short=("cm",)),
    Kind("", "v1", "Secret", "secrets"),
    Kind("", "v1", "ServiceAccount", "serviceaccounts", short=("sa",)),
    Kind("", "v1", "Event", "events", short=("ev",)),
    Kind("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", short=("pvc",)),
    Kind("", "v1", "ResourceQuota", "resourcequotas", short=("quota",)),
    Kind("apps", "v1", "Deployment", "deployments", scale=True, short=("deploy",)),
    Kind("apps", "v1", "ReplicaSet", "replicasets", scale=True, short=("rs",)),
    Kind("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", short=("hpa",)),
    Kind("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", short=("pdb",)),
    Kind("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", short=("netpol",)),
)


@functools.cache
def known() -> tuple[Kind, ...]:
    """All of them."""
    others = (Kind(each["group"], each["version"], each["kind"], each["plural"]) for each in crds().values())
    return (*_OWN, *others)


@functools.cache
def named(kind: str) -> Kind:
    """The one of this name."""
    return next(each for each in known() if each.kind == kind)
