"""TensorFlow Serving's image in a container of this machine, by docker or podman."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator

from pipelines.servers import Asked
from pipelines.servers._program import flags, running
from serving import stock

__all__ = ["missing", "started"]

GRPC_PORT, REST_PORT = 8500, 8501
MODELS = "/models"
STOP_SECONDS = 10


def missing() -> str:
    """The command has to be on PATH, and its daemon to answer."""
    program = _program()
    if program is None:
        return "Neither docker nor podman is on PATH. Install one"
    asked = subprocess.run([program, "version"], capture_output=True, text=True, timeout=60, check=False)
    if asked.returncode:
        said = (asked.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return f"{program} version failed: {said} Start its daemon"
    return ""


@contextlib.contextmanager
def started(asked: Asked) -> Iterator[Callable[[], str]]:
    """Runs a container that is removed when it stops, its ports open to this machine alone."""
    program = _program() or "docker"
    name = f"vitrina-candidate-{uuid.uuid4().hex[:12]}"
    where = f"{MODELS}/{asked.name}"
    command = [
        program, "run", "--rm", f"--name={name}",
        f"--publish=127.0.0.1:{asked.grpc_port}:{GRPC_PORT}", f"--publish=127.0.0.1:{asked.rest_port}:{REST_PORT}",
        f"--volume={asked.base}:{where}:ro", f"--entrypoint={stock.SERVER}", asked.image,
        *flags(asked, grpc_port=GRPC_PORT, rest_port=REST_PORT, base=where),
    ]  # fmt: skip
    with running(command, asked.log) as ended:
        try:
            yield ended
        finally:
            # Stopping the client alone may leave the container behind.
            with asked.log.open("ab") as log:
                subprocess.run(
                    [program, "stop", "-t", str(STOP_SECONDS), name],
                    stdout=log, stderr=log, timeout=STOP_SECONDS + 60, check=False,
                )  # fmt: skip


def _program() -> str | None:
    return next((name for name in ("docker", "podman") if shutil.which(name)), None)
