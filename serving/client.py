"""Asks a model, wherever it is served: `connect(target).predict(image)`, the same typed answers from every target.

Nothing here imports TensorFlow; only a servable on disk, run in this process, needs it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count, islice
from types import TracebackType
from typing import Any, TypeVar

from numpy.typing import NDArray

from serving import requests, results, targets
from serving.results import Result
from serving.transports import transport
from serving.transports.base import Arrays, Call, Options, RefusedError, TargetError, Tls, Transport
from signatures.errors import UsageError
from signatures.spec import Signature

__all__ = ["Client", "Options", "Result", "TargetError", "Tls", "connect", "predict"]

T = TypeVar("T")


def connect(
    target: str,
    *,
    timeout: float = 30.0,
    retries: int = 3,
    backoff: float = 0.1,
    tls: Tls | None = None,
    headers: Mapping[str, str] | None = None,
) -> Client:
    """A client of one model. Nothing is sent yet.

    Example:
        >>> with connect("grpc://localhost:8500/flowers") as client:        # doctest: +SKIP
        ...     client.predict("rose.jpg").label
        'rose'

    Args:
        target: A servable's BASE path (run in this process), `grpc://host:port/model`, `http[s]://host:port/model`,
            each model with `@version` or `:label`. `grpcs://` is gRPC over TLS.
        timeout: Seconds for one answer, retries included.
        retries: How often to try again where the target is unavailable (and only then).
        backoff: Seconds before the first retry, doubled each time.
        tls: Certificates for an encrypted connection.
        headers: Further HTTP headers or gRPC metadata.

    Raises:
        UsageError: The target has none of these forms, or there is no servable at the path.
    """
    options = Options(timeout=timeout, retries=retries, backoff=backoff, tls=tls, headers=dict(headers or {}))
    parsed = targets.parse(str(target))
    return Client(transport(parsed)(parsed, options), options)


def predict(
    target: str,
    images: Any = None,
    *,
    signature: str = "serving_default",
    timeout: float = 30.0,
    max_side: int | None = None,
    tls: Tls | None = None,
    headers: Mapping[str, str] | None = None,
    **task_inputs: Any,
) -> Any:
    """Asks a target once and closes the connection; see `connect` and `Client.predict`."""
    with connect(target, timeout=timeout, tls=tls, headers=headers) as client:
        return client.predict(images, signature=signature, max_side=max_side, **task_inputs)


class Client:
    """Asks one model. Safe to share between threads; use it in a `with` block, or call `close`.

    Args:
        transport: The connection, see `serving.transports.base.Transport`.
        options: Deadline and retries.
    """

    def __init__(self, transport: Transport, options: Options | None = None) -> None:
        self._transport = transport
        self._options = options or Options()
        self._signatures: dict[str, Signature] | None = None

    def predict(
        self,
        images: Any = None,
        *,
        signature: str = "serving_default",
        timeout: float | None = None,
        max_side: int | None = None,
        **task_inputs: Any,
    ) -> Any:
        """Asks about one image, or several in one batch.

        Args:
            images: A path, encoded bytes, a Pillow image or a uint8 array [h, w, 3] (RGB) or [h, w]; or a list of them
                (or a uint8 array [b, h, w, 3]) for one batch. None for a task that takes none.
            signature: `serving_default`, `preprocess`, `pixels`, `from_examples` or `classify`.
            timeout: Seconds for this answer; by default the client's.
            max_side: Shrink images whose longer side has more pixels before sending them. Points, boxes, masks and
                depths stay in pixels of the image as it was given.
            **task_inputs: The task's own inputs by name, such as `candidate_labels=["cat", "dog"]` or
                `question="How many?"`: one for all images, or a list with one for each.

        Returns:
            The task's result, such as `Classification`; a list of them where `images` was several. `.error` says why
            one image could not be answered.

        Raises:
            UsageError: Something is no image, or the target refused the request.
            TargetError: The target did not answer, or failed.
        """
        deadline = time.monotonic() + (self._options.timeout if timeout is None else timeout)

        def left() -> float:
            return deadline - time.monotonic()

        request = requests.build(
            images, signature, task_inputs, lambda: self.signatures(timeout=left()), max_side=max_side
        )
        try:
            outputs = self.call(request.inputs, signature=signature, timeout=left())
        except RefusedError as error:
            better = requests.reason(signature, request.inputs, self.signatures(timeout=max(left(), 1.0)))
            if better is None:
                raise
            raise RefusedError(error.code, better, error.detail) from error
        answers = results.read(outputs, request.count, request.scales)
        return answers[0] if request.single else answers

    def call(
        self, inputs: Arrays, *, signature: str = "serving_default", timeout: float | None = None
    ) -> dict[str, NDArray[Any]]:
        """Runs a signature on tensors as they are: arrays by name to arrays by name.

        Args:
            inputs: With the batch axis; strings as object arrays of bytes (or str).
            signature: Any of the model's.
            timeout: Seconds; by default the client's.

        Raises:
            UsageError: An input is nothing that a request carries.
            TargetError: The target did not answer, or refused.
        """
        arrays = requests.tensors(inputs)
        return self._retried(
            lambda left: self._transport.call(Call(signature=signature, inputs=arrays, timeout=left)), timeout
        )

    def stream(
        self,
        images: Iterable[Any],
        *,
        batch_size: int = 1,
        concurrency: int = 4,
        **options: Any,
    ) -> Iterator[Result]:
        """Asks about many images, a bounded number at a time, and yields the answers in their order.

        An image that cannot be read from disk yields a result with `.error`; a target that fails raises.

        Args:
            images: Any iterable, read no further than needed.
            batch_size: Images per request.
            concurrency: Requests at a time. At most twice as many batches, or their answers, are held in memory: one
                slow answer does not stop those after it.
            **options: As for `predict`.

        Raises:
            UsageError: A number is not positive, or the target refused the request.
            TargetError: The target did not answer, or failed.
        """
        if batch_size < 1 or concurrency < 1:
            raise UsageError(f"Got batch_size {batch_size} and concurrency {concurrency}, wanted at least 1 each.")
        source = iter(images)
        running: deque[Future[list[Result]]] = deque()
        with ThreadPoolExecutor(concurrency, thread_name_prefix="vitrina-client") as pool:
            try:
                while batch := list(islice(source, batch_size)):
                    running.append(pool.submit(self._batch, batch, options))
                    if len(running) >= 2 * concurrency:
                        yield from running.popleft().result()
                while running:
                    yield from running.popleft().result()
            finally:
                for future in running:
                    future.cancel()

    def signatures(self, *, timeout: float | None = None) -> dict[str, Signature]:
        """The model's signatures, asked once. For what a served version changed meanwhile, connect anew.

        Args:
            timeout: Seconds; by default the client's.

        Raises:
            TargetError: The target did not answer, or has no such model.
        """
        if self._signatures is None:
            self._signatures = self._retried(self._transport.signatures, timeout)
        return self._signatures

    def close(self) -> None:
        """Lets the connection (or the loaded model) go."""
        self._transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _batch(self, batch: list[Any], options: Mapping[str, Any]) -> list[Result]:
        """One batch of a stream; what cannot be read locally does not spoil the rest."""
        readable, merge = requests.readable(batch)
        return merge(self.predict(readable, **options) if readable else [])

    def _retried(self, attempt: Callable[[float], T], timeout: float | None) -> T:
        deadline = time.monotonic() + (self._options.timeout if timeout is None else timeout)
        for number in count():
            try:
                return attempt(max(deadline - time.monotonic(), 0.001))
            except TargetError as error:
                pause = self._options.pause(error, number, deadline - time.monotonic())
                if pause is None:
                    raise
            time.sleep(pause)
        raise AssertionError("unreachable")
