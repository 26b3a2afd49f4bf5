"""A servable on disk, run in this process by TensorFlow; no server, no network."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.inspection import saved_signatures
from serving.targets import Target
from serving.transports.base import Call, Options, explain
from signatures import base_path
from signatures.errors import VitrinaError, did_you_mean
from signatures.spec import Signature

__all__ = ["AsyncLocalTransport", "LocalTransport"]


class LocalTransport:
    """Loads a servable on the first call and runs its signatures."""

    def __init__(self, target: Target, options: Options) -> None:
        del options  # nothing to connect, nothing to retry
        self._target = target
        self._folder = base_path.resolve(_with_version(Path(target.model).expanduser()))
        self._lock = threading.Lock()
        self._loaded: Any = None

    def call(self, call: Call) -> dict[str, NDArray[Any]]:
        """Runs one signature. A local run cannot be stopped half-way, so the deadline is not applied."""
        import tensorflow as tf

        run = self._signature(call.signature)
        _, wanted = run.structured_input_signature
        if set(wanted) != set(call.inputs):
            got, want = sorted(call.inputs), sorted(wanted)
            raise explain(self._target, "INVALID_ARGUMENT", f"got the inputs {got}, wanted {want}",
                          signature=call.signature)  # fmt: skip
        try:
            inputs = {name: tf.constant(array, wanted[name].dtype) for name, array in call.inputs.items()}
            outputs = run(**inputs)
        except (tf.errors.OpError, ValueError, TypeError) as error:
            code = "INVALID_ARGUMENT" if isinstance(error, tf.errors.InvalidArgumentError | ValueError | TypeError) \
                else "INTERNAL"  # fmt: skip
            raise explain(self._target, code, _first_line(error), signature=call.signature) from error
        return {name: _array(tensor) for name, tensor in outputs.items()}

    def signatures(self, timeout: float) -> dict[str, Signature]:
        """The signatures as the SavedModel and, where it has one, its card tell them."""
        del timeout
        return saved_signatures(self._folder)

    def close(self) -> None:
        """Frees the model."""
        self._loaded = None

    def _signature(self, name: str) -> Any:
        with self._lock:
            if self._loaded is None:
                self._loaded = _load(self._folder)
        known = self._loaded.signatures
        if name not in known:
            raise explain(self._target, "FAILED_PRECONDITION", f"there is no such signature, only {', '.join(known)}."
                          + did_you_mean(name, known), signature=name)  # fmt: skip
        return known[name]


class AsyncLocalTransport:
    """The same for asyncio; runs in a thread, since TensorFlow releases the interpreter's lock."""

    def __init__(self, target: Target, options: Options) -> None:
        self._sync = LocalTransport(target, options)

    async def call(self, call: Call) -> dict[str, NDArray[Any]]:
        """As `LocalTransport.call`."""
        return await asyncio.to_thread(self._sync.call, call)

    async def signatures(self, timeout: float) -> dict[str, Signature]:
        """As `LocalTransport.signatures`."""
        return await asyncio.to_thread(self._sync.signatures, timeout)

    async def close(self) -> None:
        """Frees the model."""
        self._sync.close()


def _with_version(path: Path) -> Path:
    """`BASE@3` is the folder `BASE/3`, unless there is a folder of that very name."""
    base, at, version = path.name.rpartition("@")
    return path.parent / base / version if at and version.isdecimal() and not path.exists() else path


def _load(folder: Path) -> Any:
    import tensorflow as tf

    try:
        return tf.saved_model.load(str(folder))
    except Exception as error:
        raise VitrinaError(f"{folder} cannot be loaded ({_first_line(error)}). Export the model again.") from error


def _array(tensor: Any) -> NDArray[Any]:
    array = np.asarray(tensor.numpy())
    # numpy has no bfloat16 of its own; TF Serving's clients see these as the float32 of the same value.
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
