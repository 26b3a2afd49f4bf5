"""Writes docs/commands.md from what the commands say themselves: `make fix` calls it, a test compares.

python scripts/command_docs.py
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "commands.md"
WIDTH = "100"

HEAD = """# Commands

Every command of `vitrina`, in its own words. This file is written by `make fix`, and a test holds it against the
commands. What `vitrina serve` takes stands in [serve.md](serve.md).
"""

#: Its help is long and has a document of its own.
ELSEWHERE = ("serve",)


def main() -> int:
    DOCUMENT.write_text(document(), encoding="utf-8")
    return 0


def document() -> str:
    """The whole text."""
    from vitrina import verbs

    parts = [HEAD]
    for name, told in verbs.found().items():
        parts.append(f"## vitrina {name}\n\n{told[:1].upper()}{told[1:]}.\n")
        if name not in ELSEWHERE:
            parts += [f"```text\n{help_of(words)}\n```\n" for words in ([name], *actions(name))]
    return "\n".join(parts)


def actions(name: str) -> Iterator[Sequence[str]]:
    """The words of a verb's actions, such as `k8s render`."""
    from vitrina import verbs

    verb = verbs.load(name)
    if isinstance(verb, verbs.Verb):
        parser = argparse.ArgumentParser()
        verb.configure(parser)
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                yield from ([name, choice] for choice in action.choices)


def help_of(words: Sequence[str]) -> str:
    """What `vitrina WORDS --help` prints."""
    from vitrina.cli import main as vitrina

    printed = io.StringIO()
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = WIDTH
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            vitrina([*words, "--help"])
    finally:
        os.environ.pop("COLUMNS")
        if columns is not None:
            os.environ["COLUMNS"] = columns
    return printed.getvalue().strip()


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
