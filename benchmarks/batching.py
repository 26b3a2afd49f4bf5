"""`python -m benchmarks.batching`: what a request pays for going through a batch scheduler.

A graph that does next to nothing runs directly, behind the server's own scheduler, and behind TensorFlow's
(`tf.nondifferentiable_batch_function`, in a graph around it). What differs is the price of the scheduling.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

CLIENTS = (1, 8, 32)
SIZES = {"max_batch_size": 32, "batch_timeout_micros": 0, "max_enqueued_batches": 100}
THREADS = 2


def runners() -> dict[str, Callable[[], Any]]:
    """Ways to ask for one string's length."""
    import tensorflow as tf
    from tensorflow.core.protobuf import meta_graph_pb2

    from serving.batching import Batcher, Parameters
    from serving.metrics import Registry
    from serving.servable import Servable

    graph = tf.Graph()
    session = tf.compat.v1.Session(graph=graph)
    with graph.as_default():
        sent = tf.compat.v1.placeholder(tf.string, [None], name="x")
        tf.strings.length(sent, name="bare")

        @tf.nondifferentiable_batch_function(num_batch_threads=THREADS, **SIZES)
        def batched(x: Any) -> Any:
            return tf.strings.length(x)

        tf.identity(batched(sent), name="batched")
    graph.finalize()
    session._extend_graph()
    servable = Servable("m", 1, "", session, meta_graph_pb2.MetaGraphDef())
    batcher = Batcher(THREADS, Registry())
    batcher.add(servable, Parameters(**SIZES))
    feeds = {"x:0": np.array([b"abc"], dtype=object)}
    return {
        "direct": lambda: servable.run(feeds, ["bare:0"]),
        "ours": lambda: batcher(servable, feeds, ["bare:0"], 30_000),
        "TensorFlow's": lambda: servable.run(feeds, ["batched:0"], 30_000),
    }


def load(ask: Callable[[], Any], clients: int, seconds: float) -> tuple[float, float, float]:
    """Closed loops: microseconds at the median, microseconds of CPU per request, requests per second."""
    took: list[list[float]] = [[] for _ in range(clients)]
    end, used = time.perf_counter() + seconds, time.process_time()

    def work(found: list[float]) -> None:
        while (start := time.perf_counter()) < end:
            ask()
            found.append(time.perf_counter() - start)

    threads = [threading.Thread(target=work, args=(found,)) for found in took]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    every = [value for found in took for value in found]
    cpu = (time.process_time() - used) / len(every)
    return float(np.median(every)) * 1e6, cpu * 1e6, len(every) / seconds


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batching", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="per load (default: 3)")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    ways = runners()
    for clients in CLIENTS:
        for name, ask in ways.items():
            load(ask, clients, 0.2)
            median, cpu, rate = load(ask, clients, arguments.seconds)
            print(f"{clients:3} clients  {name:14} p50 {median:6.0f} us  CPU {cpu:4.0f} us  {rate:6.0f}/s", flush=True)
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
