"""`python -m benchmarks.serving`: the embedded server's speed, as ratios to the bare signature called in-process.

Closed loops of 1, 8 and 32 clients and open loops at half of what a closed one managed, over gRPC and REST. The bare
signature and every server take turns, round by round, so that what else the machine does meets all of them alike;
beside the latencies stands the CPU that a request cost, which other processes change least. Clients are a process of
their own. Where `tensorflow_model_server` is on PATH it is measured beside, in the same run.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.__main__ import OUT, export, wait_for
from serving.server import free_port

CLIENTS = (1, 8, 32)
MODELS = ("trivial", "large", "tiny", "base")
BATCHING = "max_batch_size { value: 32 } batch_timeout_micros { value: 0 } max_enqueued_batches { value: 100 }"
TICKS = os.sysconf("SC_CLK_TCK")

Ask = Callable[[], None]


@dataclass
class Found:
    """What one kind of load met, over all rounds."""

    took: list[float] = field(default_factory=list)
    elapsed: float = 0.0
    cpu: float = 0.0

    def add(self, took: Sequence[float], elapsed: float, cpu: float) -> None:
        """One more round."""
        self.took += took
        self.elapsed += elapsed
        self.cpu += cpu

    @property
    def per_second(self) -> float:
        """Throughput."""
        return len(self.took) / self.elapsed

    def quantile(self, percent: float) -> float:
        """Milliseconds."""
        return float(np.percentile(self.took, percent)) * 1000


@dataclass(frozen=True)
class Row:
    """One load. Milliseconds per request of one item; `cpu_ms` is what the serving process used."""

    model: str
    server: str
    door: str
    loop: str
    clients: int
    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    to_bare: float


def trivial(folder: Path) -> Path:
    """A model that returns its strings' lengths, so that what is measured is the server."""
    import tensorflow as tf

    class Echo(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
        def serve(self, image_bytes: Any) -> Any:
            return {"length": tf.strings.length(image_bytes)}

    module = Echo()
    tf.saved_model.save(module, str(folder / "1"), signatures=module.serve)
    return folder


def payload(model: str) -> bytes:
    """A 640x427 JPEG; for the trivial model a few bytes, or 75 kB, which are 100 kB as base64."""
    import sklearn.datasets

    if model in ("trivial", "large"):
        return b"x" * (16 if model == "trivial" else 75_000)
    return (Path(sklearn.datasets.__file__).parent / "images" / "china.jpg").read_bytes()


def asker(door: str, port: int, data: bytes) -> Ask:
    """One client: each call asks once over its own connection."""
    if door == "rest":
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        body = json.dumps({"instances": [{"b64": base64.b64encode(data).decode()}]}).encode()

        def over_rest() -> None:
            connection.request("POST", "/v1/models/bench:predict", body)
            response = connection.getresponse()
            if response.status != 200:
                raise SystemExit(f"REST answered {response.status}: {response.read()[:200]!r}")
            response.read()

        return over_rest
    import grpc

    from serving.messages import array_to_tensor, message  # which need no TensorFlow

    tensor = array_to_tensor(np.array([data], dtype=object))
    request = message("PredictRequest", model_spec=message("ModelSpec", name="bench"), inputs={"image_bytes": tensor})
    sent = request.SerializeToString()
    channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)])
    call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    return lambda: call(sent, timeout=300) and None


def closed(asks: Sequence[Ask], seconds: float) -> tuple[list[float], float]:
    """Every client asks again as soon as it has its answer: latencies and the time that all of it took."""
    took: list[list[float]] = [[] for _ in asks]
    begun = time.perf_counter()

    def work(ask: Ask, found: list[float]) -> None:
        while (start := time.perf_counter()) < begun + seconds:
            ask()
            found.append(time.perf_counter() - start)

    _together(work, zip(asks, took, strict=True))
    return list(itertools.chain.from_iterable(took)), time.perf_counter() - begun


def opened(asks: Sequence[Ask], rate: float, seconds: float) -> tuple[list[float], float]:
    """Requests are due at random times whether or not answers came; latency counts from when they were due."""
    source, due, at = random.Random(0), [], 0.0
    while (at := at + source.expovariate(rate)) < seconds:
        due.append(at)
    took: list[float] = []
    lock, turns = threading.Lock(), iter(due)
    begun = time.perf_counter()

    def work(ask: Ask) -> None:
        while True:
            with lock:
                moment = next(turns, None)
            if moment is None:
                return
            time.sleep(max(begun + moment - time.perf_counter(), 0))
            ask()
            took.append(time.perf_counter() - begun - moment)

    _together(work, ((ask,) for ask in asks))
    return took, time.perf_counter() - begun


def _together(work: Callable[..., None], arguments: Iterator[tuple[Any, ...]] | Any) -> None:
    threads = [threading.Thread(target=work, args=each) for each in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def bare_ask(base: Path, data: bytes) -> Ask:
    """The signature's session, called in this process with nothing around it."""
    from serving.server import _import_tensorflow

    _import_tensorflow()
    from serving.servable import Loader

    version = max(int(path.name) for path in base.iterdir() if path.name.isdigit())
    servable = Loader().load("bench", version, str(base / str(version)))
    signature = servable.signatures["serving_default"]
    feeds = {signature.inputs["image_bytes"].name: np.array([data], dtype=object)}
    fetches = [info.name for info in signature.outputs.values()]
    return lambda: servable.run(feeds, fetches) and None


def _answer(pipe: Any, make: Callable[..., Ask], arguments: Sequence[Any], each: bool) -> None:
    """What a process of askers does until its pipe closes: loads, as they are asked for."""
    asks: list[Ask] = []
    with contextlib.suppress(EOFError):
        while True:
            clients, rate, seconds = pipe.recv()
            while len(asks) < clients:
                asks.append(make(*arguments) if each or not asks else asks[0])
                asks[-1]()
            used = time.process_time()
            chosen = asks[:clients]
            took, elapsed = opened(chosen, rate, seconds) if rate else closed(chosen, seconds)
            pipe.send((took, elapsed, time.process_time() - used))


class Askers:
    """Clients in a process of their own, so that they and the server share no interpreter.

    Args:
        make: Makes one client.
        arguments: Its arguments.
        each: Whether every client is made anew; else they share one.
    """

    def __init__(self, make: Callable[..., Ask], *arguments: Any, each: bool = True) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_answer, args=(theirs, make, arguments, each), daemon=True)
        self._process.start()
        theirs.close()

    def load(self, clients: int, rate: float, seconds: float) -> tuple[list[float], float, float]:
        """Latencies, and the seconds of time and of this process's CPU that all of it took."""
        self._pipe.send((clients, rate, seconds))
        return self._pipe.recv()  # type: ignore[no-any-return]

    def close(self) -> None:
        """Ends the process."""
        self._pipe.close()
        self._process.join()


@dataclass
class Contestant:
    """The bare signature (`pid` None), or one door of a server."""

    server: str
    door: str
    askers: Askers
    pid: int | None = None

    def load(self, clients: int, rate: float, seconds: float) -> tuple[list[float], float, float]:
        """As `Askers.load`, with the CPU of the process that served."""
        before = used(self.pid) if self.pid else 0.0
        took, elapsed, cpu = self.askers.load(clients, rate, seconds)
        return took, elapsed, used(self.pid) - before if self.pid else cpu


def used(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident(pid: int) -> float:
    """A process's resident memory in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


@contextlib.contextmanager
def started(model: str, server: str, command: list[str], base: Path) -> Iterator[tuple[int, dict[str, int]]]:
    """A server's process id and its ports, once it answers."""
    ports = {"grpc": free_port(), "rest": free_port()}
    flags = [f"--port={ports['grpc']}", f"--rest_api_port={ports['rest']}", "--grpc_max_threads=64"]
    begun = time.monotonic()
    process = subprocess.Popen(
        [*command, *flags, "--model_name=bench", f"--model_base_path={base.resolve()}"], stderr=subprocess.DEVNULL
    )
    try:
        wait_for(f"http://localhost:{ports['rest']}/v1/models/bench/metadata", process)
        cpu = used(process.pid)
        print(f"{model:8} {server:24} AVAILABLE after {time.monotonic() - begun:.1f} s, {cpu:.1f} s of CPU", flush=True)
        yield process.pid, ports
        print(f"{model:8} {server:24} RSS {resident(process.pid):.0f} MiB", flush=True)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def servers(batching: Path | None) -> dict[str, list[str]]:
    """Names and command lines."""
    more = ["--enable_batching", f"--batching_parameters_file={batching}"] if batching else []
    found = {"vitrina": [sys.executable, "-m", "serving", *more]}
    stock = shutil.which("tensorflow_model_server")
    if stock:
        found["tensorflow_model_server"] = [stock, *more]
    else:
        print("SKIPPED tensorflow_model_server: it is not on PATH", flush=True)
    return found


def measure(model: str, scratch: Path, options: argparse.Namespace) -> list[Row]:
    """Everything about one model."""
    base = trivial(scratch / "servable") if model in ("trivial", "large") else export(scratch, model)
    data = payload(model)
    parameters = scratch / "batching"
    parameters.write_text(BATCHING)
    with contextlib.ExitStack() as stack:
        askers = Askers(bare_ask, base, data, each=False)
        stack.callback(askers.close)
        contestants = [Contestant("bare", "-", askers)]
        for server, command in servers(parameters if options.batching else None).items():
            pid, ports = stack.enter_context(started(model, server, command, base))
            for door, port in ports.items():
                askers = Askers(asker, door, port, data)
                stack.callback(askers.close)
                contestants.append(Contestant(server, door, askers, pid))
        return take_turns(model, contestants, options)


def take_turns(model: str, contestants: Sequence[Contestant], options: argparse.Namespace) -> list[Row]:
    """The loads one by one, and for each the contestants round by round."""
    rows = []
    for clients in options.clients:
        for one in contestants:
            one.load(clients, 0.0, 0.2)  # connects, and warms up
        found = _rounds(contestants, [(clients, 0.0)] * len(contestants), options)
        for one, each in zip(contestants, found, strict=True):
            rows.append(row(model, one, "closed", clients, each, found[0].per_second))
    rates = [max(made.per_second for made in rows if made.server == one.server and made.door == one.door) / 2
             for one in contestants]  # fmt: skip
    clients = options.clients[-1]
    found = _rounds(contestants[1:], [(clients, rate) for rate in rates[1:]], options)
    for one, each in zip(contestants[1:], found, strict=True):
        rows.append(row(model, one, "open", clients, each, rates[0] * 2))
    bare = rows[0].p50_ms
    for made in rows:
        if made.loop == "closed" and made.server != "bare" and made.clients == options.clients[0]:
            print(f"{model:8} {made.server:24} {made.door:5} {made.p50_ms - bare:.2f} ms more than bare at the median")
    return rows


def _rounds(
    contestants: Sequence[Contestant], loads: Sequence[tuple[int, float]], options: argparse.Namespace
) -> list[Found]:
    found = [Found() for _ in contestants]
    for _ in range(options.rounds):
        for one, (clients, rate), each in zip(contestants, loads, found, strict=True):
            each.add(*one.load(clients, rate, options.seconds / options.rounds))
    return found


def row(model: str, one: Contestant, loop: str, clients: int, found: Found, reference: float) -> Row:
    """A load's figures, printed."""
    made = Row(
        model, one.server, one.door, loop, clients, found.per_second, found.quantile(50), found.quantile(99),
        found.cpu * 1000 / len(found.took), found.per_second / reference,
    )  # fmt: skip
    print(
        f"{model:8} {made.server:24} {made.door:5} {loop:6} {clients:3} clients {made.per_second:9.1f}/s  "
        f"p50 {made.p50_ms:8.2f} ms  p99 {made.p99_ms:8.2f} ms  CPU {made.cpu_ms:8.2f} ms  {made.to_bare:5.2f} of bare",
        flush=True,
    )
    return made


def plot(rows: Sequence[Row], path: Path) -> None:
    """Throughput over clients as a ratio to the bare signature, and the medians of one client."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    models = list(dict.fromkeys(made.model for made in rows))
    figure, axes = plt.subplots(2, len(models), figsize=(4.5 * len(models), 7), squeeze=False)
    for (above, below), model in zip(axes.T, models, strict=True):
        kept = [made for made in rows if made.model == model and made.loop == "closed"]
        names = list(dict.fromkeys((made.server, made.door) for made in kept))
        for at, name in enumerate(names):
            line = [made for made in kept if (made.server, made.door) == name]
            color = f"C{at}"
            if name[0] != "bare":
                above.plot([made.clients for made in line], [made.to_bare for made in line], "o-", color=color)
            below.bar(at, line[0].p50_ms, color=color, label=" ".join(name).removesuffix(" -"))
        above.axhline(1.0, color="grey", linewidth=1)
        above.set(title=model, xlabel="clients", ylabel="throughput / bare", ylim=(0, None), xscale="log")
        above.set_xticks(sorted({made.clients for made in kept}), [str(n) for n in sorted({m.clients for m in kept})])
        above.minorticks_off()
        below.set(ylabel=f"ms at the median, {kept[0].clients} client", xticks=[])
        below.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["trivial", "large", "tiny"])
    parser.add_argument("--clients", nargs="+", type=int, default=list(CLIENTS), help="closed loops (default: 1 8 32)")
    parser.add_argument("--seconds", type=float, default=8.0, help="per load (default: 8)")
    parser.add_argument("--rounds", type=int, default=4, help="that these are cut into (default: 4)")
    parser.add_argument("--batching", action="store_true", help=f"with batching in every server: {BATCHING}")
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    rows = []
    for model in options.models:
        with tempfile.TemporaryDirectory(prefix="vitrina-bench-") as scratch:
            rows += measure(model, Path(scratch), options)
    OUT.mkdir(exist_ok=True)
    stem = OUT / f"serving-{time.strftime('%Y%m%d-%H%M%S')}"
    stem.with_suffix(".json").write_text(json.dumps([asdict(made) for made in rows], indent=2) + "\n")
    plot(rows, stem.with_suffix(".png"))
    print(f"Wrote {stem}.json and .png; {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
