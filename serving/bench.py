"""Measures a target under load: latencies, throughput, errors; from any kind of target, with the client's own requests.

A closed loop keeps a number of clients busy, each asking again as soon as it has its answer. An open loop asks at a
given mean rate with exponential gaps (a Poisson process) whether or not answers came, and counts latency from the
moment that a request was due, so that a server that stalls is not asked less (coordinated omission).
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving import requests
from serving.client import Client, connect
from serving.requests import Request
from serving.transports.base import TargetError, Tls
from signatures.errors import UsageError

__all__ = ["QUANTILES", "Load", "bench"]

QUANTILES = (50, 90, 95, 99, 100)
_MOST_IN_FLIGHT = 256
"""Threads of an open loop; beyond it requests queue in the client, and their waiting counts."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """One load and what it met.

    Args:
        clients: Clients of a closed loop; 0 for an open one.
        rate: Requests per second of an open loop; 0 for a closed one.
        batch_size: Images per request.
        seconds: From the first request to the last answer.
        latencies: Seconds of each answered request, in the order of the answers.
        errors: Status code -> how many requests failed with it.
        bad_images: Images that were answered with an `error` of their own.
    """

    clients: int
    rate: float
    batch_size: int
    seconds: float
    latencies: tuple[float, ...]
    errors: Mapping[str, int]
    bad_images: int

    @property
    def images_per_second(self) -> float:
        """Throughput."""
        return len(self.latencies) * self.batch_size / self.seconds

    def quantile(self, percent: float) -> float:
        """Seconds within which this share of the requests was answered (linear interpolation); NaN without any."""
        return float(np.percentile(self.latencies, percent)) if self.latencies else float("nan")

    @property
    def name(self) -> str:
        """`8 clients` or `100 requests/s`."""
        return f"{self.rate:g} requests/s" if self.rate else f"{self.clients} client{'s'[: self.clients > 1]}"

    def to_json(self) -> dict[str, Any]:
        """The figures without the single latencies; milliseconds."""
        return {
            "clients": self.clients,
            "rate": self.rate,
            "batch_size": self.batch_size,
            "seconds": round(self.seconds, 3),
            "requests": len(self.latencies),
            "errors": dict(self.errors),
            "bad_images": self.bad_images,
            "images_per_second": round(self.images_per_second, 3),
            "latency_ms": {f"p{q}" if q < 100 else "max": round(1000 * self.quantile(q), 3) for q in QUANTILES}
            if self.latencies
            else {},
        }


def bench(
    target: str,
    images: Sequence[Any],
    *,
    clients: Sequence[int] = (1, 8),
    rate: float | None = None,
    seconds: float = 10.0,
    batch_size: int = 1,
    signature: str = "serving_default",
    timeout: float = 30.0,
    tls: Tls | None = None,
    headers: Mapping[str, str] | None = None,
    on_load: Callable[[Load], None] | None = None,
    **task_inputs: Any,
) -> list[Load]:
    """Puts a target under one load after the other, after a few calls that are not measured. Nothing is tried again.

    Args:
        target: As for `connect`.
        images: What is asked about, in turn; read and encoded once, before the clock starts.
        clients: Closed loops to run.
        rate: Run one open loop of so many requests per second instead.
        seconds: How long each load lasts; what is in flight then is waited for.
        batch_size: Images per request.
        signature: The signature to ask.
        timeout: Seconds for one answer.
        tls: Certificates for an encrypted connection.
        headers: Further HTTP headers or gRPC metadata.
        on_load: Called with each load as it ends.
        **task_inputs: The task's own inputs.

    Raises:
        UsageError: A number is not positive, or an image cannot be read.
        TargetError: The target does not answer before the clock starts.
    """
    if seconds <= 0 or batch_size < 1 or not clients or min(clients) < 1 or (rate is not None and rate <= 0):
        raise UsageError(
            f"Got clients {list(clients)}, rate {rate}, {seconds} seconds and batches of {batch_size}. "
            "Give positive numbers."
        )
    with connect(target, timeout=timeout, retries=0, tls=tls, headers=headers) as client:
        prepared = _prepared(client, images, batch_size, signature, task_inputs)
        for request in prepared[:3]:
            client.call(request.inputs, signature=signature)
        ask = _Asking(client, prepared, signature)
        loads = []
        for load in [_open(ask, rate, seconds)] if rate else (_closed(ask, count, seconds) for count in clients):
            loads.append(load)
            if on_load is not None:
                on_load(load)
        return loads


def _prepared(
    client: Client, images: Sequence[Any], batch_size: int, signature: str, task_inputs: Mapping[str, Any]
) -> list[Request]:
    endless = itertools.cycle(images)
    batches = [list(itertools.islice(endless, batch_size)) for _ in range(len(images))]
    return [requests.build(batch, signature, task_inputs, client.signatures) for batch in batches]


class _Asking:
    """Sends the prepared requests in turn and remembers what came back; threads share it."""

    def __init__(self, client: Client, prepared: Sequence[Request], signature: str) -> None:
        self._client = client
        self._signature = signature
        self._turn = itertools.cycle(prepared)
        self._lock = threading.Lock()
        self.batch_size = prepared[0].count
        self.reset()

    def reset(self) -> None:
        """Forgets the load before."""
        self.latencies: list[float] = []
        self.errors: Counter[str] = Counter()
        self.bad_images = 0

    def __call__(self, due: float) -> None:
        """Sends one; `due` is the moment (`time.perf_counter`) from which its latency counts."""
        with self._lock:
            request = next(self._turn)
        try:
            outputs = self._client.call(request.inputs, signature=self._signature)
        except TargetError as error:
            with self._lock:
                self.errors[error.code] += 1
            return
        latency = time.perf_counter() - due
        bad = sum(bool(value) for value in outputs["error"].reshape(-1)) if "error" in outputs else 0
        with self._lock:
            self.latencies.append(latency)
            self.bad_images += bad

    def load(self, *, clients: int, rate: float, seconds: float) -> Load:
        """What was met since `reset`."""
        return Load(
            clients=clients, rate=rate, batch_size=self.batch_size, seconds=seconds,
            latencies=tuple(self.latencies), errors=dict(self.errors), bad_images=self.bad_images,
        )  # fmt: skip


def _closed(ask: _Asking, clients: int, seconds: float) -> Load:
    ask.reset()
    started = time.perf_counter()

    def work() -> None:
        while (now := time.perf_counter()) < started + seconds:
            ask(now)

    with ThreadPoolExecutor(clients) as pool:
        for future in [pool.submit(work) for _ in range(clients)]:
            future.result()
    return ask.load(clients=clients, rate=0, seconds=time.perf_counter() - started)


def _open(ask: _Asking, rate: float, seconds: float) -> Load:
    ask.reset()
    started = time.perf_counter()
    with ThreadPoolExecutor(_MOST_IN_FLIGHT) as pool:
        for due in _arrivals(started, rate, seconds):
            time.sleep(max(0.0, due - time.perf_counter()))
            pool.submit(ask, due)
    return ask.load(clients=0, rate=rate, seconds=time.perf_counter() - started)


def _arrivals(started: float, rate: float, seconds: float) -> Iterator[float]:
    """Moments of a Poisson process; the same each time, so that loads can be compared."""
    draw = random.Random(0)
    due = started
    while (due := due + draw.expovariate(rate)) < started + seconds:
        yield due
