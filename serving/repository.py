"""The models being served: versions that come and go on disk, labels, and the states that people ask for.

A poll compares every base path with what is loaded. New versions are loaded beside the old ones, and only once
one of them is AVAILABLE are the versions that are no longer wanted unloaded, so that there is never a gap. A
version that cannot be loaded is reported and left alone while the others serve on.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import tensorflow as tf

from serving import model_config
from serving.errors import Code, ServingError, from_tensorflow, invalid_argument, not_found
from serving.metrics import Registry
from serving.model_config import Model
from serving.servable import Servable

__all__ = ["Options", "Repository", "State", "VersionStatus"]

_LOG = logging.getLogger("vitrina.serving")
_VERSION = re.compile(r"\s*(-?[0-9]+)\s*", re.ASCII)
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
        # What the last reload said, whether or not it could be applied, and what is being polled.
        self._config: tuple[Model, ...] = ()
        self._models: tuple[Model, ...] = ()
        self._labels: Mapping[str, Mapping[str, int]] = {}
        # Replaced rather than changed, so that requests read them without a lock.
        self._live: dict[str, dict[int, Servable]] = {}
        self._states: dict[str, dict[int, VersionStatus]] = {}
        self._aspired: dict[str, dict[int, str]] = {}
        self._given_up: dict[str, set[int]] = {}
        self._changed = threading.Condition(threading.RLock())
        self._polling = threading.Lock()
        self._reloading = threading.Lock()
        self._loading = threading.Semaphore(options.load_threads)
        self._stop = threading.Event()
        self._poller: threading.Thread | None = None
        self._last_error = ""

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
            version = self._labels.get(name, {}).get(label)
            if version is None:
                raise invalid_argument(f"Unrecognized servable version label: {label}")
        live = self._live.get(name, {})
        if version is None:
            if not live:
                raise not_found(f"Servable not found for request: Latest({name})")
            return live[max(live)]
        if version not in live:
            raise not_found(f"Servable not found for request: Specific({name}, {version})")
        return live[version]

    @contextlib.contextmanager
    def using(self, name: str, version: int | None = None, label: str | None = None) -> Iterator[Servable]:
        """`find`, and keeps the servable loaded meanwhile."""
        servable = self.find(name, version, label)
        while not servable.acquire():  # it was retired in between, and is no longer to be found
            servable = self.find(name, version, label)
        try:
            yield servable
        finally:
            servable.release()

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

    def reload(self, models: tuple[Model, ...], wait: bool = True, timeout: float | None = None) -> None:
        """Replaces the list of models, and waits until every new one has an AVAILABLE version.

        Args:
            models: The whole new list; who is not in it is unloaded.
            wait: Whether to wait.
            timeout: How many seconds at most; None is for ever.

        Raises:
            ServingError: The list is not acceptable, or a new model cannot be loaded.
        """
        with self._reloading:
            model_config.check_platforms(self._config, models)
            self._config = models
            self._labels = self._checked_labels(models)
            model_config.check_supported(models)
            known = set(self.names())
            self._models = models
            self._poll_logged()
            new = [model.name for model in models if model.name not in known]
            if wait and not self.wait_available(new, timeout) and not self._stop.is_set():
                raise ServingError(Code.DEADLINE_EXCEEDED, "The new models were not available before the deadline")

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
            try:
                self._poll_logged()
            except Exception:
                _LOG.exception("a poll failed")

    def _poll_logged(self) -> None:
        error = ""
        try:
            self.poll()
        except ServingError as found:
            error = str(found)
        if error and error != self._last_error:
            _LOG.error("cannot read the base paths", extra={"error": error})
        self._last_error = error

    def poll(self) -> None:
        """Looks at every base path once and starts what has to be done.

        Raises:
            ServingError: A base path cannot be read; then nothing is changed for any model.
        """
        if self._options.poll_wait_seconds < 0:
            return
        with self._polling:
            aspired = {model.name: _versions_on_disk(model) for model in self._models}
            with self._changed:
                for name in {**aspired, **self._aspired}:
                    self._aspired[name] = aspired.get(name, {})
                    self._given_up.get(name, set()).intersection_update(self._aspired[name])
                    self._reconcile(name)

    def _reconcile(self, name: str) -> None:
        """Starts loading what is wanted, and unloading what is not unless that would leave a gap."""
        if self._stop.is_set():
            return
        aspired, live = self._aspired.get(name, {}), self._live.get(name, {})
        for version in sorted(aspired, reverse=True):
            status = self._states.get(name, {}).get(version)
            ended = status is None or status.state is State.END
            if ended and version not in self._given_up.get(name, ()):
                self._set(name, version, State.START)
                _start(self._load_version, name, version, aspired[version])
        unwanted = sorted(set(live) - set(aspired))
        if aspired and not set(aspired) & set(live):
            unwanted = unwanted[:-1]  # the last one serves until a wanted version does
        for version in unwanted:
            servable = self._live[name][version]
            self._live[name] = {number: kept for number, kept in self._live[name].items() if number != version}
            self._set(name, version, State.UNLOADING)
            _start(self._unload_version, servable)

    def _load_version(self, name: str, version: int, path: str) -> None:
        started = time.monotonic()
        for attempt in range(self._options.max_load_retries + 1):
            if attempt and self._stop.wait(self._options.retry_interval_seconds):
                return
            if version not in self._aspired.get(name, {}):
                break
            with self._loading:
                self._set(name, version, State.LOADING)
                _LOG.info("loading", extra={"model": name, "version": version, "path": path})
                try:
                    servable = self._load(name, version, path)
                except Exception as found:
                    error = found if isinstance(found, ServingError) else from_tensorflow(found)
                else:
                    self._loaded(servable, time.monotonic() - started)
                    return
            _LOG.error(
                "cannot load", extra={"model": name, "version": version, "error": str(error), "try": attempt + 1}
            )
        else:
            with self._changed:
                self._given_up.setdefault(name, set()).add(version)
                self._set(name, version, State.END, error)
            return
        with self._changed:  # nobody wants it any more
            self._set(name, version, State.END)
            self._reconcile(name)

    def _loaded(self, servable: Servable, seconds: float) -> None:
        name, version = servable.name, servable.version
        with self._changed:
            self._live[name] = {**self._live.get(name, {}), version: servable}
            self._set(name, version, State.AVAILABLE)
            self._reconcile(name)
        _LOG.info("available", extra={"model": name, "version": version, "seconds": round(seconds, 3)})

    def _unload_version(self, servable: Servable) -> None:
        servable.unload()
        self._unloaded(servable)
        with self._changed:
            self._set(servable.name, servable.version, State.END)
            self._reconcile(servable.name)

    def _set(self, name: str, version: int, state: State, error: ServingError | None = None) -> None:
        with self._changed:
            self._states.setdefault(name, {})[version] = VersionStatus(version, state, error)
            self._changed.notify_all()
        if self._metrics is not None:
            self._metrics.versions.set(int(state is State.AVAILABLE), name, str(version))

    # Waiting.

    def wait_available(self, names: Iterable[str], timeout: float | None = None, noun: str = "model") -> bool:
        """Waits until every one of the models has an AVAILABLE version.

        Args:
            names: The models' names.
            timeout: How many seconds at most; None is for ever.
            noun: What the error calls them; TF Serving says `servable` at the start and `model` later.

        Returns:
            False where the timeout came first, or the repository was closed.

        Raises:
            ServingError: UNKNOWN where no version of one can be loaded.
        """
        awaited = list(names)

        def settled() -> bool:
            return self._stop.is_set() or all(self._live.get(name) or self._failed(name) for name in awaited)

        with self._changed:
            self._changed.wait_for(settled, timeout)
            failed = [(name, self._failed(name)) for name in awaited if not self._live.get(name)]
        problems = [
            f"{{{{name: {name} version: {status.version}}} due to error: {status.error}}}, "
            for name, status in failed
            if status is not None
        ]
        if problems and len(problems) == len(failed):
            raise ServingError(
                Code.UNKNOWN, f"{len(problems)} {noun}(s) did not become available: {{{''.join(problems)}}}"
            )
        return not failed

    def _failed(self, name: str) -> VersionStatus | None:
        """The state of a model's highest wanted version, where all of those could not be loaded."""
        wanted, given_up = self._aspired.get(name, {}), self._given_up.get(name, set())
        if not wanted or set(wanted) - given_up:
            return None
        return self._states[name][max(wanted)]

    def close(self, timeout: float | None = None) -> bool:
        """Stops polling and unloads everything, waiting for runs in flight up to the timeout in seconds.

        Returns:
            Whether all of them ended in time.
        """
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
            live, self._live = self._live, {}
        threads = [
            _start(self._unload_version, servable) for versions in live.values() for servable in versions.values()
        ]
        if self._poller is not None:
            threads.append(self._poller)
        deadline = None if timeout is None else time.monotonic() + timeout
        for thread in threads:
            thread.join(None if deadline is None else max(deadline - time.monotonic(), 0))
        return not any(thread.is_alive() for thread in threads)


def _start(target: Callable[..., None], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=target, args=arguments, name=f"vitrina{target.__name__}", daemon=True)
    thread.start()
    return thread


def _versions_on_disk(model: Model) -> dict[int, str]:
    """The versions to serve, and the paths of their folders.

    Raises:
        ServingError: NOT_FOUND where the base path cannot be read.
    """
    try:
        names = tf.io.gfile.listdir(model.base_path)
    except tf.errors.OpError as error:
        raise not_found(
            f"Could not find base path {model.base_path} for servable {model.name} with error {from_tensorflow(error)}"
        ) from error
    folders: dict[int, str] = {}
    for name in sorted(name.rstrip("/") for name in names):
        number = _VERSION.fullmatch(name)
        if number is not None and -_MAX_VERSION - 1 <= int(number[1]) <= _MAX_VERSION:
            folders[int(number[1])] = name
    base = model.base_path.rstrip("/")
    return {version: f"{base}/{folders[version]}" for version in model.policy.choose(set(folders))}
