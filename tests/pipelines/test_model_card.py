from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ET

import pytest

from pipelines.calibration import Bin, calibration_error
from pipelines.judged import Judged, calibration, confusion
from pipelines.model_card import Check, Facts, to_html, to_markdown
from pipelines.plots import interval


def judged(actual: str, answered: str, score: float = 0.9) -> Judged:
    return Judged(encoded=b"x", format="PNG", filename="a<b>.png", actual=actual, answered=answered, score=score)


@pytest.fixture
def facts() -> Facts:
    found = [judged("cat", "cat"), judged("cat", "dog"), judged("dog|s", "dog|s"), judged("dog|s", "")]
    return Facts(
        title="pets & co",
        created="2024-01-01T00:00:00+00:00",
        task="image-classification",
        source="checkpoint",
        model_class="TFViTForImageClassification",
        labels=("cat", "dog|s"),
        trained={"cat": 8, "dog|s": 9},
        held_out={"cat": 2, "dog|s": 2},
        set_aside=1,
        accuracy=0.5,
        baseline_accuracy=0.25,
        per_class={
            "cat": {"accuracy": 0.5, "images": 2.0, "baseline_accuracy": 0.0},
            "dog|s": {"accuracy": 0.5, "images": 2.0, "baseline_accuracy": 0.5},
        },
        checks=[
            Check(name="accuracy", ok=True, told="0.5000, at least 0.4"),
            Check(name="size", ok=False, told="9.0 MB, the limit is 8 MB"),
        ],
        slices={
            "image/format": {"PNG": {"accuracy": 0.5, "images": 3.0}, "JPEG": {"accuracy": 0.0, "images": 1.0}},
            "image/channels": {"3": {"accuracy": 0.5, "images": 4.0}},
        },
        size_mb=9.0,
        lineage=[("examples (Examples 7)", "/runs/<examples>/7")],
        confusion=confusion(found, ("cat", "dog|s")),
        history={"loss": [2.0, 1.0, 0.5]},
        latency_ms={"grpc": {"p50": 1.5, "p95": 2.5}},
        server="vitrina",
        parity={"holds": True},
        schedule={"epochs": 3},
        packages={"tensorflow": "2.16.2"},
        calibration=calibration(found),
        mistakes=[item for item in found if item.answered != item.actual],
    )


def test_counts_of_answers() -> None:
    found = [judged("a", "a"), judged("a", "b"), judged("b", "b"), judged("b", ""), judged("b", "other")]
    assert confusion(found, ("a", "b")) == [[1, 1, 0], [0, 1, 2]]


def test_calibration_is_the_distance_of_score_and_share_that_is_right() -> None:
    found = [judged("a", "a", 0.95), judged("a", "b", 0.91), judged("a", "a", 1.0), judged("b", "a", 0.05)]
    bins = calibration(found)
    assert bins == [
        Bin(images=1, score=pytest.approx(0.05), accuracy=0.0),
        Bin(images=3, score=pytest.approx(2.86 / 3), accuracy=pytest.approx(2 / 3)),
    ]
    assert calibration_error(bins) == pytest.approx((0.05 + 0.86) / 4)
    assert calibration_error([]) == 0.0


def test_top_k_is_told_where_it_says_something(facts: Facts) -> None:
    assert "among the first" not in to_markdown(dataclasses.replace(facts, top_k_accuracy=0.75, top_k=5))
    assert "**among the first 1**: 0.7500" in to_markdown(dataclasses.replace(facts, top_k_accuracy=0.75, top_k=1))
    assert "calibration error" in to_markdown(facts)


def test_markdown_says_what_matters_and_keeps_its_table(facts: Facts) -> None:
    text = to_markdown(facts)
    for part in (
        "# pets & co",
        "0.5000 on 4 held-out images",
        "0.2500 on the same images",
        "1 files that cannot",
        "p95 2.5 ms",
        "- **no**: size: 9.0 MB, the limit is 8 MB",
        "- JPEG: 0.0000 on 1 images",
        "- examples (Examples 7): /runs/<examples>/7",
    ):
        assert part in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in rows} == {5}
    assert "1 of class dog\\|s answered as nothing" in text


def test_html_is_well_formed_and_escapes(facts: Facts) -> None:
    page = to_html(facts)
    body = page.replace("<!doctype html>", "").replace('<meta charset="utf-8">', "")
    body = body.replace('<meta name="viewport" content="width=device-width, initial-scale=1">', "")
    for tag in ("<br>",):
        body = body.replace(tag, "")
    body = __import__("re").sub(r"(<img [^>]*)>", r"\1/>", body)
    root = ET.fromstring(body)
    assert root.find("head/title").text == "pets & co"  # type: ignore[union-attr]
    assert len(root.findall(".//figure")) == 2
    # Per class, by format (not by channels, of which there is one value), calibration, the loss.
    assert len(root.findall(".//svg")) == 4
    (badge,) = root.findall("body/h1/span")
    assert badge.text == "not blessed"
    assert [cell.text for cell in root.findall(".//td[@class='n']/../td")] == ["✗", "size", "9.0 MB, the limit is 8 MB"]
    assert "a<b>" not in page
    assert "http" not in page.replace("http-equiv", ""), "the page must stand alone"


def test_the_interval_of_a_share_is_wilsons() -> None:
    low, high = interval(0.5, 100)
    assert (low, high) == (pytest.approx(0.4038, abs=1e-4), pytest.approx(0.5962, abs=1e-4))
    assert interval(1.0, 10) == (pytest.approx(0.7225, abs=1e-4), pytest.approx(1.0))
    assert interval(0.0, 0) == (0.0, 1.0)


def test_many_classes_are_listed_by_what_is_confused(facts: Facts) -> None:
    labels = tuple(f"class {number}" for number in range(100))
    counts = [[0] * 101 for _ in labels]
    counts[7][8] = 3
    many = dataclasses.replace(
        facts,
        labels=labels,
        confusion=counts,
        per_class={key: {"accuracy": 1.0, "images": 1.0} for key in labels},
        trained={},
        held_out={},
    )
    page = to_html(many)
    assert "<td>3</td><td>class 7</td><td>class 8</td>" in page
    assert "and 60 better ones" in page
