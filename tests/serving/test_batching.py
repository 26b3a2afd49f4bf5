"""Batching: what runs together, what is padded, split, refused and given up."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving import protos
from serving.batching import Batcher, Parameters
from serving.errors import Code, ServingError
from serving.metrics import Registry
from tests.serving import conversation


class Doubler:
    """A servable that doubles `x`, remembers how it was run, and can be made to wait."""

    def __init__(self) -> None:
        self.runs: list[tuple[dict[str, Any], int]] = []
        self.gate = threading.Event()
        self.gate.set()

    def run(self, feeds: Mapping[str, Any], fetches: Sequence[str], timeout_ms: int = 0) -> list[Any]:
        self.runs.append((dict(feeds), timeout_ms))
        self.gate.wait(10)
        known = {"double": feeds["x"] * 2, "scalar": np.float32(1), "short": feeds["x"][:1]}
        return [known[name] for name in fetches]

    @property
    def sizes(self) -> list[int]:
        return [len(feeds["x"]) for feeds, _ in self.runs]


class Bench:
    """A batcher in front of a `Doubler`."""

    def __init__(self, threads: int = 1, **parameters: Any) -> None:
        self.model = Doubler()
        self.metrics = Registry()
        self.batcher = Batcher(threads, self.metrics)
        self.batcher.add(self.model, Parameters(**parameters))  # type: ignore[arg-type]
        self.pool = ThreadPoolExecutor(64)

    def ask(
        self, *values: float, fetches: Sequence[str] = ("double",), timeout_ms: int = 0, **more: Any
    ) -> Future[Any]:
        feeds = {"x": np.array(values, dtype=np.float32), **more}
        return self.pool.submit(self.batcher, self.model, feeds, fetches, timeout_ms)  # type: ignore[arg-type]

    def hold(self) -> Future[Any]:
        """Keeps the only thread busy until `model.gate` is set; what is asked meanwhile has to wait."""
        self.model.gate.clear()
        busy = self.ask(0)
        deadline = time.monotonic() + 10
        while not self.model.runs:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        return busy

    def queued(self, count: int) -> None:
        """Waits until so many requests have come since the start."""
        deadline = time.monotonic() + 10
        page_line = ":tensorflow:serving:batching_session:input_batch_size_count{}"
        while f"{page_line} {count}\n" not in self.metrics.page():
            assert time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(0.02)


@pytest.fixture
def benches() -> Iterator[list[Bench]]:
    made: list[Bench] = []
    yield made
    for bench in made:
        bench.model.gate.set()
        bench.batcher.stop()
        bench.pool.shutdown()


@pytest.fixture
def bench_of(benches: list[Bench]) -> Any:
    def make(**parameters: Any) -> Bench:
        benches.append(Bench(**parameters))
        return benches[-1]

    return make


def refusal(future: Future[Any]) -> tuple[Code, str]:
    error = future.exception(10)
    assert isinstance(error, ServingError)
    return error.code, error.message


def test_requests_that_wait_run_together_and_get_their_own_rows(bench_of: Any) -> None:
    bench = bench_of(max_batch_size=8)
    busy = bench.hold()
    futures = [bench.ask(*range(at, at + size)) for at, size in ((10, 3), (20, 2), (30, 3), (40, 1))]
    bench.queued(5)
    bench.model.gate.set()
    assert busy.result(10)[0].tolist() == [0]
    assert [future.result(10)[0].tolist() for future in futures] == [
        [20, 22, 24], [40, 42], [60, 62, 64], [80],
    ]  # fmt: skip
    assert sum(bench.model.sizes) == 10
    assert bench.model.sizes[0] == 1
    assert len(bench.model.sizes) == 3
    assert max(bench.model.sizes) <= 8


def test_a_batch_waits_for_company_up_to_its_timeout(bench_of: Any) -> None:
    bench = bench_of(max_batch_size=3, batch_timeout_micros=150_000)
    started = time.monotonic()
    assert bench.ask(1).result(10)[0].tolist() == [2]
    assert time.monotonic() - started >= 0.15
    started = time.monotonic()
    futures = [bench.ask(number) for number in range(3)]
    assert [future.result(10)[0].tolist() for future in futures] == [[0], [2], [4]]
    assert bench.model.sizes == [1, 3]
    assert time.monotonic() - started < 0.15


def test_allowed_sizes_pad_with_the_last_tasks_first_row(bench_of: Any) -> None:
    bench = bench_of(max_batch_size=4, allowed_batch_sizes=(2, 4))
    assert bench.ask(5, 6, 7).result(10)[0].tolist() == [10, 12, 14]
    assert bench.model.runs[0][0]["x"].tolist() == [5, 6, 7, 5]
    assert bench.ask(9).result(10)[0].tolist() == [18]
    assert bench.model.sizes == [4, 2]
    page = bench.metrics.page()
    assert ':tensorflow:serving:batching_session:padding_size_sum{execution_batch_size="4"} 1' in page
    assert ":tensorflow:serving:batching_session:processed_batch_size_sum{} 6" in page
    assert ":tensorflow:serving:batching_session:wrapped_run_count{} 2" in page


def test_large_requests_are_split_where_that_is_enabled(bench_of: Any) -> None:
    bench = bench_of(max_batch_size=10, enable_large_batch_splitting=True, max_execution_batch_size=4)
    assert bench.ask(*range(10)).result(10)[0].tolist() == [2 * value for value in range(10)]
    assert sorted(bench.model.sizes) == [2, 4, 4]


def test_refusals(bench_of: Any) -> None:
    bench = bench_of(max_batch_size=4)
    invalid = Code.INVALID_ARGUMENT
    assert refusal(bench.ask(1, 2, 3, 4, 5)) == (invalid, "Task size 5 is larger than maximum input batch size 4")
    assert refusal(bench.ask(1, y=np.float32(3))) == (
        invalid,
        "Batching Run() input tensors must have at least one dimension",
    )
    assert refusal(bench.ask(1, y=np.zeros(2))) == (
        invalid,
        "Batching Run() input tensors must have equal 0th-dimension size",
    )
    assert refusal(bench.ask(1, fetches=["scalar"])) == (
        Code.FAILED_PRECONDITION,
        "Batched output tensor has 0 dimensions",
    )
    assert refusal(bench.ask(1, 2, fetches=["short"])) == (
        Code.FAILED_PRECONDITION,
        "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input tensors",
    )
    assert bench.ask(1).result(10)[0].tolist() == [2]


def test_a_full_queue_refuses_at_once(bench_of: Any) -> None:
    bench = bench_of(max_batch_size=2, max_enqueued_batches=2)
    busy = bench.hold()
    waiting = [bench.ask(1, 1), bench.ask(2, 2)]
    bench.queued(3)
    assert refusal(bench.ask(3, 3)) == (
        Code.UNAVAILABLE,
        (
            "The batch scheduling queue to which this task was submitted is full; currently 2 batches enqueued and "
            "max_enqueued_batches is 2"
        ),
    )
    bench.model.gate.set()
    assert all(future.result(10) for future in (busy, *waiting))


def test_deadlines_that_pass_in_the_queue(bench_of: Any) -> None:
    bench = bench_of(max_batch_size=2)
    bench.hold()
    late = bench.ask(1, timeout_ms=20)
    bench.queued(2)
    time.sleep(0.05)
    bench.model.gate.set()
    assert refusal(late) == (Code.RESOURCE_EXHAUSTED, "Run() timeout exceeded while waiting in batching queue")
    assert bench.ask(1, timeout_ms=5000).result(10)[0].tolist() == [2]
    assert 4000 < bench.model.runs[-1][1] <= 5000


def test_shapes_that_differ(bench_of: Any) -> None:
    for padding in (False, True):
        bench = bench_of(max_batch_size=4, pad_variable_length_inputs=padding)
        bench.hold()
        feeds = [np.array([[1.0, 2.0]]), np.array([[3.0, 4.0, 5.0]])]
        futures = [bench.pool.submit(bench.batcher, bench.model, {"x": value}, ["double"], 0) for value in feeds]
        bench.queued(3)
        bench.model.gate.set()
        if padding:
            assert sorted(future.result(10)[0].tolist() for future in futures) == [[[2, 4, 2]], [[6, 8, 10]]]
        else:
            code, message = refusal(futures[0])
            assert code is Code.FAILED_PRECONDITION
            assert message.startswith("Tensors with name 'x' from different tasks have different shapes and padding is")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("max_batch_size { value: 8 } allowed_batch_sizes: 4", ("Last entry in allowed_batch_sizes must match "
         "max_batch_size; last entry was 4; expected 8")),
        ("max_batch_size { value: 0 }", "input_batch_size_limit must be positive; was 0"),
        ("batch_timeout_micros { value: -1 }", "batch_timeout_micros must be non-negative; was -1"),
        ("max_enqueued_batches { value: 0 }", "max_enqueued_batches must be positive; was 0"),
    ],
)  # fmt: skip
def test_parameters_that_cannot_be(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "parameters").write_text(text)
    proto = protos.read_text(str(tmp_path / "parameters"), protos.BatchingParameters())
    with pytest.raises(ServingError) as caught:
        Parameters.from_proto(proto).check()
    assert caught.value.message == problem


def test_parameters_from_a_textproto(tmp_path: Path) -> None:
    (tmp_path / "parameters").write_text(
        "max_batch_size { value: 128 } batch_timeout_micros { value: 7 } allowed_batch_sizes: [1, 128] "
        "enable_large_batch_splitting { value: true } max_execution_batch_size { value: 32 } "
        "pad_variable_length_inputs: true thread_pool_name { value: 'x' }"
    )
    found = Parameters.from_proto(protos.read_text(str(tmp_path / "parameters"), protos.BatchingParameters()))
    assert found == Parameters(128, 7, 10, (1, 128), True, True, 32)
    assert Parameters.from_proto(protos.BatchingParameters()) == Parameters()


def test_a_server_with_parameters_per_model(golden_models: Path, tmp_path: Path) -> None:
    import shutil

    version = tmp_path / "models" / "tide" / "1"
    shutil.copytree(golden_models / "tide" / "1", version)
    (version / "batching_params.pbtxt").write_text("max_batch_size { value: 2 }")
    config = tmp_path / "config"
    config.mkdir()
    setup = {
        "flags": ["--model_name=tide", "--model_base_path=$MODELS/tide", "--enable_batching",
                  "--enable_per_model_batching_parameters", "--batching_parameters_file=$CONFIG/batching"],
        "files": {"batching": "num_batch_threads { value: 2 } max_batch_size { value: 500 }"},
        "wait_for": ["tide"],
    }  # fmt: skip
    with conversation.talk(setup, tmp_path / "models", config) as server:
        assert server.post("tide:predict", {"instances": [1, 2]})[0] == 200
        status, body = server.post("tide:predict", {"instances": [1, 2, 3]})
        assert (status, body) == (
            400,
            b'{\n    "error": "Task size 3 is larger than maximum input batch size 2"\n}',
        )
