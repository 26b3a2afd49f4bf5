"""The ways from a client to a model, one file per kind of target; `base.py` says what each has to offer."""

from __future__ import annotations

import importlib
from typing import Any

from serving.targets import Target
from signatures.errors import UsageError

__all__ = ["transport"]

_KINDS = {
    "path": ("local", "LocalTransport"),
    "grpc": ("grpc_transport", "GrpcTransport"),
    "grpcs": ("grpc_transport", "GrpcTransport"),
    "http": ("http_transport", "HttpTransport"),
    "https": ("http_transport", "HttpTransport"),
}
"""Scheme -> module here, imported where it is used, and its class; with `Async` before its name that for asyncio."""


def transport(target: Target, *, asynchronous: bool = False) -> Any:
    """The class that reaches a target: a `base.Transport`, or a `base.AsyncTransport`.

    Args:
        target: Whom to reach.
        asynchronous: For asyncio.

    Raises:
        UsageError: No class here reaches such a target.
    """
    if target.scheme not in _KINDS:
        raise UsageError(
            f"{target.text} is a Vertex AI endpoint, which this client does not reach. Use its gRPC or REST."
        )
    module, name = _KINDS[target.scheme]
    return getattr(importlib.import_module(f"{__name__}.{module}"), f"Async{name}" if asynchronous else name)
