"""What `vitrina pipeline run` prints and how it ends, for each way that a run can end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines import local
from pipelines.local import ComponentRun, Deployed, RunResult
from vitrina.cli import main

BLESSED = RunResult(
    blessed=True,
    pushed=Path("/models/flowers/3"),
    version=3,
    new=True,
    metrics={"accuracy": 0.97, "top_k_accuracy": 1.0, "calibration_error": 0.02, "images": 50.0},
    failures=(),
    serving={"server": "vitrina", "latency_ms": {"grpc": {"p50": 5.0, "p95": 9.0}}, "findings": []},
    components=(
        ComponentRun(name="ImageGen", state="CACHED", seconds=0.1),
        ComponentRun(name="Trainer", state="COMPLETE", seconds=12.0),
    ),
    ingest={"counts": {"train": 100, "eval": 50}, "bad": [], "leaks": []},
    checkpoint=Path("/runs/checkpoint"),
    evaluation=Path("/runs/evaluation"),
    metadata=Path("/runs/metadata.sqlite"),
    log=Path("/runs/logs/1.log"),
)
REFUSED = replace(
    BLESSED, blessed=False, pushed=None, version=None, new=False, failures=("accuracy 0.4000 is below 0.9000",)
)
COMMAND = ["pipeline", "run", "--data", "d", "--model", "m", "--root", "r", "--serving-dir", "s"]


@pytest.mark.parametrize(
    ("result", "code", "told"),
    [
        (BLESSED, 0, "blessed and pushed: /models/flowers/3"),
        (replace(BLESSED, new=False), 0, "the latest version already is this very model"),
        (REFUSED, 0, "not blessed, so nothing was pushed: accuracy 0.4000 is below 0.9000"),
        (
            replace(BLESSED, deployments=(Deployed(target="k8s://a/b", live=False, told="too slow"),)),
            1,
            "NOT live on k8s://a/b: too slow",
        ),
    ],
)
def test_how_a_run_ends(result: RunResult, code: int, told: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(local, "run", lambda **given: asked.update(given) or result)
    assert main([*COMMAND, "--threshold", "0.8", "--class-threshold", "0.5", "--server", "docker"]) == code
    out = capsys.readouterr().out
    assert told in out
    assert "taken over, nothing changed" in next(line for line in out.splitlines() if line.startswith("ImageGen"))
    assert (asked["threshold"], asked["class_threshold"], asked["max_class_loss"]) == (0.8, 0.5, None)
    assert asked["server"] == "docker"
    assert main([*COMMAND, "--json"]) == code
    assert json.loads(capsys.readouterr().out)["blessed"] is result.blessed


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--threshold", "1.5"], "Got threshold 1.5, but it is a share from 0 to 1"),
        (["--class-threshold", "-1"], "Got class_threshold -1.0"),
        (["--keep", "0"], "at least 1 version stays"),
        (["--push-to", "nowhere"], "Got the target 'nowhere'"),
        (["--slice", "image/colour"], "the Examples have: image/class/label"),
        (["--server", "tensorflow_model_server"], "not on PATH"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    pytest.importorskip("tfx", reason="the tfx extra is not installed in this lane")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("one", "two"):
        (tmp_path / "d" / name).mkdir(parents=True)
        (tmp_path / "d" / name / "1.png").write_bytes(b"not looked at yet")
    assert main([*COMMAND, *words]) == 2
    assert told in capsys.readouterr().err
