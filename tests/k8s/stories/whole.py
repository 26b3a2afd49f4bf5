"""The whole story on an emulated cluster with real server processes: by the command, as a person would."""

from __future__ import annotations

import base64
import http.client
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.emulators.kube.cluster import Cluster
from vitrina.cli import main

Write = Callable[[Path, int, str], None]


def run(cluster: Cluster, *words: str) -> int:
    place = ["--kubeconfig", str(cluster.kubeconfig)]
    return main(["k8s", *words, *place])


def ask(address: str, *, label: str = "", port: int = 8501) -> dict[str, Any]:
    """One REST request on a connection of its own."""
    body = json.dumps({"instances": [{"image_bytes": {"b64": base64.b64encode(b"abc").decode()}}]})
    connection = http.client.HTTPConnection(address, port, timeout=30)
    try:
        connection.request("POST", f"/v1/models/m{f'/labels/{label}' if label else ''}:predict", body)
        reply = connection.getresponse()
        told = json.loads(reply.read())
    finally:
        connection.close()
    if reply.status != 200:
        raise RuntimeError(f"{reply.status}: {told['error']}")
    (prediction,) = told["predictions"]
    return dict(prediction)


class Load:
    """Asks a Service from several threads until stopped, over REST and gRPC."""

    def __init__(self, address: str, *, tries: int = 1, grpc: bool = True, label: str = "") -> None:
        self.answers: list[int] = []
        self.errors: list[str] = []
        self._address, self._tries, self._label = address, tries, label
        self._stopping = threading.Event()
        kinds = [self._rest, self._rest, *([self._grpc] if grpc else [])]
        self._threads = [threading.Thread(target=self._loop, args=(kind,), daemon=True) for kind in kinds]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(60)

    def _loop(self, kind: Callable[[Callable[[Callable[[], int]], None]], None]) -> None:
        kind(self._once)

    def _once(self, call: Callable[[], int]) -> None:
        for attempt in range(self._tries):
            try:
                self.answers.append(call())
                break
            except Exception as error:
                if attempt == self._tries - 1:
                    self.errors.append(f"{type(error).__name__}: {error}")
                time.sleep(0.05 * (attempt + 1))
        time.sleep(0.04)

    def _rest(self, once: Callable[[Callable[[], int]], None]) -> None:
        while not self._stopping.is_set():
            once(lambda: int(ask(self._address, label=self._label)["version"]))

    def _grpc(self, once: Callable[[Callable[[], int]], None]) -> None:
        import numpy as np

        from serving.client import connect

        with connect(f"grpc://{self._address}:8500/m{f':{self._label}' if self._label else ''}") as client:
            while not self._stopping.is_set():
                once(lambda: int(client.call({"image_bytes": np.array([b"abc"], object)})["version"][0]))


def test_a_servable_from_first_apply_to_deletion(cluster: Cluster, write: Write, tmp_path: Path, capsys: Any) -> None:
    base = tmp_path / "models" / "m"
    write(base, 1, "good")
    # Nothing is there: the dry run says so and changes nothing.
    assert run(cluster, "apply", str(base), "--name", "m", "--version", "1", "--dry-run") == 0
    assert "+kind: Deployment" in capsys.readouterr().out
    assert cluster.store.list("Deployment") == []
    assert run(cluster, "apply", str(base), "--name", "m", "--version", "1") == 0
    assert "2 of 2 pods are new, 2 available" in capsys.readouterr().err
    # Applied again, nothing changes.
    generation = cluster.store.get("Deployment", "default", "m")["metadata"]["generation"]
    assert run(cluster, "apply", str(base), "--name", "m", "--version", "1") == 0
    assert "nothing to change" in capsys.readouterr().err
    assert cluster.store.get("Deployment", "default", "m")["metadata"]["generation"] == generation

    address = cluster.service("m")
    assert ask(address) == {"length": 3, "version": 1}
    assert ask(address, label="stable")["version"] == 1
    assert run(cluster, "status", "m") == 0
    assert "1 AVAILABLE" in capsys.readouterr().out

    # A new version while requests come in: not one fails.
    write(base, 2, "good")
    with Load(address) as load:
        cluster.wait(lambda: len(load.answers) > 20)
        assert run(cluster, "apply", str(base), "--name", "m", "--version", "2") == 0
        cluster.wait(lambda: load.answers[-3:] == [2, 2, 2])
    assert load.errors == []
    assert {1, 2} <= set(load.answers)

    # A pod is killed: clients that try again see nothing of it.
    with Load(address, tries=8) as load:
        victim = next(pod for pod in cluster.pods() if "deletionTimestamp" not in pod["metadata"])["metadata"]["name"]
        assert cluster.kubelet is not None
        worker = cluster.kubelet.worker("default", victim)
        assert worker is not None
        assert worker.process is not None
        worker.process.send_signal(9)
        cluster.wait(lambda: worker.restarts == 1)
        cluster.wait(lambda: len(cluster.network.endpoints("default", "m")) == 2)
    assert load.errors == []

    # A version that cannot be loaded: the roll-out is stuck, told why, and the old pods serve on.
    write(base, 3, "broken")
    capsys.readouterr()
    assert run(cluster, "apply", str(base), "--name", "m", "--version", "3", "--timeout", "8") == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert "is stuck" in told
    assert "1 of 2 pods are new" in told
    assert "with exit code 1. Its last words" in told
    assert "{name: m version: 3}" in told
    assert ask(address)["version"] == 2
    assert run(cluster, "rollback", "m") == 0
    assert ask(address)["version"] == 2

    assert run(cluster, "delete", "m") == 0
    cluster.wait(lambda: cluster.pods() == [])
    for kind in ("Deployment", "ReplicaSet", "Service", "ConfigMap", "HorizontalPodAutoscaler", "ServiceAccount"):
        assert cluster.store.list(kind) == []
    assert run(cluster, "status", "m") == 2


#: Latencies of a busy machine say nothing; what they lead to is in test_rule.py.
RULE = ("--watch", "3", "--least", "20", "--interval", "1", "--latency-ratio", "1000")


def test_a_canary_by_labels_is_promoted_where_it_does_well(
    cluster: Cluster, write: Write, tmp_path: Path, capsys: Any
) -> None:
    base = tmp_path / "m"
    write(base, 1, "good")
    assert run(cluster, "apply", str(base), "--name", "m", "--replicas", "1") == 0
    write(base, 2, "broken")  # the server follows its base path: what it cannot load changes nothing
    address = cluster.service("m")
    assert ask(address)["version"] == 1
    capsys.readouterr()
    assert run(cluster, "canary", "m", "--version", "2", *RULE) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert "Version 2 of m did not come up and was rolled back; version 1 serves." in told
    assert "has version 2 as " in told
    assert ask(address, label="stable")["version"] == 1

    write(base, 3, "good")
    with Load(address, label="stable") as old:
        assert run(cluster, "canary", "m", "--version", "3", "--by-hand") == 0
        assert run(cluster, "canary", "m", "--version", "4") == 2  # one at a time
        assert run(cluster, "apply", str(base), "--name", "m", "--version", "1") == 2
        assert ask(address, label="canary")["version"] == 3
        capsys.readouterr()
        assert run(cluster, "status", "m") == 0
        assert "on trial: version 3 by labels" in capsys.readouterr().out
        assert set(old.answers) == {1}
        assert run(cluster, "promote", "m") == 0
        cluster.wait(lambda: old.answers[-3:] == [3, 3, 3])
    assert old.errors == []
    assert run(cluster, "rollback", "m") == 0
    assert ask(address, label="stable")["version"] == 1


def test_a_canary_by_labels_is_watched_by_version(cluster: Cluster, write: Write, tmp_path: Path, capsys: Any) -> None:
    base = tmp_path / "m"
    for version, kind in ((1, "good"), (2, "failing"), (3, "good")):
        write(base, version, kind)
    assert run(cluster, "apply", str(base), "--name", "m", "--version", "1", "--replicas", "1") == 0
    address = cluster.service("m")
    with Load(address, label="stable") as old, Load(address, label="canary", grpc=False):
        assert run(cluster, "canary", "m", "--version", "2", *RULE) == 1
        assert "did not do well and was rolled back: 100.0% of its requests failed" in capsys.readouterr().err
        assert run(cluster, "canary", "m", "--version", "3", *RULE) == 0
        assert capsys.readouterr().out == "version 3 of m: promoted\n"
        cluster.wait(lambda: old.answers[-3:] == [3, 3, 3])
    assert old.errors == []


def test_a_canary_by_weights(cluster: Cluster, write: Write, tmp_path: Path, capsys: Any) -> None:
    base = tmp_path / "m"
    for version, kind in ((1, "good"), (2, "failing"), (3, "good")):
        write(base, version, kind)
    put = ("apply", str(base), "--name", "m", "--version", "1", "--replicas", "1")
    assert run(cluster, *put) == 0
    assert run(cluster, "canary", "m", "--version", "2", "--by", "weights") == 2
    assert "without --gateway" in capsys.readouterr().err
    assert run(cluster, *put, "--gateway", "public") == 0
    gateway = cluster.network.gateway("public")
    with Load(gateway) as load:
        assert run(cluster, "canary", "m", "--version", "2", "--by", "weights", "--weight", "40", *RULE) == 1
        assert "was rolled back" in capsys.readouterr().err
        assert [each["metadata"]["name"] for each in cluster.store.list("Deployment")] == ["m"]
        refused = len(load.errors)
        assert refused > 0  # those that the canary got
        before = len(load.answers)
        cluster.wait(lambda: len(load.answers) > before + 20)
        assert len(load.errors) <= refused + 3  # what was under way
        assert run(cluster, "canary", "m", "--version", "3", "--by", "weights", "--weight", "40", *RULE) == 0
        cluster.wait(lambda: load.answers[-3:] == [3, 3, 3])
    assert {1, 3} == set(load.answers)
    (route,) = cluster.store.list("HTTPRoute")
    assert [each["name"] for each in route["spec"]["rules"][0]["backendRefs"]] == ["m"]
    assert [each["metadata"]["name"] for each in cluster.store.list("Service")] == ["m", "m-grpc"]
    assert run(cluster, "rollback", "m") == 0
    assert ask(gateway)["version"] == 1
