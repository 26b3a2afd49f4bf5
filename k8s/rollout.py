"""Waits for a roll-out: says how far it is, sees when waiting is of no use, and then says why."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from k8s import diagnosis
from k8s.apply import INSTANCE, unused_config_maps
from k8s.cluster import Cluster
from k8s.kustomize import Object
from signatures.errors import CheckFailed, VitrinaError

__all__ = ["REST_PORT", "Progress", "served_versions", "tidy", "wait"]

REST_PORT = 8501
POLL_SECONDS = 1.0
_PATIENCE = 20.0
"""Seconds that something hopeless may still mend itself, such as a registry that was away for a moment."""

Listener = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a Deployment is.

    Args:
        wanted: Pods that there are to be.
        updated: Those of the newest revision.
        ready: Those that are ready, of any revision.
        available: Those that have been so for a while.
        old: Those of earlier revisions.
        observed: Whether the controller has seen the newest settings.
        late: Whether the Deployment's own deadline has passed without progress.
    """

    wanted: int
    updated: int
    ready: int
    available: int
    old: int
    observed: bool
    late: bool

    @classmethod
    def of(cls, deployment: Object) -> Progress:
        """Reads a Deployment."""
        status, spec = deployment.get("status", {}), deployment["spec"]
        conditions = status.get("conditions") or ()
        total, updated = int(status.get("replicas") or 0), int(status.get("updatedReplicas") or 0)
        return cls(
            wanted=int(spec.get("replicas", 1)),
            updated=updated,
            ready=int(status.get("readyReplicas") or 0),
            available=int(status.get("availableReplicas") or 0),
            old=total - updated,
            observed=int(status.get("observedGeneration") or 0) >= int(deployment["metadata"].get("generation", 0)),
            late=any(each["type"] == "Progressing" and each["status"] == "False" for each in conditions),
        )

    @property
    def done(self) -> bool:
        """Whether every pod is new and available, and no old one is left."""
        return self.observed and self.updated == self.available == self.wanted and self.old == 0

    def __str__(self) -> str:
        if not self.observed:
            return "waiting for the cluster to take it up"
        told = f"{self.updated} of {self.wanted} pods are new, {self.available} available"
        return told + (f", {self.old} old still there" if self.old else "")


def wait(cluster: Cluster, name: str, *, timeout: float, tell: Listener = lambda _: None) -> None:
    """Until a roll-out is done.

    Args:
        cluster: Where.
        name: The Deployment's.
        timeout: Seconds.
        tell: Called with a line whenever something has changed.

    Raises:
        CheckFailed: It is stuck; the message says why, as far as the cluster tells. What served before still does.
        VitrinaError: There is no such Deployment.
    """
    started = time.monotonic()
    before, hopeless_since = "", 0.0
    while True:
        deployment = cluster.get("Deployment", name)
        if deployment is None:
            raise VitrinaError(f"There is no Deployment {name} in the namespace {cluster.namespace} any more.")
        progress = Progress.of(deployment)
        if str(progress) != before:
            before = str(progress)
            tell(f"{name}: {before} ({time.monotonic() - started:.0f} s)")
        if progress.done:
            return
        now = time.monotonic()
        over = now - started > timeout
        findings = diagnosis.diagnose(cluster, name) if progress.observed or over else []
        hopeless_since = (hopeless_since or now) if any(finding.hopeless for finding in findings) else 0.0
        if over or (progress.observed and progress.late) or (hopeless_since and now - hopeless_since > _PATIENCE):
            raise CheckFailed(_stuck(name, progress, [finding.told for finding in findings]))
        time.sleep(POLL_SECONDS)


def _stuck(name: str, progress: Progress, told: list[str]) -> str:
    serving = f" {progress.ready} pods of before still serve." if progress.old and progress.ready else ""
    why = " ".join(told) or "Nothing in the cluster tells why; see: kubectl describe deployment, kubectl get events."
    return f"The roll-out of {name} is stuck: {progress}.{serving} {why}"


def tidy(cluster: Cluster, name: str) -> list[str]:
    """Deletes the ConfigMaps that no roll-out can go back to.

    Args:
        cluster: Where.
        name: The Deployment's.

    Returns:
        Their names.
    """
    unused = unused_config_maps(cluster, name)
    return [found for found in unused if cluster.delete("ConfigMap", found)]


def served_versions(cluster: Cluster, instance: str, model: str) -> dict[str, dict[int, str]]:
    """What every running pod says of the model's versions.

    Args:
        cluster: Where.
        instance: The Deployment's name.
        model: The model's.

    Returns:
        Pod -> version -> state, such as `AVAILABLE`; nothing for a pod that does not answer.
    """
    found: dict[str, dict[int, str]] = {}
    for pod in cluster.find("Pod", {INSTANCE: instance}):
        if "deletionTimestamp" in pod["metadata"]:
            continue
        name = pod["metadata"]["name"]
        status, text = cluster.ask_pod(name, REST_PORT, f"/v1/models/{model}")
        found[name] = _states(text) if status == 200 else {}
    return dict(sorted(found.items()))


def _states(text: str) -> dict[int, str]:
    try:
        told: Any = json.loads(text)
        return {int(each["version"]): str(each["state"]) for each in told["model_version_status"]}
    except (ValueError, KeyError, TypeError):
        return {}
