"""What a servable on disk says of itself: signatures, card, sizes. Reads files only, no TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from serving.messages import dtype_name, message
from signatures import base_path
from signatures.errors import UsageError
from signatures.spec import CARD_PATH, WARMUP_PATH, Card, Signature, Tensor

__all__ = ["Inspection", "inspect", "saved_signatures", "signature_from_proto"]

_INTERNAL = "__saved_model"  # `__saved_model_init_op` and the like are TensorFlow's own


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """A servable, read.

    Args:
        path: The version's folder.
        version: The folder's number, or None where its name is none.
        versions: All versions beside it, lowest first.
        card: The card; None for a SavedModel that Vitrina did not write.
        signatures: Every signature by name.
        sizes: Bytes: `total`, `graph` (saved_model.pb), `variables`, `assets` and `warmup`.
    """

    path: Path
    version: int | None
    versions: tuple[int, ...]
    card: Card | None
    signatures: Mapping[str, Signature]
    sizes: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """The card's document (where there is one) with `path`, `version`, `versions` and `sizes` added."""
        card = self.card.to_json() if self.card else {}
        return {
            **card,
            "path": str(self.path),
            "version": self.version,
            "versions": list(self.versions),
            "sizes": {**card.get("sizes", {}), **self.sizes},
            "signatures": {name: signature.to_json() for name, signature in self.signatures.items()},
        }


def inspect(base_or_version: str | Path) -> Inspection:
    """Reads a servable, or any other SavedModel.

    Args:
        base_or_version: A base path (its highest version is read) or one version's folder.

    Raises:
        UsageError: There is no SavedModel, or its card is broken.
    """
    folder = base_path.resolve(Path(base_or_version).expanduser())
    number = int(folder.name) if folder.name.isascii() and folder.name.isdigit() else None
    beside = tuple(base_path.versions(folder.parent)) if number is not None else ()
    card = Card.read(folder) if (folder / CARD_PATH).exists() else None
    return Inspection(
        path=folder, version=number, versions=beside, card=card, signatures=saved_signatures(folder),
        sizes=_sizes(folder),
    )  # fmt: skip


def saved_signatures(folder: Path) -> dict[str, Signature]:
    """The signatures in `saved_model.pb`, with the card's meanings where there is a card.

    Raises:
        UsageError: The file is missing or no SavedModel.
    """
    path = folder / "saved_model.pb"
    saved = message("SavedModel")
    try:
        saved.MergeFromString(path.read_bytes())
        defined = saved.meta_graphs[0].signature_def
    except (OSError, DecodeError, IndexError) as error:
        raise UsageError(f"{path} is not a SavedModel ({error}). Export the model again.") from error
    card = Card.read(folder) if (folder / CARD_PATH).exists() else None
    found = {name: signature_from_proto(defined[name]) for name in defined if not name.startswith(_INTERNAL)}
    if card is None:
        return dict(sorted(found.items()))
    order = [name for name in card.signatures if name in found]
    order += sorted(set(found) - set(order))
    return {name: _with_meanings(found[name], card.signatures.get(name)) for name in order}


def signature_from_proto(definition: Any) -> Signature:
    """A `Signature` of a `SignatureDef` message."""
    return Signature(
        inputs={name: _tensor(info) for name, info in sorted(definition.inputs.items())},
        outputs={name: _tensor(info) for name, info in sorted(definition.outputs.items())},
        method_name=definition.method_name,
    )


def _tensor(info: Any) -> Tensor:
    shape = tuple(dim.size if dim.size >= 0 else None for dim in info.tensor_shape.dim)
    return Tensor(dtype=dtype_name(info.dtype), shape=shape, meaning="")


def _with_meanings(signature: Signature, told: Signature | None) -> Signature:
    if told is None:
        return signature

    def merged(mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        order = [name for name in theirs if name in mine] + [name for name in mine if name not in theirs]
        return {
            name: dataclasses.replace(mine[name], meaning=theirs[name].meaning) if name in theirs else mine[name]
            for name in order
        }

    return Signature(
        inputs=merged(signature.inputs, told.inputs),
        outputs=merged(signature.outputs, told.outputs),
        method_name=signature.method_name,
    )


def _sizes(folder: Path) -> dict[str, int]:
    def below(path: Path) -> int:
        return sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file())

    warmup = folder / WARMUP_PATH
    return {
        "total": below(folder),
        "graph": (folder / "saved_model.pb").stat().st_size,
        "variables": below(folder / "variables"),
        "assets": below(folder / "assets"),
        "warmup": warmup.stat().st_size if warmup.exists() else 0,
    }
