"""Vitrina: a shop window for vision models.

Each verb of the command line is a function here. Nothing heavy is imported before a verb is used: `import vitrina`
loads neither TensorFlow nor TFX nor transformers.

Example:
    >>> import vitrina                                                          # doctest: +SKIP
    >>> path = vitrina.export("google/vit-base-patch16-224", to="models/vit")   # doctest: +SKIP
    >>> vitrina.connect("models/vit").predict("cat.jpg").label                  # doctest: +SKIP
    'Egyptian cat'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serving.client import connect as connect
    from serving.client import predict as predict
    from serving.inspection import inspect as inspect
    from signatures.errors import CheckFailed as CheckFailed
    from signatures.errors import UsageError as UsageError
    from signatures.errors import VitrinaError as VitrinaError
    from signatures.export import export as export
    from signatures.verify import verify as verify

__version__ = "0.1.0"

_HOMES = {
    "CheckFailed": "signatures.errors",
    "UsageError": "signatures.errors",
    "VitrinaError": "signatures.errors",
    "connect": "serving.client",
    "export": "signatures.export",
    "inspect": "serving.inspection",
    "predict": "serving.client",
    "verify": "signatures.verify",
}
"""Public name -> the module that has it, imported on first use."""

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'vitrina' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
