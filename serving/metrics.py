"""Counters and histograms in Prometheus' text format, named as TF Serving names them."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Sequence

__all__ = ["Counter", "Histogram", "Registry"]

_BUCKETS = [10 * 1.8**power for power in range(33)]


def _labels(names: Sequence[str], values: Sequence[str], *more: tuple[str, str]) -> str:
    pairs = [*zip(names, values), *more]
    escaped = (value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"') for _, value in pairs)
    return "{" + ",".join(f'{name}="{value}"' for (name, _), value in zip(pairs, escaped)) + "}" if pairs else ""


class Counter:
    """A number that only grows, per set of labels."""

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
        return [f"# TYPE {self.name} counter"] + [
            f"{self.name}{_labels(self._label_names, key)} {value}" for key, value in values
        ]


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
            counts[bisect_left(self._bounds, value)] += 1
            total[0] += value

    def lines(self) -> list[str]:
        """The metric's type and samples."""
        with self._lock:
            values = sorted((key, list(counts), total[0]) for key, (counts, total) in self._values.items())
        lines = [f"# TYPE {self.name} histogram"]
        for key, counts, total in values:
            cumulative = 0
            for bound, count in zip([*(f"{bound:g}" for bound in self._bounds), "+Inf"], counts):
                cumulative += count
                lines.append(f"{self.name}_bucket{_labels(self._label_names, key, ('le', bound))} {cumulative}")
            lines.append(f"{self.name}_sum{_labels(self._label_names, key)} {total:g}")
            lines.append(f"{self.name}_count{_labels(self._label_names, key)} {cumulative}")
        return lines


class Registry:
    """The metrics of one server. Names are those of TF Serving with `/` written as `:`."""

    def __init__(self) -> None:
        prefix = ":tensorflow:serving:"
        self.request_count = Counter(prefix + "request_count", ("model_name", "status"))
        self.request_latency = Histogram(prefix + "request_latency", ("model_name", "API", "entrypoint"))
        self.runtime_latency = Histogram(prefix + "runtime_latency", ("model_name", "API", "runtime"))
        self.warmup_latency = Histogram(prefix + "model_warmup_latency", ("model_path", "status"))

    def metrics(self) -> list[Counter | Histogram]:
        """All of them, by name."""
        found = [value for value in vars(self).values() if isinstance(value, Counter | Histogram)]
        return sorted(found, key=lambda metric: metric.name)

    def page(self) -> str:
        """The whole page that Prometheus scrapes."""
        return "".join(line + "\n" for metric in self.metrics() for line in metric.lines())
