"""Measures a servable on this machine, as `k8s.sizing` wants it: latency, throughput and memory of a server process.

The figures go into the servable's own card, so that they travel with it.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from serving import stock
from signatures import base_path
from signatures.errors import UsageError, VitrinaError
from signatures.spec import CARD_PATH, Card

__all__ = ["MEASURED", "figures", "measure"]

MEASURED = "measured"
"""The card's key."""

NAME = "measured"
_START_SECONDS = 300.0
_SECONDS = 8.0
_BUSY_CLIENTS = 8


def measure(base: Path, images: Sequence[Path | bytes] = (), *, seconds: float = _SECONDS) -> dict[str, Any]:
    """Serves a servable's latest version for a moment, asks it, and writes what it took into its card.

    Args:
        base: The base path.
        images: What to ask about; none is a photograph-sized JPEG of noise.
        seconds: Of each of the two loads, one request at a time and eight.

    Returns:
        What the card has under `measured` from now on.

    Raises:
        UsageError: There is no servable, or its task wants more than images.
        VitrinaError: The server does not come up, or an answer is an error.
    """
    version = base_path.latest(base)
    card = Card.read(version)
    inputs = set(card.signatures["serving_default"].inputs) if "serving_default" in card.signatures else set()
    if inputs != {"image_bytes"}:
        raise UsageError(
            f"{base} answers {card.task}, which wants {', '.join(sorted(inputs)) or 'no images'}; only servables "
            "that take images alone are measured by themselves. Give --latency-ms, --images-per-second and "
            "--memory-gib instead."
        )
    with _served(base) as (target, process):
        found = figures(target, process, list(images) or [_noise()], seconds=seconds)
    written = card.replace(extra={**card.extra, MEASURED: found})
    _replace(version / CARD_PATH, written, version)
    return found


def figures(target: str, process: int, images: Sequence[Any], *, seconds: float = _SECONDS) -> dict[str, Any]:
    """Asks a running server.

    Args:
        target: As for `serving.client.connect`.
        process: The server's process id on this machine.
        images: What to ask about, in turn.
        seconds: Of each load.

    Returns:
        `latency_ms` (`p50`, `p95`), `images_per_second`, `memory_mb` at its highest, and `cpus`.

    Raises:
        VitrinaError: A request failed.
    """
    from serving.bench import bench

    alone, busy = bench(target, images, clients=(1, _BUSY_CLIENTS), seconds=seconds)
    failed = {**alone.errors, **busy.errors}
    if failed or not alone.latencies:
        raise VitrinaError(
            f"The servable did not answer while it was measured: {failed or 'no answer'}. Verify it first."
        )
    return {
        "latency_ms": {"p50": round(alone.quantile(50) * 1000, 2), "p95": round(alone.quantile(95) * 1000, 2)},
        "images_per_second": round(max(busy.images_per_second, alone.images_per_second), 2),
        "memory_mb": round(_highest_memory(process) / 1e6, 1),
        "cpus": len(os.sched_getaffinity(0)),
    }


def _highest_memory(process: int) -> int:
    """Bytes, at the highest so far."""
    for line in Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise VitrinaError(f"The system does not tell how much memory the process {process} took.")


@contextlib.contextmanager
def _served(base: Path) -> Iterator[tuple[str, int]]:
    from serving.server import free_port

    grpc, rest = free_port(), free_port()
    program = shutil.which(stock.SERVER)
    command = [program] if program else [sys.executable, "-m", "vitrina", "serve"]
    command += [f"--port={grpc}", f"--rest_api_port={rest}", f"--model_name={NAME}"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*command, f"--model_base_path={base.resolve()}"], stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
        try:
            _wait(f"http://127.0.0.1:{rest}/v1/models/{NAME}/metadata", process)
            yield f"grpc://127.0.0.1:{grpc}/{NAME}", process.pid
        except VitrinaError as error:
            log.seek(0)
            last = log.read().decode(errors="replace").strip().splitlines()[-1:]
            raise VitrinaError(f"{error} {' '.join(last)}".strip()) from error
        finally:
            process.terminate()
            process.wait(timeout=60)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    import httpx

    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url, timeout=10).status_code == 200:
                return
        time.sleep(0.1)
    raise VitrinaError("The server that was to be measured did not come up.")


def _noise() -> bytes:
    """A JPEG as large as a usual photograph on the web, and as hard to decode."""
    import numpy as np
    from PIL import Image

    coarse = np.random.default_rng(0).integers(0, 256, (54, 80, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((640, 427), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _replace(path: Path, card: Card, version: Path) -> None:
    """The card anew, whole or not at all."""
    with tempfile.TemporaryDirectory(dir=version.parent, prefix=".measuring-") as folder:
        card.write(Path(folder))
        os.replace(Path(folder) / CARD_PATH, path)
