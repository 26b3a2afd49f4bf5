"""Data that arrives over time: `DATA/span-1`, `DATA/span-2`, ..., each perhaps with `version-1`, `version-2`, ...

As in TFX, a span is a delivery (a day's images, for one) and a version is that delivery corrected; of a span the
highest version counts, and of all spans the highest, where nothing else is asked for. Numbers may have leading zeros.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from signatures.errors import UsageError

__all__ = ["Span", "choose", "named", "spans"]

SPAN = re.compile(r"span[-_]?(\d+)", re.IGNORECASE)
VERSION = re.compile(r"(?:version|ver|v)[-_]?(\d+)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Span:
    """One delivery.

    Args:
        number: Which.
        version: How often it was corrected; 0 where its folder has no versions.
        path: Its folder of images.
    """

    number: int
    version: int
    path: Path


def spans(data: Path) -> tuple[Span, ...]:
    """The spans below a folder, each in its highest version, lowest span first; none where it has no such folders."""
    if not data.is_dir():
        return ()
    found = {}
    for number, folder in _numbered(data, SPAN).items():
        versions = _numbered(folder, VERSION)
        version = max(versions, default=0)
        found[number] = Span(number=number, version=version, path=versions.get(version, folder))
    return tuple(found[number] for number in sorted(found))


def choose(data: str, number: int | None = None) -> str:
    """The folder that a run reads.

    Args:
        data: As the command takes it, with spans or without.
        number: Which span; None is the latest.

    Returns:
        The span's folder; data without spans stays.

    Raises:
        UsageError: There is no such span.
    """
    known = spans(Path(data))
    if number is None:
        return str(known[-1].path) if known else data
    for span in known:
        if span.number == number:
            return str(span.path)
    listed = ", ".join(str(span.number) for span in known) or "none"
    raise UsageError(f"Got --span {number}, but {data} has the spans: {listed}. Name one of them, or leave it out.")


def named(data: str) -> tuple[int, int]:
    """Span and version that a folder's name says, 0 for what it does not say.

    >>> named("/flowers/span-3/version-2")
    (3, 2)
    """
    path = Path(data)
    version = VERSION.fullmatch(path.name)
    span = SPAN.fullmatch(path.parent.name if version else path.name)
    return (int(span.group(1)), int(version.group(1)) if version else 0) if span else (0, 0)


def _numbered(folder: Path, name: re.Pattern[str]) -> dict[int, Path]:
    matches = [(name.fullmatch(entry.name), entry) for entry in sorted(folder.iterdir()) if entry.is_dir()]
    return {int(match.group(1)): entry for match, entry in matches if match}
