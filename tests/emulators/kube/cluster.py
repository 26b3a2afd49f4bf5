"""A cluster on this machine: the emulated API server, controllers, kubelet and network in one."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import yaml

from tests.emulators.kube import schema as schemas
from tests.emulators.kube.api import Api, Fault
from tests.emulators.kube.controllers import Controllers, refuse_over_quota
from tests.emulators.kube.kinds import Object
from tests.emulators.kube.kubelet import Kubelet
from tests.emulators.kube.network import Network
from tests.emulators.kube.server import ApiServer
from tests.emulators.kube.store import Failure, Store
from tests.emulators.kube.zygote import Zygote

__all__ = ["Cluster", "Fault"]


class Cluster:
    """Started when made; `stop` ends all of it.

    Args:
        folder: For its kubeconfig, logs and volumes.
        zygote: What starts servers; None runs no pods, and the objects alone are there.
        speed: How many times faster than the clock its seconds pass.
        number: Which of the clusters on this machine; each has addresses of its own.
    """

    def __init__(self, folder: Path, zygote: Zygote | None, *, speed: float = 20.0, number: int = 0) -> None:
        self.folder = folder
        self.store = Store()
        for name in ("default", "vision"):
            self.store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        self.network = Network(self.store, f"127.{96 + number}")
        self.api = Api(self.store, self._admit)
        self.kubelet = Kubelet(self.store, zygote, folder, speed, f"127.{32 + number}") if zygote is not None else None
        self.server = ApiServer(self.api, self._logs, self._address)
        self.controllers = Controllers(self.store, speed)
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(yaml.safe_dump(_kubeconfig(self.server.url)))

    def stop(self) -> None:
        self.controllers.stop()
        if self.kubelet is not None:
            self.kubelet.stop()
        self.network.stop()
        self.server.stop()

    def wait(self, what: Callable[[], bool], seconds: float = 60.0, told: str = "") -> None:
        """Until something holds."""
        until = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < until, f"did not come about in {seconds:g} s: {told or what}"
            time.sleep(0.02)

    def pods(self, namespace: str = "default") -> list[Object]:
        return self.store.list("Pod", namespace)

    def service(self, name: str, namespace: str = "default") -> str:
        """The address of a Service."""
        return str(self.store.get("Service", namespace, name)["spec"]["clusterIP"])

    def _logs(self, namespace: str, pod: str, previous: bool) -> str:
        return self.kubelet.logs(namespace, pod, previous) if self.kubelet is not None else ""

    def _address(self, namespace: str, pod: str) -> str:
        return self.kubelet.address(namespace, pod) if self.kubelet is not None else ""

    def _admit(self, found: Object, before: Object | None) -> None:
        schemas.fill_defaults(found)
        if found["kind"] == "Service" and found["spec"].get("type") == "ClusterIP":
            present = before["spec"]["clusterIP"] if before is not None else None
            found["spec"].setdefault("clusterIP", present or self.network.next_address())
        if found["kind"] == "Deployment":
            labels = found["spec"]["template"]["metadata"].get("labels", {})
            wanted = found["spec"]["selector"]["matchLabels"]
            if any(labels.get(key) != value for key, value in wanted.items()):
                raise Failure(422, "Invalid", "`selector` does not match template `labels`")
            if before is not None and before["spec"]["selector"] != found["spec"]["selector"]:
                raise Failure(422, "Invalid", "spec.selector: Invalid value: field is immutable")
        refuse_over_quota(self.store, found)


def _kubeconfig(url: str) -> Object:
    return {
        "apiVersion": "v1", "kind": "Config", "current-context": "emulated",
        "clusters": [{"name": "emulated", "cluster": {"server": url}}],
        "contexts": [{"name": "emulated", "context": {"cluster": "emulated", "user": "me", "namespace": "default"}}],
        "users": [{"name": "me", "user": {}}],
    }  # fmt: skip
