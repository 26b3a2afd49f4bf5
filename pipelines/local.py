"""Runs the pipeline here, with TFX's LocalDagRunner and SQLite: no server, no cluster."""

from __future__ import annotations

import contextlib
import datetime
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.data import absolute
from pipelines.data.spans import choose
from pipelines.settings import Schedule, Settings
from signatures.errors import MissingExtra, VitrinaError
from signatures.export import read_labels

__all__ = ["ComponentRun", "Deployed", "Event", "RunResult", "resolved", "run"]

CACHED = "CACHED"


@dataclass(frozen=True, kw_only=True)
class ComponentRun:
    """One component's part in a run.

    Args:
        name: The component, such as `Trainer`.
        state: `COMPLETE`, or `CACHED` where an earlier run's result was taken over because nothing had changed.
        seconds: From its start to its end.
    """

    name: str
    state: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """What became of a pushed version on a target of `--push-to`.

    Args:
        target: The target.
        live: Whether the version is live there; where it is not, what served before serves on.
        told: Where it is, or why it is not.
    """

    target: str
    live: bool
    told: str


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """How a run ended.

    Args:
        blessed: Whether the evaluator let the model pass.
        pushed: The version's folder below the serving base, or None where it was not blessed.
        version: Its number, or None.
        new: False where that version already held this very model.
        metrics: The candidate's, over the whole eval split: `accuracy`, `top_k_accuracy`, `images`, and
            `baseline_accuracy` where there is an earlier blessed model.
        failures: Why it was not blessed, one line per threshold or finding.
        serving: What serving it showed: `findings`, `latency_ms` per door, `server`.
        components: In the order they ran.
        ingest: ImageGen's report: `labels`, `counts` per split, `bad`.
        checkpoint: The trained checkpoint's folder.
        evaluation: TFMA's folder.
        metadata: The SQLite file.
        log: All that TFX, Beam and TensorFlow said.
        deployments: What became of it on each target of `push_to`; none where it was not blessed.
    """

    blessed: bool
    pushed: Path | None
    version: int | None
    new: bool
    metrics: Mapping[str, float]
    failures: tuple[str, ...]
    serving: Mapping[str, Any]
    components: tuple[ComponentRun, ...]
    ingest: Mapping[str, Any]
    checkpoint: Path
    evaluation: Path
    metadata: Path
    log: Path
    deployments: tuple[Deployed, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that a person who waits wants to see.

    Args:
        component: Which component it is about.
        text: `started`, `finished`, or a line of its own, such as an epoch's figures.
        seconds: Since the component started.
    """

    component: str
    text: str
    seconds: float = 0.0


Listener = Callable[[Event], None]


def run(
    *,
    data: str | Path,
    model: str | Path,
    root: str | Path,
    serving_dir: str | Path,
    schedule: Schedule | None = None,
    span: int | None = None,
    on_event: Listener | None = None,
    verbose: bool = False,
    **settings: Any,
) -> RunResult:
    """Ingests, validates, trains, evaluates on the bytes signature, blesses and pushes.

    Args:
        data: A folder with one subfolder of images per class, or `train/` and `eval/` folders of such; a *.csv or
            *.jsonl manifest; TFRecords with `image/encoded`; `datasets:` and a folder or name (see `pipelines.data`).
        model: The checkpoint to start from: a folder or Hub id.
        root: Where artifacts, `metadata.sqlite` and logs go; used again by the next run.
        serving_dir: The TF Serving base path that a blessed model is pushed to.
        schedule: How to train; None is `Schedule()`.
        span: Which of `data`'s spans to run on, where it has `span-1`, `span-2`, ...; None is the latest.
        on_event: Called as components start, say something and finish, with `sys.stderr` as it was before; None shows
            a line each there.
        verbose: Let TFX, Beam and TensorFlow write to the terminal instead of the log.
        **settings: The rest of `Settings`: `threshold`, `max_loss`, `keep`, `cache`, ...

    Returns:
        How it ended; a model that was not blessed is no error.

    Raises:
        UsageError: Something asked for cannot be.
        CheckFailed: The data did not pass.
        VitrinaError: A component failed.
    """
    given = resolved(
        data=data, model=model, root=root, serving_dir=serving_dir, schedule=schedule or Schedule(), **settings
    )
    chosen = replace(given, data=choose(given.data, span))
    started = datetime.datetime.now().isoformat(timespec="microseconds")
    log = _log_file(chosen.root, started)
    with contextlib.ExitStack() as stack:
        terminal = sys.stderr
        if not verbose:
            from pipelines.quiet import redirected

            terminal = stack.enter_context(redirected(log))
        watch = _Watch(on_event or _show, terminal)
        stack.enter_context(watch.listening())
        _execute(chosen, started, watch, log)
        return _result(chosen, log)


def resolved(
    *, data: str | Path, model: str | Path, root: str | Path, serving_dir: str | Path, **settings: Any
) -> Settings:
    """The settings with every path absolute, so that they mean the same from any folder.

    Args:
        data: As `run` takes it.
        model: Likewise.
        root: Likewise.
        serving_dir: Likewise.
        **settings: The rest of `Settings`.

    Raises:
        UsageError: Something asked for cannot be.
    """
    if settings.get("labels"):
        # As `vitrina.export` takes them: names, `"a,b,c"` or a file.
        settings["labels"] = read_labels(settings["labels"])
    if settings.get("serving_log"):
        settings["serving_log"] = absolute(settings["serving_log"])
    return Settings(
        data=absolute(data),
        model=_absolute_model(str(model)),
        root=Path(root).resolve(),
        serving_dir=Path(serving_dir).resolve(),
        **settings,
    )


def _absolute_model(model: str) -> str:
    """A file's or folder's name as it is known from any working folder, also behind a prefix; another name stays."""
    prefix, colon, name = model.partition(":")
    if colon and not Path(model).exists() and Path(name).exists():
        return f"{prefix}:{Path(name).resolve()}"
    return str(Path(model).resolve()) if Path(model).exists() else model


def _execute(settings: Settings, started: str, watch: _Watch, log: Path) -> None:
    try:
        from tfx import v1 as tfx
    except ImportError as error:
        raise MissingExtra("tfx", "tfx") from error

    from pipelines import graph

    pipeline = graph.build(settings, started=started)
    try:
        tfx.orchestration.LocalDagRunner().run(pipeline)
    except VitrinaError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise VitrinaError(
            f"{watch.component or 'The pipeline'} failed: {type(error).__name__}: {reason} "
            f"What led to it is in {log}; run it again when it is put right: what is done is not done twice."
        ) from error


class _Watch(logging.Handler):
    """Turns what LocalDagRunner and the trainer log into events."""

    def __init__(self, listener: Listener, terminal: Any) -> None:
        super().__init__(logging.INFO)
        self._listener = listener
        self._terminal = terminal
        self._since = time.monotonic()
        self.component = ""

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        from absl import logging as absl

        loggers = absl.get_absl_logger(), logging.getLogger("pipelines")
        verbosity, level = absl.get_verbosity(), loggers[1].level
        # By absl's own function: TensorFlow saves and restores that verbosity, and would undo a bare setLevel.
        absl.set_verbosity(absl.INFO)
        loggers[1].setLevel(logging.INFO)
        for logger in loggers:
            logger.addHandler(self)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeHandler(self)
            absl.set_verbosity(verbosity)
            loggers[1].setLevel(level)

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("pipelines"):
            self._tell(record.getMessage())
        elif record.msg == "Component %s is running.":
            self.component, self._since = str(_first(record.args)), time.monotonic()
            self._tell("started")
        elif record.msg == "A cached execution %d is used.":
            self._tell("reused: nothing it depends on has changed")
        elif record.msg == "Component %s is finished.":
            self._tell("finished")

    def _tell(self, text: str) -> None:
        event = Event(component=self.component, text=text, seconds=time.monotonic() - self._since)
        # What a listener writes is for the person who waits, not for the log.
        with contextlib.redirect_stderr(self._terminal):
            self._listener(event)


def _first(arguments: Any) -> Any:
    return arguments[0] if isinstance(arguments, tuple) and arguments else arguments


def _show(event: Event) -> None:
    """One line per event on standard error: what runs, what it says, how long it took."""
    if event.text == "started":
        line = f"{event.component} ..."
    elif event.text == "finished":
        line = f"{event.component} done in {event.seconds:.1f} s"
    else:
        line = f"  {event.text} ({event.seconds:.0f} s)"
    print(line, file=sys.stderr, flush=True)


def _log_file(root: Path, started: str) -> Path:
    folder = root / "logs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VitrinaError(
            f"{folder} cannot be made ({error.strerror}). Choose another --root, a folder that may be written."
        ) from error
    return folder / f"{started.replace(':', '-')}.log"


def _result(settings: Settings, log: Path) -> RunResult:
    from pipelines import lineage, verdict
    from pipelines.components.base_path_pusher import NEW, PATH, PUSHED, VERSION
    from pipelines.trainer import CHECKPOINT

    executions = {item.component: item for item in lineage.last_run(settings.metadata, settings.name)}
    pushed = executions["BasePathPusher"].outputs["pushed_model"].properties
    evaluation = Path(executions["Evaluator"].outputs["evaluation"].uri)
    serving = verdict.serving_report(Path(executions["ServingCheck"].outputs["blessing"].uri))
    blessed = bool(pushed.get(PUSHED))
    return RunResult(
        blessed=blessed,
        pushed=Path(pushed[PATH]) if blessed else None,
        version=int(pushed[VERSION]) if blessed else None,
        new=bool(pushed.get(NEW)),
        metrics=verdict.metrics(evaluation),
        failures=(*verdict.failures(evaluation), *verdict.serving_failures(serving)),
        serving=serving,
        components=tuple(
            ComponentRun(name=item.component, state=item.state, seconds=item.seconds) for item in executions.values()
        ),
        ingest=verdict.ingest_report(Path(executions["ImageGen"].outputs["report"].uri)),
        checkpoint=Path(executions["Trainer"].outputs["model_run"].uri) / CHECKPOINT,
        evaluation=evaluation,
        metadata=settings.metadata,
        log=log,
        deployments=tuple(
            _deployed(item.outputs["deployment"].properties)
            for name, item in executions.items()
            if blessed and name.startswith("TargetPusher")
        ),
    )


def _deployed(properties: Mapping[str, Any]) -> Deployed:
    from pipelines.components.target_pusher import LIVE, TARGET, TOLD

    return Deployed(target=properties[TARGET], live=bool(properties[LIVE]), told=properties[TOLD])
