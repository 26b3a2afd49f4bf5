"""The errors that a person meets. They know nothing of HTTP, gRPC or exit codes beyond a class attribute.

Every message says what was got, what was wanted and what to do, on one line. `serving` maps them to
status codes and `vitrina.cli` to exit codes, once each, at the edge.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar

__all__ = ["CheckFailed", "MissingExtra", "UsageError", "VitrinaError", "did_you_mean"]


class VitrinaError(Exception):
    """The job failed: a port is taken, a disk is full, a file cannot be read. The command exits with 1."""

    exit_code: ClassVar[int] = 1


class UsageError(VitrinaError):
    """What was asked for cannot be: an unknown task, a missing folder. The command exits with 2."""

    exit_code: ClassVar[int] = 2


class CheckFailed(VitrinaError):
    """A check ran and did not hold: parity was broken, a model was not blessed. The command exits with 1."""


class MissingExtra(UsageError):
    """An optional part of Vitrina is not installed.

    Args:
        package: The import name that is missing, such as `transformers`.
        extra: The extra that brings it, such as `hub`.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"The package `{package}` is not installed. Install it with: pip install 'vitrina[{extra}]'")


def did_you_mean(got: str, known: Iterable[str]) -> str:
    """`" Did you mean 'x'?"` for the closest known name, or "" where none is close.

    >>> did_you_mean("depth_estimate", ["depth-estimation", "image-to-text"])
    " Did you mean 'depth-estimation'?"
    """
    close = difflib.get_close_matches(got.replace("_", "-"), list(known), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""
