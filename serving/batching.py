"""Batching: requests that ask a model for the same tensors run together.

The scheduler follows TF Serving's shared batch scheduler: one queue per version and set of inputs and outputs, one
pool of threads for all of them, taking ready batches from the queues in turn. A batch is ready when it is full or
when its first task has waited long enough.

It is written here rather than taken from `tf.nondifferentiable_batch_function`, because that runs a batch inside
the graph that it batches for: it cannot see deadlines, and words its refusals differently. It costs about as much;
`benchmarks/batching.py` measures both.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.errors import Code, ServingError, from_tensorflow, invalid_argument
from serving.metrics import Registry
from serving.servable import Servable

__all__ = ["Batcher", "Parameters"]

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]


@dataclass(frozen=True)
class Parameters:
    """BatchingParameters.

    Args:
        max_batch_size: The largest request and, without splitting, the largest batch.
        batch_timeout_micros: How long a batch that is not full waits for company.
        max_enqueued_batches: How many batches may wait in one queue.
        allowed_batch_sizes: Sizes that batches are padded to; empty for any.
        pad_variable_length_inputs: Whether requests of different shapes are padded to the largest.
        enable_large_batch_splitting: Whether a request may be spread over several batches.
        max_execution_batch_size: The largest batch, with splitting.
    """

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    enable_large_batch_splitting: bool = False
    max_execution_batch_size: int = 1000

    @classmethod
    def from_proto(cls, proto: Any) -> Parameters:
        """Reads a BatchingParameters message."""
        given = {
            name: getattr(proto, name).value
            for name in ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches")
            if proto.HasField(name)
        }
        splitting = proto.HasField("enable_large_batch_splitting") and proto.enable_large_batch_splitting.value
        if splitting:
            limit = proto.max_execution_batch_size if proto.HasField("max_execution_batch_size") else None
            given["max_execution_batch_size"] = limit.value if limit is not None else proto.max_batch_size.value
        return cls(
            **given,
            allowed_batch_sizes=tuple(proto.allowed_batch_sizes),
            pad_variable_length_inputs=proto.pad_variable_length_inputs,
            enable_large_batch_splitting=splitting,
        )

    @property
    def execution_size(self) -> int:
        """The largest batch."""
        return self.max_execution_batch_size if self.enable_large_batch_splitting else self.max_batch_size

    def check(self) -> None:
        """Whether they can be.

        Raises:
            ServingError: INVALID_ARGUMENT with TF Serving's words.
        """
        sizes = self.allowed_batch_sizes
        if sizes and sizes[-1] != self.max_batch_size:
            raise invalid_argument(
                f"Last entry in allowed_batch_sizes must match max_batch_size; last entry was {sizes[-1]}; expected "
                f"{self.max_batch_size}"
            )
        if self.max_batch_size <= 0:
            raise invalid_argument(f"input_batch_size_limit must be positive; was {self.max_batch_size}")
        if self.batch_timeout_micros < 0:
            raise invalid_argument(f"batch_timeout_micros must be non-negative; was {self.batch_timeout_micros}")
        if self.max_enqueued_batches <= 0:
            raise invalid_argument(f"max_enqueued_batches must be positive; was {self.max_enqueued_batches}")
        if self.enable_large_batch_splitting and self.max_batch_size < self.max_execution_batch_size:
            raise invalid_argument(
                "When enable_large_batch_splitting is true, input_batch_size_limit must be greater than or equal to "
                f"max_execution_batch_size.1{self.max_batch_size}{self.max_execution_batch_size}"
            )

    def padded_size(self, size: int) -> int:
        """The size that a batch runs at."""
        return next((allowed for allowed in self.allowed_batch_sizes if allowed >= size), size)


def _held() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


@dataclass
class _Task:
    """A request, or a part of one, in a batch."""

    feeds: Feeds
    size: int
    timeout_ms: int
    enqueued: float
    # A lock that is held until there is an answer: an Event does the same with three times the work.
    done: threading.Lock = field(default_factory=_held)
    outputs: dict[str, Array] = field(default_factory=dict)
    error: ServingError | None = None

    @property
    def deadline(self) -> float:
        return self.enqueued + (self.timeout_ms / 1000 if self.timeout_ms > 0 else float("inf"))


@dataclass
class _Batch:
    tasks: list[_Task] = field(default_factory=list)
    size: int = 0
    opened: float = 0.0

    def add(self, task: _Task) -> None:
        if not self.tasks:
            self.opened = time.monotonic()
        self.tasks.append(task)
        self.size += task.size


class _Queue:
    """The batches that wait for one version's set of inputs and outputs. Only the last one is open."""

    def __init__(self, servable: Servable, fetches: Sequence[str], parameters: Parameters) -> None:
        self.servable = servable
        self.fetches = fetches
        self.parameters = parameters
        self.batches: deque[_Batch] = deque([_Batch()])

    def schedule(self, task: _Task) -> list[_Task]:
        """Puts a task, or its parts, into batches.

        Raises:
            ServingError: The task is too large, or the queue is full.
        """
        limit = self.parameters.execution_size
        self._check(task, limit)
        room = limit - self.batches[-1].size
        parts = [task]
        if self.parameters.enable_large_batch_splitting and task.size > room:
            parts = _split(task, room, limit)
        for part in parts:
            if self.batches[-1].size + part.size > limit:
                self.batches.append(_Batch())
            self.batches[-1].add(part)
        return parts

    def _check(self, task: _Task, limit: int) -> None:
        most, tail, count = self.parameters.max_enqueued_batches, self.batches[-1].size, len(self.batches)
        full = "The batch scheduling queue to which this task was submitted is full; "
        if self.parameters.enable_large_batch_splitting:
            capacity = (most - count) * limit + limit - tail
            if task.size > capacity:
                raise ServingError(
                    Code.UNAVAILABLE,
                    f"{full}task size is {task.size} but scheduling capacity is only {capacity} "
                    f"(num_enqueued_batches={count}, max_enqueued_batches={most}, open_batch_size={tail}, "
                    f"max_execution_batch_size={limit})",
                )
        elif tail + task.size > self.parameters.max_batch_size and count >= most:
            raise ServingError(
                Code.UNAVAILABLE, f"{full}currently {count} batches enqueued and max_enqueued_batches is {most}"
            )

    def take(self, now: float) -> _Batch | None:
        """A batch that is ready to run, or None."""
        if len(self.batches) == 1:
            open_ = self.batches[0]
            if not open_.tasks or (open_.size < self.parameters.execution_size and now < self.ready_at()):
                return None
            self.batches.append(_Batch())
        return self.batches.popleft()

    def ready_at(self) -> float:
        """When the first batch is ready at the latest."""
        first = self.batches[0]
        if len(self.batches) > 1:
            return 0.0
        return first.opened + self.parameters.batch_timeout_micros / 1e6 if first.tasks else float("inf")


def _split(task: _Task, room: int, limit: int) -> list[_Task]:
    """A task's parts: the first fills the open batch, the others are as large as batches can be."""
    sizes = [room] if room else []
    while sum(sizes) < task.size:
        sizes.append(min(limit, task.size - sum(sizes)))
    parts, at = [], 0
    for size in sizes:
        feeds = {name: value[at : at + size] for name, value in task.feeds.items()}
        parts.append(_Task(feeds, size, task.timeout_ms, task.enqueued))
        at += size
    return parts


class Batcher:
    """Runs servables in batches; stands in for `predict.run_directly`.

    Args:
        threads: How many batches run at once.
        metrics: Where sizes and waiting times are counted.
    """

    def __init__(self, threads: int, metrics: Registry) -> None:
        self._metrics = metrics
        self._wake = threading.Condition()
        self._queues: dict[Any, _Queue] = {}
        self._order: deque[Any] = deque()
        self._parameters: dict[int, Parameters | None] = {}
        self._stopped = False
        for number in range(threads):
            threading.Thread(target=self._work, name=f"vitrina-batch-{number}", daemon=True).start()

    def add(self, servable: Servable, parameters: Parameters | None) -> None:
        """Says how a version is to be batched; None for not at all.

        Raises:
            ServingError: INVALID_ARGUMENT where the parameters cannot be.
        """
        if parameters is not None:
            parameters.check()
        self._parameters[id(servable)] = parameters

    def remove(self, servable: Servable) -> None:
        """Forgets a version that nobody runs any more."""
        with self._wake:
            self._parameters.pop(id(servable), None)
            for key in [key for key in self._queues if key[0] == id(servable)]:
                del self._queues[key]
                self._order.remove(key)

    def stop(self) -> None:
        """Ends the threads."""
        with self._wake:
            self._stopped = True
            self._wake.notify_all()

    def __call__(self, servable: Servable, feeds: Feeds, fetches: Sequence[str], timeout_ms: int) -> list[Array]:
        """Runs one request in whatever batch it falls into; see `Servable.run`."""
        parameters = self._parameters.get(id(servable))
        if parameters is None:
            return servable.run(feeds, fetches, timeout_ms)
        size = self._size(feeds)
        if size > parameters.max_batch_size:
            raise invalid_argument(
                f"Task size {size} is larger than maximum input batch size {parameters.max_batch_size}"
            )
        task = _Task(feeds, size, timeout_ms, time.monotonic())
        key = (id(servable), frozenset(feeds), frozenset(fetches))
        with self._wake:
            queue = self._queues.get(key)
            if queue is None:
                queue = self._queues[key] = _Queue(servable, sorted(set(fetches)), parameters)
                self._order.append(key)
            parts = queue.schedule(task)
            self._wake.notify()
        for part in parts:
            part.done.acquire()
        error = next((part.error for part in parts if part.error is not None), None)
        if error is not None:
            raise error
        if len(parts) == 1:
            return [parts[0].outputs[name] for name in fetches]
        return [np.concatenate([part.outputs[name] for part in parts]) for name in fetches]

    def _size(self, feeds: Feeds) -> int:
        if not feeds:
            raise invalid_argument("Batching Run() must have at least one input tensor")
        sizes = []
        for value in feeds.values():
            if not value.ndim:
                raise invalid_argument("Batching Run() input tensors must have at least one dimension")
            sizes.append(value.shape[0])
            if sizes[0] != sizes[-1]:
                raise invalid_argument("Batching Run() input tensors must have equal 0th-dimension size")
        for size in sizes:
            self._metrics.input_batch_size.observe(size)
        return int(sizes[0])

    def _work(self) -> None:
        while True:
            found = self._next()
            if found is None:
                return
            queue, batch = found
            try:
                self._process(queue, batch)
            except ServingError as error:
                _fail(batch, error)
            except Exception as error:
                _fail(batch, from_tensorflow(error))
            finally:
                for task in batch.tasks:
                    task.done.release()

    def _next(self) -> tuple[_Queue, _Batch] | None:
        """The next batch of the next queue that has one ready; None at the end."""
        with self._wake:
            while not self._stopped:
                now = time.monotonic()
                soonest = float("inf")
                for _ in range(len(self._order)):
                    queue = self._queues[self._order[0]]
                    self._order.rotate(-1)
                    batch = queue.take(now)
                    if batch is not None:
                        if queue.ready_at() <= now:
                            self._wake.notify()
                        return queue, batch
                    soonest = min(soonest, queue.ready_at())
                self._wake.wait(None if soonest == float("inf") else max(soonest - now, 0))
        return None

    def _process(self, queue: _Queue, batch: _Batch) -> None:
        now = time.monotonic()
        for task in batch.tasks:
            self._metrics.queuing_latency.observe((now - task.enqueued) * 1e6, "")
        deadline = max(task.deadline for task in batch.tasks)
        if deadline <= now:
            raise ServingError(Code.RESOURCE_EXHAUSTED, "Run() timeout exceeded while waiting in batching queue")
        timeout_ms = 0 if deadline == float("inf") else max(int((deadline - now) * 1000), 1)
        feeds, padding = self._merged(queue, batch)
        outputs = queue.servable.run(feeds, queue.fetches, timeout_ms)
        self._metrics.wrapped_run_count.add()
        for name, value in zip(queue.fetches, outputs, strict=True):
            _give_out(name, value, batch, padding)

    def _merged(self, queue: _Queue, batch: _Batch) -> tuple[dict[str, Array], int]:
        size = queue.parameters.padded_size(batch.size)
        padding = size - batch.size
        self._metrics.padding_size.observe(padding, str(size))
        self._metrics.processed_batch_size.observe(size)
        if len(batch.tasks) == 1 and not padding:
            return dict(batch.tasks[0].feeds), 0
        merged = {}
        for name in batch.tasks[0].feeds:
            values = [task.feeds[name] for task in batch.tasks]
            values = _padded(values) if queue.parameters.pad_variable_length_inputs else _alike(name, values)
            if padding:
                values.append(np.repeat(values[-1][:1], padding, axis=0))
            merged[name] = np.concatenate(values)
        return merged, padding


def _fail(batch: _Batch, error: ServingError) -> None:
    for task in batch.tasks:
        task.error = error


def _alike(name: str, values: list[Array]) -> list[Array]:
    if any(value.shape[1:] != values[0].shape[1:] for value in values):
        raise ServingError(
            Code.FAILED_PRECONDITION,
            f"Tensors with name '{name}' from different tasks have different shapes and padding is turned off. Set "
            "pad_variable_length_inputs to true, or ensure that all tensors with the same name have equal dimensions "
            "starting with the first dim.",
        )
    if any(value.dtype != values[0].dtype for value in values):
        raise ServingError(
            Code.INTERNAL,
            "Tensor concat operation failed: INVALID_ARGUMENT: Input tensors must have the same dtype.",
        )
    return values


def _padded(values: list[Array]) -> list[Array]:
    """Every tensor grown to the largest of each axis but the first, filled with its own first element."""
    rank = values[0].ndim
    if not 1 <= rank <= 6:
        raise invalid_argument("Only tensors with rank from 1 to 6 can be padded.")
    largest = [max(value.shape[axis] for value in values) for axis in range(1, rank)]
    grown = []
    for value in values:
        shape = (value.shape[0], *largest)
        if value.shape == shape:
            grown.append(value)
            continue
        if not value.size:
            raise invalid_argument("Got empty tensor in batch of non-empty tensors.")
        filled = np.full(shape, value.ravel()[0], dtype=value.dtype)
        filled[tuple(slice(size) for size in value.shape)] = value
        grown.append(filled)
    return grown


def _give_out(name: str, value: Array, batch: _Batch, padding: int) -> None:
    if not value.ndim:
        raise ServingError(Code.FAILED_PRECONDITION, "Batched output tensor has 0 dimensions")
    if value.shape[0] != batch.size + padding:
        raise ServingError(
            Code.FAILED_PRECONDITION,
            "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input "
            "tensors",
        )
    at = 0
    for task in batch.tasks:
        task.outputs[name] = value[at : at + task.size]
        at += task.size
