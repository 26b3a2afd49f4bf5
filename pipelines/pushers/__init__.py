"""Where a pushed version goes live besides its base path: one file per kind of target, found by the target's scheme.

A kind is a module here with two functions. `check(target)` refuses what cannot be, before anything is trained.
`release(target, pushed, tell)` makes the pushed version live there and returns, in words, where; it raises a
`VitrinaError` where the version was not taken, and then what served before serves on.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from signatures.errors import UsageError

__all__ = ["Pusher", "Release", "find", "kinds"]

BUCKETS = "/gcs/"


@dataclass(frozen=True, kw_only=True)
class Release:
    """A version that was pushed to its base path.

    Args:
        base: The TF Serving `model_base_path`, as the pipeline sees it.
        version: The version's number there.
        name: The pipeline's name.
    """

    base: Path
    version: int
    name: str

    @property
    def location(self) -> str:
        """The base path as a cluster sees it: a mounted bucket is `gs://BUCKET/...` again."""
        path = str(self.base)
        return f"gs://{path.removeprefix(BUCKETS)}" if path.startswith(BUCKETS) else path


class Pusher(Protocol):
    """A module of this package."""

    def check(self, target: str) -> None:
        """Raises a `UsageError` where there can be no such target."""

    def release(self, target: str, pushed: Release, tell: Callable[[str], None]) -> str:
        """Makes a version live; where, in words."""


def kinds() -> tuple[str, ...]:
    """The schemes that there are."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")))


def find(target: str) -> Pusher:
    """The module for a target such as `k8s://vision/flowers`.

    Raises:
        UsageError: There is no such kind of target.
    """
    scheme, separator, _ = target.partition("://")
    if not separator or scheme not in kinds():
        every = " or ".join(f"{kind}://..." for kind in kinds())
        raise UsageError(f"Got the target {target!r} to push to, but it is {every}. Give such a one.")
    return cast(Pusher, importlib.import_module(f"{__name__}.{scheme}"))
