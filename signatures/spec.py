"""What a servable says of itself: tensors, signatures and the card. Plain data, no TensorFlow.

The card is `assets.extra/servable.json`, written at export and read by everything downstream: the server,
the client, Kubernetes, Vertex AI and the pipelines. None of them needs the model to know what it answers.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from signatures.errors import UsageError

__all__ = ["CARD_PATH", "SCHEMA_VERSION", "WARMUP_PATH", "Card", "Signature", "Source", "Tensor"]

SCHEMA_VERSION = 1
CARD_PATH = "assets.extra/servable.json"
WARMUP_PATH = "assets.extra/tf_serving_warmup_requests"

PREDICT_METHOD = "tensorflow/serving/predict"
CLASSIFY_METHOD = "tensorflow/serving/classify"


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """One named input or output.

    Args:
        dtype: A TensorFlow dtype name: `string`, `uint8`, `int32`, `float32`...
        shape: None is an axis fixed per request; a leading None is the batch.
        meaning: What a client should know, such as "softmax over labels, best first".
    """

    dtype: str
    shape: tuple[int | None, ...]
    meaning: str

    def to_json(self) -> dict[str, Any]:
        """Its part of `servable.json`."""
        return {"dtype": self.dtype, "shape": list(self.shape), "meaning": self.meaning}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Tensor:
        """Reads what `to_json` wrote."""
        return cls(dtype=data["dtype"], shape=tuple(data["shape"]), meaning=data["meaning"])


@dataclass(frozen=True, kw_only=True)
class Signature:
    """One way of calling a servable: named inputs to named outputs, under a TF Serving method name."""

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    method_name: str = PREDICT_METHOD

    def to_json(self) -> dict[str, Any]:
        """Its part of `servable.json`."""
        return {
            "inputs": {name: tensor.to_json() for name, tensor in self.inputs.items()},
            "outputs": {name: tensor.to_json() for name, tensor in self.outputs.items()},
            "method_name": self.method_name,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Signature:
        """Reads what `to_json` wrote."""
        return cls(
            inputs={name: Tensor.from_json(tensor) for name, tensor in data["inputs"].items()},
            outputs={name: Tensor.from_json(tensor) for name, tensor in data["outputs"].items()},
            method_name=data.get("method_name", PREDICT_METHOD),
        )


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the weights came from.

    Args:
        model: The folder, Hub id or prefixed name that was exported.
        revision: The Hub commit, or None for a folder.
        cls: The class that ran the model, such as `TFViTForImageClassification` (key `class` in JSON).
        kind: The file of `signatures/sources` that loaded it.
    """

    model: str
    revision: str | None
    cls: str
    kind: str = "transformers"

    def to_json(self) -> dict[str, Any]:
        """Its part of `servable.json`."""
        return {"model": self.model, "revision": self.revision, "class": self.cls, "kind": self.kind}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Source:
        """Reads what `to_json` wrote."""
        return cls(
            model=data["model"], revision=data["revision"], cls=data["class"], kind=data.get("kind", "transformers")
        )


@dataclass(frozen=True, kw_only=True)
class Card:
    """The servable's card, `assets.extra/servable.json`.

    Args:
        task: A task name, such as `image-classification`.
        labels: Class names in id order; empty for tasks without classes.
        source: Where the weights came from.
        preprocessing: The frozen settings of the checkpoint's image processor.
        signatures: Every signature by name.
        packages: Versions of what exported it, by distribution name.
        options: The export's settings of this task, such as `top_k`.
        parity: The certificate of `vitrina verify`; empty before it ran.
        extra: Further keys, such as `description` or measured latency, kept as they are.
    """

    task: str
    labels: tuple[str, ...]
    source: Source
    preprocessing: Mapping[str, Any]
    signatures: Mapping[str, Signature]
    packages: Mapping[str, str]
    options: Mapping[str, Any] = field(default_factory=dict)
    parity: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def replace(self, **changes: Any) -> Card:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """The document that `servable.json` holds; `extra` is laid out at the top level."""
        return {
            "schema_version": SCHEMA_VERSION,
            "task": self.task,
            "labels": list(self.labels),
            "source": self.source.to_json(),
            "preprocessing": dict(self.preprocessing),
            "options": dict(self.options),
            "signatures": {name: signature.to_json() for name, signature in self.signatures.items()},
            "packages": dict(self.packages),
            "parity": dict(self.parity),
            **self.extra,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Card:
        """Reads what `to_json` wrote.

        Raises:
            UsageError: Its `schema_version` is newer than this Vitrina reads.
        """
        version = data.get("schema_version")
        if version != SCHEMA_VERSION:
            raise UsageError(
                f"The servable's card has schema_version {version!r}, but this Vitrina reads {SCHEMA_VERSION}. "
                "Export the model again, or install the Vitrina that wrote it."
            )
        known = {"schema_version", "task", "labels", "source", "preprocessing", "options", "signatures"}
        known |= {"packages", "parity"}
        return cls(
            task=data["task"],
            labels=tuple(data["labels"]),
            source=Source.from_json(data["source"]),
            preprocessing=data["preprocessing"],
            signatures={name: Signature.from_json(value) for name, value in data["signatures"].items()},
            packages=data["packages"],
            options=data.get("options", {}),
            parity=data.get("parity", {}),
            extra={key: value for key, value in data.items() if key not in known},
        )

    @classmethod
    def read(cls, version_folder: Path) -> Card:
        """The card of one version's folder.

        Raises:
            UsageError: There is no card, or it is not JSON of a card.
        """
        path = version_folder / CARD_PATH
        try:
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise UsageError(
                f"{version_folder} has no {CARD_PATH}, so it is not a servable that Vitrina wrote. "
                "Write one with: vitrina export MODEL --to BASE"
            ) from error
        except (json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
            raise UsageError(f"{path} is not a servable's card ({error!r}). Export the model again.") from error

    def write(self, version_folder: Path) -> None:
        """Writes the card into a version's folder, creating `assets.extra` where it is missing."""
        path = version_folder / CARD_PATH
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
