"""What goes wrong in clusters, and what is said of it: real clients and real kubectl on the emulated API server."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from k8s.apply import apply as apply_objects
from k8s.apply import plan
from k8s.cluster import ApiError
from k8s.cluster import Cluster as Client
from k8s.deploy import apply, status
from k8s.diagnosis import diagnose
from k8s.kustomize import to_yaml
from k8s.render import objects
from k8s.settings import Settings
from signatures.errors import CheckFailed, UsageError
from tests.emulators.kube.cluster import Cluster, Fault
from tests.k8s.schemas import SDK
from tests.k8s.test_story import Write
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


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on PATH")
def test_kubectl_rolls_out_and_back(cluster: Cluster, write: Write, tmp_path: Path) -> None:
    write(tmp_path / "m", 1, "good")
    text = to_yaml(objects(Settings(location=str(tmp_path / "m"), name="m", replicas=1)))
    cluster.server.watch_delay = 0.2  # a slow watch is only slow
    kubectl(cluster, "kubectl", "apply", "-f", "-", sent=text)
    kubectl(cluster, "kubectl", "rollout", "status", "deployment/m", "--timeout=50s")
    kubectl(cluster, "kubectl", "rollout", "restart", "deployment/m")
    kubectl(cluster, "kubectl", "rollout", "status", "deployment/m", "--timeout=50s")
    assert len(kubectl(cluster, "kubectl", "rollout", "history", "deployment/m").split("<none>")) == 3
    kubectl(cluster, "kubectl", "rollout", "undo", "deployment/m")
    kubectl(cluster, "kubectl", "rollout", "status", "deployment/m", "--timeout=50s")
    kubectl(cluster, "kubectl", "wait", "--for=condition=Available", "deployment/m", "--timeout=20s")
    described = kubectl(cluster, "kubectl", "describe", "deployment/m")
    assert "1 available" in described
    assert "Scaled up replica set" in kubectl(cluster, "kubectl", "get", "events", "-o", "jsonpath={..message}")


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


def brought(cluster: Cluster, location: str, **settings: Any) -> None:
    apply(location, name="m", cluster=client(cluster), wait=False, **{"replicas": 1, **settings})


def waits_for(cluster: Cluster, words: str) -> None:
    cluster.wait(lambda: words in told(cluster), 20, words)


def test_why_pods_are_not_ready(cluster: Cluster, write: Write, tmp_path: Path) -> None:
    base = tmp_path / "m"
    base.mkdir()
    assert cluster.kubelet is not None
    cluster.kubelet.missing_images.add("tensorflow/serving:9.99.9")
    brought(cluster, str(base), image="tensorflow/serving:9.99.9")
    waits_for(cluster, "The image of tf-serving cannot be pulled")
    assert any(finding.hopeless for finding in diagnose(client(cluster), "m"))
    brought(cluster, str(base))
    waits_for(cluster, "waits for ever where the base path holds no version")
    assert status("m", cluster=client(cluster)).problems
    brought(cluster, "pvc://nowhere/m")
    waits_for(cluster, "cannot be mounted")
    metadata = {"name": "few", "namespace": "default"}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": {"pods": "1"}}}
    cluster.store.create(quota)
    write(base, 1, "good")
    brought(cluster, str(base), replicas=3)
    waits_for(cluster, "exceeded quota: few")
    assert "larger quota" in told(cluster)
    cluster.store.delete("ResourceQuota", "default", "few")
    cluster.wait(lambda: status("m", cluster=client(cluster)).ready, 40)
    assert told(cluster) == ""


def test_a_wrong_flag_or_probe_does_not_pass_unseen(cluster: Cluster, write: Write, tmp_path: Path) -> None:
    write(tmp_path / "m", 1, "good")
    good = objects(Settings(location=str(tmp_path / "m"), name="m", replicas=1))

    def spoilt(change: Callable[[dict[str, Any]], None]) -> None:
        found = copy.deepcopy(good)
        (deployment,) = (each for each in found if each["kind"] == "Deployment")
        change(deployment["spec"]["template"]["spec"]["containers"][0])
        apply_objects(client(cluster), found)

    spoilt(lambda container: container["args"].append("--port=abc"))
    waits_for(cluster, "ended")
    spoilt(lambda container: container["args"].remove("--monitoring_config_file=/etc/tf-serving/monitoring.config"))
    cluster.wait(lambda: status("m", cluster=client(cluster)).ready, 30)  # that one nothing but our tests would notice
    spoilt(lambda container: container["readinessProbe"]["httpGet"].update(path="/v1/models/n/metadata"))
    waits_for(cluster, "has no version of the model that is available")
    spoilt(lambda container: container["args"].__setitem__(1, "--rest_api_port=8601"))
    waits_for(cluster, "does not answer yet")


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
