"""A model server in a process of its own, for as long as a `with` block lasts."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from signatures.errors import UsageError, VitrinaError

__all__ = ["SERVERS", "Served", "choose", "served"]

#: The kinds of server, by the name that a setting has.
SERVERS = ("auto", "tensorflow_model_server", "vitrina")
START_TIMEOUT = 180.0
STOP_TIMEOUT = 20.0
POLL = 0.1


@dataclass(frozen=True, kw_only=True)
class Served:
    """A server that is ready.

    Args:
        kind: `tensorflow_model_server` or `vitrina`.
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
    """The server meant: `auto` is TensorFlow Serving's own binary where it is on PATH, else the embedded one.

    Raises:
        UsageError: There is no such kind, or the binary is not there.
    """
    if kind not in SERVERS:
        raise UsageError(f"Got the server {kind!r}, but it is one of {', '.join(SERVERS)}.")
    binary = shutil.which("tensorflow_model_server")
    if kind == "tensorflow_model_server" and binary is None:
        raise UsageError(
            "tensorflow_model_server is not on PATH. Install TensorFlow Serving, or take --server vitrina."
        )
    if kind == "auto":
        return "vitrina" if binary is None else "tensorflow_model_server"
    return kind


@contextlib.contextmanager
def served(base: Path, *, name: str, log: Path, version: int | None = None, kind: str = "vitrina") -> Iterator[Served]:
    """Serves a base path on free ports; stopped by SIGTERM at the end.

    Args:
        base: A TF Serving `model_base_path`.
        name: The model's name in requests.
        log: The file for what the server says.
        version: What the targets ask for; None is the latest.
        kind: See `choose`.

    Yields:
        Where it listens. The model is loaded and its warmup requests have been answered.

    Raises:
        VitrinaError: The server ended, or was not ready in time.
    """
    from serving.server import free_port

    started = time.monotonic()
    chosen = choose(kind)
    grpc_port, rest_port = free_port(), free_port()
    program = [sys.executable, "-m", "serving"] if chosen == "vitrina" else [chosen]
    flags = [f"--port={grpc_port}", f"--rest_api_port={rest_port}", f"--model_name={name}", f"--model_base_path={base}"]
    with log.open("wb") as output:
        process = subprocess.Popen([*program, *flags], stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait_until_ready(process, rest_port, name, log)
        suffix = name if version is None else f"{name}@{version}"
        yield Served(
            kind=chosen,
            grpc=f"grpc://127.0.0.1:{grpc_port}/{suffix}",
            rest=f"http://127.0.0.1:{rest_port}/{suffix}",
            grpc_port=grpc_port,
            rest_port=rest_port,
            seconds=time.monotonic() - started,
        )
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], rest_port: int, name: str, log: Path) -> None:
    import httpx

    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            last = (log.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
            raise VitrinaError(f"The server ended with code {process.returncode}: {last} Its log is {log}.")
        with contextlib.suppress(httpx.HTTPError, KeyError, ValueError):
            answer = httpx.get(f"http://127.0.0.1:{rest_port}/v1/models/{name}", timeout=2.0)
            if any(item["state"] == "AVAILABLE" for item in answer.json()["model_version_status"]):
                return
        time.sleep(POLL)
    raise VitrinaError(f"The server was not ready within {START_TIMEOUT:.0f} s. Its log is {log}.")
