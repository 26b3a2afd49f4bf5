"""The embedded server."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable

from pipelines.servers import Asked
from pipelines.servers._program import flags, running

__all__ = ["missing", "started"]


def missing() -> str:
    """It is always here."""
    return ""


def started(asked: Asked) -> contextlib.AbstractContextManager[Callable[[], str]]:
    """Starts `python -m serving`."""
    return running([sys.executable, "-m", "serving", *flags(asked)], asked.log)
