"""The canary's rule and the figures that it reads, without a cluster."""

from __future__ import annotations

import math

import pytest

from k8s.rule import Counts, Rule, Side, counts, judge, since
from serving.errors import Code, ServingError
from serving.metrics import Registry

RULE = Rule(seconds=60, least=100)


def side(requests: int, errors: int = 0, p95_ms: float | None = 20.0) -> Side:
    return Side(requests=requests, errors=errors, p95_ms=p95_ms)


@pytest.mark.parametrize(
    ("old", "new", "elapsed", "verdict"),
    [
        (side(1000), side(100), 30, "wait"),
        (side(1000), side(100), 60, "promote"),
        (side(0, p95_ms=None), side(100), 60, "promote"),  # the canary got all requests
        (side(1000), side(99), 60, "undecided"),
        (side(1000), side(0, p95_ms=None), 60, "undecided"),
        # A failure or two come by chance; three of twenty do not.
        (side(1000), side(20, 1), 30, "wait"),
        (side(1000), side(20, 3), 30, "roll back"),
        (side(1000), side(5, 5), 1, "roll back"),
        # What fails on both sides is no fault of the canary's.
        (side(1000, 500), side(100, 50), 60, "promote"),
        (side(1000, 10), side(100, 1), 60, "promote"),
        (side(100000, 1000), side(100000, 1500), 30, "wait"),
        (side(100000, 1000), side(100000, 2200), 30, "roll back"),
        # At the end a share above the margin is enough.
        (side(1000), side(100, 2), 59, "wait"),
        (side(1000), side(100, 2), 60, "roll back"),
        (side(10, 10), side(200, 200), 60, "promote"),
        # Slow at the end; a few milliseconds of nothing are no reason.
        (side(1000), side(100, p95_ms=31.0), 60, "roll back"),
        (side(1000), side(100, p95_ms=29.0), 60, "promote"),
        (side(1000, p95_ms=1.0), side(100, p95_ms=9.0), 60, "promote"),
    ],
)  # fmt: skip
def test_verdicts(old: Side, new: Side, elapsed: float, verdict: str) -> None:
    found, why, _ = judge(RULE, old, new, elapsed=elapsed)
    assert found == verdict
    assert bool(why) == (verdict != "wait")


def test_slowness_counts_at_two_looks_in_a_row() -> None:
    slow = side(500, p95_ms=50.0)
    assert judge(RULE, side(500), slow, elapsed=10) == ("wait", "", True)
    verdict, why, _ = judge(RULE, side(500), slow, elapsed=20, slow_before=True)
    assert (verdict, why) == ("roll back", "its p95 is 50.0 ms, the old version's 20.0 ms")
    assert judge(RULE, side(500), side(99, p95_ms=50.0), elapsed=20, slow_before=True)[0] == "wait"


def page(answers: dict[int, tuple[int, int, float]]) -> str:
    """The page of a server of our own: version -> successes, failures and seconds of each success."""
    registry = Registry()
    for version, (good, bad, seconds) in answers.items():
        for _ in range(good):
            registry.request_count.add("m", "OK")
            registry.request_latency.observe(seconds * 1e6, "m", "Predict", "GRPC")
            registry.signature_count.add("m", str(version), "serving_default", "OK")
            registry.signature_latency.observe(seconds * 1e6, "m", str(version), "serving_default")
        for _ in range(bad):
            registry.request_count.add("m", ServingError(Code.INTERNAL, "").code.name)
            registry.signature_count.add("m", str(version), "serving_default", "INTERNAL")
    return registry.page()


def test_it_reads_what_the_server_counts() -> None:
    text = page({1: (90, 10, 0.02), 2: (5, 5, 0.2)})
    old, new, both = (counts(text, "m", version=version) for version in (1, 2, None))
    assert old is not None
    assert new is not None
    assert both is not None
    assert (Side.of(old).requests, Side.of(old).errors) == (100, 10)
    assert (Side.of(new).requests, Side.of(new).errors) == (10, 5)
    assert (Side.of(both).requests, Side.of(both).errors) == (110, 15)
    # Buckets grow by 1.8, so a percentile is known to within that.
    assert 0.02 / 1.8 < (Side.of(old).p95_ms or 0) / 1000 < 0.02 * 1.8
    assert 0.2 / 1.8 < (Side.of(new).p95_ms or 0) / 1000 < 0.2 * 1.8
    assert Side.of(counts(text, "other") or Counts()) == Side(requests=0, errors=0, p95_ms=None)


def test_stock_tf_serving_does_not_tell_versions_apart() -> None:
    stock = "\n".join(line for line in page({1: (3, 1, 0.01)}).splitlines() if "vitrina:" not in line)
    assert counts(stock, "m", version=1) is None
    found = counts(stock, "m")
    assert found is not None
    assert (found.requests, found.errors) == (4, 1)


def test_only_what_came_since_counts() -> None:
    before = {"a": Counts(requests=100, errors=10, buckets={10.0: 50, math.inf: 90}), "gone": Counts(requests=7)}
    after = {
        "a": Counts(requests=130, errors=11, buckets={10.0: 60, math.inf: 119}),
        "new": Counts(requests=5, errors=0, buckets={10.0: 5, math.inf: 5}),
    }
    found = since(before, after)
    assert (found.requests, found.errors, dict(found.buckets)) == (35, 1, {10.0: 15, math.inf: 34})
    restarted = since({"a": Counts(requests=100, errors=50)}, {"a": Counts(requests=3, errors=1)})
    assert (restarted.requests, restarted.errors) == (3, 1)
