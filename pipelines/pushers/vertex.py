"""A deployment on Vertex AI: `vertex://projects/P/locations/L/endpoints/E`. What it does is `vertex.pusher`'s."""

from __future__ import annotations

import re
from collections.abc import Callable

from pipelines.pushers import Release
from pipelines.pushers._folder import pusher
from signatures.errors import UsageError

__all__ = ["check", "release"]

TARGET = re.compile(r"vertex://projects/(?P<project>[^/]+)/locations/(?P<location>[^/]+)/endpoints/(?P<endpoint>[^/]+)")


def check(target: str) -> None:
    """Raises a `UsageError` where the target is none, or `vertex` has no pusher."""
    _named(target)
    pusher("vertex")


def release(target: str, pushed: Release, tell: Callable[[str], None]) -> str:
    """Uploads the version as one of the same registered model, and deploys it."""
    found = pusher("vertex").push(
        **_named(target), name=pushed.name, artifact_uri=pushed.location, version=pushed.version, tell=tell
    )
    return str(found)


def _named(target: str) -> dict[str, str]:
    match = TARGET.fullmatch(target)
    if match is None:
        raise UsageError(f"Got the target {target}, but it is vertex://projects/P/locations/L/endpoints/E.")
    return match.groupdict()
