"""Resources, batch size and replica bounds from what was measured, so that nobody has to guess them.

What counts, in this order: what the command says, what `servable.json` says was measured (`measured`), what follows
from the servable's files. Each figure and the rule that it follows from is told in words beside the settings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k8s.settings import Settings, cpus
from signatures import base_path
from signatures.errors import UsageError
from signatures.spec import CARD_PATH, Card

__all__ = ["TARGET", "Measured", "has_card", "read", "sized"]

TARGET = 0.6
"""How busy a replica is meant to be: the autoscaler's target, and what one is reckoned to carry of what it can."""

#: A server without a model, and what one model takes in memory beyond its files while it answers.
_SERVER_GIB = 0.5
_PER_FILE_BYTE = 2.0
_LIMIT_OVER_MEASURED = 1.25
_LEAST_GIB = 1.0


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What is known of one servable.

    Args:
        latency_ms: Milliseconds of one request of one image, one at a time, at the median; None where nobody measured.
        images_per_second: What one replica answers at most; None where nobody measured.
        memory_gib: What the server with this model took, in GiB; None where nobody measured.
        cpus: On how many CPUs that was; None where nobody said.
        files_gib: The servable's files.
        one_shape: Whether requests to `serving_default` differ in nothing but their number of images.
        model_path: Where this was read.
    """

    latency_ms: float | None = None
    images_per_second: float | None = None
    memory_gib: float | None = None
    cpus: float | None = None
    files_gib: float | None = None
    one_shape: bool | None = None
    model_path: str = ""


def has_card(base: Path) -> bool:
    """Whether there is a servable of Vitrina's own here, and not just any model or a folder of some node."""
    versions = base_path.versions(base)
    return bool(versions) and (versions[max(versions)] / CARD_PATH).is_file()


def read(servable: Path) -> Measured:
    """What a servable on this machine tells of itself.

    Args:
        servable: Its base path, or one version.

    Returns:
        Its card's `measured` (keys `latency_ms`, with `p50` or a number; `images_per_second`; `memory_mb`; `cpus`) and
        the size of its files.

    Raises:
        UsageError: There is no servable, or a figure is no positive number.
    """
    version = base_path.resolve(servable)
    card = Card.read(version)
    told: Mapping[str, Any] = card.extra.get("measured", {})
    latency = told.get("latency_ms")
    if isinstance(latency, Mapping):
        latency = latency.get("p50")
    memory = _figure(told.get("memory_mb"), "memory_mb", version)
    size = sum(path.stat().st_size for path in version.rglob("*") if path.is_file())
    return Measured(
        latency_ms=_figure(latency, "latency_ms", version),
        images_per_second=_figure(told.get("images_per_second"), "images_per_second", version),
        memory_gib=None if memory is None else memory * 1e6 / 2**30,
        cpus=_figure(told.get("cpus"), "cpus", version),
        files_gib=size / 2**30,
        one_shape=_one_shape(card),
        model_path=str(version),
    )


def _figure(value: Any, key: str, version: Path) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise UsageError(
            f"{version} says measured {key} {value!r}, wanted a positive number. Export or measure it again."
        )
    return float(value)


def _one_shape(card: Card) -> bool:
    signature = card.signatures.get("serving_default")
    return signature is not None and all(None not in tensor.shape[1:] for tensor in signature.inputs.values())


def sized(settings: Settings, measured: Measured, *, rate: float | None = None) -> tuple[Settings, tuple[str, ...]]:
    """Fills in what the settings leave open.

    Args:
        settings: As asked for.
        measured: What is known.
        rate: Images per second at the busiest time; None leaves the bounds as they are.

    Returns:
        The settings, and a line for each figure that was filled in.

    Raises:
        UsageError: A rate was given, but nothing tells what one replica answers.
    """
    told: list[str] = []
    changes: dict[str, Any] = {}
    if settings.cpu is None and measured.cpus is not None:
        changes["cpu"] = f"{measured.cpus:g}" if measured.cpus == int(measured.cpus) else f"{measured.cpus * 1000:.0f}m"
        told.append(f"cpu {changes['cpu']}: what the servable was measured on")
    if settings.memory is None and (memory := _memory(measured, versions=1 if settings.version else 2)):
        changes["memory"], why = memory
        told.append(f"memory {changes['memory']}: {why}")
    if settings.max_batch is None and measured.one_shape is False:
        changes["max_batch"] = 0
        told.append("no batching: requests of this task differ in shape, and such cannot run together")
    if rate is not None:
        bounds, why = _bounds(settings, measured, rate)
        changes |= bounds
        told.append(why)
    return settings.replace(**changes), tuple(told)


def _memory(measured: Measured, *, versions: int) -> tuple[str, str] | None:
    """A server that follows its base path holds two versions while it changes from one to the next."""
    if measured.memory_gib is not None:
        model = max(measured.memory_gib - _SERVER_GIB, 0.0)
        wanted = (measured.memory_gib + (versions - 1) * model) * _LIMIT_OVER_MEASURED
        why = f"{measured.memory_gib:.2f} GiB measured"
    elif measured.files_gib is not None:
        wanted = _SERVER_GIB + versions * _PER_FILE_BYTE * measured.files_gib
        why = f"{measured.files_gib:.2f} GiB of files, twice that in memory, and {_SERVER_GIB} GiB for the server"
    else:
        return None
    beside = ", two versions while one follows the other" if versions > 1 else ""
    mib = math.ceil(max(wanted, _LEAST_GIB) * 1024 / 256) * 256
    return (f"{mib // 1024}Gi" if mib % 1024 == 0 else f"{mib}Mi"), f"{why}{beside}, and a margin"


def _bounds(settings: Settings, measured: Measured, rate: float) -> tuple[dict[str, int], str]:
    if not 0 < rate < math.inf:
        raise UsageError(f"Got --rate {rate:g}, wanted the images per second at the busiest time, above 0.")
    capacity = measured.images_per_second
    if capacity is None and measured.latency_ms is not None:
        capacity = 1000 / measured.latency_ms
    if capacity is None:
        raise UsageError(
            "Got --rate, but nothing tells what one replica answers. Give --images-per-second or --latency-ms; "
            "`vitrina bench` measures them."
        )
    if settings.cpu is not None and measured.cpus is not None:
        capacity *= cpus(settings.cpu) / measured.cpus
    most = max(math.ceil(rate / (capacity * TARGET)) + 1, 2)
    fewest = max(math.ceil(most / 5), 2)
    why = (
        f"{fewest} to {most} replicas: {rate:g} images/s over {capacity:g} that one answers, {TARGET:.0%} busy, one "
        "more for the loss of one, and a fifth of that at quiet times"
    )
    return {"min_replicas": fewest, "max_replicas": most}, why
