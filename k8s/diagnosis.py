"""Why pods are not ready, in words: from what Kubernetes says of them, its events, and what the server wrote."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from k8s.apply import INSTANCE
from k8s.cluster import Cluster
from k8s.kustomize import Object

__all__ = ["CONTAINER", "Finding", "current_pods", "diagnose", "is_ready"]

CONTAINER = "tf-serving"
"""The server's container in every pod."""

_HASH = "pod-template-hash"
_REVISION = "deployment.kubernetes.io/revision"
_PULL = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
_CONFIG = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
_LAST_LINES = 5
#: After so many ends of its process a pod is held for hopeless.
_HOPELESS_RESTARTS = 3


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is in the way.

    Args:
        told: What is wrong, and what to do.
        hopeless: Whether waiting will not mend it.
    """

    told: str
    hopeless: bool = False


def is_ready(pod: Object) -> bool:
    """Whether a pod takes requests."""
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def current_pods(cluster: Cluster, name: str) -> list[Object]:
    """The pods of a Deployment's newest revision that are not on their way out.

    Args:
        cluster: Where.
        name: The Deployment's.
    """
    sets = cluster.find("ReplicaSet", {INSTANCE: name})
    if not sets:
        return []
    newest = max(sets, key=lambda found: int(found["metadata"].get("annotations", {}).get(_REVISION, 0)))
    labels = {INSTANCE: name, _HASH: newest["metadata"]["labels"].get(_HASH, "")}
    return [pod for pod in cluster.find("Pod", labels) if "deletionTimestamp" not in pod["metadata"]]


def diagnose(cluster: Cluster, name: str) -> list[Finding]:
    """What keeps a Deployment's newest revision from being ready; nothing where all is well.

    Args:
        cluster: Where.
        name: The Deployment's.

    Returns:
        Findings, each once, what concerns the whole Deployment first.
    """
    deployment = cluster.get("Deployment", name)
    if deployment is None:
        return []
    findings = [
        _not_created(str(condition.get("message", "")))
        for condition in deployment.get("status", {}).get("conditions") or ()
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True"
    ]
    findings += [_pod(cluster, pod) for pod in current_pods(cluster, name) if not is_ready(pod)]
    return list({finding.told: finding for finding in findings}.values())


def _not_created(message: str) -> Finding:
    cure = (
        "Ask for a larger quota, or for fewer or smaller pods."
        if "quota" in message
        else "See the events of the ReplicaSet."
    )
    return Finding(told=f"Pods cannot be created: {_line(message)} {cure}")


def _pod(cluster: Cluster, pod: Object) -> Finding:
    name, status = pod["metadata"]["name"], pod.get("status", {})
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return Finding(
                told=f"No node takes the pod {name}: {_line(str(condition.get('message', '')))} "
                "Ask for less --cpu or --memory, or add nodes."
            )
    waiting = [
        (each["name"], each["state"]["waiting"])
        for each in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ()))
        if "waiting" in each.get("state", {})
    ]
    for container, reason in waiting:
        told = _line(str(reason.get("message") or reason.get("reason")))
        if reason.get("reason") in _PULL:
            return Finding(
                told=f"The image of {container} cannot be pulled: {told} Check its name and tag, and that the nodes "
                "may read the registry.",
                hopeless=True,
            )
        if reason.get("reason") in _CONFIG:
            return Finding(told=f"The container {container} cannot be made: {told}", hopeless=True)
    events = _events(cluster, pod)
    server: Object = next((each for each in status.get("containerStatuses") or () if each["name"] == CONTAINER), {})
    if server.get("restartCount", 0):
        return _ended(cluster, pod, server, events)
    for event in events:
        if event["reason"] in ("FailedMount", "FailedAttachVolume"):
            return Finding(told=f"A volume of the pod {name} cannot be mounted: {_line(event['message'])}")
    if "running" in server.get("state", {}):
        return _running(cluster, pod, events)
    last = events[-1]["message"] if events else "nothing was said of it yet"
    return Finding(told=f"The pod {name} is not started yet: {_line(last)}")


def _ended(cluster: Cluster, pod: Object, server: Mapping[str, Any], events: Sequence[Object]) -> Finding:
    name, restarts = pod["metadata"]["name"], int(server["restartCount"])
    end = server.get("lastState", {}).get("terminated") or server.get("state", {}).get("terminated") or {}
    hopeless = restarts >= _HOPELESS_RESTARTS
    times = "once" if restarts == 1 else f"{restarts} times"
    if end.get("reason") == "OOMKilled":
        return Finding(
            told=f"The server in {name} took more memory than it may, {times}. Give more with --memory.",
            hopeless=hopeless,
        )
    killed = next(
        (
            event["message"]
            for event in reversed(events)
            if "failed" in event["message"] and "probe" in event["message"]
        ),
        "",
    )
    lines = cluster.logs(pod["metadata"]["name"], CONTAINER, previous=True, lines=_LAST_LINES)
    words = _words(lines)
    if killed and end.get("exitCode", 0) in (0, 137, 143):
        return Finding(
            told=f"The server in {name} was started anew {times}: {_line(killed)}.{words}", hopeless=hopeless
        )
    return Finding(
        told=f"The server in {name} ended {times}, with exit code {end.get('exitCode', 'unknown')}.{words}",
        hopeless=hopeless,
    )


def _running(cluster: Cluster, pod: Object, events: Sequence[Object]) -> Finding:
    name = pod["metadata"]["name"]
    probes = [event["message"] for event in events if event["reason"] == "Unhealthy"]
    last = probes[-1] if probes else ""
    words = _words(cluster.logs(name, CONTAINER, lines=_LAST_LINES))
    if re.search(r"statuscode: 404", last):
        return Finding(told=f"The server in {name} answers, but has no version of the model that is available.{words}")
    if "Startup probe failed" in last or not last:
        return Finding(
            told=f"The server in {name} does not answer yet: it opens its ports once the model is loaded and warm, "
            f"and waits for ever where the base path holds no version.{words}"
        )
    return Finding(told=f"The server in {name} is not ready: {_line(last)}{words}")


def _events(cluster: Cluster, pod: Object) -> list[Object]:
    """Oldest first."""
    found = cluster.find("Event", fields=f"involvedObject.name={pod['metadata']['name']}")
    return sorted(found, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))


def _words(lines: Sequence[str]) -> str:
    """The server's last words, without what its log puts before them."""
    kept = [re.sub(r"^[\d-]+ [\d:.]+: [A-Z] \S+\] ", "", line).strip() for line in lines]
    kept = [line for line in kept if line]
    return f" Its last words: {_line(' | '.join(kept[-2:]))}" if kept else ""


def _line(text: str) -> str:
    told = " ".join(text.split())
    told = told if len(told) <= 400 else f"{told[:400]}..."
    return told if not told or told.endswith((".", "!", "?", "...")) else f"{told}."
