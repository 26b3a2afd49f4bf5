"""Files that are there already: a second name instead of a copy, and no new time for the same content."""

from __future__ import annotations

import os
import shutil
from collections.abc import Container
from pathlib import Path

__all__ = ["link_tree", "write"]


def link_tree(source: Path, target: Path, *, apart_from: Container[str] = ()) -> None:
    """Gives every file below a folder a second name below another.

    Args:
        source: The folder.
        target: The other; created where it is missing.
        apart_from: Paths relative to `source` that are left out, as POSIX.
    """

    def left_out(folder: str, names: list[str]) -> list[str]:
        relative = Path(folder).relative_to(source)
        return [name for name in names if (relative / name).as_posix() in apart_from]

    shutil.copytree(source, target, copy_function=_link, dirs_exist_ok=True, ignore=left_out)


def _link(source: str, target: str) -> None:
    """A second name for the same file, or a copy where the disk has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def write(path: Path, content: bytes) -> None:
    """Writes a file; one that is there with the same content is left alone, so that its time does not change."""
    if path.is_file() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
