"""PyTorch's safetensors read into TensorFlow classes of transformers, without PyTorch.

transformers 4.57 has the conversion (names, transposed kernels), but walks over an archive of safetensors as if it
were a mapping, which it is not; `Archive` is that mapping, over one file or all shards at once.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["Archive", "fill", "find"]

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


class Archive:
    """The tensors of safetensors files by name, each read when it is asked for."""

    def __init__(self, files: list[Any]) -> None:
        self._owners = {name: file for file in files for name in file.keys()}  # noqa: SIM118 - not a mapping

    def __iter__(self) -> Iterator[str]:
        return iter(self._owners)

    def __contains__(self, name: object) -> bool:
        return name in self._owners

    def get_tensor(self, name: str) -> Any:
        """One tensor, as TensorFlow's."""
        return self._owners[name].get_tensor(name)


def find(locate: Callable[[str], Path | None]) -> list[Path]:
    """The files that hold a checkpoint's weights in PyTorch's naming; none where it has other weights.

    Args:
        locate: A file's name to its path, or None where the checkpoint has no such file.
    """
    single = locate(SINGLE)
    paths: list[Path | None] = [single]
    if single is None:
        index = locate(INDEX)
        if index is None:
            return []
        shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        paths = [locate(shard) for shard in shards]
    found = [path for path in paths if path is not None]
    return [] if _written_by_tensorflow(found[0]) else found


def fill(native: Any, paths: list[Path]) -> dict[str, list[Any]]:
    """Assigns the weights in `paths` to a built TensorFlow model.

    Returns:
        transformers' account: `missing_keys`, `unexpected_keys`, `mismatched_keys`.
    """
    from safetensors import safe_open
    from transformers.modeling_tf_pytorch_utils import load_pytorch_state_dict_in_tf2_model

    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(safe_open(path, framework="tf")) for path in paths]
        _, account = load_pytorch_state_dict_in_tf2_model(
            native,
            Archive(files),
            tf_inputs=False,
            allow_missing_keys=True,
            output_loading_info=True,
            tf_to_pt_weight_rename=getattr(native, "tf_to_pt_weight_rename", None),
            ignore_mismatched_sizes=True,
        )
    return dict(account)


def _written_by_tensorflow(path: Path) -> bool:
    from safetensors import safe_open

    with safe_open(path, framework="tf") as file:
        return (file.metadata() or {}).get("format") == "tf"
