"""SIGTERM and Ctrl-C, heard whichever thread the system interrupts with them."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

__all__ = ["stop_signals"]

_STOP = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def stop_signals(stop: threading.Event, again: Callable[[], None]) -> Iterator[None]:
    """Turns SIGTERM and SIGINT into an event, within a `with` block on the main thread.

    Python runs a signal's handler on the main thread alone, once that thread is back from what it waits for; and a wait
    for a lock goes on where the system has interrupted another thread. So nothing is done in a handler: the
    interpreter writes the signal's number into a pipe, at once and on whatever thread, and a thread reads that.

    Args:
        stop: Set by the first signal.
        again: Called, on the reading thread, by every further one.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    handlers = {number: signal.signal(number, lambda *_: None) for number in _STOP}
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_listen, args=(reader, stop, again), name="vitrina-signals", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(writer)


def _listen(reader: int, stop: threading.Event, again: Callable[[], None]) -> None:
    heard = False
    with open(reader, "rb", buffering=0) as pipe:
        while number := pipe.read(1):  # empty once the other end is closed
            if number[0] in _STOP:
                if heard:
                    again()
                heard = True
                stop.set()
