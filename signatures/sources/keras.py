"""`*.keras` and `*.h5` files, of Keras 3 and of tf-keras."""

from __future__ import annotations

import importlib
import json
import zipfile
from pathlib import Path
from typing import Any

from signatures.errors import MissingExtra, UsageError
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
    """Loads a `.keras` or `.h5` file with the Keras that wrote it; arguments as in `signatures.sources.load`.

    Raises:
        UsageError: There is no such file, it is not Keras's, or no preprocessing was given.
    """
    if revision is not None:
        raise UsageError(f"Got --revision {revision}, but {model} is a file. Leave --revision out.")
    native = _load(Path(model))
    return _keras.wrap(native, name=model, kind="keras", task=task, dtype=dtype, preprocessing=preprocessing)


def _load(path: Path) -> Any:
    if not path.is_file():
        raise UsageError(f"There is no file {path}. Give a model that Keras's `model.save` wrote.")
    version = _keras_version(path)
    try:
        keras: Any = importlib.import_module("tf_keras" if version.startswith("2.") else "keras")
    except ImportError as error:
        raise MissingExtra(str(error.name), "hub") from error
    if not version.startswith("2.") and keras.backend.backend() != "tensorflow":
        raise UsageError(f"Keras runs on {keras.backend.backend()} here. Set KERAS_BACKEND=tensorflow to export.")
    try:
        return keras.models.load_model(path, compile=False)
    except (ValueError, TypeError, OSError) as error:
        line = " ".join(str(error).split())[:300]
        raise UsageError(f"Keras cannot load {path}: {line} Register its custom layers, or use python:.") from error


def _keras_version(path: Path) -> str:
    """The version of the Keras that wrote a file."""
    try:
        if path.suffix != ".keras":
            import h5py  # type: ignore[import-untyped]

            with h5py.File(path) as file:
                if "model_config" not in file.attrs:
                    raise KeyError("it holds weights alone")
                return str(file.attrs["keras_version"])
        with zipfile.ZipFile(path) as archive:
            return str(json.loads(archive.read("metadata.json"))["keras_version"])
    except (zipfile.BadZipFile, KeyError, OSError, json.JSONDecodeError) as error:
        raise UsageError(
            f"{path} is not a {path.suffix} file of a whole model ({error}). Save the model with `model.save`."
        ) from error
