"""`vitrina serve`: flags in, a serving process out."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import resource
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serving import flags as flags_module
from serving import logs
from serving.flags import Flags
from serving.signals import stop_signals
from signatures.errors import UsageError, VitrinaError

if TYPE_CHECKING:
    from serving.grpc_server import GrpcDoor
    from serving.repository import Repository
    from serving.rest_server import RestDoor

__all__ = ["Ports", "Server", "free_port", "main"]

_LOG = logging.getLogger("vitrina.serving")


@dataclass(frozen=True)
class Ports:
    """Where a server listens; None where a door is closed."""

    grpc: int | None
    rest: int | None


def free_port() -> int:
    """A TCP port that nobody listens on right now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Server:
    """A model server in this process.

    Args:
        flags: As parsed from a command line.

    Example:
        >>> flags = parse([f"--port={free_port()}", "--model_name=digits", "--model_base_path=/models/digits"])
        >>> server = Server(flags)
        >>> server.start()
        >>> server.ports.grpc
        41234
        >>> server.stop()
    """

    def __init__(self, flags: Flags) -> None:
        self.flags = flags
        self._repository: Repository | None = None
        self._grpc: GrpcDoor | None = None
        self._rest: RestDoor | None = None
        self._stopping = threading.Event()

    @property
    def ports(self) -> Ports:
        """The ports that it listens on."""
        return Ports(self._grpc.port if self._grpc else None, self._rest.port if self._rest else None)

    def start(self, timeout: float | None = None) -> None:
        """Loads the models and, once every one has an AVAILABLE version, listens.

        Args:
            timeout: How many seconds to wait for the models; None waits for ever.

        Raises:
            VitrinaError: A port is taken, a model cannot be loaded, or the time is up.
            UsageError: The flags do not fit together.
        """
        self._check_ports()
        from serving import assembly
        from serving.errors import ServingError

        try:
            core = assembly.build_core(self.flags)
            self._repository = core.repository
            self._repository.reload(assembly.models(self.flags), wait=False)
            self._repository.start_polling()
            if not self.wait_available(timeout):
                raise VitrinaError(f"The models were not available after {timeout} seconds. Look at their base paths.")
            self._grpc, self._rest = assembly.open_doors(core, self.flags)
            self._watch_config()
        except BaseException as error:
            if self._repository is not None:
                self._repository.close(0)
            if isinstance(error, ServingError):
                raise VitrinaError(f"Failed to start server. Error: {error}") from error
            raise

    def _watch_config(self) -> None:
        """Reads the model list again from time to time, where that was asked for."""
        seconds = self.flags.model_config_file_poll_wait_seconds
        if seconds > 0 and self.flags.model_config_file:
            threading.Thread(target=self._poll_config, args=(seconds,), name="vitrina-config", daemon=True).start()

    def _poll_config(self, seconds: float) -> None:
        from serving import assembly
        from serving.errors import ServingError

        assert self._repository is not None
        while not self._stopping.wait(seconds):
            try:
                self._repository.reload(assembly.models(self.flags, again=True))
            except ServingError as error:
                _LOG.error("cannot use the model list", extra={"error": str(error)})

    def _check_ports(self) -> None:
        """Says at once that a port is taken, before models are loaded."""
        for port, flag, what in (
            (self.flags.port, "--port", "gRPC"),
            (self.flags.rest_api_port, "--rest_api_port", "REST"),
        ):
            if port and not _is_free(port):
                raise VitrinaError(
                    f"Port {port} for {what} is taken by another process. Stop that process, or choose another port "
                    f"with {flag}."
                )

    def wait_available(self, timeout: float | None = None) -> bool:
        """Waits until every model has an AVAILABLE version; False where the timeout comes first."""
        assert self._repository is not None, "call start() first"
        return self._repository.wait_available(self._repository.names(), timeout, "servable")

    def stop(self, grace: float = 30.0) -> bool:
        """Stops accepting, lets what is in flight finish within `grace` seconds, and unloads.

        Returns:
            Whether all that was in flight ended in time.
        """
        self._stopping.set()
        deadline = time.monotonic() + grace
        closers = [
            threading.Thread(target=door.stop, args=(grace,)) for door in (self._grpc, self._rest) if door is not None
        ]
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join()
        self._grpc = self._rest = None
        return self._repository is None or self._repository.close(max(deadline - time.monotonic(), 0.1))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


def main(argv: Sequence[str], *, leave: bool = False) -> int:
    """Serves until SIGTERM or SIGINT.

    Args:
        argv: The flags, without the program's name.
        leave: Whether the process is the server's alone and ends once everything has stopped, without the interpreter's
            own tidying up, which takes a second or more with TensorFlow in it.

    Returns:
        The exit code: 0 after a signal, 1 where serving failed, 2 for flags that cannot be.
    """
    try:
        flags = flags_module.parse(argv)
    except UsageError as error:
        print(f"vitrina serve: {error}", file=sys.stderr)
        return UsageError.exit_code
    if flags.help:
        print(flags_module.usage())
        return 0
    if flags.version:
        print(flags_module.version_text())
        return 0
    stop = threading.Event()
    # A second signal does not wait for what is in flight.
    with stop_signals(stop, again=lambda: os._exit(0)):
        return _serve(stop, flags, leave)


_NOT_NEEDED = ("keras", "tf_keras", "googleapiclient", "scipy", "h5py", "pandas", "PIL")
"""What TensorFlow imports where it finds it, and no session needs."""


def _import_tensorflow() -> None:
    """Imports TensorFlow without what it would import only to register it, Keras above all.

    That halves the time to start. TensorFlow goes on where these are missing, and finds them later if it is asked to.
    """
    if "tensorflow" in sys.modules:
        return
    hidden = {name: sys.modules.get(name) for name in _NOT_NEEDED}
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        importlib.import_module("tensorflow")
    finally:
        for name, module in hidden.items():
            del sys.modules[name]
            if module is not None:
                sys.modules[name] = module


def _raise_file_limit() -> None:
    """Every connection is an open file; the usual soft limit of 1024 is soon reached."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 1 << 16)), hard))


def _say(text: str) -> None:
    """A line on stderr; where that is a file on a full disk or a closed pipe, serving matters more."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def _serve(stop: threading.Event, flags: Flags, leave: bool) -> int:
    logs.set_up(flags.log_format)
    _raise_file_limit()
    server = Server(flags)
    started = time.monotonic()
    failure: list[Exception] = []

    def start() -> None:
        try:
            _import_tensorflow()
            server.start()
            ports = server.ports
            rest = f", REST at http://0.0.0.0:{ports.rest}" if ports.rest else ""
            seconds = time.monotonic() - started
            _say(f"Serving: gRPC at 0.0.0.0:{ports.grpc}{rest} (ready in {seconds:.1f} s)")
        except Exception as error:
            if not isinstance(error, VitrinaError):
                _LOG.exception("the server could not be started")
            failure.append(error)
            stop.set()

    starter = threading.Thread(target=start, daemon=True)
    starter.start()
    stop.wait()
    if failure:
        _say(f"vitrina serve: {failure[0]}")
        return getattr(failure[0], "exit_code", 1)
    if starter.is_alive():  # still importing or loading: nothing is in flight, and that cannot be interrupted
        os._exit(0)
    _LOG.info("stopping", extra={"grace_seconds": flags.shutdown_grace_seconds})
    ended = server.stop(flags.shutdown_grace_seconds)
    if not ended:
        _LOG.warning("what is still in flight is given up")
    if leave or not ended:  # the interpreter would wait for its threads
        os._exit(0)
    return 0
