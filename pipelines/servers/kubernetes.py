"""TensorFlow Serving's image in a pod of its own, by kubectl and whatever cluster that is set up for.

The candidate is sent into the pod, so that the cluster needs neither the pipeline's disk nor its rights to a bucket.
The pod is deleted at the end, and ends by itself after an hour where nobody is left to delete it.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pipelines.servers import Asked
from pipelines.servers._program import flags, running
from serving import stock
from signatures.errors import VitrinaError

__all__ = ["manifest", "missing", "started"]

Status = Mapping[str, Any]

KUBECTL = "kubectl"
GRPC_PORT, REST_PORT = 8500, 8501
MODELS = "/models"
#: Its arrival in the pod, last of all files, says that the model is whole.
WHOLE = ".whole"
#: Why a container that waits will not start by waiting.
HOPELESS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError")
POLL = 1.0
LIFETIME = 3600
USER = 10001


def missing() -> str:
    """The command has to be on PATH; whether it finds a cluster shows when it is used."""
    return "" if shutil.which(KUBECTL) else "kubectl is not on PATH. Install it"


@contextlib.contextmanager
def started(asked: Asked) -> Iterator[Callable[[], str]]:
    """Makes a pod, sends the model in, and forwards its ports to this machine."""
    where = [f"--namespace={asked.namespace}"] if asked.namespace else []
    name = f"vitrina-candidate-{uuid.uuid4().hex[:12]}"
    deadline = time.monotonic() + asked.timeout
    _kubectl([*where, "create", "--filename=-"], json.dumps(manifest(asked, name)).encode())
    try:
        _until(_runs, where, name, deadline)
        _kubectl([*where, "exec", "--stdin", name, "--", "tar", "-xf", "-", "-C", MODELS], _packed(asked))
        _until(_is_ready, where, name, deadline)
        ports = [f"{asked.grpc_port}:{GRPC_PORT}", f"{asked.rest_port}:{REST_PORT}"]
        with running([KUBECTL, *where, "port-forward", f"pod/{name}", *ports], asked.log) as ended:
            yield ended
    finally:
        with asked.log.open("ab") as log, contextlib.suppress(VitrinaError):
            log.write(_kubectl([*where, "logs", name]))
        with contextlib.suppress(VitrinaError):
            _kubectl([*where, "delete", f"pod/{name}", "--wait=false", "--ignore-not-found"])


def manifest(asked: Asked, name: str) -> dict[str, Any]:
    """The pod.

    Args:
        asked: The server that is wanted.
        name: The pod's name.

    Returns:
        As the API takes it.
    """
    server = " ".join([stock.SERVER, *flags(asked, grpc_port=GRPC_PORT, rest_port=REST_PORT, base=_base(asked))])
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": "vitrina-candidate"}},
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": LIFETIME,
            "terminationGracePeriodSeconds": 5,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "tf-serving",
                    "image": asked.image,
                    "command": ["sh", "-c", f"until [ -e {MODELS}/{WHOLE} ]; do sleep 0.2; done; exec {server}"],
                    "ports": [{"containerPort": GRPC_PORT}, {"containerPort": REST_PORT}],
                    # The ports open when the model is loaded; forwarding to one that is closed would end.
                    "readinessProbe": {
                        "httpGet": {"path": f"/v1/models/{asked.name}/metadata", "port": REST_PORT},
                        "periodSeconds": 1,
                    },
                    "resources": {"requests": {"cpu": "1", "memory": "1Gi"}},
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [
                        {"name": "models", "mountPath": MODELS},
                        {"name": "tmp", "mountPath": "/tmp"},  # the pod's own
                    ],
                }
            ],
            "volumes": [{"name": "models", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}],
        },
    }


def _base(asked: Asked) -> str:
    return f"{MODELS}/{asked.name}"


def _packed(asked: Asked) -> bytes:
    """The base path as a tar file, the sign that it is whole last."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(asked.base, arcname=asked.name)
        tar.addfile(tarfile.TarInfo(WHOLE), io.BytesIO())
    return packed.getvalue()


def _until(holds: Callable[[Status], bool], where: Sequence[str], name: str, deadline: float) -> None:
    while True:
        status = json.loads(_kubectl([*where, "get", f"pod/{name}", "--output=json"])).get("status", {})
        if holds(status):
            return
        if why := _hopeless(status):
            said = b"" if _waits(status) else _kubectl([*where, "logs", name, "--tail=1"])
            raise VitrinaError(f"The pod {name} does not serve: {why} {said.decode(errors='replace').strip()}".strip())
        if time.monotonic() > deadline:
            told = "; ".join(item["message"] for item in status.get("conditions", ()) if item.get("message"))
            raise VitrinaError(
                f"The pod {name} was not ready in time: {told or status.get('phase', 'nothing is known')}."
            )
        time.sleep(POLL)


def _runs(status: Status) -> bool:
    return status.get("phase") == "Running"


def _is_ready(status: Status) -> bool:
    return any(item["type"] == "Ready" and item["status"] == "True" for item in status.get("conditions", ()))


def _hopeless(status: Status) -> str:
    """Why it will never serve, or ""."""
    if status.get("phase") in ("Failed", "Succeeded"):
        return f"it ended ({status.get('reason') or status['phase']})."
    return next((f"{item['reason']}: {item.get('message', '')}" for item in _waits(status)), "")


def _waits(status: Status) -> list[dict[str, str]]:
    """Containers that cannot start, with their reasons."""
    waiting = (item.get("state", {}).get("waiting", {}) for item in status.get("containerStatuses", ()))
    return [item for item in waiting if item.get("reason") in HOPELESS]


def _kubectl(arguments: Sequence[str], given: bytes | None = None, *, timeout: float = 600.0) -> bytes:
    try:
        done = subprocess.run([KUBECTL, *arguments], input=given, capture_output=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise VitrinaError(
            f"kubectl {arguments[0]} did not end within {timeout:.0f} s. Look at the cluster."
        ) from error
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split()) or "it said nothing"
        raise VitrinaError(f"kubectl failed with code {done.returncode}: {said}")
    return done.stdout
