"""Request messages as the core knows them; shared by the gRPC door, the warmup and whoever else holds protos."""

from __future__ import annotations

from typing import Any

from serving.predict import ModelSpec

__all__ = ["input_examples", "model_spec"]


def model_spec(proto: Any) -> ModelSpec:
    """A ModelSpec message."""
    choice = proto.WhichOneof("version_choice")
    return ModelSpec(
        proto.name,
        proto.version.value if choice == "version" else None,
        proto.version_label if choice == "version_label" else None,
        proto.signature_name,
    )


def input_examples(proto: Any) -> list[bytes]:
    """The serialized examples of an Input message, each after the context that they share."""
    kind = proto.WhichOneof("kind")
    if kind is None:
        return []
    filled = getattr(proto, kind)
    context = filled.context.SerializeToString() if kind == "example_list_with_context" else b""
    return [context + example.SerializeToString() for example in filled.examples]
