from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from pipelines.serving_check import REPORT_FILE, check_served, differences
from signatures.errors import VitrinaError
from signatures.spec import Card

pytestmark = pytest.mark.long


@pytest.fixture
def candidate(tiny_servable: Path, tmp_path: Path) -> Path:
    """A copy of the shared servable with a certificate that holds (it was exported without measuring)."""
    model = tmp_path / "model"
    shutil.copytree(tiny_servable / "1", model)
    card = Card.read(model)
    card.replace(parity={"holds": True}).write(model)
    return model


def test_a_good_servable_passes_over_both_doors(candidate: Path, photos: list[bytes], tmp_path: Path) -> None:
    report = check_served(
        candidate, photos, log=tmp_path / "server.log", server="vitrina", max_latency_ms=60_000, max_size_mb=100
    )
    assert report.ok, report.failures
    assert [finding.check for finding in report.findings] == [
        "size",
        "parity certificate",
        "answers over grpc",
        "broken images over grpc",
        "latency over grpc",
        "answers over rest",
        "broken images over rest",
        "latency over rest",
    ]
    report.write(tmp_path / "report")
    assert (tmp_path / "report" / REPORT_FILE).is_file()


def test_what_does_not_hold_is_told(candidate: Path, photos: list[bytes], tmp_path: Path) -> None:
    Card.read(candidate).replace(parity={}).write(candidate)
    report = check_served(
        candidate, photos[:1], log=tmp_path / "server.log", server="vitrina", max_latency_ms=0.001, max_size_mb=0.01
    )
    assert not report.ok
    assert [failure.partition(":")[0] for failure in report.failures] == [
        "size",
        "parity certificate",
        "latency over grpc",
        "latency over rest",
    ]


def test_a_server_that_does_not_start_is_a_finding(
    candidate: Path, photos: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.served.sys.executable", "/bin/false")
    report = check_served(candidate, photos[:1], log=tmp_path / "server.log", server="vitrina")
    assert any(failure.startswith("serving: The server ended") for failure in report.failures)


def test_no_images_is_an_error(candidate: Path, tmp_path: Path) -> None:
    with pytest.raises(VitrinaError, match="no images"):
        check_served(candidate, [], log=tmp_path / "server.log")


def answer(**changes: object) -> dict[str, object]:
    return {
        "labels": np.array([[b"cat", b"dog"]], object),
        "scores": np.array([[0.75, 0.25]], np.float32),
        "error": np.array([b""], object),
        **changes,
    }


def test_the_same_answers() -> None:
    assert differences(answer(), answer()) == ""
    assert differences(answer(scores=np.array([[0.75005, 0.25]])), answer()) == ""
    assert differences(answer(labels=np.array([["cat", "dog"]])), answer()) == ""


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"scores": np.array([[0.76, 0.24]])}, "scores differs by 0.01"),
        ({"scores": np.array([[np.nan, 0.25]])}, "scores differs by nan"),
        ({"labels": np.array([[b"dog", b"cat"]], object)}, "labels differs"),
        ({"labels": np.array([[b"cat"]], object)}, "labels has shape"),
        ({"more": np.zeros(1)}, "outputs"),
    ],
)
def test_other_answers(changes: dict[str, object], told: str) -> None:
    assert told in differences(answer(**changes), answer())
