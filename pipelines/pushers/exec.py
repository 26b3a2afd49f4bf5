"""A program of one's own: `exec://PROGRAM`, called with the base path and the version.

It ends with 0 where the version is live. Otherwise its last line says why, and what served before has to serve on.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable

from pipelines.pushers import Release
from signatures.errors import UsageError, VitrinaError

__all__ = ["check", "release"]

SCHEME = "exec://"
TIMEOUT = 3600.0


def check(target: str) -> None:
    """Raises a `UsageError` where there is no such program."""
    _program(target)


def release(target: str, pushed: Release, tell: Callable[[str], None]) -> str:
    """Runs the program and tells each line that it says."""
    program = _program(target)
    try:
        done = subprocess.run(
            [program, pushed.location, str(pushed.version)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise VitrinaError(f"{program} did not do its work: {error}") from error
    lines = done.stdout.strip().splitlines()
    for line in lines:
        tell(line)
    last = lines[-1] if lines else "it said nothing"
    if done.returncode:
        raise VitrinaError(f"{program} ended with {done.returncode}: {last}")
    return last if lines else f"{program} took version {pushed.version}"


def _program(target: str) -> str:
    named = target.removeprefix(SCHEME)
    found = shutil.which(named)
    if found is None:
        raise UsageError(f"Got the target {target}, but there is no program {named!r}. Give its path.")
    return found
