"""`python -m benchmarks.serving`: the embedded server's speed, as ratios to the bare signature called in-process.

Closed loops of 1, 8 and 32 clients and an open loop at half of what the server managed, over gRPC and REST, from
clients in a process of their own. Where `tensorflow_model_server` is on PATH it is measured beside, in the same run.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.__main__ import OUT, export, wait_for
from serving.server import free_port

CLIENTS = (1, 8, 32)
MODELS = ("trivial", "tiny", "base")


@dataclass(frozen=True)
class Row:
    """One load. Latencies are milliseconds per request of one item."""

    model: str
    server: str
    door: str
    loop: str
    clients: int
    per_second: float
    p50_ms: float
    p99_ms: float
    to_bare: float


def trivial(folder: Path) -> Path:
    """A model that returns its strings, so that what is measured is the server."""
    import tensorflow as tf

    class Echo(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
        def serve(self, image_bytes: Any) -> Any:
            return {"length": tf.strings.length(image_bytes)}

    module = Echo()
    tf.saved_model.save(module, str(folder / "1"), signatures=module.serve)
    return folder


def photograph(model: str) -> bytes:
    """A 640x427 JPEG, or for the trivial model a few bytes."""
    import sklearn.datasets

    if model == "trivial":
        return b"x" * 16
    return (Path(sklearn.datasets.__file__).parent / "images" / "china.jpg").read_bytes()


def asker(door: str, port: int, payload: bytes) -> Callable[[], None]:
    """One client: each call asks once over its own connection."""
    if door == "rest":
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        body = json.dumps({"instances": [{"b64": base64.b64encode(payload).decode()}]}).encode()

        def over_rest() -> None:
            connection.request("POST", "/v1/models/bench:predict", body)
            response = connection.getresponse()
            if response.status != 200:
                raise SystemExit(f"REST answered {response.status}: {response.read()[:200]!r}")
            response.read()

        return over_rest
    import grpc
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = "bench"
    tensor = request.inputs["image_bytes"]
    tensor.dtype = 7
    tensor.tensor_shape.dim.add(size=1)
    tensor.string_val.append(payload)
    data = request.SerializeToString()
    channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)])
    call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    return lambda: call(data, timeout=120) and None


def closed(make: Callable[[], Callable[[], None]], clients: int, seconds: float) -> tuple[list[float], float]:
    """Every client asks again as soon as it has its answer: latencies and the time that all of it took."""
    asks = [make() for _ in range(clients)]
    for ask in asks:
        ask()
    took: list[list[float]] = [[] for _ in asks]
    begun = time.perf_counter()

    def work(ask: Callable[[], None], found: list[float]) -> None:
        while (start := time.perf_counter()) < begun + seconds:
            ask()
            found.append(time.perf_counter() - start)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(asks, took, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return list(itertools.chain.from_iterable(took)), time.perf_counter() - begun


def opened(make: Callable[[], Callable[[], None]], rate: float, seconds: float) -> tuple[list[float], float]:
    """Requests are due at random times whether or not answers came; latency counts from when they were due."""
    source, due, at = random.Random(0), [], 0.0
    while (at := at + source.expovariate(rate)) < seconds:
        due.append(at)
    asks = [make() for _ in range(32)]
    for ask in asks:
        ask()
    took: list[float] = []
    lock, turns = threading.Lock(), iter(due)
    begun = time.perf_counter()

    def work(ask: Callable[[], None]) -> None:
        while True:
            with lock:
                moment = next(turns, None)
            if moment is None:
                return
            time.sleep(max(begun + moment - time.perf_counter(), 0))
            ask()
            took.append(time.perf_counter() - begun - moment)

    threads = [threading.Thread(target=work, args=(ask,)) for ask in asks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return took, time.perf_counter() - begun


def bare(base: Path, payload: bytes, seconds: float) -> dict[int, tuple[list[float], float]]:
    """The signature's session, called in this process with nothing around it, by numbers of clients."""
    from serving.servable import Loader

    version = max(int(path.name) for path in base.iterdir() if path.name.isdigit())
    servable = Loader().load("bench", version, str(base / str(version)))
    signature = servable.signatures["serving_default"]
    batch = np.array([payload], dtype=object)
    feeds = {signature.inputs["image_bytes"].name: batch}
    fetches = [info.name for info in signature.outputs.values()]
    return {count: closed(lambda: lambda: servable.run(feeds, fetches) and None, count, seconds) for count in CLIENTS}


def _child(results: Any, target: Callable[..., Any], arguments: Sequence[Any]) -> None:
    results.put(target(*arguments))


def apart(target: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function in a fresh process, so that clients and server share no interpreter."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_child, args=(results, target, arguments))
    process.start()
    found = results.get()
    process.join()
    return found


def asked(door: str, port: int, payload: bytes, clients: int, rate: float, seconds: float) -> Any:
    """One load on a server: open where there is a rate."""

    def make() -> Callable[[], None]:
        return asker(door, port, payload)

    return opened(make, rate, seconds) if rate else closed(make, clients, seconds)


def row(model: str, server: str, door: str, clients: int, found: Any, reference: float, loop: str = "closed") -> Row:
    """A load's figures, printed."""
    took, elapsed = found
    p50, p99 = (float(each) * 1000 for each in np.percentile(took, (50, 99)))
    rate = len(took) / elapsed
    made = Row(model, server, door, loop, clients, rate, p50, p99, rate / reference if reference else 1.0)
    print(
        f"{model:8} {server:24} {door:5} {loop:6} {clients:3} clients {rate:9.1f}/s  p50 {p50:8.2f} ms  "
        f"p99 {p99:8.2f} ms  {made.to_bare:6.2f} of bare",
        flush=True,
    )
    return made


def measure(model: str, scratch: Path, seconds: float) -> list[Row]:
    """Everything about one model."""
    base = trivial(scratch / "servable") if model == "trivial" else export(scratch, model)
    payload = photograph(model)
    rows, references = [], {}
    for clients, found in apart(bare, base, payload, seconds).items():
        references[clients] = len(found[0]) / found[1]
        rows.append(row(model, "bare", "-", clients, found, references[clients]))
    servers = {"vitrina": [sys.executable, "-m", "serving"]}
    stock = shutil.which("tensorflow_model_server")
    if stock:
        servers["tensorflow_model_server"] = [stock]
    else:
        print("SKIPPED tensorflow_model_server: it is not on PATH", flush=True)
    for server, command in servers.items():
        rows += measure_server(model, server, command, base, payload, references, seconds)
    return rows


def measure_server(
    model: str,
    server: str,
    command: list[str],
    base: Path,
    payload: bytes,
    references: dict[int, float],
    seconds: float,
) -> list[Row]:
    """Both doors of one server."""
    ports = {"grpc": free_port(), "rest": free_port()}
    flags = [f"--port={ports['grpc']}", f"--rest_api_port={ports['rest']}", "--grpc_max_threads=64"]
    started = time.monotonic()
    process = subprocess.Popen(
        [*command, *flags, "--model_name=bench", f"--model_base_path={base.resolve()}"], stderr=subprocess.DEVNULL
    )
    rows = []
    try:
        wait_for(f"http://localhost:{ports['rest']}/v1/models/bench/metadata", process)
        print(f"{model:8} {server:24} AVAILABLE after {time.monotonic() - started:.1f} s", flush=True)
        for door, port in ports.items():
            for clients in CLIENTS:
                found = apart(asked, door, port, payload, clients, 0.0, seconds)
                rows.append(row(model, server, door, clients, found, references[clients]))
            rate = max(made.per_second for made in rows if made.door == door) / 2
            found = apart(asked, door, port, payload, 32, rate, seconds)
            rows.append(row(model, server, door, 32, found, references[32], "open"))
        print(f"{model:8} {server:24} RSS {resident(process.pid):.0f} MiB", flush=True)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    return rows


def resident(pid: int) -> float:
    """A process's resident memory in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def plot(rows: Sequence[Row], path: Path) -> None:
    """Throughput over clients, as a ratio to the bare signature."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    models = list(dict.fromkeys(made.model for made in rows))
    figure, axes = plt.subplots(1, len(models), figsize=(5 * len(models), 4), squeeze=False)
    for axis, model in zip(axes[0], models, strict=True):
        kept = [made for made in rows if made.model == model and made.loop == "closed" and made.server != "bare"]
        for name in dict.fromkeys((made.server, made.door) for made in kept):
            line = [made for made in kept if (made.server, made.door) == name]
            axis.plot([made.clients for made in line], [made.to_bare for made in line], "o-", label=" ".join(name))
        axis.axhline(1.0, color="grey", linewidth=1)
        axis.set(title=model, xlabel="clients", ylabel="throughput, of the bare signature", ylim=(0, None))
        axis.legend()
    figure.tight_layout()
    figure.savefig(path)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["trivial", "tiny"])
    parser.add_argument("--seconds", type=float, default=8.0, help="per load (default: 8)")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    rows = []
    for model in arguments.models:
        with tempfile.TemporaryDirectory(prefix="vitrina-bench-") as scratch:
            rows += measure(model, Path(scratch), arguments.seconds)
    OUT.mkdir(exist_ok=True)
    stem = OUT / f"serving-{time.strftime('%Y%m%d-%H%M%S')}"
    stem.with_suffix(".json").write_text(json.dumps([asdict(made) for made in rows], indent=2) + "\n")
    plot(rows, stem.with_suffix(".png"))
    print(f"Wrote {stem}.json and .png; {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
