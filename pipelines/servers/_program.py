"""A program of this machine in a process of its own, stopped by SIGTERM at the end."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pipelines.servers import Asked

__all__ = ["flags", "running"]

STOP_TIMEOUT = 20.0


def flags(asked: Asked, *, grpc_port: int | None = None, rest_port: int | None = None, base: str = "") -> list[str]:
    """TF Serving's flags for a server that is wanted, at other ports and another path where a container has its own."""
    return [
        f"--port={grpc_port or asked.grpc_port}",
        f"--rest_api_port={rest_port or asked.rest_port}",
        f"--model_name={asked.name}",
        f"--model_base_path={base or asked.base}",
    ]


@contextlib.contextmanager
def running(command: Sequence[str], log: Path) -> Iterator[Callable[[], str]]:
    """Runs a program.

    Args:
        command: The program and its arguments.
        log: What it says is added there.

    Yields:
        A function that says why it has ended, "" while it runs.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(list(command), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)

    def ended() -> str:
        if process.poll() is None:
            return ""
        said = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
        return f"The server ended with code {process.returncode}: {said[-1]}"

    try:
        yield ended
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
