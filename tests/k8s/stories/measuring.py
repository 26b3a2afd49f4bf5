"""What is measured of a server process, and where it goes."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from k8s import measure as module
from k8s import sizing
from k8s.measure import measure
from signatures.errors import UsageError, VitrinaError
from signatures.spec import CARD_PATH, Card
from tests.emulators.kube.zygote import Zygote
from tests.k8s.stories.whole import Write
from tests.k8s.test_render import card
from vitrina.cli import main

ADDRESS = "127.95.0.1"


@contextmanager
def server(zygote: Zygote, base: Path, folder: Path) -> Iterator[tuple[str, int]]:
    """A real server process, as `measure` starts one, but from the zygote."""
    flags = ["--port=8500", "--rest_api_port=8501", "--model_name=measured", f"--model_base_path={base}"]
    process = zygote.start(
        ["tensorflow_model_server", *flags], env={}, address=ADDRESS, log=folder / "log", folder=folder
    )
    for _ in range(600):
        try:
            if httpx.get(f"http://{ADDRESS}:8501/v1/models/measured/metadata").status_code == 200:
                break
        except httpx.TransportError:
            process.wait(0.05)
    yield f"grpc://{ADDRESS}:8500/measured", process.pid
    process.send_signal(signal.SIGTERM)
    assert process.wait(30)


def test_a_servable_is_measured_and_its_card_keeps_it(
    zygote: Zygote, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "m"
    write(base, 1, "good")
    card(description="kept").write(base / "1")
    monkeypatch.setattr(module, "_served", lambda served: server(zygote, served, tmp_path))
    assert main(["k8s", "measure", str(base), "--seconds", "0.5"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["latency_ms"]["p50"] <= found["latency_ms"]["p95"]
    assert found["images_per_second"] > 1
    assert 50 < found["memory_mb"] < 4000
    assert found["cpus"] == len(os.sched_getaffinity(0))
    written = Card.read(base / "1")
    assert written.extra == {"description": "kept", "measured": found}
    assert sizing.read(base).latency_ms == found["latency_ms"]["p50"]
    assert sorted(path.name for path in base.iterdir()) == ["1"]


def test_what_cannot_be_measured(zygote: Zygote, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path / "m"
    write(base, 1, "failing")
    card().write(base / "1")
    before = (base / "1" / CARD_PATH).read_bytes()
    monkeypatch.setattr(module, "_served", lambda served: server(zygote, served, tmp_path))
    with pytest.raises(VitrinaError):
        measure(base, seconds=0.2)
    assert (base / "1" / CARD_PATH).read_bytes() == before
    document: dict[str, Any] = json.loads(before)
    document["signatures"]["serving_default"]["inputs"]["question"] = {
        "dtype": "string",
        "shape": [None],
        "meaning": "",
    }
    (base / "1" / CARD_PATH).write_text(json.dumps(document))
    with pytest.raises(UsageError, match="wants image_bytes, question"):
        measure(base)
