"""The stock TensorFlow Serving that deployments run: its image, its program and the folder that it wants."""

from __future__ import annotations

from signatures.errors import UsageError

__all__ = ["IMAGE", "SERVER", "refuse_version"]

IMAGE = "tensorflow/serving:2.19.1"
"""Pinned, for the CPU; `-gpu` appended is the same server for NVIDIA GPUs."""

SERVER = "tensorflow_model_server"
"""Called by itself: the image's entry point is a shell script that sets a model's name and path by its own rules."""


def refuse_version(uri: str) -> None:
    """Refuses one version's folder where the base path is wanted.

    Args:
        uri: Where a base path should be, such as `gs://bucket/models/digits`.

    Raises:
        UsageError: The last part is a number, as in `gs://bucket/models/digits/3`.
    """
    parent, _, last = uri.rstrip("/").rpartition("/")
    if last.isascii() and last.isdigit():
        raise UsageError(
            f"Got {uri}, which is one version, but TF Serving wants the folder above it. Give {parent} instead."
        )
