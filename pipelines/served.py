"""A model server in a process, a container or a pod of its own, for as long as a `with` block lasts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines import servers
from serving import stock
from signatures.errors import VitrinaError

__all__ = ["Served", "choose", "served"]

START_TIMEOUT = 180.0
POLL = 0.1


@dataclass(frozen=True, kw_only=True)
class Served:
    """A server that is ready.

    Args:
        kind: Which kind of server it is, such as `vitrina`.
        grpc: Its target over gRPC, for `serving.client.connect`.
        rest: Its target over REST.
        grpc_port: The port on 127.0.0.1.
        rest_port: The port on 127.0.0.1.
        seconds: From start to ready.
    """

    kind: str
    grpc: str
    rest: str
    grpc_port: int
    rest_port: int
    seconds: float


def choose(kind: str) -> str:
    """The server meant: `auto` is TensorFlow Serving's own program where it is on PATH, else the embedded one.

    Raises:
        UsageError: There is no such kind, or what it needs is not here.
    """
    name, _ = _find(kind)
    return name


def _find(kind: str) -> tuple[str, servers.Kind]:
    if kind == servers.AUTO:
        from pipelines.servers import tensorflow_model_server

        kind = "vitrina" if tensorflow_model_server.missing() else stock.SERVER
    return kind, servers.find(kind)


@contextlib.contextmanager
def served(
    base: Path,
    *,
    name: str,
    log: Path,
    version: int | None = None,
    kind: str = "vitrina",
    image: str = stock.IMAGE,
    namespace: str = "",
    timeout: float | None = None,
) -> Iterator[Served]:
    """Serves a base path on free ports; everything is stopped and taken away at the end.

    Args:
        base: A TF Serving `model_base_path`.
        name: The model's name in requests.
        log: The file for what the server says.
        version: What the targets ask for; None is the latest.
        kind: See `choose`.
        image: The container image, for the kinds that run one.
        namespace: The Kubernetes namespace; "" is the current one.
        timeout: Seconds until it has to be ready; None is three minutes.

    Yields:
        Where it listens. The model is loaded and its warmup requests have been answered.

    Raises:
        UsageError: There is no such kind of server here.
        VitrinaError: The server ended, or was not ready in time.
    """
    from serving.server import free_port

    begun = time.monotonic()
    chosen, program = _find(kind)
    asked = servers.Asked(
        base=base.absolute(),
        name=name,
        log=log,
        grpc_port=free_port(),
        rest_port=free_port(),
        image=image,
        namespace=namespace,
        timeout=timeout or START_TIMEOUT,
    )
    log.write_bytes(b"")
    with program.started(asked) as ended:
        _wait_until_ready(asked, ended)
        suffix = name if version is None else f"{name}@{version}"
        yield Served(
            kind=chosen,
            grpc=f"grpc://127.0.0.1:{asked.grpc_port}/{suffix}",
            rest=f"http://127.0.0.1:{asked.rest_port}/{suffix}",
            grpc_port=asked.grpc_port,
            rest_port=asked.rest_port,
            seconds=time.monotonic() - begun,
        )


def _wait_until_ready(asked: servers.Asked, ended: Callable[[], str]) -> None:
    import httpx

    deadline = time.monotonic() + asked.timeout
    while time.monotonic() < deadline:
        if why := ended():
            raise VitrinaError(f"{why} Its log is {asked.log}.")
        with contextlib.suppress(httpx.HTTPError, KeyError, ValueError):
            answer = httpx.get(f"http://127.0.0.1:{asked.rest_port}/v1/models/{asked.name}", timeout=2.0)
            if any(item["state"] == "AVAILABLE" for item in answer.json()["model_version_status"]):
                return
        time.sleep(POLL)
    raise VitrinaError(f"The server was not ready within {asked.timeout:.0f} s. Its log is {asked.log}.")
