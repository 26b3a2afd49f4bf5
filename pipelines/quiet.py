"""Keeps the chatter of TFX, Beam, TensorFlow and C++ out of the terminal: it goes to a log file instead."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

__all__ = ["redirected"]


@contextlib.contextmanager
def redirected(log: Path) -> Iterator[TextIO]:
    """Sends file descriptors 1 and 2, `sys.stdout`, `sys.stderr` and `logging` to a file.

    Descriptors are redirected because C++ libraries write to them and not to `sys.stderr`.

    Args:
        log: The file; it is appended to.

    Yields:
        A stream to what standard error was before.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(log.open("a", encoding="utf-8", buffering=1))
        terminal = stack.enter_context(_terminal())
        for descriptor in (1, 2):
            saved = os.dup(descriptor)
            stack.callback(os.close, saved)
            stack.callback(os.dup2, saved, descriptor)
            os.dup2(stream.fileno(), descriptor)
        stack.enter_context(contextlib.redirect_stdout(stream))
        stack.enter_context(contextlib.redirect_stderr(stream))
        stack.enter_context(_logging(stream))
        yield terminal


@contextlib.contextmanager
def _terminal() -> Iterator[TextIO]:
    """Standard error as the caller has it: a copy of descriptor 2, or whatever object stands in for it."""
    try:
        is_descriptor = sys.stderr.fileno() == 2
    except (OSError, ValueError, io.UnsupportedOperation):
        is_descriptor = False
    if not is_descriptor:
        yield sys.stderr
        return
    with os.fdopen(os.dup(2), "w", encoding="utf-8", buffering=1) as stream:
        yield stream


@contextlib.contextmanager
def _logging(stream: TextIO) -> Iterator[None]:
    """All log records from INFO on, absl's included, to the file and to nowhere else."""
    from absl import logging as absl_logging

    root, absl = logging.getLogger(), absl_logging.get_absl_logger()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname).1s %(name)s: %(message)s"))
    before = root.handlers[:], root.level, absl.handlers[:], absl.propagate
    root.handlers, absl.handlers, absl.propagate = [handler], [], True
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.handlers, level, absl.handlers, absl.propagate = before
        root.setLevel(level)
