"""Rollouts by kubectl, pods that do not become ready, and manifests that are wrong: with real server processes."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from k8s.apply import apply as apply_objects
from k8s.deploy import apply, status
from k8s.diagnosis import diagnose
from k8s.kustomize import to_yaml
from k8s.render import objects
from k8s.settings import Settings
from tests.emulators.kube.cluster import Cluster
from tests.k8s.stories.whole import Write
from tests.k8s.test_cluster import client, kubectl, told


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
