"""docs/kubernetes.md tells what exists."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest

from k8s import command
from k8s.kustomize import components

TEXT = (Path(__file__).parents[2] / "docs" / "kubernetes.md").read_text(encoding="utf-8")
BLOCKS = "\n".join(re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)).replace("\\\n", " ")
COMMANDS = [line for line in BLOCKS.splitlines() if line.startswith("vitrina k8s ")]


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_one(line: str) -> None:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    arguments = parser.parse_args(shlex.split(line)[2:])
    if hasattr(arguments, "location"):
        arguments.servable = None
        command._settings(arguments)


def test_it_shows_every_component_action_and_rule() -> None:
    assert [name for name in components() if f"`{name}`" not in TEXT] == []
    parser = argparse.ArgumentParser()
    command.configure(parser)
    (actions,) = (each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
    assert [name for name in actions.choices if f"k8s {name}" not in TEXT and f"`{name}`" not in TEXT] == []
    assert len(COMMANDS) >= 6
    for flag in ("--watch", "--least", "--error-margin", "--latency-ratio"):
        assert f"`{flag}" in TEXT
