"""A signal stops a server whichever thread the system gives it to."""

from __future__ import annotations

import signal
import threading

import pytest

from serving.signals import stop_signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_taken_by_another_thread_wakes_who_waits(number: signal.Signals) -> None:
    before, done = signal.getsignal(number), threading.Event()
    stop, again = threading.Event(), threading.Event()
    other = threading.Thread(target=done.wait, daemon=True)
    other.start()
    assert other.ident is not None
    with stop_signals(stop, again.set):
        # The main thread waits for a lock, which no handler would interrupt.
        threading.Timer(0.1, signal.pthread_kill, (other.ident, number)).start()
        assert stop.wait(30)
        assert not again.is_set()
        signal.pthread_kill(other.ident, number)
        assert again.wait(30)
    done.set()
    assert signal.getsignal(number) is before


def test_other_signals_do_not_stop(request: pytest.FixtureRequest) -> None:
    before, heard = signal.getsignal(signal.SIGUSR1), threading.Event()
    request.addfinalizer(lambda: signal.signal(signal.SIGUSR1, before))
    signal.signal(signal.SIGUSR1, lambda *_: heard.set())
    stop, again = threading.Event(), threading.Event()
    with stop_signals(stop, again.set):
        signal.raise_signal(signal.SIGUSR1)
        assert heard.wait(30)
        signal.raise_signal(signal.SIGTERM)
        assert stop.wait(30)
        assert not again.is_set(), "the other signal counted as the first"
