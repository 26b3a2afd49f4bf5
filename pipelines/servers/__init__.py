"""What a candidate can be served by: one file per kind, found by its name.

A kind is a module here with two functions. `missing()` says in words why it cannot be used on this machine, "" where it
can. `started(asked)` is a context manager that starts the server on `asked.base`, reachable on 127.0.0.1 at the asked
ports, yields a function that says why the server is no longer there ("" while it is), and takes everything away again.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from signatures.errors import UsageError

__all__ = ["AUTO", "Asked", "Kind", "find", "kinds"]

AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A server that is wanted.

    Args:
        base: A TF Serving `model_base_path` on this machine, of plain files.
        name: The model's name in requests.
        log: The file for what the server says.
        grpc_port: Where it is to be reached on 127.0.0.1.
        rest_port: Likewise.
        image: The container image, for the kinds that run one.
        namespace: The Kubernetes namespace; "" is the current one.
        timeout: Seconds until it has to be ready.
    """

    base: Path
    name: str
    log: Path
    grpc_port: int
    rest_port: int
    image: str
    namespace: str
    timeout: float


class Kind(Protocol):
    """A module of this package."""

    def missing(self) -> str:
        """Why it cannot be used here, or ""."""

    def started(self, asked: Asked) -> contextlib.AbstractContextManager[Callable[[], str]]:
        """Starts it for as long as a `with` block lasts."""


def kinds() -> tuple[str, ...]:
    """Every kind by its name, `auto` first."""
    found = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    return (AUTO, *found)


def find(kind: str) -> Kind:
    """The module of a kind.

    Raises:
        UsageError: There is no such kind, or what it needs is not here.
    """
    if kind not in kinds() or kind == AUTO:
        raise UsageError(f"Got the server {kind!r}, but it is one of {', '.join(kinds())}.")
    found = cast(Kind, importlib.import_module(f"{__name__}.{kind}"))
    if why := found.missing():
        raise UsageError(f"{why}, or take --server vitrina.")
    return found
