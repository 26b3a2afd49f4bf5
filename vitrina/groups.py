"""Verbs with verbs of their own: `vitrina.pipeline.run(...)` is `vitrina pipeline run`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

__all__ = ["Group"]


class Group:
    """Functions under one name, each imported on first use.

    Args:
        name: The verb.
        homes: Function name -> the module that has it.
    """

    def __init__(self, name: str, homes: Mapping[str, str]) -> None:
        self._name = name
        self._homes = dict(homes)

    def __getattr__(self, name: str) -> Any:
        home = self.__dict__.get("_homes", {}).get(name)
        if home is None:
            raise AttributeError(f"vitrina.{self.__dict__.get('_name')} has no {name!r}, only {', '.join(dir(self))}")
        return getattr(importlib.import_module(home), name)

    def __dir__(self) -> list[str]:
        return sorted(self._homes)

    def __repr__(self) -> str:
        return f"<vitrina.{self._name}: {', '.join(dir(self))}>"
