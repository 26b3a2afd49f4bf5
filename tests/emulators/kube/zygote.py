"""Starts model servers quickly: one process imports what they need, once, and every server is a fork of it.

A server is still a process of its own with its own command line, signals, log and exit code. It binds the pod's own
loopback address wherever its code says all addresses, as the network namespace of a pod would have it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
SERVER = "tensorflow_model_server"


class Process:
    """A server that was started."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = threading.Event()

    def ended(self, code: int) -> None:
        self.returncode = code
        self._ended.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Whether it has ended within so many seconds."""
        return self._ended.wait(timeout)

    def send_signal(self, number: int) -> None:
        if not self._ended.is_set():
            os.kill(self.pid, number)


class Zygote:
    """The process that forks; `stop` ends it and all that it started."""

    def __init__(self) -> None:
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"}
        self._child = subprocess.Popen(
            [sys.executable, "-m", __name__], cwd=ROOT, env=environment, text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self._lock = threading.Lock()
        self._processes: dict[int, Process] = {}
        self._started: dict[str, Process] = {}
        self._arrived = threading.Condition()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            told = json.loads(line)
            with self._arrived:
                process = self._processes.setdefault(told["pid"], Process(told["pid"]))
                if "code" in told:
                    process.ended(told["code"])
                else:
                    self._started[told["id"]] = process
                self._arrived.notify_all()

    def start(self, command: list[str], *, env: dict[str, str], address: str, log: Path, folder: Path) -> Process:
        """Starts a server.

        Args:
            command: As the container's: the program and its arguments. `module:function` calls that with strings.
            env: What is added to the environment.
            address: The loopback address that is the pod's own.
            log: The file that gets what it writes.
            folder: Its working directory.
        """
        number = f"{time.monotonic_ns()}-{threading.get_ident()}"
        told = {
            "id": number,
            "command": command,
            "env": env,
            "address": address,
            "log": str(log),
            "folder": str(folder),
        }
        with self._lock:
            assert self._child.stdin is not None
            self._child.stdin.write(json.dumps(told) + "\n")
            self._child.stdin.flush()
        with self._arrived:
            assert self._arrived.wait_for(lambda: number in self._started, timeout=300), "the zygote does not answer"
            return self._started.pop(number)

    def stop(self) -> None:
        for process in list(self._processes.values()):
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
        self._child.terminate()
        self._child.wait(timeout=30)


def _bind_to(address: str) -> None:
    import socket

    from serving.grpc_server import GrpcDoor

    plain_bind, grpc_bind = socket.socket.bind, GrpcDoor._bind

    def bind(self: socket.socket, where: Any) -> None:
        if self.family == socket.AF_INET6:
            raise OSError("a pod's address here is one of IPv4")
        plain_bind(self, (address, *where[1:]) if isinstance(where, tuple) and where[0] in ("0.0.0.0", "") else where)

    socket.socket.bind = bind  # type: ignore[method-assign]
    GrpcDoor._bind = lambda self, where, port: grpc_bind(self, where.replace("0.0.0.0", address), port)  # type: ignore[method-assign]


def _become(told: dict[str, Any]) -> None:
    """What the fork does: it is the server and never returns."""
    code = 1
    try:
        os.setsid()
        log = os.open(told["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for number in (1, 2):
            os.dup2(log, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(told["folder"])
        os.environ.update(told["env"])
        program, *words = told["command"]
        if program == SERVER:
            from serving.server import main

            _bind_to(told["address"])
            code = main(words)
        else:
            module, _, function = program.partition(":")
            getattr(importlib.import_module(module), function)(*words)
            code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _serve() -> None:
    from serving.server import _import_tensorflow

    _import_tensorflow()
    import serving.assembly
    import serving.grpc_server
    import serving.repository
    import serving.rest_server  # noqa: F401

    lock = threading.Lock()

    def tell(**told: Any) -> None:
        with lock:
            os.write(1, json.dumps(told).encode() + b"\n")

    def reap(pid: int) -> None:
        _, status = os.waitpid(pid, 0)
        tell(pid=pid, code=os.waitstatus_to_exitcode(status))

    for line in sys.stdin:
        told = json.loads(line)
        if told["command"][0] != SERVER and ":" not in told["command"][0]:
            raise SystemExit(f"{told['command'][0]} is no {SERVER}")
        pid = os.fork()
        if pid == 0:
            _become(told)
        tell(id=told["id"], pid=pid)
        threading.Thread(target=reap, args=(pid,), daemon=True).start()


if __name__ == "__main__":
    _serve()
