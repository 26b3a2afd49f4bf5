"""The emulated kubelet: a real server process for each pod, from its own manifest, probed as the manifest says."""

from __future__ import annotations

import base64
import contextlib
import http.client
import itertools
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.emulators.kube.controllers import event
from tests.emulators.kube.kinds import Object
from tests.emulators.kube.store import Failure, Store, now
from tests.emulators.kube.zygote import Process, Zygote

SERVING = b"\x08\x01"
"""grpc.health.v1.HealthCheckResponse with `status: SERVING`, as it is on the wire."""


class Kubelet:
    """Runs the pods of the one node.

    Args:
        store: The objects.
        zygote: What starts servers.
        folder: For logs and volumes.
        speed: How many times faster than the clock seconds of probes and sleeps pass.
        pods: The network of the pods' addresses, such as `127.77`.
    """

    def __init__(self, store: Store, zygote: Zygote, folder: Path, speed: float, pods: str) -> None:
        self.store = store
        self.zygote = zygote
        self.folder = folder
        self.speed = speed
        self.missing_images: set[str] = set()
        """Images that no registry has."""
        self.claims: dict[str, Path] = {}
        """PersistentVolumeClaim -> the folder that it holds."""
        self._addresses = (f"{pods}.{number // 250}.{number % 250 + 1}" for number in itertools.count())
        self._workers: dict[str, Worker] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kubelet", daemon=True)
        self._thread.start()

    def next_address(self) -> str:
        return next(self._addresses)

    def _run(self) -> None:
        while not self._stopping.is_set():
            with self.store.changed:
                pods = self.store.list("Pod")
                for pod in pods:
                    uid = pod["metadata"]["uid"]
                    if uid not in self._workers:
                        self._workers[uid] = Worker(self, pod)
                    if "deletionTimestamp" in pod["metadata"]:
                        self._workers[uid].going.set()
                uids = {pod["metadata"]["uid"] for pod in pods}
                for uid, worker in self._workers.items():
                    if uid not in uids:
                        worker.going.set()
                if self._stopping.is_set():
                    return
                self.store.changed.wait(0.5)

    def worker(self, namespace: str, name: str) -> Worker | None:
        found = [each for each in self._workers.values() if (each.namespace, each.name) == (namespace, name)]
        return found[-1] if found else None

    def logs(self, namespace: str, name: str, previous: bool) -> str:
        worker = self.worker(namespace, name)
        if worker is None:
            return ""
        number = worker.restarts - 1 if previous else worker.restarts
        path = worker.log(number)
        if previous and number < 0:
            raise Failure(400, "BadRequest", f'previous terminated container "tf-serving" in pod "{name}" not found')
        return path.read_text(errors="replace") if path.exists() else ""

    def address(self, namespace: str, name: str) -> str:
        worker = self.worker(namespace, name)
        return worker.address if worker is not None and worker.process is not None else ""

    def stop(self) -> None:
        self._stopping.set()
        with self.store.changed:
            self.store.changed.notify_all()
        for worker in list(self._workers.values()):
            worker.kill()
        self._thread.join(10)


class Worker(threading.Thread):
    """One pod's life."""

    def __init__(self, kubelet: Kubelet, pod: Object) -> None:
        super().__init__(daemon=True, name=f"pod-{pod['metadata']['name']}")
        self.kubelet = kubelet
        self.pod = pod
        self.namespace, self.name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        self.address = kubelet.next_address()
        self.going = threading.Event()
        self.process: Process | None = None
        self.restarts = 0
        self._killed = False
        self._mounts: dict[str, Path] = {}
        self._last: Object = {}
        self._folder = kubelet.folder / f"{self.name}-{pod['metadata']['uid'][:6]}"
        self.start()

    def log(self, number: int) -> Path:
        return self._folder / f"log-{number}"

    def kill(self) -> None:
        """As when the node goes down."""
        self._killed = True
        self.going.set()
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)

    def run(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        (container,) = self.pod["spec"]["containers"]
        try:
            self._schedule()
            if self._pull() and self._prepare() and self._run_init_containers():
                while not self.going.is_set():
                    self._live(container)
        except Failure:
            pass  # the pod was taken away without grace
        finally:
            if self.process is not None:
                self.process.send_signal(signal.SIGKILL)
        if not self._killed:
            with contextlib.suppress(Failure):
                self.kubelet.store.delete("Pod", self.namespace, self.name, grace=0)

    def _pause(self, seconds: float) -> bool:
        """Waits so many of the emulated seconds; whether the pod is to go."""
        return self.going.wait(seconds / self.kubelet.speed)

    def _event(self, kind: str, reason: str, message: str) -> None:
        event(self.kubelet.store, self.pod, kind, reason, message)

    def _schedule(self) -> None:
        self.kubelet.store.change(
            "Pod", self.namespace, self.name, lambda found: found["spec"].update(nodeName="node-1")
        )
        self._event("Normal", "Scheduled", f"Successfully assigned {self.namespace}/{self.name} to node-1")

    def _report(self, *, state: Object, ready: bool = False, phase: str = "Pending") -> None:
        (container,) = self.pod["spec"]["containers"]
        yes = "True" if ready else "False"
        status = {
            "phase": phase, "podIP": self.address, "podIPs": [{"ip": self.address}], "hostIP": "127.0.0.1",
            "startTime": now(),
            "conditions": [
                {"type": "PodScheduled", "status": "True"}, {"type": "Initialized", "status": "True"},
                {"type": "ContainersReady", "status": yes}, {"type": "Ready", "status": yes},
            ],
            "containerStatuses": [{
                "name": container["name"], "image": container["image"], "imageID": "", "ready": ready, "started": ready,
                "restartCount": self.restarts, "state": state, "lastState": self._last,
            }],
        }  # fmt: skip
        self.kubelet.store.change(
            "Pod", self.namespace, self.name, lambda found: found.update(status=status), status=True
        )

    def _pull(self) -> bool:
        backoff = 1.0
        for image in [
            each["image"] for each in (*self.pod["spec"].get("initContainers", ()), *self.pod["spec"]["containers"])
        ]:
            while image in self.kubelet.missing_images:
                told = f'Failed to pull image "{image}": rpc error: code = NotFound desc = failed to resolve reference'
                self._event("Warning", "Failed", told)
                self._report(state={"waiting": {"reason": "ErrImagePull", "message": told}})
                if self._pause(backoff):
                    return False
                self._event("Normal", "BackOff", f'Back-off pulling image "{image}"')
                self._report(
                    state={"waiting": {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{image}"'}}
                )
                if self._pause(backoff):
                    return False
                backoff = min(backoff * 2, 10)
            self._event("Normal", "Pulled", f'Container image "{image}" already present on machine')
        return True

    def _prepare(self) -> bool:
        """Makes the volumes; what cannot be mounted yet is tried again, as a kubelet does."""
        while True:
            try:
                volumes = {volume["name"]: self._volume(volume) for volume in self.pod["spec"].get("volumes", ())}
                break
            except Failure as error:
                self._event("Warning", "FailedMount", f"MountVolume.SetUp failed: {error}")
                self._report(state={"waiting": {"reason": "ContainerCreating"}})
                if self._pause(2):
                    return False
        containers = (*self.pod["spec"].get("initContainers", ()), *self.pod["spec"]["containers"])
        for container in containers:
            for mount in container.get("volumeMounts", ()):
                self._mounts[mount["mountPath"]] = volumes[mount["name"]] / mount.get("subPath", "")
        for volume in self.pod["spec"].get("volumes", ()):
            if "configMap" in volume:  # its files name folders as the container sees them
                for path in volumes[volume["name"]].iterdir():
                    path.write_text(self.here(path.read_text()))
        return True

    def _volume(self, volume: Object) -> Path:
        folder = self._folder / "volumes" / volume["name"]
        if "configMap" in volume or "secret" in volume:
            kind, name = (
                ("ConfigMap", volume["configMap"]["name"])
                if "configMap" in volume
                else ("Secret", volume["secret"]["secretName"])
            )
            found = self.kubelet.store.get(kind, self.namespace, name)
            folder.mkdir(parents=True, exist_ok=True)
            for key, value in found.get("data", {}).items():
                (folder / key).write_bytes(base64.b64decode(value) if kind == "Secret" else value.encode())
        elif "hostPath" in volume:
            folder = Path(volume["hostPath"]["path"])
            if volume["hostPath"].get("type") == "Directory" and not folder.is_dir():
                raise Failure(400, "BadRequest", f"hostPath type check failed: {folder} is not a directory")
        elif "persistentVolumeClaim" in volume:
            claim = volume["persistentVolumeClaim"]["claimName"]
            if claim not in self.kubelet.claims:
                raise Failure(404, "NotFound", f'persistentvolumeclaim "{claim}" not found')
            folder = self.kubelet.claims[claim]
        else:
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def here(self, text: str) -> str:
        """Folders of the container as this machine has them."""
        mounts = "|".join(re.escape(mount) for mount in sorted(self._mounts, key=len, reverse=True))
        named = rf"""(?:^|(?<=[="\s:]))(?:{mounts})(?=$|[/"\s])"""
        return re.sub(named, lambda found: str(self._mounts[found[0]]), text) if mounts else text

    def _hurried(self, argument: str) -> str:
        """The age of connections passes as fast as all other time here, or a pod would be gone before it."""

        def faster(found: re.Match[str]) -> str:
            return f"{found[1]}{int(int(found[2]) / self.kubelet.speed)}"

        return re.sub(r"(max_connection_age_ms=)(\d+)", faster, argument)

    def _run_init_containers(self) -> bool:
        for container in self.pod["spec"].get("initContainers", ()):
            command = [self.here(each) for each in (*container.get("command", ()), *container.get("args", ()))]
            environment = {each["name"]: each.get("value", "") for each in container.get("env", ())}
            if shutil.which(command[0]) is None:
                raise AssertionError(
                    f"the init container {container['name']} runs {command[0]}, which is not on this machine"
                )
            done = subprocess.run(
                command, env={"PATH": "/usr/bin:/bin", **environment}, capture_output=True, timeout=60
            )
            if done.returncode:
                self._event("Warning", "BackOff", f"Back-off restarting failed container {container['name']}")
                return not self.going.wait()
        return True

    def _live(self, container: Object) -> None:
        """From start to end of one process, and the pause before the next."""
        command = [
            self._hurried(self.here(each)) for each in (*container.get("command", ()), *container.get("args", ()))
        ]
        environment = {each["name"]: each.get("value", "") for each in container.get("env", ())}
        self.process = self.kubelet.zygote.start(
            command, env=environment, address=self.address, log=self.log(self.restarts), folder=self._folder
        )
        self._event("Normal", "Started", f"Started container {container['name']}")
        self._report(state={"running": {"startedAt": now()}}, phase="Running")
        self._probe(container)
        if self.going.is_set():
            self._end(container)
            return
        code = self.process.returncode
        self.process = None
        ended = {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed", "finishedAt": now()}}
        self._last = ended
        self.restarts += 1
        told = f"back-off restarting failed container={container['name']} pod={self.name}"
        self._event(
            "Warning", "BackOff", f"Back-off restarting failed container {container['name']} in pod {self.name}"
        )
        self._report(state={"waiting": {"reason": "CrashLoopBackOff", "message": told}}, phase="Running")
        self._pause(min(10 * 2 ** (self.restarts - 1), 300))

    def _probe(self, container: Object) -> None:
        """Until the process ends or has to."""
        assert self.process is not None
        started, ready, ill = "startupProbe" not in container, False, 0
        tries = misses = 0
        while not self.going.is_set() and self.process.returncode is None:
            if not started:
                started, told = self._passes(container["startupProbe"], container)
                tries += not started
                if tries >= container["startupProbe"]["failureThreshold"]:
                    self._event(
                        "Normal", "Killing", f"Container {container['name']} failed startup probe, will be restarted"
                    )
                    self._terminate()
                    return
                if not started:
                    self._event("Warning", "Unhealthy", f"Startup probe failed: {told}")
                    self._wait(container["startupProbe"]["periodSeconds"])
                    continue
            passed, told = (
                self._passes(container["readinessProbe"], container) if "readinessProbe" in container else (True, "")
            )
            misses = 0 if passed else misses + 1
            now_ready = passed or (ready and misses < container["readinessProbe"]["failureThreshold"])
            if not passed:
                self._event("Warning", "Unhealthy", f"Readiness probe failed: {told}")
            if now_ready != ready:
                ready = now_ready
                self._report(state={"running": {"startedAt": now()}}, ready=ready, phase="Running")
            if "livenessProbe" in container:
                alive, told = self._passes(container["livenessProbe"], container)
                ill = 0 if alive else ill + 1
                if not alive:
                    self._event("Warning", "Unhealthy", f"Liveness probe failed: {told}")
                if ill >= container["livenessProbe"]["failureThreshold"]:
                    self._event(
                        "Normal", "Killing", f"Container {container['name']} failed liveness probe, will be restarted"
                    )
                    self._terminate()
                    return
            self._wait(
                min(
                    container[name]["periodSeconds"]
                    for name in ("readinessProbe", "livenessProbe")
                    if name in container
                )
            )

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds / self.kubelet.speed
        assert self.process is not None
        while time.monotonic() < until and not self.going.is_set() and self.process.returncode is None:
            self.going.wait(min(0.05, seconds / self.kubelet.speed))

    def _terminate(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        if not self.process.wait(self.pod["spec"]["terminationGracePeriodSeconds"] / self.kubelet.speed + 5):
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(10)

    def _end(self, container: Object) -> None:
        """What is done before a pod is gone: not ready at once, then preStop, then SIGTERM."""
        if self._killed:
            return
        self._event("Normal", "Killing", f"Stopping container {container['name']}")
        hook = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command")
        if hook:
            assert hook[0] == "sleep", f"preStop runs {hook}, which the emulator does not know"
            assert self.process is not None
            self.process.wait(float(hook[1]) / self.kubelet.speed)
        self._terminate()

    def _passes(self, probe: Object, container: Object) -> tuple[bool, str]:
        ports = {port["name"]: port["containerPort"] for port in container.get("ports", ())}
        for kind, check in _CHECKS.items():
            if kind in probe:
                port = probe[kind]["port"]
                return check(
                    self.address,
                    ports[port] if isinstance(port, str) else port,
                    probe[kind],
                    probe["timeoutSeconds"] + 5,
                )
        raise AssertionError(f"no probe that the emulator knows: {probe}")


def _http(address: str, port: int, told: Object, timeout: float) -> tuple[bool, str]:
    connection = http.client.HTTPConnection(address, port, timeout=timeout)
    try:
        connection.request("GET", told["path"])
        status = connection.getresponse().status
        return 200 <= status < 400, f"HTTP probe failed with statuscode: {status}"
    except OSError as error:
        return False, f'Get "http://{address}:{port}{told["path"]}": {error}'
    finally:
        connection.close()


def _grpc(address: str, port: int, told: Object, timeout: float) -> tuple[bool, str]:
    import grpc

    with grpc.insecure_channel(f"{address}:{port}") as channel:
        try:
            answer = channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=timeout)
        except grpc.RpcError as error:
            return False, f"rpc error: code = {error.code().name}"
    return answer == SERVING, "service unhealthy"


def _tcp(address: str, port: int, told: Object, timeout: float) -> tuple[bool, str]:
    try:
        socket.create_connection((address, port), timeout).close()
    except OSError as error:
        return False, str(error)
    return True, ""


_CHECKS: dict[str, Callable[[str, int, Any, float], tuple[bool, str]]] = {
    "httpGet": _http,
    "grpc": _grpc,
    "tcpSocket": _tcp,
}
