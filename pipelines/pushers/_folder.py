"""The pusher that a deployment folder of this package offers, such as `k8s.pusher`."""

from __future__ import annotations

import importlib
from typing import Any

from signatures.errors import UsageError

__all__ = ["pusher"]


def pusher(folder: str) -> Any:
    """Its module, whose `push(**named)` makes a version live and returns, in words, where.

    Raises:
        UsageError: The folder offers none.
    """
    name = f"{folder}.pusher"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise UsageError(
            f"{folder}:// targets need {name}, which this Vitrina does not have. Leave --push-to out and roll out from "
            "the base path, or give --push-to exec://PROGRAM."
        ) from error
