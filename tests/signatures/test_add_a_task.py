"""`docs/add-a-task.md`, followed word for word."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import signatures.tasks
from signatures.tasks import TASKS

PAGE = Path(__file__).parents[2] / "docs" / "add-a-task.md"


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The page's file where the page says, but in a second folder of the same package."""
    text = PAGE.read_text(encoding="utf-8")
    named = re.search(r"Write `signatures/tasks/(\w+)\.py`:\n\n```python\n(.*?)```", text, re.DOTALL)
    assert named is not None
    (tmp_path / f"{named[1]}.py").write_text(named[2])
    monkeypatch.setattr(signatures.tasks, "__path__", [*signatures.tasks.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    yield tmp_path / f"{named[1]}.py"
    sys.modules.pop(f"signatures.tasks.{named[1]}", None)
    vars(signatures.tasks).pop(named[1], None)


def commands(**places: Path) -> list[list[str]]:
    """The page's shell commands, with real places for what stands in capitals and for its folders."""
    (block,) = re.findall(r"```shell\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    words = [shlex.split(line) for line in block.strip().splitlines()]
    assert all(line[0] == "vitrina" for line in words)
    return [[str(places.get(re.sub(r"\W", "_", word), word)) for word in line[1:]] for line in words]


def test_the_page_adds_a_task(
    added: Path, tiny_vit: Path, photos: list[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from scripts import task_docs
    from vitrina import cli

    assert TASKS["image-tagging"].summary == "Every label of an image that is likely enough."
    assert "## `image-tagging`" in task_docs.document()
    (tmp_path / "photo.jpg").write_bytes(photos[0])
    places = {"CHECKPOINT": tiny_vit, "models_tags": tmp_path / "models", "photo_jpg": tmp_path / "photo.jpg"}
    exporting, asking = commands(**places)
    # What verification does is another test's; here it would take most of the time.
    assert cli.main([*exporting, "--no-verify"]) == 0
    capsys.readouterr()
    assert cli.main([*asking, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    found = answer[0] if isinstance(answer, list) else answer
    assert "kind " in json.dumps(found)
    card = json.loads((tmp_path / "models" / "1" / "assets.extra" / "servable.json").read_text())
    assert (card["task"], card["options"]) == ("image-tagging", {"threshold": 0.4})
