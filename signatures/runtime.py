"""The oldest TensorFlow that can run a servable, read off the ops in its graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

__all__ = ["BASELINE", "NEWER_OPS", "minimum", "ops"]

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
