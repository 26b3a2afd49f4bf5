from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines import served
from signatures.errors import UsageError, VitrinaError


def stand_in(monkeypatch: pytest.MonkeyPatch, program: str) -> list[subprocess.Popen[bytes]]:
    """Starts this Python program where a server would be."""
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def popen(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        started.append(real([sys.executable, "-c", program], **options))
        return started[-1]

    monkeypatch.setattr("pipelines.servers._program.subprocess.Popen", popen)
    return started


def test_a_server_that_ends_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "import sys; print('the port is taken'); sys.exit(3)")
    with (
        pytest.raises(VitrinaError, match=r"ended with code 3: the port is taken .*server\.log"),
        served.served(tmp_path, name="m", log=tmp_path / "server.log"),
    ):
        pytest.fail("it should not have started")


def test_a_server_that_is_never_ready_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = stand_in(monkeypatch, "import time; time.sleep(60)")
    monkeypatch.setattr(served, "START_TIMEOUT", 0.5)
    with (
        pytest.raises(VitrinaError, match="not ready within"),
        served.served(tmp_path, name="m", log=tmp_path / "server.log"),
    ):
        pytest.fail("it should not be ready")
    assert started[0].poll() is not None


def test_kinds_of_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert served.choose("auto") == "vitrina"
    with pytest.raises(UsageError, match="not on PATH"):
        served.choose("tensorflow_model_server")
    for name in ("triton", "_program"):
        with pytest.raises(UsageError, match="one of auto"):
            served.choose(name)
    with pytest.raises(UsageError, match="Neither docker nor podman"):
        served.choose("docker")
    with pytest.raises(UsageError, match="kubectl is not on PATH"):
        served.choose("kubernetes")
    binary = tmp_path / "tensorflow_model_server"
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    assert served.choose("auto") == "tensorflow_model_server"
