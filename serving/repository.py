"""The models being served: versions that come and go on disk, labels, and the states that people ask for.

A poll compares every base path with what is loaded. New versions are loaded beside the old ones, and only once
one of them is AVAILABLE are the versions that are no longer wanted unloaded, so that there is never a gap. A
version that cannot be loaded is reported and left alone while the others serve on.
"""

from __future__ import annotations

import enum
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import tensorflow as tf

from serving import model_config
from serving.errors import Code, ServingError, from_tensorflow, invalid_argument, not_found
from serving.metrics import Registry
from serving.model_config import Model
from serving.servable import Servable

__all__ = ["Options", "Repository", "State", "VersionStatus"]

_LOG = logging.getLogger("vitrina.serving")
_MAX_VERSION = (1 << 63) - 1


class State(enum.IntEnum):
    """ModelVersionStatus.State, by its numbers."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True)
class VersionStatus:
    """How one version is.

    Args:
        version: Its number.
        state: Where it is in its life.
        error: Why it ended, or None.
    """

    version: int
    state: State
    error: ServingError | None = None


@dataclass(frozen=True)
class Options:
    """How the repository behaves.

    Args:
        poll_wait_seconds: Between polls of the base paths; 0 polls once.
        max_load_retries: How often a failed load is tried again.
        retry_interval_seconds: Between these tries.
        load_threads: How many versions are loaded at once.
        labels_for_unavailable: Whether labels may be new while their versions are not available.
    """

    poll_wait_seconds: float = 1
    max_load_retries: int = 5
    retry_interval_seconds: float = 60
    load_threads: int = 4
    labels_for_unavailable: bool = False


class Repository:
    """Loads, finds and unloads the versions of the models in a list.

    Args:
        load: Loads one version: (model name, version, path) -> Servable, ready to serve.
        options: See there.
        unloaded: Told of every version after its last run.
        metrics: Where the available versions are shown.
    """

    def __init__(
        self,
        load: Callable[[str, int, str], Servable],
        options: Options = Options(),
        unloaded: Callable[[Servable], None] = lambda _: None,
        metrics: Registry | None = None,
    ) -> None:
        self._load = load
        self._unloaded = unloaded
        self._metrics = metrics
        self._options = options
        self._models: tuple[Model, ...] = ()
        self._labels: Mapping[str, Mapping[str, int]] = {}
        self._states: dict[str, dict[int, VersionStatus]] = {}
        self._live: dict[str, dict[int, Servable]] = {}
        self._aspired: dict[str, set[int]] = {}
        self._changed = threading.Condition(threading.RLock())
        self._polling = threading.Lock()
        self._reloading = threading.Lock()
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(options.load_threads, "vitrina-load")
        self._unloads = ThreadPoolExecutor(options.load_threads, "vitrina-unload")
        self._poller: threading.Thread | None = None

    # What requests ask for.

    def find(self, name: str, version: int | None = None, label: str | None = None) -> Servable:
        """The servable that a request means.

        Args:
            name: The model's name.
            version: A version, or None for the highest that is loaded.
            label: A version label, in place of a version.

        Raises:
            ServingError: INVALID_ARGUMENT or NOT_FOUND.
        """
        if not name:
            raise invalid_argument("ModelSpec has no name specified.")
        if label is not None:
            version = self._labelled(name, label)
        live = self._live.get(name, {})
        if version is None:
            if not live:
                raise not_found(f"Servable not found for request: Latest({name})")
            try:
                return live[max(live)]
            except (KeyError, ValueError, RuntimeError):  # a version went between the two look-ups
                return self.find(name)
        servable = live.get(version)
        if servable is None:
            raise not_found(f"Servable not found for request: Specific({name}, {version})")
        return servable

    def _labelled(self, name: str, label: str) -> int:
        version = self._labels.get(name, {}).get(label)
        if version is None:
            raise invalid_argument(f"Unrecognized servable version label: {label}")
        return version

    def status(self, name: str, version: int | None = None) -> list[VersionStatus]:
        """The states of a model's versions, highest first, or of one.

        Raises:
            ServingError: NOT_FOUND.
        """
        with self._changed:
            states = dict(self._states.get(name, {}))
        if version is not None:
            if version not in states:
                raise not_found(f"Could not find version {version} of model {name}")
            return [states[version]]
        if not states:
            raise not_found(f"Could not find any versions of model {name}")
        return [states[number] for number in sorted(states, reverse=True)]

    def names(self) -> list[str]:
        """The models in the list."""
        return [model.name for model in self._models]

    # What to serve.

    def reload(self, models: tuple[Model, ...], wait: bool = True) -> None:
        """Replaces the list of models, and waits until every new one has an AVAILABLE version.

        Raises:
            ServingError: The list is not acceptable, or a new model cannot be loaded.
        """
        with self._reloading:
            old = self._models
            model_config.check_platforms(old, models)
            self._models, previous = models, old
            self._labels = self._checked_labels(models)
            model_config.check_supported(models)
            new = [model.name for model in models if model.name not in {entry.name for entry in previous}]
            with self._changed:
                for name in new:
                    # A model that comes back is judged anew.
                    self._states[name] = {}
            self._poll_logged()
            if wait:
                self.wait_available(new)

    def _checked_labels(self, models: Iterable[Model]) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for model in models:
            for label, version in model.labels.items():
                known = self._labels.get(model.name, {}).get(label)
                allowed = self._options.labels_for_unavailable and known in (None, version)
                if not allowed and version not in self._live.get(model.name, {}):
                    raise model_config.label_error(model, version)
                found.setdefault(model.name, {})[label] = version
        return found

    def start_polling(self) -> None:
        """Polls the base paths from now on, in a thread of its own."""
        if self._options.poll_wait_seconds > 0 and self._poller is None:
            self._poller = threading.Thread(target=self._poll_forever, name="vitrina-poll", daemon=True)
            self._poller.start()

    def _poll_forever(self) -> None:
        while not self._stop.wait(self._options.poll_wait_seconds):
            self._poll_logged()

    def _poll_logged(self) -> None:
        try:
            self.poll()
        except ServingError as error:
            _LOG.error("cannot read base paths", extra={"error": str(error)})

    def poll(self) -> None:
        """Looks at every base path once and starts what has to be done.

        Raises:
            ServingError: A base path cannot be read; then nothing is changed for any model.
        """
        with self._polling:
            models = self._models
            aspired = {model.name: self._versions_on_disk(model) for model in models}
            paths = {model.name: model.base_path for model in models}
            with self._changed:
                for name in [*aspired, *(gone for gone in list(self._states) if gone not in aspired)]:
                    wanted = aspired.get(name, {})
                    self._aspired[name] = set(wanted)
                    self._load_missing(name, wanted, paths)
                    self._unload_unwanted(name)

    def _versions_on_disk(self, model: Model) -> dict[int, str]:
        """The versions to serve, and the names of their folders."""
        try:
            names = tf.io.gfile.listdir(model.base_path)
        except tf.errors.OpError as error:
            found = from_tensorflow(error)
            raise not_found(
                f"Could not find base path {model.base_path} for servable {model.name} with error {found}"
            ) from error
        folders: dict[int, str] = {}
        for name in sorted(name.rstrip("/") for name in names):
            if name.isascii() and name.isdigit() and int(name) <= _MAX_VERSION:
                folders[int(name)] = name
        return {version: folders[version] for version in model.policy.choose(set(folders))}

    def _load_missing(self, name: str, wanted: Mapping[int, str], paths: Mapping[str, str]) -> None:
        states = self._states.setdefault(name, {})
        for version in sorted(wanted, reverse=True):
            known = states.get(version)
            if known is not None and (known.state is not State.END or known.error is not None):
                continue
            self._set(name, version, State.START)
            path = paths[name].rstrip("/") + "/" + wanted[version]
            self._pool.submit(self._load_version, name, version, path)
        # A failed version is forgotten once it is no longer wanted; coming back, it is tried again.
        for version, status in list(states.items()):
            if status.error is not None and version not in wanted:
                states[version] = VersionStatus(version, State.END, status.error)

    def _load_version(self, name: str, version: int, path: str) -> None:
        self._set(name, version, State.LOADING)
        _LOG.info("loading", extra={"model": name, "version": version, "path": path})
        started = time.monotonic()
        for attempt in range(self._options.max_load_retries + 1):
            if attempt and self._stop.wait(self._options.retry_interval_seconds):
                break
            if version not in self._aspired.get(name, ()):
                self._set(name, version, State.END)
                return
            try:
                servable = self._load(name, version, path)
            except ServingError as found:
                error = found
            except Exception as found:
                error = from_tensorflow(found)
            else:
                self._loaded(servable, time.monotonic() - started)
                return
            _LOG.error(
                "cannot load", extra={"model": name, "version": version, "error": str(error), "try": attempt + 1}
            )
        self._set(name, version, State.END, error)

    def _loaded(self, servable: Servable, seconds: float) -> None:
        name, version = servable.name, servable.version
        with self._changed:
            self._live[name] = {**self._live.get(name, {}), version: servable}
            self._set(name, version, State.AVAILABLE)
            self._unload_unwanted(name)
        _LOG.info("available", extra={"model": name, "version": version, "seconds": round(seconds, 3)})

    def _unload_unwanted(self, name: str) -> None:
        """Starts unloading what is no longer wanted, unless that would leave a gap."""
        live, aspired = self._live.get(name, {}), self._aspired.get(name, set())
        if aspired and not aspired & set(live):
            return
        for version in sorted(set(live) - aspired):
            servable = live[version]
            self._live[name] = live = {number: kept for number, kept in live.items() if number != version}
            self._set(name, version, State.UNLOADING)
            self._unloads.submit(self._unload_version, servable)

    def _unload_version(self, servable: Servable) -> None:
        servable.unload()
        self._unloaded(servable)
        self._set(servable.name, servable.version, State.END)

    def _set(self, name: str, version: int, state: State, error: ServingError | None = None) -> None:
        with self._changed:
            self._states.setdefault(name, {})[version] = VersionStatus(version, state, error)
            self._changed.notify_all()
        if self._metrics is not None:
            self._metrics.versions.set(int(state is State.AVAILABLE), name, str(version))

    # Waiting.

    def wait_available(self, names: Iterable[str], timeout: float | None = None) -> bool:
        """Waits until every one of the models has an AVAILABLE version.

        Returns:
            False where the timeout came first.

        Raises:
            ServingError: UNKNOWN where all the versions of one have ended.
        """
        awaited = list(names)

        def settled() -> bool:
            return self._stop.is_set() or all(self._live.get(name) or self._failed(name) for name in awaited)

        with self._changed:
            done = self._changed.wait_for(settled, timeout)
            failed = {name: self._failed(name) for name in awaited if not self._live.get(name)}
        problems = [
            f"{{{{name: {name} version: {status.version}}} due to error: {status.error}}}, "
            for name, statuses in failed.items()
            for status in statuses[:1]
        ]
        if problems and done:
            raise ServingError(
                Code.UNKNOWN, f"{len(problems)} model(s) did not become available: {{{''.join(problems)}}}"
            )
        return done and not failed

    def _failed(self, name: str) -> list[VersionStatus]:
        """The states of a model all of whose versions ended in errors."""
        states = [status for version, status in sorted(self._states.get(name, {}).items(), reverse=True)]
        wanted = [status for status in states if status.version in self._aspired.get(name, ())]
        ended = [status for status in wanted if status.state is State.END and status.error is not None]
        return ended if wanted and len(ended) == len(wanted) else []

    def close(self, timeout: float | None = None) -> None:
        """Stops polling and unloads everything, waiting for runs in flight up to the timeout in seconds."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
            live, self._live = self._live, {}
        if self._poller is not None:
            self._poller.join(timeout)
        futures: list[Future[None]] = [
            self._unloads.submit(servable.unload) for versions in live.values() for servable in versions.values()
        ]
        deadline = None if timeout is None else time.monotonic() + timeout
        for future in futures:
            try:
                future.result(None if deadline is None else max(deadline - time.monotonic(), 0))
            except TimeoutError:
                break
            except Exception:
                _LOG.exception("cannot unload")
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._unloads.shutdown(wait=False, cancel_futures=True)
