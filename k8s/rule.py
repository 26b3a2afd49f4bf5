"""The rule by which a canary is promoted or rolled back, and the figures that it looks at. No cluster in here.

What is compared is what both versions answered since the canary began to serve:

- **Roll back** as soon as so many of the canary's requests have failed that chance would bring it about less than once
  in 100 times, were its true share of failures the old version's and `error_margin`; or when its 95th percentile of
  latency is more than `latency_ratio` times the old version's and 10 ms above it, at two looks in a row, from `least`
  requests on each side on.
- **Promote** when the time is up, neither holds, and the canary has answered at least `least` requests.
- **Leave the decision to people** when the time is up with fewer requests than that: too little is known.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Counts", "Rule", "Side", "counts", "judge", "since"]

Verdict = Literal["promote", "roll back", "wait", "undecided"]

_SAMPLE = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)\{(?P<labels>.*)\} (?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_COUNT = ":tensorflow:serving:request_count"
_LATENCY = ":tensorflow:serving:request_latency_bucket"
#: The same in more detail, where the server is Vitrina's own.
_COUNT_BY_VERSION = "vitrina:signature_request_count"
_LATENCY_BY_VERSION = "vitrina:signature_latency_bucket"
_CHANCE = 0.01
"""How often a good canary may look like a bad one, per look."""

_EXACT_UP_TO = 20_000
"""Requests; with more, the normal distribution is near enough."""

_LEAST_GAP_MS = 10.0


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What is tolerated.

    Args:
        seconds: How long the canary is watched.
        least: Requests that it has to answer before anything good is concluded.
        error_margin: How much more of the canary's requests may fail, as a share of all.
        latency_ratio: How many times the old version's 95th percentile the canary's may be.
        interval: Seconds between two looks.
    """

    seconds: float = 300.0
    least: int = 100
    error_margin: float = 0.01
    latency_ratio: float = 1.5
    interval: float = 10.0


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What one server has counted so far, or several together.

    Args:
        requests: All of them.
        errors: Those that did not succeed.
        buckets: Upper bound in microseconds -> requests that took at most so long.
    """

    requests: float = 0.0
    errors: float = 0.0
    buckets: Mapping[float, float] = field(default_factory=dict)

    def __add__(self, other: Counts) -> Counts:
        bounds = {*self.buckets, *other.buckets}
        return Counts(
            requests=self.requests + other.requests,
            errors=self.errors + other.errors,
            buckets={bound: self.buckets.get(bound, 0.0) + other.buckets.get(bound, 0.0) for bound in sorted(bounds)},
        )


@dataclass(frozen=True, kw_only=True)
class Side:
    """One version's figures.

    Args:
        requests: Answered since the watch began.
        errors: Of these, the failed.
        p95_ms: The 95th percentile of the successful ones' latency; None where there were none.
    """

    requests: int
    errors: int
    p95_ms: float | None

    @classmethod
    def of(cls, counted: Counts) -> Side:
        """Sums counts up."""
        return cls(
            requests=round(counted.requests), errors=round(counted.errors), p95_ms=_quantile(counted.buckets, 0.95)
        )

    @property
    def error_share(self) -> float:
        """0 to 1."""
        return self.errors / self.requests if self.requests else 0.0

    def __str__(self) -> str:
        latency = "no latency" if self.p95_ms is None else f"p95 {self.p95_ms:.1f} ms"
        return f"{self.requests} requests, {self.error_share:.1%} failed, {latency}"


def counts(page: str, model: str, *, version: int | None = None) -> Counts | None:
    """Reads a server's Prometheus page.

    Args:
        page: Its text.
        model: Only this model's.
        version: Only this version's; None is all of the model's.

    Returns:
        The counts so far; None where a version is asked for and the page does not tell versions apart, as that of stock
        TF Serving does not.
    """
    name, bucket = (_COUNT, _LATENCY) if version is None else (_COUNT_BY_VERSION, _LATENCY_BY_VERSION)
    if version is not None and f"{name}" not in page:
        return None
    requests = errors = 0.0
    buckets: dict[float, float] = {}
    for metric, labels, value in _samples(page):
        if labels.get("model_name") != model or (version is not None and labels.get("version") != str(version)):
            continue
        if metric == name:
            requests += value
            errors += value if labels.get("status") != "OK" else 0.0
        elif metric == bucket:
            bound = float(labels["le"].replace("Inf", "inf"))
            buckets[bound] = buckets.get(bound, 0.0) + value
    return Counts(requests=requests, errors=errors, buckets=dict(sorted(buckets.items())))


def _samples(page: str) -> Iterable[tuple[str, dict[str, str], float]]:
    for line in page.splitlines():
        found = _SAMPLE.fullmatch(line.strip())
        if found:
            yield found["name"], dict(_LABEL.findall(found["labels"])), float(found["value"])


def since(before: Mapping[str, Counts], after: Mapping[str, Counts]) -> Counts:
    """What was counted between two looks at several servers.

    Args:
        before: Server -> its counts at the first look.
        after: The same at the second. One that is new, or counts less than before because it was started anew, counts
            in full; one that is gone counts no more.
    """
    total = Counts()
    for server, now in after.items():
        then = before.get(server, Counts())
        if then.requests > now.requests:
            then = Counts()
        total += Counts(
            requests=now.requests - then.requests,
            errors=now.errors - then.errors,
            buckets={bound: value - then.buckets.get(bound, 0.0) for bound, value in now.buckets.items()},
        )
    return total


def judge(rule: Rule, old: Side, new: Side, *, elapsed: float, slow_before: bool = False) -> tuple[Verdict, str, bool]:
    """What the rule says at one look.

    Args:
        rule: What is tolerated.
        old: The old version's figures since the watch began.
        new: The canary's.
        elapsed: Seconds since then.
        slow_before: Whether the canary was too slow at the look before.

    Returns:
        The verdict, why, and whether the canary is too slow at this look.
    """
    most = old.error_share + rule.error_margin
    if new.error_share > most and _by_chance(new.errors, new.requests, most) < _CHANCE:
        return (
            "roll back",
            f"{new.error_share:.1%} of its requests failed, {old.error_share:.1%} of the old version's",
            False,
        )
    slow = _too_slow(rule, old, new)
    if slow and slow_before:
        return "roll back", f"its p95 is {new.p95_ms:.1f} ms, the old version's {old.p95_ms:.1f} ms", True
    if elapsed < rule.seconds:
        return "wait", "", slow
    if new.requests < rule.least:
        return (
            "undecided",
            f"it answered {new.requests} requests, fewer than the {rule.least} that a decision wants",
            slow,
        )
    if new.error_share > most:
        return (
            "roll back",
            f"{new.error_share:.1%} of its requests failed, {old.error_share:.1%} of the old version's",
            slow,
        )
    if slow:
        return "roll back", f"its p95 is {new.p95_ms:.1f} ms, the old version's {old.p95_ms:.1f} ms", True
    return "promote", f"{new}; the old version: {old}", False


def _too_slow(rule: Rule, old: Side, new: Side) -> bool:
    if old.p95_ms is None or new.p95_ms is None or min(old.requests, new.requests) < rule.least:
        return False
    return new.p95_ms > max(old.p95_ms * rule.latency_ratio, old.p95_ms + _LEAST_GAP_MS)


def _by_chance(errors: int, requests: int, share: float) -> float:
    """How probable so many failures or more are, where each request fails with this probability (binomial)."""
    if share >= 1.0:
        return 1.0
    if requests > _EXACT_UP_TO:
        spread = math.sqrt(requests * share * (1 - share))
        return 0.5 * math.erfc((errors - 0.5 - requests * share) / spread / math.sqrt(2))
    fewer = (
        math.lgamma(requests + 1) - math.lgamma(count + 1) - math.lgamma(requests - count + 1)
        + count * math.log(share) + (requests - count) * math.log1p(-share)
        for count in range(errors)
    )  # fmt: skip
    return max(1.0 - sum(map(math.exp, fewer)), 0.0)


def _quantile(buckets: Mapping[float, float], share: float) -> float | None:
    """In milliseconds; between the bounds of a bucket in proportion, as Prometheus does."""
    total = max(buckets.values(), default=0.0)
    if total <= 0:
        return None
    below, lowest = 0.0, 0.0
    for bound, count in sorted(buckets.items()):
        if count >= share * total:
            if math.isinf(bound):
                return lowest / 1000
            inside = (share * total - below) / (count - below) if count > below else 1.0
            return (lowest + (bound - lowest) * inside) / 1000
        below, lowest = count, bound
    return None
