"""`vitrina export`."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from signatures import preparing

HELP = "write a model as a servable: a SavedModel with its preprocessing and postprocessing"
NEEDS = "signatures.export"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the options; those of the tasks come from the tasks themselves."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a checkpoint's folder or Hub id, a .keras or .h5 file, keras_hub:NAME, or python:PACKAGE.MODULE:FUNCTION",
    )
    parser.add_argument(
        "--to", required=True, type=Path, metavar="BASE", help="the model_base_path to write a version in"
    )
    parser.add_argument("--task", metavar="T", help="by default the one that the model's architecture is for")
    parser.add_argument("--version", type=int, metavar="N", help="the version's number; by default the next one")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="what the model computes in"
    )
    parser.add_argument("--revision", help="the Hub commit, tag or branch")
    parser.add_argument("--labels", metavar="A,B,C", help="label names in id order, or a file with a label a line")
    parser.add_argument("--description", default="", metavar="TEXT", help="free text for the card")
    parser.add_argument("--max-pixels", type=int, metavar="N", help="refuse larger images, per item")
    parser.add_argument("--no-verify", dest="verify", action="store_false", help="skip the parity certificate")
    preparing.add_options(parser)
    _add_task_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Exports; stdout is the path alone, progress goes to stderr."""
    from signatures.export import export

    given = {name: value for name, value in vars(arguments).items() if name in {*_task_options(), "max_pixels"}}
    with _cleared_away_when_terminated():
        path = export(
            arguments.model,
            to=arguments.to,
            task=arguments.task,
            version=arguments.version,
            dtype=arguments.dtype,
            revision=arguments.revision,
            labels=arguments.labels,
            preprocessing=preparing.settings(arguments),
            description=arguments.description,
            verify=arguments.verify,
            on_progress=lambda line: print(line, file=sys.stderr, flush=True),
            **{name: value for name, value in given.items() if value is not None},
        )
    print(path)
    return 0


@contextlib.contextmanager
def _cleared_away_when_terminated() -> Iterator[None]:
    """A SIGTERM leaves through the same doors as an error, so that nothing half-written stays."""

    def leave(*_: object) -> None:
        print("vitrina: terminated", file=sys.stderr)
        raise SystemExit(128 + signal.SIGTERM)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _add_task_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("options of the tasks")
    for name, (kind, told) in sorted(_task_options().items()):
        flag = "--" + name.replace("_", "-")
        if kind is bool:
            group.add_argument(flag, action="store_true", default=None, help=told)
        else:
            group.add_argument(flag, type=kind, metavar=kind.__name__.upper(), help=told)


def _task_options() -> dict[str, tuple[type, str]]:
    """Option name -> its type and its help, for every task; `labels` is a general option here."""
    from signatures.tasks import TASKS

    kinds: dict[str, type] = {}
    meanings: dict[str, dict[str, list[str]]] = {}
    for task_name, task in TASKS.items():
        for name, option in task.options.items():
            if name != "labels":
                kinds[name] = option.kind
                default = "" if option.default in (None, False) else f" (default {option.default})"
                meanings.setdefault(name, {}).setdefault(option.meaning + default, []).append(task_name)
    return {
        name: (
            kinds[name],
            "; ".join(f"{', '.join(tasks)}: {told}" for told, tasks in by_meaning.items()).replace("%", "%%"),
        )
        for name, by_meaning in meanings.items()
    }
