"""The simulation of `benchmarks.scale`: the autoscaler's rules one by one, waiting times against queueing theory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import scale
from benchmarks.scale import Autoscaler, Scaler, outcome, patterns, simulate

UP, DOWN = (("Percent", 100, 30), ("Pods", 2, 30)), (("Percent", 20, 60), ("Pods", 1, 60))
RULES = Scaler(least=2, most=20, target=0.5, up=UP, down=DOWN, up_window=0, down_window=300)


def test_it_reads_the_base() -> None:
    base = Scaler.of_the_base()
    assert (base.least, base.most, base.target, base.down_window) == (2, 10, 0.6, 300)
    assert scale.queue_of_the_base() == 256


def test_more_replicas_as_the_rules_allow() -> None:
    scaler = Autoscaler(RULES)
    assert scaler.look(0, 4, 0.54, 4) == 4  # within the tolerance of a tenth
    assert scaler.look(15, 4, 0.75, 4) == 6
    assert scaler.look(30, 6, 1.0, 4) == 8  # six that are not all ready; 4 more in 30 s are the most
    assert scaler.look(45, 8, 1.0, 8) == 12  # the first two were 30 s ago
    assert scaler.look(60, 12, 1.0, 8) == 16
    assert scaler.look(90, 16, 1.0, 16) == 20


def test_fewer_replicas_slowly_and_after_a_while() -> None:
    scaler = Autoscaler(RULES)
    assert scaler.look(0, 10, 0.5, 10) == 10
    assert scaler.look(150, 10, 0.1, 10) == 10  # five minutes ago there was need of ten
    assert scaler.look(315, 10, 0.1, 10) == 9  # one a minute
    assert scaler.look(330, 9, 0.1, 9) == 9
    assert scaler.look(390, 9, 0.1, 9) == 8
    lazy = Autoscaler(RULES)
    assert [lazy.look(at, 2, 0.0, 2) for at in (0, 400)] == [2, 2]


def test_waiting_times_are_those_of_queueing_theory() -> None:
    rules = replace(RULES, least=1, most=1)
    latencies, trace = simulate(lambda _: 12.0, 40_000, service_ms=50, rules=rules, variation=0.5, queue=10**9)
    busy = 12 * 0.05
    # Pollaczek and Khinchin: the mean wait of an M/G/1 queue.
    wait = 12 * 0.05**2 * (1 + 0.5**2) / (2 * (1 - busy))
    assert np.mean(latencies) == pytest.approx(0.05 + wait, rel=0.03)
    assert set(trace.replicas) == {1}


def test_a_full_queue_refuses_and_bounds_the_wait() -> None:
    rules = replace(RULES, least=1, most=1)
    latencies, _ = simulate(lambda _: 40.0, 2_000, service_ms=50, rules=rules, variation=0.1, queue=100)
    assert np.nanmax(latencies) < 100 * 0.05 + 0.2
    # 20 a second is all that one can.
    assert np.isnan(latencies).mean() == pytest.approx(0.5, abs=0.03)


def test_a_spike_is_followed() -> None:
    pattern, seconds = patterns(80.0, scale.HOUR)["spike"]
    latencies, trace = simulate(pattern, seconds, service_ms=50, rules=RULES, queue=10**9)
    found = outcome("spike", RULES.target, latencies, trace, 0.05)
    assert min(trace.replicas) == 2
    assert 8 <= found.most_replicas <= 12
    assert found.p50_ms < 70
    assert found.worst_minute_p99_ms > 5_000  # until the new ones are ready
    quiet = np.array(trace.p99_ms)[np.array(trace.at) > 2600]
    assert quiet.max() < 400
    assert found.images == pytest.approx(80 * (0.25 * 3000 + 600), rel=0.02)
    assert found.per_million == pytest.approx(found.mean_replicas * 0.05 / found.images * 1e6, rel=1e-9)


def test_the_command_prints_and_plots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scale, "OUT", tmp_path)
    monkeypatch.setattr("sys.argv", ["scale", "--peak", "20", "--day", "900", "--service-ms", "80"])
    assert scale.main() == 0
    printed = capsys.readouterr().out
    assert printed.count("60%*") == 3
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".png"}
