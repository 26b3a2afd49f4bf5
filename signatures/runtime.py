"""The oldest TensorFlow that can run a servable, read off the ops in its graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from signatures.errors import UsageError

__all__ = ["BASELINE", "NEWER_OPS", "check", "minimum", "ops"]

BASELINE = "2.16"
"""The oldest TensorFlow and TF Serving that Vitrina promises."""

NEWER_OPS: Mapping[str, str] = {
    "DecodeWebP": "2.19",
    "DecodeJxl": "2.21",
    "IndexFlatMapDataset": "2.18",
    "GlobalShuffleDataset": "2.17",
    "WeightedFlatMapDataset": "2.18",
}
"""CPU ops that TensorFlow 2.21 has and 2.16 has not, with the first version that is known to have them."""


PYTHON_OPS = ("PyFunc", "PyFuncStateless", "EagerPyFunc")
"""Ops that call back into the Python that traced them."""

WITHOUT_WRAPPER = {"Const"}
"""Ops of TensorFlow itself that `tf.raw_ops` leaves out."""


def check(folder: Path, name: str) -> None:
    """Holds a SavedModel to the ops of TensorFlow itself, which is all that stock TF Serving carries.

    Args:
        folder: The SavedModel.
        name: The model, for the message.

    Raises:
        UsageError: It calls Python, or an op of another library; the message names the op.
    """
    import tensorflow as tf

    for op in sorted(ops(folder)):
        if op in PYTHON_OPS:
            reason = "calls back into Python (tf.py_function or tf.numpy_function)"
        elif op not in WITHOUT_WRAPPER and not hasattr(tf.raw_ops, op):
            reason = "is not of TensorFlow itself but of another library"
        else:
            continue
        raise UsageError(
            f"{name} runs the op {op}, which {reason}, and TensorFlow Serving carries no such op. "
            "Write that part of the model in TensorFlow's own ops."
        )


def ops(folder: Path) -> set[str]:
    """The names of all ops in a SavedModel's graph and functions."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    found = set()
    for meta in saved.meta_graphs:
        functions = {function.signature.name for function in meta.graph_def.library.function}
        nodes = [node for function in meta.graph_def.library.function for node in function.node_def]
        found |= {node.op for node in [*nodes, *meta.graph_def.node]} - functions
    return found


def minimum(folder: Path) -> str:
    """The oldest TensorFlow, and with it TF Serving, that carries every op of a SavedModel; at least `BASELINE`."""
    needed = [NEWER_OPS[op] for op in ops(folder) if op in NEWER_OPS]
    return max([BASELINE, *needed], key=lambda version: tuple(map(int, version.split("."))))
