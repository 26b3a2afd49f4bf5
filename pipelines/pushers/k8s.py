"""A roll-out on Kubernetes: `k8s://NAMESPACE/NAME`. What it does is `k8s.pusher`'s."""

from __future__ import annotations

import re
from collections.abc import Callable

from pipelines.pushers import Release
from pipelines.pushers._folder import pusher
from signatures.errors import UsageError

__all__ = ["check", "release"]

TARGET = re.compile(r"k8s://(?P<namespace>[a-z0-9-]+)/(?P<name>[a-z0-9-]+)")


def check(target: str) -> None:
    """Raises a `UsageError` where the target is none, or `k8s` has no pusher."""
    _named(target)
    pusher("k8s")


def release(target: str, pushed: Release, tell: Callable[[str], None]) -> str:
    """Rolls the version out; the cluster finds it in the bucket or claim that it was pushed to."""
    found = pusher("k8s").push(**_named(target), location=pushed.location, version=pushed.version, tell=tell)
    return str(found)


def _named(target: str) -> dict[str, str]:
    match = TARGET.fullmatch(target)
    if match is None:
        raise UsageError(f"Got the target {target}, but on Kubernetes it is k8s://NAMESPACE/NAME.")
    return match.groupdict()
