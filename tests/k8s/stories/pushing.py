"""A pipeline's pusher on an emulated cluster: a good version goes live, a bad one leaves what serves."""

from __future__ import annotations

from pathlib import Path

import pytest

from k8s.cluster import Cluster as Client
from k8s.deploy import apply
from k8s.pusher import push
from k8s.rule import Rule
from pipelines import pushers
from pipelines.pushers import Release
from signatures.errors import CheckFailed, UsageError
from tests.emulators.kube.cluster import Cluster
from tests.k8s.stories.whole import Load, Write, ask

RULE = Rule(seconds=3, least=10, interval=1, latency_ratio=1000)


def test_a_pushed_version_is_tried_before_it_serves(
    cluster: Cluster, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "m"
    for version, kind in ((1, "good"), (2, "failing"), (3, "good")):
        write(base, version, kind)
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    target = "k8s://vision/m"
    pushers.find(target).check(target)
    told: list[str] = []
    release = pushers.find(target).release(target, Release(base=base, version=1, name="run"), told.append)
    assert release == "version 1 of m serves in the namespace vision"
    assert told[-1].startswith("m: 2 of 2 pods are new, 2 available")

    client = Client(kubeconfig=str(cluster.kubeconfig), namespace="vision")
    apply(str(base), name="m", version=1, replicas=1, cluster=client, namespace="vision")
    address = cluster.service("m", "vision")
    place = {"namespace": "vision", "name": "m", "location": str(base), "cluster": client}
    with Load(address, label="stable", grpc=False), Load(address, label="canary", grpc=False):
        with pytest.raises(CheckFailed, match=r"did not do well and was rolled back.*Version 1 serves on"):
            push(**place, version=2, rule=RULE)  # type: ignore[arg-type]
        assert ask(address)["version"] == 1
        assert push(**place, version=3, rule=RULE) == "version 3 of m serves in the namespace vision"  # type: ignore[arg-type]
    assert ask(address)["version"] == 3
    assert push(**place, version=3) == "version 3 of m serves in the namespace vision"  # type: ignore[arg-type]


def test_a_version_on_trial_gives_way_and_another_place_is_refused(
    cluster: Cluster, write: Write, tmp_path: Path
) -> None:
    base = tmp_path / "m"
    for version in (1, 2, 3):
        write(base, version, "good")
    client = Client(kubeconfig=str(cluster.kubeconfig))
    place = {"namespace": "default", "name": "m", "location": str(base), "cluster": client}
    apply(str(base), name="m", version=1, replicas=1, cluster=client)
    nobody_asks = Rule(seconds=0.2, interval=0.1)
    for version in (2, 3):
        with pytest.raises(CheckFailed, match=f"Version {version} of m is still on trial: it answered 0 requests"):
            push(**place, version=version, rule=nobody_asks)  # type: ignore[arg-type]
    apply_refused = {"namespace": "default", "name": "n", "cluster": client}
    apply("gs://bucket/n", name="n", version=1, wait=False, cluster=client)
    with pytest.raises(UsageError, match="pushed to gs://other/n, but n reads gs://bucket/n"):
        push(**apply_refused, location="gs://other/n", version=2)  # type: ignore[arg-type]


def test_servers_that_follow_their_base_path_are_waited_for(cluster: Cluster, write: Write, tmp_path: Path) -> None:
    base = tmp_path / "m"
    write(base, 1, "good")
    client = Client(kubeconfig=str(cluster.kubeconfig))
    apply(str(base), name="m", replicas=1, cluster=client)
    write(base, 2, "good")
    told = push(namespace="default", name="m", location=str(base), version=2, cluster=client)
    assert told.endswith("which follows its base path")
    assert ask(cluster.service("m"))["version"] == 2
