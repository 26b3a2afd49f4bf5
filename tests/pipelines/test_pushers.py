"""Targets besides the base path: a program of one's own, for real; Kubernetes and Vertex AI through their folders."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from pipelines import pushers
from pipelines.pushers import Release
from signatures.errors import UsageError, VitrinaError

RELEASE = Release(base=Path("/gcs/b/models/flowers"), version=7, name="flowers")


def program(folder: Path, text: str) -> str:
    path = folder / "roll-out"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return f"exec://{path}"


def test_a_program_of_ones_own_gets_the_bucket_and_the_version(tmp_path: Path) -> None:
    target = program(tmp_path, 'echo "rolling out"; echo "live: $1@$2"')
    pushers.find(target).check(target)
    told: list[str] = []
    assert pushers.find(target).release(target, RELEASE, told.append) == "live: gs://b/models/flowers@7"
    assert told == ["rolling out", "live: gs://b/models/flowers@7"]


def test_a_program_that_refuses_says_why(tmp_path: Path) -> None:
    target = program(tmp_path, "echo the canary answers too slowly >&2; exit 3")
    with pytest.raises(VitrinaError, match="ended with 3: the canary answers too slowly"):
        pushers.find(target).release(target, RELEASE, lambda _: None)


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("flowers", "exec://... or k8s://... or vertex://..."),
        ("_folder://x", "exec://..."),
        ("exec:///no/such/program", "there is no program '/no/such/program'"),
        ("k8s://flowers", "k8s://NAMESPACE/NAME"),
        ("vertex://projects/p/endpoints/e", "vertex://projects/P/locations/L/endpoints/E"),
    ],
)
def test_what_is_no_target_is_refused(target: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        pushers.find(target).check(target)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("folder", "target", "named"),
    [
        ("k8s", "k8s://vision/flowers", {"namespace": "vision", "name": "flowers", "location": "gs://b/models/flowers"}),
        (
            "vertex",
            "vertex://projects/p/locations/l/endpoints/e",
            {
                "project": "p", "location": "l", "endpoint": "e", "name": "flowers",
                "artifact_uri": "gs://b/models/flowers",
            },
        ),
    ],
)  # fmt: skip
def test_a_folders_pusher_gets_what_it_needs(
    folder: str, target: str, named: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    module = types.ModuleType(f"{folder}.pusher")
    module.push = lambda **given: asked.update(given) or "there"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    tell = print
    pushers.find(target).check(target)
    assert pushers.find(target).release(target, RELEASE, tell) == "there"
    assert asked == {**named, "version": 7, "tell": tell}
