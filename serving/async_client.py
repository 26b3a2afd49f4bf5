"""The client for asyncio: the same requests, answers, deadlines and retries as `serving.client`, awaited."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from itertools import count, islice
from types import TracebackType
from typing import Any, TypeVar

from numpy.typing import NDArray

from serving import requests, results, targets
from serving.results import Result
from serving.transports import transport
from serving.transports.base import Arrays, AsyncTransport, Call, Options, RefusedError, TargetError, Tls
from signatures.errors import UsageError
from signatures.spec import Signature

__all__ = ["AsyncClient", "connect_async"]

T = TypeVar("T")


def connect_async(
    target: str,
    *,
    timeout: float = 30.0,
    retries: int = 3,
    backoff: float = 0.1,
    tls: Tls | None = None,
    headers: Mapping[str, str] | None = None,
) -> AsyncClient:
    """A client for asyncio; the arguments are those of `serving.client.connect`. Call it inside a running loop.

    Example:
        >>> async with connect_async("grpc://localhost:8500/flowers") as client:        # doctest: +SKIP
        ...     rose = await client.predict("rose.jpg")
    """
    options = Options(timeout=timeout, retries=retries, backoff=backoff, tls=tls, headers=dict(headers or {}))
    parsed = targets.parse(str(target))
    return AsyncClient(transport(parsed, asynchronous=True)(parsed, options), options)


async def _batches(images: Iterable[Any] | AsyncIterable[Any], size: int) -> AsyncIterator[list[Any]]:
    """The images, so many at a time."""
    if isinstance(images, AsyncIterable):
        batch = []
        async for image in images:
            batch.append(image)
            if len(batch) == size:
                yield batch
                batch = []
        if batch:
            yield batch
        return
    source = iter(images)
    while batch := list(islice(source, size)):
        yield batch


class AsyncClient:
    """Asks one model; every method is that of `serving.client.Client`, awaited."""

    def __init__(self, transport: AsyncTransport, options: Options | None = None) -> None:
        self._transport = transport
        self._options = options or Options()
        self._signatures: dict[str, Signature] | None = None

    async def predict(
        self,
        images: Any = None,
        *,
        signature: str = "serving_default",
        timeout: float | None = None,
        max_side: int | None = None,
        **task_inputs: Any,
    ) -> Any:
        """Asks about one image, or several in one batch; see `serving.client.Client.predict`."""
        deadline = time.monotonic() + (self._options.timeout if timeout is None else timeout)
        told = await self.signatures(timeout=timeout) if task_inputs else {}
        request = await asyncio.to_thread(
            requests.build, images, signature, task_inputs, lambda: told, max_side=max_side
        )
        try:
            outputs = await self.call(request.inputs, signature=signature, timeout=deadline - time.monotonic())
        except RefusedError as error:
            left = max(deadline - time.monotonic(), 1.0)
            better = requests.reason(signature, request.inputs, await self.signatures(timeout=left))
            if better is None:
                raise
            raise RefusedError(error.code, better, error.detail) from error
        answers = results.read(outputs, request.count, request.scales)
        return answers[0] if request.single else answers

    async def call(
        self, inputs: Arrays, *, signature: str = "serving_default", timeout: float | None = None
    ) -> dict[str, NDArray[Any]]:
        """Runs a signature on tensors as they are; see `serving.client.Client.call`."""
        arrays = requests.tensors(inputs)
        return await self._retried(
            lambda left: self._transport.call(Call(signature=signature, inputs=arrays, timeout=left)), timeout
        )

    async def stream(
        self,
        images: Iterable[Any] | AsyncIterable[Any],
        *,
        batch_size: int = 1,
        concurrency: int = 4,
        **options: Any,
    ) -> AsyncIterator[Result]:
        """Asks about many images, a bounded number at a time; see `serving.client.Client.stream`.

        Args:
            images: Any iterable, asynchronous or not.
            batch_size: Images per request.
            concurrency: Requests at a time.
            **options: As for `predict`.
        """
        if batch_size < 1 or concurrency < 1:
            raise UsageError(f"Got batch_size {batch_size} and concurrency {concurrency}, wanted at least 1 each.")
        turn = asyncio.Semaphore(concurrency)

        async def ask(batch: list[Any]) -> list[Result]:
            async with turn:
                return await self._batch(batch, options)

        running: deque[asyncio.Task[list[Result]]] = deque()
        try:
            async for batch in _batches(images, batch_size):
                running.append(asyncio.create_task(ask(batch)))
                if len(running) >= 2 * concurrency:
                    for answer in await running.popleft():
                        yield answer
            while running:
                for answer in await running.popleft():
                    yield answer
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def signatures(self, *, timeout: float | None = None) -> dict[str, Signature]:
        """The model's signatures, asked once; see `serving.client.Client.signatures`."""
        if self._signatures is None:
            self._signatures = await self._retried(self._transport.signatures, timeout)
        return self._signatures

    async def close(self) -> None:
        """Lets the connection (or the loaded model) go."""
        await self._transport.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _batch(self, batch: list[Any], options: Mapping[str, Any]) -> list[Result]:
        readable, merge = await asyncio.to_thread(requests.readable, batch)
        return merge(await self.predict(readable, **options) if readable else [])

    async def _retried(self, attempt: Callable[[float], Awaitable[T]], timeout: float | None) -> T:
        deadline = time.monotonic() + (self._options.timeout if timeout is None else timeout)
        for number in count():
            try:
                return await attempt(max(deadline - time.monotonic(), 0.001))
            except TargetError as error:
                pause = self._options.pause(error, number, deadline - time.monotonic())
                if pause is None:
                    raise
            await asyncio.sleep(pause)
        raise AssertionError("unreachable")
