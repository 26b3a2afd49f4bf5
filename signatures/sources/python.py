"""`python:package.module:function`: a function of yours that returns a Keras model or a tf.Module."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from signatures.errors import UsageError, VitrinaError
from signatures.model import Model
from signatures.preprocessing import Preprocessing
from signatures.sources import _keras

__all__ = ["call", "load", "restore"]

call = _keras.call
restore = _keras.restore


def load(
    model: str,
    *,
    task: str | None = None,
    revision: str | None = None,
    dtype: str = "float32",
    preprocessing: Preprocessing | None = None,
) -> Model:
    """Calls the function without arguments and takes what it returns; arguments as in `signatures.sources.load`.

    Raises:
        UsageError: There is no such function, or it does not return a model.
        VitrinaError: Importing or calling it raised.
    """
    if revision is not None:
        raise UsageError(f"Got --revision {revision}, but {model} is code. Leave --revision out.")
    import tensorflow as tf

    function = _function(model)
    try:
        native = function()
    except VitrinaError:
        raise
    except Exception as error:  # it is not our code
        line = " ".join(str(error).split())[:300]
        raise VitrinaError(
            f"python:{model} raised {type(error).__name__}: {line} See the trace with --verbose."
        ) from error
    if _keras.generation(native) == "module" and not isinstance(native, tf.Module):
        raise UsageError(
            f"python:{model} returned a {type(native).__name__}, but it should return a Keras model or a tf.Module."
        )
    return _keras.wrap(
        native, name=f"python:{model}", kind="python", task=task, dtype=dtype, preprocessing=preprocessing
    )


def _function(name: str) -> Any:
    module, colon, function = name.partition(":")
    if not (module and colon and function):
        raise UsageError(f"Got python:{name}, but the form is python:package.module:function. Name the function.")
    # As `python -m` does, so that a module beside the caller is found by the installed command too.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"python:{name} cannot be imported ({error}). Check the names and the current folder."
        ) from error
    except Exception as error:  # it is not our code
        line = " ".join(str(error).split())[:300]
        raise VitrinaError(
            f"Importing {module} raised {type(error).__name__}: {line} See the trace with --verbose."
        ) from error
    if not callable(found):
        raise UsageError(
            f"python:{name} is a {type(found).__name__}, not a function. Name a function without arguments."
        )
    return found
