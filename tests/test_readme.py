"""The tour of README.md runs as it stands, block by block; only the ports are others, as 8500 may be taken."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from serving.server import free_port

pytestmark = pytest.mark.long

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECOND_TERMINAL = "# in a second terminal\n"
START_SECONDS = 300


class Block(NamedTuple):
    """A fenced block: its language and its text."""

    language: str
    text: str


def blocks(text: str) -> list[Block]:
    return [Block(*found) for found in FENCE.findall(text)]


def tour() -> list[Block]:
    (section,) = re.findall(r"^## A tour\n(.*?)^## ", README, re.MULTILINE | re.DOTALL)
    return blocks(section)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder that looks like a checkout whose environment is this one."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    for name, words in (("python", ""), ("vitrina", " -m vitrina")):
        script = tmp_path / ".venv" / "bin" / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}"{words} "$@"\n')
        script.chmod(0o755)
    return tmp_path


def environment(place: Path) -> dict[str, str]:
    path = f"{place / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}


@contextlib.contextmanager
def running(command: str, place: Path, health: str) -> Iterator[None]:
    """A block for a second terminal: started, waited for, and ended as Ctrl-C or a supervisor would."""
    script = ["bash", "-euc", f"exec {command}"]
    with subprocess.Popen(script, cwd=place, env=environment(place), start_new_session=True) as process:
        try:
            deadline = time.monotonic() + START_SECONDS
            while True:
                assert process.poll() is None, f"{command} ended with {process.returncode}"
                assert time.monotonic() < deadline, f"{command} did not answer within {START_SECONDS} s"
                with contextlib.suppress(OSError), urllib.request.urlopen(health, timeout=5):
                    break
                time.sleep(0.2)
            yield
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def run(block: Block, place: Path) -> str:
    command = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}[block.language]
    done = subprocess.run(
        [*command, block.text], cwd=place, env=environment(place), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_tour_runs(place: Path) -> None:
    ports = {"8500": str(free_port()), "8501": str(free_port())}
    printed = []
    with contextlib.ExitStack() as servers:
        for language, text in tour():
            ready = re.sub("850[01]", lambda found: ports[found.group()], text)
            if ready.startswith(SECOND_TERMINAL):
                health = f"http://localhost:{ports['8501']}/v1/models/vit/metadata"
                servers.enter_context(running(ready.removeprefix(SECOND_TERMINAL).strip(), place, health))
            else:
                printed.append(run(Block(language, ready), place))
    output = "\n".join(printed)
    assert "tour/models/vit/1" in output
    assert re.search(r"tabby cat|sunflower|pagoda|teapot|lighthouse|bicycle", output)
    assert "serving_container_image_uri" in output
    assert "kind: Deployment" in (place / "tour" / "vit.yaml").read_text()


def test_the_tour_shows_every_way() -> None:
    text = "".join(block.text for block in tour())
    for verb in ("export", "inspect", "predict", "serve", "k8s render"):
        assert f"vitrina {verb}" in text
    assert {block.language for block in tour()} == {"bash", "python"}
    assert sum(block.text.startswith(SECOND_TERMINAL) for block in tour()) == 1


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "docs", "benchmarks", "examples"])
def test_links_lead_somewhere(name: str) -> None:
    paths = sorted((ROOT / name).rglob("*.md")) if (ROOT / name).is_dir() else [ROOT / name]
    for path in paths:
        for target in re.findall(r"\]\(([^)#\s]+)\)", path.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (path.parent / target).exists(), f"{path.relative_to(ROOT)} links to {target}"


def test_the_readme_tells_the_targets_and_commands_that_exist() -> None:
    told = set(re.findall(r"`?make ([a-z]+)", README)) - {"lists"}
    makefile = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert told <= makefile
    from vitrina import verbs

    named = set(re.findall(r"`?vitrina ([a-z0-9]+)", "".join(block.text for block in blocks(README))))
    assert named - {"import"} <= set(verbs.found())
