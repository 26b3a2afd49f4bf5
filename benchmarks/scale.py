"""`python -m benchmarks.scale`: replicas under a steady load, a day and a spike, by the autoscaler's own rules.

Given what one replica takes for an image, requests arrive at random (Poisson), go to a random ready replica as a
Service sends them, and wait there for their turn; a full queue refuses them, and they do not come again. The autoscaler
of `k8s/base/hpa.yaml` looks every 15 seconds at the load of the 15 seconds before and acts by its rules: target and
tolerance, policies, windows. New replicas take a while until they are ready. What comes out is the latency, how many
replicas it took, and what a million images cost; for the base's target of how busy a replica is to be, and for others
beside it.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

OUT = Path(__file__).parent / "out"
LOOK_SECONDS = 15.0
"""Between two looks of the autoscaler, and one step of the simulation."""

TOLERANCE = 0.1
TARGETS = (0.5, 0.6, 0.7, 0.8)
HOUR = 3600.0


@dataclass(frozen=True)
class Scaler:
    """The rules of a HorizontalPodAutoscaler.

    Args:
        least: minReplicas.
        most: maxReplicas.
        target: How busy a replica is to be, 0 to 1.
        up: Policies (`Percent` or `Pods`, value, seconds), of which the one that allows most counts.
        down: The same, of which the one that allows least counts.
        up_window: Seconds over which the lowest recommendation counts before there are more.
        down_window: Seconds over which the highest counts before there are fewer.
    """

    least: int
    most: int
    target: float
    up: tuple[tuple[str, float, float], ...]
    down: tuple[tuple[str, float, float], ...]
    up_window: float
    down_window: float

    @classmethod
    def of_the_base(cls) -> Scaler:
        """As `k8s/base/hpa.yaml` says."""
        from k8s.kustomize import BASE, read_yaml

        (found,) = read_yaml(BASE / "hpa.yaml")
        spec, behavior = found["spec"], found["spec"]["behavior"]
        (metric,) = spec["metrics"]

        def policies(which: str, wanted: str) -> tuple[tuple[str, float, float], ...]:
            assert behavior[which]["selectPolicy"] == wanted
            return tuple((each["type"], each["value"], each["periodSeconds"]) for each in behavior[which]["policies"])

        return cls(
            least=spec["minReplicas"],
            most=spec["maxReplicas"],
            target=metric["containerResource"]["target"]["averageUtilization"] / 100,
            up=policies("scaleUp", "Max"),
            down=policies("scaleDown", "Min"),
            up_window=behavior["scaleUp"]["stabilizationWindowSeconds"],
            down_window=behavior["scaleDown"]["stabilizationWindowSeconds"],
        )


def queue_of_the_base() -> int:
    """Images that may wait at a replica, as `k8s/base/batching.config` says."""
    from k8s.kustomize import BASE

    told = dict(re.findall(r"^(\w+) { value: (\d+) }$", (BASE / "batching.config").read_text(), re.MULTILINE))
    return int(told["max_enqueued_batches"]) * int(told["max_execution_batch_size"])


class Autoscaler:
    """What the rules make of what it sees, look by look."""

    def __init__(self, rules: Scaler) -> None:
        self._rules = rules
        self._recommended: deque[tuple[float, int]] = deque()
        self._changes: deque[tuple[float, int]] = deque()

    def look(self, now: float, replicas: int, busy: float, ready: int) -> int:
        """How many replicas there are to be.

        Args:
            now: Seconds.
            replicas: How many there are, those that are not ready yet among them.
            busy: The share of the time that the ready ones were busy, 0 to 1.
            ready: How many of them are ready.
        """
        rules = self._rules
        ratio = busy / rules.target
        if ratio > 1:  # those that are not ready count as idle, so that more are not asked for again and again
            ratio = max(busy * ready / replicas / rules.target, 1.0)
            base = replicas
        else:
            base = ready
        wanted = replicas if abs(ratio - 1) <= TOLERANCE else max(math.ceil(base * ratio), 1)
        wanted = min(max(wanted, rules.least), rules.most)
        self._recommended.append((now, wanted))
        window = max(rules.up_window, rules.down_window)
        while self._recommended[0][0] < now - window:
            self._recommended.popleft()
        lowest = min(value for at, value in self._recommended if at >= now - rules.up_window)
        highest = max(value for at, value in self._recommended if at >= now - rules.down_window)
        settled = max(min(replicas, highest), lowest)
        decided = self._limited(now, replicas, settled)
        if decided != replicas:
            self._changes.append((now, decided - replicas))
        return decided

    def _limited(self, now: float, replicas: int, wanted: int) -> int:
        if wanted > replicas:
            allowed = [self._before(now, replicas, seconds, 1) for _, _, seconds in self._rules.up]
            ceilings = [
                math.ceil(start * (1 + value / 100)) if kind == "Percent" else start + int(value)
                for (kind, value, _), start in zip(self._rules.up, allowed, strict=True)
            ]
            return min(wanted, max(max(ceilings), replicas))
        if wanted < replicas:
            allowed = [self._before(now, replicas, seconds, -1) for _, _, seconds in self._rules.down]
            floors = [
                math.floor(start * (1 - value / 100)) if kind == "Percent" else start - int(value)
                for (kind, value, _), start in zip(self._rules.down, allowed, strict=True)
            ]
            return max(wanted, min(max(floors), replicas))
        return replicas

    def _before(self, now: float, replicas: int, seconds: float, sign: int) -> int:
        """How many there were that long ago, changes in the one direction undone."""
        return replicas - sum(change for at, change in self._changes if at > now - seconds and change * sign > 0)


@dataclass(frozen=True)
class Outcome:
    """What a load came to.

    Args:
        pattern: Its name.
        target: The autoscaler's.
        images: How many came.
        refused: How many of them found a full queue, as a share.
        p50_ms: The median latency.
        p99_ms: The 99th percentile.
        worst_minute_p99_ms: That of the worst minute.
        mean_replicas: Over the time.
        most_replicas: At once.
        per_million: What a million images cost.
    """

    pattern: str
    target: float
    images: int
    refused: float
    p50_ms: float
    p99_ms: float
    worst_minute_p99_ms: float
    mean_replicas: float
    most_replicas: int
    per_million: float


@dataclass
class Trace:
    """Step by step, for the plot: seconds, images per second, replicas and the step's 99th percentile in ms."""

    at: list[float]
    rate: list[float]
    replicas: list[int]
    p99_ms: list[float]


Floats = np.ndarray[Any, Any]
Pattern = Callable[[float], float]


def patterns(peak: float, day: float) -> dict[str, tuple[Pattern, float]]:
    """Name -> images per second at a time, and for how long.

    Args:
        peak: The most, in images per second.
        day: Seconds of a whole day, which may pass faster than one.
    """

    def daily(at: float) -> float:
        return peak * (0.55 - 0.45 * math.cos(2 * math.pi * at / day))

    def spike(at: float) -> float:
        return peak if HOUR / 3 <= at < HOUR / 2 else 0.25 * peak

    return {"steady": (lambda _: 0.6 * peak, HOUR), "day": (daily, day), "spike": (spike, HOUR)}


def simulate(
    pattern: Pattern,
    seconds: float,
    *,
    service_ms: float,
    rules: Scaler,
    queue: int = 256,
    start_seconds: float = 60.0,
    variation: float = 0.15,
    seed: int = 0,
) -> tuple[Floats, Trace]:
    """Plays a load against an autoscaler.

    Args:
        pattern: Images per second at a time.
        seconds: For how long.
        service_ms: What one replica takes for an image.
        rules: The autoscaler's.
        queue: Images that may wait at a replica.
        start_seconds: From the decision to a replica that is ready.
        variation: Of the service time: standard deviation over mean.
        seed: Of the random numbers.

    Returns:
        The latency of every image in seconds, in the order of arrival up to a step, NaN where it was refused; and the
        trace.
    """
    random = np.random.default_rng(seed)
    scaler = Autoscaler(rules)
    start = min(max(math.ceil(pattern(0.0) * service_ms / 1000 / rules.target), rules.least), rules.most)
    free_at = [0.0] * start  # when each ready replica has done all that it has
    coming: list[float] = []  # when replicas that are being started will be ready
    latencies: list[Floats] = []
    trace = Trace([], [], [], [])
    shape = 1 / variation**2
    for step in range(math.ceil(seconds / LOOK_SECONDS)):
        now = step * LOOK_SECONDS
        free_at += [now] * sum(at <= now for at in coming)
        coming = [at for at in coming if at > now]
        rate = pattern(now + LOOK_SECONDS / 2)
        count = int(random.poisson(rate * LOOK_SECONDS))
        arrivals = np.sort(random.uniform(now, now + LOOK_SECONDS, count))
        work = random.gamma(shape, service_ms / 1000 / shape, count)
        where = random.integers(len(free_at), size=count)
        latency = np.empty(count)
        used = 0.0
        for index in range(len(free_at)):
            mine = where == index
            done = _served(arrivals[mine], work[mine], free_at[index], queue * service_ms / 1000)
            latency[mine] = done - arrivals[mine]
            taken = ~np.isnan(done)
            begun, free_at[index] = free_at[index], float(done[taken][-1]) if taken.any() else free_at[index]
            used += _busy(begun, free_at[index], float(work[mine][taken].sum()), now)
        latencies.append(latency)
        trace.at.append(now)
        trace.rate.append(rate)
        trace.replicas.append(len(free_at) + len(coming))
        answered = latency[~np.isnan(latency)]
        trace.p99_ms.append(float(np.percentile(answered, 99)) * 1000 if answered.size else 0.0)
        replicas = len(free_at) + len(coming)
        wanted = scaler.look(now + LOOK_SECONDS, replicas, used / LOOK_SECONDS / len(free_at), len(free_at))
        coming += [now + LOOK_SECONDS + start_seconds] * max(wanted - replicas, 0)
        for _ in range(max(replicas - wanted, 0)):
            if coming:
                coming.pop()
            else:
                free_at.pop()  # it drains: what it has is answered
    return np.concatenate(latencies), trace


def _served(arrivals: Floats, work: Floats, free: float, longest: float) -> Floats:
    """When each request is done at a replica that takes one after the other (Lindley's recursion, without a loop).

    A request that would wait longer than `longest` seconds is refused, which is NaN.
    """
    total = np.cumsum(work)
    waiting = np.maximum.accumulate(arrivals - (total - work)) if arrivals.size else arrivals
    done: Floats = total + np.maximum(waiting, free)
    if not arrivals.size or (done - arrivals - work).max() <= longest:
        return done
    for index, (arrived, takes) in enumerate(zip(arrivals, work, strict=True)):
        if free - arrived > longest:
            done[index] = np.nan
        else:
            free = max(free, arrived) + takes
            done[index] = free
    return done


def _busy(before: float, after: float, work: float, now: float) -> float:
    """Seconds of this step that a replica worked, what was left over from before included."""
    left = max(before - now, 0.0)
    over = max(after - (now + LOOK_SECONDS), 0.0)
    return min(max(left + work - over, 0.0), LOOK_SECONDS)


def outcome(name: str, target: float, latencies: Floats, trace: Trace, per_hour: float) -> Outcome:
    """Sums a run up."""
    replica_hours = sum(trace.replicas) * LOOK_SECONDS / HOUR
    answered = latencies[~np.isnan(latencies)]
    minutes = [max(trace.p99_ms[index : index + 4]) for index in range(0, len(trace.p99_ms), 4)]
    return Outcome(
        pattern=name,
        target=target,
        images=len(latencies),
        refused=1 - len(answered) / len(latencies),
        p50_ms=float(np.percentile(answered, 50)) * 1000,
        p99_ms=float(np.percentile(answered, 99)) * 1000,
        worst_minute_p99_ms=max(minutes),
        mean_replicas=statistics.fmean(trace.replicas),
        most_replicas=max(trace.replicas),
        per_million=replica_hours * per_hour / len(answered) * 1e6,
    )


def measured_ms(servable: Path) -> float:
    """What a servable says was measured, or else what it takes in this process, in ms at the median."""
    from k8s import sizing

    told = sizing.read(servable).latency_ms
    if told is not None:
        return told
    import sklearn.datasets

    import vitrina

    photograph = (Path(sklearn.datasets.__file__).parent / "images" / "china.jpg").read_bytes()
    took = []
    with vitrina.connect(str(servable)) as client:
        for _ in range(25):
            begun = time.perf_counter()
            client.predict(photograph)
            took.append((time.perf_counter() - begun) * 1000)
    return statistics.median(took[5:])


def plot(traces: dict[str, Trace], path: Path, title: str) -> None:
    """Load, replicas and latency over time, a column for each pattern."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(3, len(traces), figsize=(5 * len(traces), 8), sharex="col", squeeze=False)
    for column, (name, trace) in enumerate(traces.items()):
        minutes = [at / 60 for at in trace.at]
        for row, (values, told) in enumerate(
            ((trace.rate, "images/s"), (trace.replicas, "replicas"), (trace.p99_ms, "p99, ms"))
        ):
            axis = axes[row][column]
            axis.plot(minutes, values, drawstyle="steps-post", color=("#4477aa", "#228833", "#ee6677")[row])
            axis.set_ylabel(told)
            axis.set_ylim(bottom=0)
            axis.grid(alpha=0.3)
        if max(trace.p99_ms) > 20 * statistics.median(trace.p99_ms):
            axes[2][column].set_yscale("symlog", linthresh=100)
        axes[0][column].set_title(name)
        axes[2][column].set_xlabel("minutes")
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> int:
    """Simulates, prints and plots."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.partition("\n")[0])
    cost = parser.add_mutually_exclusive_group()
    cost.add_argument(
        "--service-ms", type=float, default=50.0, help="what one replica takes for an image (default: 50)"
    )
    cost.add_argument(
        "--servable", type=Path, help="a servable here: what its card says was measured, or a measurement"
    )
    parser.add_argument("--peak", type=float, default=100.0, help="images per second at the busiest (default: 100)")
    parser.add_argument("--start-seconds", type=float, default=60.0, help="until a new replica is ready (default: 60)")
    parser.add_argument("--per-hour", type=float, default=0.05, help="what a replica costs an hour (default: 0.05)")
    parser.add_argument(
        "--day", type=float, default=6 * HOUR, help="seconds that the day is played in (default: 21600)"
    )
    arguments = parser.parse_args()
    service_ms = measured_ms(arguments.servable) if arguments.servable else arguments.service_ms
    if min(service_ms, arguments.peak, arguments.day) <= 0:
        parser.error("--service-ms, --peak and --day are positive numbers")
    base, queue = Scaler.of_the_base(), queue_of_the_base()
    most = max(math.ceil(arguments.peak * service_ms / 1000 / base.target) + 1, base.least)
    print(f"one image takes {service_ms:.1f} ms, at most {arguments.peak:g} images/s, {base.least} to {most} replicas")
    print(f"the base: {base.target:.0%} busy, {queue} images may wait at a replica\n")
    print("load    busy     images   refused   p50 ms   p99 ms   worst minute   replicas (most)   a million images")
    results, traces = [], {}
    for name, (pattern, seconds) in patterns(arguments.peak, arguments.day).items():
        for target in sorted({*TARGETS, base.target}):
            rules = replace(
                base, target=target, most=max(most, math.ceil(arguments.peak * service_ms / 1000 / target) + 1)
            )
            latencies, trace = simulate(
                pattern, seconds, service_ms=service_ms, rules=rules, queue=queue, start_seconds=arguments.start_seconds
            )
            found = outcome(name, target, latencies, trace, arguments.per_hour)
            results.append(found)
            mark = "*" if target == base.target else " "
            if target == base.target:
                traces[name] = trace
            print(
                f"{name:<7} {target:4.0%}{mark} {found.images:9} {found.refused:9.2%} "
                f"{found.p50_ms:8.0f} {found.p99_ms:8.0f} {found.worst_minute_p99_ms:14.0f} "
                f"{found.mean_replicas:10.1f} ({found.most_replicas}){found.per_million:18.2f}",
                flush=True,
            )
    OUT.mkdir(exist_ok=True)
    stem = OUT / f"scale-{time.strftime('%Y%m%d-%H%M%S')}"
    document = {"service_ms": service_ms, "rules": asdict(base), "outcomes": [asdict(each) for each in results]}
    stem.with_suffix(".json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    plot(
        traces,
        stem.with_suffix(".png"),
        f"{service_ms:.0f} ms an image, {base.target:.0%} busy, as in k8s/base/hpa.yaml",
    )
    print(f"\n* as in k8s/base/hpa.yaml\nWrote {stem}.json and {stem}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
