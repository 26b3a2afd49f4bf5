"""TensorFlow Serving's own program."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable

from pipelines.servers import Asked
from pipelines.servers._program import flags, running
from serving import stock

__all__ = ["missing", "started"]


def missing() -> str:
    """It has to be on PATH."""
    return "" if shutil.which(stock.SERVER) else f"{stock.SERVER} is not on PATH. Install TensorFlow Serving"


def started(asked: Asked) -> contextlib.AbstractContextManager[Callable[[], str]]:
    """Starts the program."""
    return running([stock.SERVER, *flags(asked)], asked.log)
