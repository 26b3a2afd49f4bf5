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

from vitrina.groups import Group

if TYPE_CHECKING:
    from pipelines.batch import batch as batch
    from serving.async_client import connect_async as connect_async
    from serving.bench import bench as bench
    from serving.client import TargetError as TargetError
    from serving.client import Tls as Tls
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
    "TargetError": "serving.client",
    "Tls": "serving.client",
    "UsageError": "signatures.errors",
    "VitrinaError": "signatures.errors",
    "batch": "pipelines.batch",
    "bench": "serving.bench",
    "connect": "serving.client",
    "connect_async": "serving.async_client",
    "export": "signatures.export",
    "inspect": "serving.inspection",
    "predict": "serving.client",
    "verify": "signatures.verify",
}
"""Public name -> the module that has it, imported on first use."""

__all__ = ["__version__", "demo", "k8s", "pipeline", "serve", *_HOMES]

k8s = Group(
    "k8s",
    {
        "render": "k8s.render",
        "apply": "k8s.deploy",
        "status": "k8s.deploy",
        "canary": "k8s.canary",
        "promote": "k8s.canary",
        "rollback": "k8s.canary",
        "delete": "k8s.deploy",
        "measure": "k8s.measure",
    },
)
"""`vitrina.k8s.render(...)`."""

pipeline = Group(
    "pipeline",
    {
        "run": "pipelines.local",
        "watch": "pipelines.watch",
        "compile": "pipelines.compiled",
        "submit": "pipelines.compiled",
    },
)
"""`vitrina.pipeline.run(...)`."""


def serve(**flags: Any) -> int:
    """Serves models until SIGTERM or Ctrl-C, as `vitrina serve` does.

    Args:
        **flags: TF Serving's own flags, such as `model_name="vit", model_base_path="/models/vit", rest_api_port=8501`.

    Returns:
        The exit code: 0 after a signal, 1 where serving failed, 2 for flags that cannot be.
    """
    from serving.server import main

    return main(
        [f"--{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in flags.items()]
    )


def __getattr__(name: str) -> Any:
    if name == "demo":  # `vitrina.demo.run(...)`
        return importlib.import_module("vitrina.demo")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'vitrina' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
