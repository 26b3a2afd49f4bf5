"""What goes wrong in clusters, and what is said of it: real clients and real kubectl on the emulated API server."""

from __future__ import annotations

import os
import subprocess
import time
from typing import Any

import pytest

from k8s.apply import apply as apply_objects
from k8s.apply import plan
from k8s.cluster import ApiError
from k8s.cluster import Cluster as Client
from k8s.diagnosis import diagnose
from k8s.kustomize import to_yaml
from k8s.render import objects
from k8s.settings import Settings
from signatures.errors import CheckFailed, UsageError
from tests.emulators.kube.cluster import Cluster, Fault
from tests.k8s.schemas import SDK
from vitrina.cli import main

KUBECTLS = [path for minor in (29, 32, 33) if os.path.exists(path := str(SDK / f"kubectl.1.{minor}"))]
SETTINGS = Settings(location="gs://bucket/m", name="m", version=1, components=("pod-monitor",), gateway="public")


def client(cluster: Cluster, **more: Any) -> Client:
    return Client(kubeconfig=str(cluster.kubeconfig), **more)


def kubectl(cluster: Cluster, program: str, *words: str, sent: str | None = None, fails: int = 0) -> str:
    environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig), "HOME": str(cluster.folder)}
    done = subprocess.run([program, *words], env=environment, input=sent, capture_output=True, text=True, timeout=60)
    assert done.returncode == fails, done.stderr + done.stdout
    return done.stdout + done.stderr


@pytest.mark.skipif(len(KUBECTLS) < 3, reason=f"not all of kubectl 1.29, 1.32, 1.33 in {SDK}")
@pytest.mark.parametrize("program", KUBECTLS, ids=lambda path: str(path).rpartition("/")[2])
def test_kubectl_takes_what_is_rendered(objects_only: Cluster, program: str) -> None:
    text = to_yaml(objects(SETTINGS))
    count = text.count("\nkind:")
    applied = kubectl(objects_only, program, "apply", "--server-side", "--field-manager=vitrina", "-f", "-", sent=text)
    assert applied.count("serverside-applied") == count
    # What kubectl applied is what we would apply.
    assert {change.action for change in plan(client(objects_only), objects(SETTINGS))} == {"keep"}
    other = text.replace("minReadySeconds: 5", "minReadySeconds: 7")
    diff = kubectl(
        objects_only, program, "diff", "--server-side", "--field-manager=vitrina", "-f", "-", sent=other, fails=1
    )
    assert "+  minReadySeconds: 7" in diff
    kubectl(objects_only, program, "apply", "--server-side", "--field-manager=else", "-f", "-", sent=other, fails=1)
    misspelt = text.replace("minReadySeconds", "minReadySecond")
    assert "minReadySecond" in kubectl(
        objects_only, program, "apply", "--server-side", "-f", "-", sent=misspelt, fails=1
    )
    assert "m" in kubectl(objects_only, program, "get", "deployments,services,podmonitors,httproutes", "-o", "name")
    kubectl(objects_only, program, "scale", "deployment/m", "--replicas=4")
    assert kubectl(objects_only, program, "get", "deployment", "m", "-o", "jsonpath={.spec.replicas}") == "4"
    kubectl(objects_only, program, "delete", "-f", "-", "--wait=false", sent=text)
    assert objects_only.store.list("Deployment") == []


def test_what_is_refused_for_now_is_tried_again(objects_only: Cluster) -> None:
    objects_only.api.faults += [
        Fault(429, "PATCH", "deployments", times=2, reason="TooManyRequests", retry_after=0),
        Fault(500, "GET", "services", times=2),
        Fault(503, "PATCH", "configmaps", times=1, reason="ServiceUnavailable"),
        Fault(409, "PATCH", "poddisruptionbudgets", times=1, reason="Conflict"),
    ]
    with pytest.raises(ApiError, match="injected fault 409"):
        apply_objects(client(objects_only), objects(SETTINGS))
    apply_objects(client(objects_only), objects(SETTINGS))
    assert {change.action for change in plan(client(objects_only), objects(SETTINGS))} == {"keep"}
    assert all(fault.hits == fault.times for fault in objects_only.api.faults)


def test_retry_after_is_kept_to(objects_only: Cluster) -> None:
    objects_only.api.faults.append(Fault(429, "GET", "pods", reason="TooManyRequests", retry_after=1))
    started = time.monotonic()
    assert client(objects_only).find("Pod") == []
    assert time.monotonic() - started >= 1


def test_what_stays_refused_is_one_line(objects_only: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(*words: str, code: int) -> str:
        assert main(["k8s", *words]) == code
        told = capsys.readouterr().err.splitlines()
        assert len([line for line in told if line.startswith("vitrina: ")]) == 1
        return told[-1]

    place = ("--kubeconfig", str(objects_only.kubeconfig))
    put = ("apply", "gs://bucket/m", "--name", "m", "--no-wait")
    assert "kubectl create namespace nowhere" in fails(*put, "--namespace", "nowhere", *place, code=1)
    objects_only.api.faults.append(Fault(403, "PATCH", "deployments", reason="Forbidden"))
    assert "kubectl auth can-i --list" in fails(*put, *place, code=1)
    objects_only.api.faults.append(Fault(404, "PATCH", "podmonitors", reason="NotFound"))
    assert "Its kind is not installed there" in fails(*put, "--with", "pod-monitor", *place, code=1)
    assert "no Deployment other in the namespace default" in fails("status", "other", *place, code=2)
    assert "nothing of other" in fails("delete", "other", *place, code=2)
    assert "There are: emulated." in fails("status", "m", *place, "--context", "production", code=2)
    assert "no usable kubeconfig" in fails("status", "m", "--kubeconfig", str(objects_only.folder / "none"), code=2)
    assert objects_only.store.list("Deployment") == []  # what was refused left nothing half done
    for action in ("promote", "rollback"):
        main(["k8s", *put, *place])
        capsys.readouterr()
        assert "m has n" in fails(action, "m", *place, code=2)
    objects_only.server.stop()
    assert "cannot be reached" in fails("status", "m", *place, code=1)


def test_fields_of_others_are_left_or_taken(objects_only: Cluster) -> None:
    here = client(objects_only)
    apply_objects(here, objects(SETTINGS))
    theirs: dict[str, Any] = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "m"}}
    theirs["spec"] = {"maxUnavailable": 2}
    here.apply(theirs, manager="somebody", force=True)
    with pytest.raises(ApiError, match=r"\.spec\.maxUnavailable.*with --force"):
        plan(here, objects(SETTINGS))
    apply_objects(here, objects(SETTINGS), force=True)
    assert here.get("PodDisruptionBudget", "m")["spec"]["maxUnavailable"] == 1  # type: ignore[index]


def test_an_autoscaler_takes_over_where_the_number_was(objects_only: Cluster) -> None:
    here = client(objects_only)
    apply_objects(here, objects(SETTINGS.replace(replicas=7)))
    assert objects_only.store.list("HorizontalPodAutoscaler") == []
    changes = {change.kind: change for change in plan(here, objects(SETTINGS))}
    assert changes["HorizontalPodAutoscaler"].action == "create"
    assert "replicas" not in changes["Deployment"].diff.replace("min_replicas", "").replace("max_replicas", "").replace(
        '"replicas": 7', ""
    )
    apply_objects(here, objects(SETTINGS))
    assert objects_only.store.get("Deployment", "default", "m")["spec"]["replicas"] == 7
    # And back: a fixed number removes the autoscaler.
    back = apply_objects(here, objects(SETTINGS.replace(replicas=3)), force=True)
    assert [(change.kind, change.name) for change in back if change.action == "delete"] == [
        ("HorizontalPodAutoscaler", "m")
    ]
    assert objects_only.store.get("Deployment", "default", "m")["spec"]["replicas"] == 3


def told(cluster: Cluster, name: str = "m") -> str:
    return " ".join(finding.told for finding in diagnose(client(cluster), name))


def test_stuck_for_other_reasons(objects_only: Cluster) -> None:
    here = client(objects_only)
    apply_objects(here, objects(SETTINGS.replace(replicas=1)))
    objects_only.wait(lambda: len(objects_only.pods()) == 1)
    (pod,) = objects_only.pods()
    name = pod["metadata"]["name"]

    def is_(**status_of_it: Any) -> str:
        objects_only.store.change("Pod", "default", name, lambda found: found.update(status=status_of_it), status=True)
        return told(objects_only)

    no_room = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes: Insufficient cpu.",
    }
    assert "No node takes the pod" in is_(conditions=[no_room])
    ended = {"name": "tf-serving", "restartCount": 4, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    told_of = is_(containerStatuses=[{**ended, "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}])
    assert "took more memory than it may, 4 times. Give more with --memory." in told_of
    assert "exit code 255" in is_(containerStatuses=[{**ended, "lastState": {"terminated": {"exitCode": 255}}}])
    waiting = {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "x" not found'}}
    assert 'secret "x" not found' in is_(
        containerStatuses=[{"name": "tf-serving", "restartCount": 0, "state": waiting}]
    )
    assert "is not started yet" in is_(phase="Pending")
    from k8s.rollout import wait

    with pytest.raises(CheckFailed, match="The roll-out of m is stuck: 1 of 1 pods are new, 0 available"):
        wait(here, "m", timeout=1)


def test_bad_canaries_are_refused(objects_only: Cluster) -> None:
    from k8s.canary import canary

    here = client(objects_only)
    apply_objects(here, objects(SETTINGS))
    for arguments, words in (
        ({"version": 1}, "serves already"),
        ({"version": 2, "weight": 0}, "Got the weight 0"),
        ({"version": 2, "pods": 0}, "Got 0 pods"),
        ({"version": 2, "by": "chance"}, "canary by 'chance'"),
        ({"version": -2}, "Got canary -2"),
    ):
        with pytest.raises(UsageError, match=words):
            canary("m", cluster=here, **arguments)  # type: ignore[arg-type]
