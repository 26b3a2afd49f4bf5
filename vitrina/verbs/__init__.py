"""The verbs of the command line, one file each.

A file `vitrina/verbs/<verb>.py` has

- `HELP`, one line;
- `NEEDS`, the module that does the work; the verb exists where that module does;
- either `configure(parser)`, which declares the options, and `run(arguments) -> int`, the exit code;
- or `main(words) -> int` for a verb whose words go on as they are, such as `serve` with TF Serving's own flags.

Importing such a file loads nothing heavy.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["PassedOn", "Verb", "found", "load"]

_ORDER = ("export", "inspect", "verify", "serve", "predict", "bench", "pipeline", "batch", "k8s", "vertex", "demo")


@dataclass(frozen=True, kw_only=True)
class Verb:
    """A verb whose options argparse reads."""

    help: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


@dataclass(frozen=True, kw_only=True)
class PassedOn:
    """A verb that reads its own words."""

    help: str
    main: Callable[[Sequence[str]], int]


def found() -> dict[str, str]:
    """Every verb that this installation has -> its line of help, in the order of the work."""
    names = [info.name for info in pkgutil.iter_modules(__path__)]
    names.sort(key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name))
    modules = {name: importlib.import_module(f"{__name__}.{name}") for name in names}
    return {name: module.HELP for name, module in modules.items() if _exists(module.NEEDS)}


def load(name: str) -> Verb | PassedOn:
    """The verb of this name; it is one of `found()`."""
    module = importlib.import_module(f"{__name__}.{name}")
    if hasattr(module, "main"):
        return PassedOn(help=module.HELP, main=module.main)
    return Verb(help=module.HELP, configure=module.configure, run=module.run)


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
