"""Counters and histograms in Prometheus' text format, named as TF Serving names them."""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections.abc import Sequence

from serving.errors import ServingError

__all__ = ["Counter", "Gauge", "Histogram", "Registry"]

_DETAIL = ("model_name", "version", "signature", "status")
_BUCKETS = [10 * 1.8**power for power in range(33)]


def _labels(names: Sequence[str], values: Sequence[str], *more: tuple[str, str]) -> str:
    pairs = [*zip(names, values, strict=True), *more]
    escaped = (value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"') for _, value in pairs)
    return "{" + ",".join(f'{name}="{value}"' for (name, _), value in zip(pairs, escaped, strict=True)) + "}"


class Counter:
    """A number that only grows, per set of labels."""

    kind = "counter"

    def __init__(self, name: str, labels: Sequence[str]) -> None:
        self.name = name
        self._label_names = tuple(labels)
        self._values: dict[tuple[str, ...], int] = {}
        self._lock = threading.Lock()

    def add(self, *labels: str, amount: int = 1) -> None:
        """Counts once more."""
        with self._lock:
            self._values[labels] = self._values.get(labels, 0) + amount

    def first(self) -> int:
        """The value under the first set of labels, which is what a reload request can ask for."""
        with self._lock:
            return next((self._values[key] for key in sorted(self._values)), 0)

    def lines(self) -> list[str]:
        """The metric's type and samples."""
        with self._lock:
            values = sorted(self._values.items())
        return [f"# TYPE {self.name} {self.kind}"] + [
            f"{self.name}{_labels(self._label_names, key)} {value}" for key, value in values
        ]


class Gauge(Counter):
    """A number that goes up and down, per set of labels."""

    kind = "gauge"

    def set(self, value: int, *labels: str) -> None:
        """Says what it is now."""
        with self._lock:
            self._values[labels] = value


class Histogram:
    """How often values fell into buckets of 10 x 1.8^n, per set of labels."""

    def __init__(self, name: str, labels: Sequence[str], buckets: Sequence[float] = _BUCKETS) -> None:
        self.name = name
        self._label_names = tuple(labels)
        self._bounds = list(buckets)
        self._values: dict[tuple[str, ...], tuple[list[int], list[float]]] = {}
        self._lock = threading.Lock()

    def observe(self, value: float, *labels: str) -> None:
        """Takes one value in, such as a latency in microseconds."""
        with self._lock:
            counts, total = self._values.setdefault(labels, ([0] * (len(self._bounds) + 1), [0.0]))
            counts[bisect_right(self._bounds, value)] += 1
            total[0] += value

    def lines(self) -> list[str]:
        """The metric's type and samples."""
        with self._lock:
            values = sorted((key, list(counts), total[0]) for key, (counts, total) in self._values.items())
        lines = [f"# TYPE {self.name} histogram"]
        for key, counts, total in values:
            cumulative = 0
            for bound, count in zip([*(f"{bound:g}" for bound in self._bounds), "+Inf"], counts, strict=True):
                cumulative += count
                lines.append(f"{self.name}_bucket{_labels(self._label_names, key, ('le', bound))} {cumulative}")
            lines.append(f"{self.name}_sum{_labels(self._label_names, key)} {total:g}")
            lines.append(f"{self.name}_count{_labels(self._label_names, key)} {cumulative}")
        return lines


class Registry:
    """The metrics of one server. Names are those of TF Serving with `/` written as `:`."""

    def __init__(self) -> None:
        prefix = ":tensorflow:serving:"
        session = prefix + "batching_session:"
        doubling = [2.0**power for power in range(14)]
        self.queuing_latency = Histogram(
            session + "queuing_latency", ("thread_pool_name",), [100 * 1.2**power for power in range(52)]
        )
        self.wrapped_run_count = Counter(session + "wrapped_run_count", ())
        self.input_batch_size = Histogram(session + "input_batch_size", (), doubling)
        self.processed_batch_size = Histogram(session + "processed_batch_size", (), doubling)
        self.padding_size = Histogram(session + "padding_size", ("execution_batch_size",), doubling)
        self.example_count = Counter(prefix + "request_example_count_total", ("model",))
        self.example_counts = Histogram(
            prefix + "request_example_counts", ("model",), [1 * 2.0**power for power in range(15)]
        )
        self.request_log_count = Counter(prefix + "request_log_count", ("model_name", "status_code"))
        self.mlmd_map = Gauge(prefix + "mlmd_map", ("model_name", "version", "mlmd_uuid"))
        # Ours, in more detail than TF Serving's.
        self.signature_count = Counter("vitrina:signature_request_count", _DETAIL)
        self.signature_latency = Histogram("vitrina:signature_latency", _DETAIL[:-1])
        self.versions = Gauge("vitrina:model_version_available", ("model_name", "version"))
        self.request_count = Counter(prefix + "request_count", ("model_name", "status"))
        self.request_latency = Histogram(prefix + "request_latency", ("model_name", "API", "entrypoint"))
        self.runtime_latency = Histogram(prefix + "runtime_latency", ("model_name", "API", "runtime"))
        self.warmup_latency = Histogram(prefix + "model_warmup_latency", ("model_path", "status"))

    def record(self, api: str, entrypoint: str, model: str, error: ServingError | None, started_ns: int) -> None:
        """Counts a request, and its latency where it succeeded.

        Args:
            api: The call's name, such as `Predict`.
            entrypoint: GRPC or REST.
            model: The model's name as the request gave it.
            error: Why it failed, or None.
            started_ns: `time.perf_counter_ns()` at its start.
        """
        self.request_count.add(model, error.code.name if error is not None else "OK")
        if error is None:
            self.request_latency.observe((time.perf_counter_ns() - started_ns) / 1000, model, api, entrypoint)

    def count_examples(self, model: str, count: int) -> None:
        """Counts the tf.Examples of a MultiInference request, the only one that TF Serving counts them for."""
        self.example_count.add(model, amount=count)
        self.example_counts.observe(count, model)

    def value(self, name: str) -> int:
        """The value of a counter by TF Serving's name for it, such as `/tensorflow/serving/request_count`.

        Only the first set of labels counts, as there; 0 where there is no such counter.
        """
        page_name = name.replace("/", ":")
        return next(
            (metric.first() for metric in self.metrics() if isinstance(metric, Counter) and metric.name == page_name), 0
        )

    def metrics(self) -> list[Counter | Histogram]:
        """All of them, by name."""
        found = [value for value in vars(self).values() if isinstance(value, (Counter, Histogram))]
        return sorted(found, key=lambda metric: metric.name)

    def page(self) -> str:
        """The whole page that Prometheus scrapes."""
        return "".join(line + "\n" for metric in self.metrics() for line in metric.lines())
