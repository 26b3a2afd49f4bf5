"""The documents tell what exists: every command, option and task."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from scripts import command_docs, task_docs

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(sys.version_info[:2] != (3, 10), reason="argparse words its help differently on other Pythons")
def test_the_commands_are_documented_in_their_own_words() -> None:
    assert command_docs.DOCUMENT.read_text(encoding="utf-8") == command_docs.document(), "run: make fix"


def test_every_command_has_its_chapter() -> None:
    from vitrina import verbs

    chapters = re.findall(r"^## vitrina (\S+)$", command_docs.DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert chapters == list(verbs.found())


def test_every_flag_of_the_server_is_documented() -> None:
    import dataclasses

    from serving.flags import Flags

    text = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
    assert [each.name for each in dataclasses.fields(Flags) if f"`--{each.name}" not in text] == []


def test_every_task_is_documented_from_its_specification() -> None:
    assert task_docs.DOCUMENT.read_text(encoding="utf-8") == task_docs.document(), "run: make fix"


def test_the_changelog_names_every_command() -> None:
    from vitrina import verbs

    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert [name for name in verbs.found() if f"vitrina {name}" not in text] == []
