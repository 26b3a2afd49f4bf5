"""The emulated controllers: Deployment to ReplicaSet to Pod, autoscalers' bounds, orphans; and the quota."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import random
import string
import threading
import time
from collections.abc import Iterable
from typing import Any

from tests.emulators.kube.kinds import Object
from tests.emulators.kube.store import Failure, Store, copied, now

REVISION = "deployment.kubernetes.io/revision"
HASH = "pod-template-hash"


def event(store: Store, about: Object, kind: str, reason: str, message: str) -> None:
    """Writes an event, or counts it once more."""
    told = {"kind": about["kind"], "namespace": about["metadata"]["namespace"], "name": about["metadata"]["name"]}
    told["uid"] = about["metadata"].get("uid", "")
    digest = hashlib.sha256(f"{told}{reason}{message}".encode()).hexdigest()[:16]
    name = f"{about['metadata']['name']}.{digest}"

    def again(found: Object) -> None:
        found["count"] += 1
        found["lastTimestamp"] = now()

    with store.changed:
        try:
            store.get("Event", told["namespace"], name)
            store.change("Event", told["namespace"], name, again)
        except Failure:
            created = {
                "apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": told["namespace"]},
                "involvedObject": told, "type": kind, "reason": reason, "message": message, "count": 1,
                "firstTimestamp": now(), "lastTimestamp": now(), "source": {"component": "emulator"},
            }  # fmt: skip
            try:
                store.create(created)
            except Failure:
                return  # its namespace is going


def selected(labels: dict[str, str], wanted: dict[str, str]) -> bool:
    """Whether a selector's labels are all there."""
    return all(labels.get(key) == value for key, value in wanted.items())


def is_ready(pod: Object) -> bool:
    return any(
        each["type"] == "Ready" and each["status"] == "True" for each in pod.get("status", {}).get("conditions", ())
    )


def owned(found: Iterable[Object], owner: Object) -> list[Object]:
    uid = owner["metadata"]["uid"]
    return [each for each in found if any(one["uid"] == uid for one in each["metadata"].get("ownerReferences", ()))]


def refuse_over_quota(store: Store, found: Object) -> None:
    """Raises where a pod is one more than a ResourceQuota allows.

    Raises:
        Failure: 403 in Kubernetes' words.
    """
    if found["kind"] != "Pod":
        return
    namespace = found["metadata"]["namespace"]
    for quota in store.list("ResourceQuota", namespace):
        most = int(quota["spec"]["hard"].get("pods", 10**9))
        used = len(store.list("Pod", namespace))
        if used + 1 > most:
            raise Failure(
                403, "Forbidden",
                f'pods "{found["metadata"]["name"]}" is forbidden: exceeded quota: {quota["metadata"]["name"]}, '
                f"requested: pods=1, used: pods={used}, limited: pods={most}",
            )  # fmt: skip


class Controllers:
    """Bring about what the objects ask for.

    Args:
        store: The objects.
        speed: How many times faster than the clock their seconds pass.
    """

    def __init__(self, store: Store, speed: float) -> None:
        self._store = store
        self._speed = speed
        self._stopping = threading.Event()
        self._ready_since: dict[str, float] = {}
        self._progress: dict[str, tuple[Any, float]] = {}
        self._thread = threading.Thread(target=self._run, name="kube-controllers", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        with self._store.changed:
            self._store.changed.notify_all()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stopping.is_set():
            with self._store.changed:
                version = self._store.version
                with contextlib.suppress(Failure):  # something went away between two looks: the next round sees what is
                    self._once()
                # What depends on time alone is looked at from time to time; all else happens when something changes.
                if self._store.version == version:
                    self._store.changed.wait(0.2)

    def _once(self) -> None:
        self._store.collect_orphans()
        for scaler in self._store.list("HorizontalPodAutoscaler"):
            self._scale(scaler)
        for deployment in self._store.list("Deployment"):
            self._deployment(deployment)
        for replica_set in self._store.list("ReplicaSet"):
            self._replica_set(replica_set)

    def _scale(self, scaler: Object) -> None:
        """No load is looked at: only that the replicas stay within the bounds."""
        namespace, spec = scaler["metadata"]["namespace"], scaler["spec"]

        def bound(deployment: Object) -> None:
            wanted = min(max(deployment["spec"]["replicas"], spec.get("minReplicas", 1)), spec["maxReplicas"])
            deployment["spec"]["replicas"] = wanted

        self._store.change("Deployment", namespace, spec["scaleTargetRef"]["name"], bound)

    def _available(self, pods: list[Object], seconds: float) -> int:
        count = 0
        for pod in pods:
            uid = pod["metadata"]["uid"]
            if is_ready(pod):
                since = self._ready_since.setdefault(uid, time.monotonic())
                count += time.monotonic() - since >= seconds / self._speed
            else:
                self._ready_since.pop(uid, None)
        return count

    def _deployment(self, deployment: Object) -> None:
        namespace, name = deployment["metadata"]["namespace"], deployment["metadata"]["name"]
        sets = owned(self._store.list("ReplicaSet", namespace), deployment)
        template = deployment["spec"]["template"]
        digest = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]
        current = next((each for each in sets if each["metadata"]["labels"][HASH] == digest), None)
        highest = max((int(each["metadata"]["annotations"][REVISION]) for each in sets), default=0)
        if current is None:
            current = self._store.create(self._new_set(deployment, digest, highest + 1))
            sets.append(current)
            self._progress.pop(deployment["metadata"]["uid"], None)
        elif int(current["metadata"]["annotations"][REVISION]) < highest:  # an old one is wanted again
            self._store.change(
                "ReplicaSet",
                namespace,
                current["metadata"]["name"],
                lambda found: found["metadata"]["annotations"].update({REVISION: str(highest + 1)}),
            )
            self._progress.pop(deployment["metadata"]["uid"], None)
            highest += 1
        revision = max(highest, int(current["metadata"]["annotations"][REVISION]))

        def note(found: Object) -> None:
            found["metadata"].setdefault("annotations", {})[REVISION] = str(revision)

        self._store.change("Deployment", namespace, name, note)
        self._roll(deployment, sets, current)
        self._tidy(deployment, sets, current)
        self._report(deployment, sets, current)

    def _new_set(self, deployment: Object, digest: str, revision: int) -> Object:
        template = copied(deployment["spec"]["template"])
        template["metadata"].setdefault("labels", {})[HASH] = digest
        metadata = deployment["metadata"]
        owner = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "name": metadata["name"],
            "uid": metadata["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
        kept = {key: value for key, value in metadata.get("annotations", {}).items() if key != REVISION}
        return {
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {
                "name": f"{metadata['name']}-{digest}", "namespace": metadata["namespace"], "ownerReferences": [owner],
                "labels": dict(template["metadata"]["labels"]), "annotations": {**kept, REVISION: str(revision)},
            },
            "spec": {
                "replicas": 0, "minReadySeconds": deployment["spec"].get("minReadySeconds", 0), "template": template,
                "selector": {"matchLabels": {**deployment["spec"]["selector"]["matchLabels"], HASH: digest}},
            },
        }  # fmt: skip

    def _pods_of(self, replica_set: Object) -> list[Object]:
        return owned(self._store.list("Pod", replica_set["metadata"]["namespace"]), replica_set)

    def _count(self, replica_set: Object) -> tuple[int, int, int]:
        """Pods that are there, ready, available; those that are going do not count."""
        pods = [pod for pod in self._pods_of(replica_set) if "deletionTimestamp" not in pod["metadata"]]
        ready = sum(map(is_ready, pods))
        return len(pods), ready, self._available(pods, replica_set["spec"].get("minReadySeconds", 0))

    def _roll(self, deployment: Object, sets: list[Object], current: Object) -> None:
        spec = deployment["spec"]
        wanted = spec["replicas"]
        rolling = spec["strategy"].get("rollingUpdate", {"maxSurge": 0, "maxUnavailable": wanted})
        surge = _number(rolling["maxSurge"], wanted, math.ceil)
        unavailable = _number(rolling["maxUnavailable"], wanted, math.floor)
        if surge == unavailable == 0:
            unavailable = 1
        old = [each for each in sets if each["metadata"]["name"] != current["metadata"]["name"]]
        total = sum(each["spec"]["replicas"] for each in sets)
        room = wanted + surge - total
        have = current["spec"]["replicas"]
        if have > wanted or (have < wanted and room > 0):
            self._set_replicas(deployment, current, min(wanted, have + max(room, 0)) if have < wanted else wanted)
        available = sum(self._count(each)[2] for each in sets)
        spare = available - (wanted - unavailable)
        for each in sorted(old, key=lambda found: found["metadata"]["creationTimestamp"]):
            replicas = each["spec"]["replicas"]
            ill = replicas - self._count(each)[2]
            gone = min(replicas, max(ill, 0) + max(spare, 0)) if replicas else 0
            if gone > 0:
                spare -= max(gone - max(ill, 0), 0)
                self._set_replicas(deployment, each, replicas - gone)

    def _set_replicas(self, deployment: Object, replica_set: Object, count: int) -> None:
        if replica_set["spec"]["replicas"] == count:
            return
        direction = "up" if count > replica_set["spec"]["replicas"] else "down"
        replica_set["spec"]["replicas"] = count
        metadata = replica_set["metadata"]
        self._store.change(
            "ReplicaSet", metadata["namespace"], metadata["name"], lambda found: found["spec"].update(replicas=count)
        )
        event(
            self._store,
            deployment,
            "Normal",
            "ScalingReplicaSet",
            f"Scaled {direction} replica set {metadata['name']} to {count}",
        )

    def _tidy(self, deployment: Object, sets: list[Object], current: Object) -> None:
        empty = [
            each
            for each in sets
            if each["spec"]["replicas"] == 0
            and not self._pods_of(each)
            and each["metadata"]["name"] != current["metadata"]["name"]
        ]
        empty.sort(key=lambda found: int(found["metadata"]["annotations"][REVISION]))
        for each in empty[: max(len(empty) - deployment["spec"]["revisionHistoryLimit"], 0)]:
            self._store.delete("ReplicaSet", each["metadata"]["namespace"], each["metadata"]["name"])

    def _report(self, deployment: Object, sets: list[Object], current: Object) -> None:
        counts = {each["metadata"]["name"]: self._count(each) for each in sets}
        total, ready, available = (sum(each[index] for each in counts.values()) for index in range(3))
        updated = counts[current["metadata"]["name"]][0]
        wanted = deployment["spec"]["replicas"]
        done = updated == wanted == available == total and counts[current["metadata"]["name"]][2] == wanted
        uid = deployment["metadata"]["uid"]
        seen = (deployment["metadata"]["generation"], total, ready, available, updated)
        before, since = self._progress.get(uid, (None, 0.0))
        if before != seen:
            since = time.monotonic()
            self._progress[uid] = (seen, since)
        late = not done and time.monotonic() - since > deployment["spec"]["progressDeadlineSeconds"] / self._speed
        name = current["metadata"]["name"]
        if done:
            progressing = ("True", "NewReplicaSetAvailable", f'ReplicaSet "{name}" has successfully progressed.')
        elif late:
            progressing = ("False", "ProgressDeadlineExceeded", f'ReplicaSet "{name}" has timed out progressing.')
        else:
            progressing = ("True", "ReplicaSetUpdated", f'ReplicaSet "{name}" is progressing.')
        rolling = deployment["spec"]["strategy"].get("rollingUpdate", {})
        enough = available >= wanted - _number(rolling.get("maxUnavailable", 0), wanted, math.floor)
        reason = "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable"
        conditions = [_condition("Available", str(enough), reason, ""), _condition("Progressing", *progressing)]
        for each in sets:
            conditions += [
                one for one in each.get("status", {}).get("conditions", ()) if one["type"] == "ReplicaFailure"
            ]
        status = {
            "observedGeneration": deployment["metadata"]["generation"], "replicas": total, "updatedReplicas": updated,
            "readyReplicas": ready, "availableReplicas": available, "unavailableReplicas": max(wanted - available, 0),
            "conditions": conditions,
        }  # fmt: skip
        namespace = deployment["metadata"]["namespace"]
        self._store.change(
            "Deployment",
            namespace,
            deployment["metadata"]["name"],
            lambda found: found.update(status=status),
            status=True,
        )

    def _replica_set(self, replica_set: Object) -> None:
        pods = self._pods_of(replica_set)
        live = [
            pod
            for pod in pods
            if "deletionTimestamp" not in pod["metadata"]
            and pod.get("status", {}).get("phase") not in ("Failed", "Succeeded")
        ]
        wanted = replica_set["spec"]["replicas"]
        failure = ""
        for _ in range(wanted - len(live)):
            pod = self._new_pod(replica_set)
            try:
                refuse_over_quota(self._store, pod)
                self._store.create(pod)
            except Failure as error:
                failure = str(error)
                event(self._store, replica_set, "Warning", "FailedCreate", f"Error creating: {error}")
                break
        if len(live) > wanted:
            live.sort(key=lambda pod: (is_ready(pod), pod["metadata"]["creationTimestamp"]))
            for pod in live[: len(live) - wanted]:
                self._store.delete("Pod", pod["metadata"]["namespace"], pod["metadata"]["name"])
        conditions = [_condition("ReplicaFailure", "True", "FailedCreate", failure)] if failure else []
        total, ready, available = self._count(replica_set)
        status = {
            "replicas": total,
            "readyReplicas": ready,
            "availableReplicas": available,
            "conditions": conditions,
            "observedGeneration": replica_set["metadata"]["generation"],
        }
        metadata = replica_set["metadata"]
        self._store.change(
            "ReplicaSet",
            metadata["namespace"],
            metadata["name"],
            lambda found: found.update(status=status),
            status=True,
        )

    def _new_pod(self, replica_set: Object) -> Object:
        template = copied(replica_set["spec"]["template"])
        metadata = replica_set["metadata"]
        owner = {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "name": metadata["name"],
            "uid": metadata["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
        suffix = "".join(random.choices(string.ascii_lowercase + string.digits, k=5))
        told = {
            **template["metadata"],
            "name": f"{metadata['name']}-{suffix}",
            "namespace": metadata["namespace"],
            "ownerReferences": [owner],
        }
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": told,
            "spec": template["spec"],
            "status": {"phase": "Pending"},
        }


def _condition(kind: str, status: str, reason: str, message: str) -> Object:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def _number(value: Any, of: int, rounding: Any) -> int:
    return int(rounding(int(value.rstrip("%")) * of / 100)) if isinstance(value, str) else int(value)
