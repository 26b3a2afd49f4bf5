"""The repository stands alone: no paths of one machine, no hosts of one network, nothing heavy, no module too long."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

#: uv.lock names where each file comes from: that is what a lock is for.
EXCEPTED = {"uv.lock"}

#: Put together from parts, or this file would be the first to be found.
MACHINE = re.compile(
    "|".join(
        (
            r"(?<![\w$}.-])/(?:root|home)/\w",  # somebody's home folder
            r"(?<![\w$}.-])/Users/\w",
            r"(?<![\w$}./-])/(?:work|workspace|farm|mnt)/\w",  # folders of a build machine
            r"\.\./" + "shared",
            r"pypi\.org|files\.python" + r"hosted|astral\.sh|artifactory|nexus\.",  # package registries and mirrors
            r"hub\.docker\.com|index\.docker\.io",
        )
    )
)
LONGEST_MODULE = 500
LARGEST_FILE = 2 * 2**20


def tracked() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout, so there is no list of tracked files")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def lines() -> list[tuple[str, str]]:
    """`file:number` and text of every line of every tracked text file."""
    found = []
    for path in tracked():
        name = str(path.relative_to(ROOT))
        if name in EXCEPTED or name == str(Path(__file__).relative_to(ROOT)):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # an image or another binary file
        found += [(f"{name}:{number}", line) for number, line in enumerate(text.splitlines(), 1)]
    return found


def test_it_names_no_machine_and_no_registry() -> None:
    assert [f"{where}: {line.strip()}" for where, line in lines() if MACHINE.search(line)] == []


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("cd /home/" + "me/vitrina", True),
        ("see ../" + "shared/facts.md", True),
        ("https://pypi" + ".org/simple", True),
        ("path = $HOME/models", False),
        ("mountPath: /models/digits", False),
        ("gs://bucket/work/models", False),
        ("tmp_path / 'home/x'", False),
    ],
)
def test_the_check_sees_machines(line: str, wrong: bool) -> None:
    assert bool(MACHINE.search(line)) is wrong


def test_no_file_is_heavy() -> None:
    sizes = {str(path.relative_to(ROOT)): path.stat().st_size for path in tracked()}
    assert {name: size for name, size in sizes.items() if size > LARGEST_FILE} == {}


def test_no_module_wants_to_be_two() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in tracked()
        if path.suffix == ".py"
    }
    assert {name: length for name, length in lengths.items() if length > LONGEST_MODULE} == {}


@pytest.mark.parametrize(
    "name",
    [
        "pyproject.toml", "uv.lock", "Makefile", "README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md",
        "LICENSE", ".ci/run", ".pre-commit-config.yaml", "benchmarks", "docs", "examples",
    ],
)  # fmt: skip
def test_it_has_what_belongs_to_the_top_level(name: str) -> None:
    assert (ROOT / name).exists()


def test_the_targets_are_there_and_told() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    told = set(re.findall(r"^([a-z]+):.*## ", makefile, re.MULTILINE))
    assert {"setup", "demo", "test", "check", "fix", "bench", "clean", "help"} <= told
