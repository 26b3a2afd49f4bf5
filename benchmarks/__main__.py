"""`make bench`: exports a ViT, serves it, and measures both doors under load."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from serving.server import free_port

OUT = Path(__file__).parent / "out"
CONCURRENCY = (1, 2, 4, 8)
START_SECONDS = 300.0

#: hidden size, layers, heads of the published ViTs with patches of 16 and images of 224 pixels.
SIZES = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12)}


@dataclass(frozen=True)
class Measured:
    """One load: the latencies are per request of one image, in milliseconds."""

    door: str
    in_flight: int
    requests: int
    images_per_second: float
    p50_ms: float
    p90_ms: float
    p99_ms: float


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="tiny", help="of the ViT (default: tiny)")
    parser.add_argument("--seconds", type=float, default=8.0, help="per load (default: 8)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vitrina-bench-") as scratch:
        base = export(Path(scratch), arguments.size)
        with served(base) as (grpc, rest):
            doors = {"grpc": f"grpc://localhost:{grpc}/bench", "rest": f"http://localhost:{rest}/bench"}
            measured = [
                load(door, target, in_flight, arguments.seconds)
                for door, target in doors.items()
                for in_flight in CONCURRENCY
            ]
    path = write(arguments.size, measured)
    print(f"Wrote {path}")
    return 0


def export(scratch: Path, size: str) -> Path:
    """A servable of a ViT with random weights."""
    import tf_keras
    from transformers import TFViTForImageClassification, ViTConfig, ViTImageProcessor

    import vitrina

    print(f"Exporting ViT-{size}/16 ...", flush=True)
    tf_keras.utils.set_random_seed(0)
    hidden, layers, heads = SIZES[size]
    config = ViTConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
        num_labels=1000,
    )
    model = TFViTForImageClassification(config)
    model(model.dummy_inputs)
    model.save_pretrained(scratch / "checkpoint")
    ViTImageProcessor().save_pretrained(scratch / "checkpoint")
    vitrina.export(str(scratch / "checkpoint"), to=scratch / "servable", verify=False)
    return scratch / "servable"


@contextlib.contextmanager
def served(base: Path) -> Iterator[tuple[int, int]]:
    """`vitrina serve` as a process of its own; yields its gRPC and REST ports once it answers."""
    grpc, rest = free_port(), free_port()
    flags = [f"--port={grpc}", f"--rest_api_port={rest}", "--model_name=bench", f"--model_base_path={base.resolve()}"]
    process = subprocess.Popen([sys.executable, "-m", "vitrina", "serve", *flags])
    try:
        wait_for(f"http://localhost:{rest}/v1/models/bench/metadata", process)
        yield grpc, rest
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    import httpx

    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"vitrina serve ended with {process.returncode} before it answered; see its words above.")
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url).status_code == 200:
                return
        time.sleep(0.2)
    raise SystemExit(f"vitrina serve did not answer within {START_SECONDS:.0f} s.")


def load(door: str, target: str, in_flight: int, seconds: float) -> Measured:
    """Keeps so many requests in flight for so long, after a tenth of that to warm up."""
    import sklearn.datasets

    import vitrina

    folder = Path(sklearn.datasets.__file__).parent / "images"
    photographs = [(folder / name).read_bytes() for name in ("china.jpg", "flower.jpg")]

    def ask(duration: float) -> list[float]:
        """Asks one at a time for so long, and at least once; the seconds that each took."""
        took: list[float] = []
        with vitrina.connect(target) as client:
            client.predict(photographs[0])  # connects and reads the signatures, which is not what is measured
            until = time.perf_counter() + duration
            for photograph in cycle(photographs):
                begun = time.perf_counter()
                if took and begun >= until:
                    break
                answer = client.predict(photograph)
                if answer.error:
                    raise SystemExit(f"{target} answered with an error: {answer.error}")
                took.append(time.perf_counter() - begun)
        return took

    with ThreadPoolExecutor(in_flight) as pool:
        list(pool.map(ask, [seconds / 10] * in_flight))
        workers = list(pool.map(ask, [seconds] * in_flight))
    took = [each for worker in workers for each in worker]
    # A worker asks without a pause, so its rate is its requests over the time that they took.
    rate = sum(len(worker) / sum(worker) for worker in workers)
    p50, p90, p99 = (float(each) * 1000 for each in np.percentile(took, (50, 90, 99)))
    result = Measured(door, in_flight, len(took), rate, p50, p90, p99)
    print(
        f"{door:5} {in_flight:2} in flight  {result.images_per_second:7.1f} images/s   "
        f"p50 {p50:7.1f} ms   p90 {p90:7.1f} ms   p99 {p99:7.1f} ms   ({result.requests} requests)",
        flush=True,
    )
    return result


def write(size: str, measured: list[Measured]) -> Path:
    """The figures, with what they were measured on."""
    document: dict[str, Any] = {
        "model": f"ViT-{size}/16, random weights, 224 pixels",
        "images": "JPEG photographs, 640x427",
        "cpus": os.cpu_count(),
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "packages": {name: importlib.metadata.version(name) for name in ("tensorflow", "transformers", "grpcio")},
        "measured": [asdict(each) for each in measured],
    }
    OUT.mkdir(exist_ok=True)
    path = OUT / f"serve-{size}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    sys.exit(main())
