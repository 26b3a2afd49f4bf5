from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET

import pytest

from serving import bench as bench_module
from serving.bench import Load, bench
from signatures.errors import UsageError
from vitrina.plot import svg


def load(**changes):
    values = {"clients": 2, "rate": 0.0, "batch_size": 4, "seconds": 2.0, "latencies": (0.1, 0.3), "errors": {}}
    return Load(**{**values, "bad_images": 0, **changes})


def test_figures():
    measured = load()
    assert measured.images_per_second == 4.0
    assert measured.quantile(50) == pytest.approx(0.2)
    assert measured.to_json()["latency_ms"]["max"] == 300.0
    assert (load(clients=1).name, measured.name, load(rate=7.5).name) == ("1 client", "2 clients", "7.5 requests/s")
    assert load(latencies=()).to_json()["latency_ms"] == {}


@pytest.mark.parametrize("kind", ["grpc", "http"])
def test_closed_loops_one_by_one(served, photos, kind):
    told = []
    loads = bench(served[kind], [photos[3]], clients=(1, 3), seconds=0.5, timeout=60, on_load=told.append)
    assert told == loads
    assert [measured.clients for measured in loads] == [1, 3]
    for measured in loads:
        assert not measured.errors
        assert measured.bad_images == 0
        assert measured.latencies
        assert measured.seconds >= 0.5
        assert max(measured.latencies) <= measured.seconds


def test_an_open_loop_asks_at_its_rate(served, photos):
    (measured,) = bench(served["grpc"], [photos[3]], rate=30, seconds=1.0, batch_size=2, timeout=60)
    expected = len(list(bench_module._arrivals(0.0, 30, 1.0)))
    assert len(measured.latencies) == expected
    assert 15 < expected < 50
    assert measured.batch_size == 2


def test_arrivals_are_a_poisson_process():
    gaps = [b - a for a, b in itertools.pairwise(bench_module._arrivals(0.0, 100, 100.0))]
    mean = sum(gaps) / len(gaps)
    spread = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert mean == pytest.approx(0.01, rel=0.05)
    assert spread == pytest.approx(mean**2, rel=0.1)  # the variance of an exponential is its mean squared


def test_unreadable_images_are_counted(served, photos):
    (measured,) = bench(served["http"], [b"no image"], clients=(1,), seconds=0.2, batch_size=2, timeout=60)
    assert measured.bad_images == 2 * len(measured.latencies) > 0


def test_failures_are_counted_by_code(served, photos, monkeypatch):
    from serving.transports.base import TargetError

    calls = itertools.count()
    from serving.client import Client

    original = Client.call

    def sometimes(self, *args, **kwargs):
        if next(calls) > 2:
            raise TargetError("RESOURCE_EXHAUSTED", "too much")
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Client, "call", sometimes)
    (measured,) = bench(served["grpc"], photos[:3], clients=(2,), seconds=0.05, timeout=60)
    assert measured.latencies == ()
    assert set(measured.errors) == {"RESOURCE_EXHAUSTED"}
    assert measured.errors["RESOURCE_EXHAUSTED"] >= 2


@pytest.mark.parametrize(
    "wrong", [{"seconds": 0}, {"clients": ()}, {"clients": (0,)}, {"rate": -1.0}, {"batch_size": 0}]
)
def test_numbers_must_be_positive(wrong):
    with pytest.raises(UsageError, match="Give positive numbers"):
        bench("grpc://localhost:1/m", [b"x"], **wrong)


def test_the_plot_has_a_curve_for_each_load():
    picture = ET.fromstring(svg([load(), load(clients=8, latencies=(0.002,) * 5), load(latencies=())], "a <b> & c"))
    curves = picture.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(curves) == 2
    for curve in curves:
        points = [tuple(map(float, point.split(","))) for point in curve.get("points").split()]
        assert len(points) == 201
        assert all(0 <= x <= 720 and 0 <= y <= 400 for x, y in points)
    texts = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert "a <b> & c" in texts
    assert "8 clients: 10.0 images/s" in texts
