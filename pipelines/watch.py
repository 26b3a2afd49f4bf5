"""A run for every new span: `vitrina pipeline watch`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.data import find
from pipelines.data.spans import Span, spans
from signatures.errors import UsageError, VitrinaError

__all__ = ["Seen", "watch"]

STATE = "spans.json"
INTERVAL = 30.0


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What became of a span.

    Args:
        span: Its number.
        version: Its version, 0 where it has none.
        result: The run's `RunResult`, or None where it stopped.
        error: Why it stopped, or "".
    """

    span: int
    version: int
    result: Any = None
    error: str = ""


def watch(
    *,
    data: str | Path,
    root: str | Path,
    once: bool = False,
    interval: float = INTERVAL,
    run: Callable[..., Any] | None = None,
    **settings: Any,
) -> Iterator[Seen]:
    """Runs the pipeline on each span that has not been run yet, lowest first, and waits for more.

    A span counts as whole when its files have not changed between two looks. One whose run stopped (too much that
    cannot be read, anomalies) is not tried again until its files change or a new version comes; what is served stays.

    Args:
        data: A folder that gets `span-1`, `span-2`, ...
        root: The run's; `spans.json` in it says what has been done.
        once: Run what is there and leave, as for cron; files are then taken to be whole.
        interval: Seconds between two looks.
        run: What runs; `pipelines.local.run` by default.
        **settings: As `pipelines.local.run` takes them.

    Yields:
        What became of each span.

    Raises:
        UsageError: There is no such folder, or `run` found that something asked for cannot be.
    """
    folder, state = Path(data), Path(root) / STATE
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}. Give one that gets subfolders named span-1, span-2, ...")
    if run is None:
        from pipelines import local

        run = local.run
    done = _read(state)
    before: Mapping[int, str] = {}
    while True:
        now = {span.number: _state(span) for span in spans(folder)}
        for span in spans(folder):
            whole = once or before.get(span.number) == now.get(span.number)
            if whole and done.get(str(span.number)) != now.get(span.number):
                seen = _run(run, span, root=root, **settings)
                done[str(span.number)] = now[span.number]
                _write(state, done)
                yield seen
        if once:
            return
        before = now
        time.sleep(interval)


def _run(run: Callable[..., Any], span: Span, **settings: Any) -> Seen:
    try:
        result = run(data=span.path, **settings)
    except VitrinaError as error:
        # What is wrong with one span's images concerns that span; a missing checkpoint would concern them all.
        if isinstance(error, UsageError) and _can_be_listed(span):
            raise
        return Seen(span=span.number, version=span.version, error=" ".join(str(error).split()))
    return Seen(span=span.number, version=span.version, result=result)


def _can_be_listed(span: Span) -> bool:
    try:
        find(str(span.path))
    except VitrinaError:
        return False
    return True


def _state(span: Span) -> str:
    """Changes with the span's version and files, or with what is wrong with them."""
    try:
        return f"{span.version} {find(str(span.path)).fingerprint}"
    except VitrinaError as error:
        return f"{span.version} {error}"


def _read(state: Path) -> dict[str, str]:
    if not state.is_file():
        return {}
    found = json.loads(state.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def _write(state: Path, done: Mapping[str, str]) -> None:
    half = state.with_suffix(".writing")
    state.parent.mkdir(parents=True, exist_ok=True)
    half.write_text(json.dumps(done, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(half, state)
