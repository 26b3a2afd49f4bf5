"""The main job end to end on a few digits: train, evaluate, push, serve in a process of its own, ask both doors."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("tfx", reason="the tfx extra is not installed in this lane")

from signatures import base_path
from signatures.errors import CheckFailed
from vitrina import demo

pytestmark = pytest.mark.long


def figures(**changes: float) -> demo.DemoResult:
    values = {"tfma": 0.97, "grpc": 0.97, "rest": 0.97, "seconds": 1.0, **changes}
    return demo.DemoResult(servable=Path("served/1"), images=100, **values)


def test_the_demo_twice(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert demo.main(["--out", str(out), "--limit", "5", "--epochs", "1"]) == 0
    printed = capfd.readouterr()
    base = out / "served" / "digits"
    assert list(base_path.versions(base)) == [1]
    assert f"vitrina predict grpc://localhost:8500/digits {out}" in printed.out
    assert f"vitrina inspect {base}" in printed.out
    assert "10 of 10" not in printed.err or "accuracy 1.0000" in printed.out
    assert "taken over" not in printed.err

    # Again: what has not changed is taken over and said so; serving and asking are done for real.
    assert demo.main(["--out", str(out), "--limit", "5", "--epochs", "1", "--json"]) == 0
    again = capfd.readouterr()
    assert "Trainer" in again.err
    assert "taken over from an earlier run" in again.err
    assert list(base_path.versions(base)) == [1]
    assert again.err.count(" of 10 right") == 2


def test_doors_that_disagree_are_an_error() -> None:
    demo.check(figures(), least=0.95)
    with pytest.raises(CheckFailed, match="differ"):
        demo.check(figures(rest=0.96), least=0.95)
    with pytest.raises(CheckFailed, match="differ"):
        demo.check(figures(tfma=0.98), least=0.95)


def test_too_little_accuracy_is_an_error() -> None:
    with pytest.raises(CheckFailed, match=r"below 0\.98"):
        demo.check(figures(), least=0.98)
