"""Streams of thousands of images: in order, a bounded number at a time, and what ends them."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from serving.async_client import AsyncClient
from serving.client import Client, TargetError
from serving.targets import parse
from serving.transports.base import Options, explain

COUNT, BATCH, AT_ONCE = 3000, 4, 3
TARGET = parse("grpc://host:1/m")


class Echo:
    """A model that answers each image with itself as its text, now and then late; it counts what it is asked."""

    def __init__(self, failures=()):
        self.lock = threading.Lock()
        self.source = random.Random(0)
        self.failures = list(failures)
        self.running = self.most = self.calls = 0
        self.timeouts = []

    def enter(self, call):
        with self.lock:
            self.calls += 1
            self.timeouts.append(call.timeout)
            self.running += 1
            self.most = max(self.most, self.running)
            failure = self.failures.pop(0) if self.failures else None
            return failure, 0.02 if self.source.random() < 0.02 else 0.0

    def leave(self, call, failure):
        with self.lock:
            self.running -= 1
        if failure:
            raise explain(TARGET, failure, "as the test wants it")
        images = call.inputs["image_bytes"]
        errors = np.array([b"no image" if image == b"7" else b"" for image in images], dtype=object)
        return {"text": images, "error": errors}

    def call(self, call):
        failure, wait = self.enter(call)
        time.sleep(wait)
        return self.leave(call, failure)

    def signatures(self, timeout):
        return {}

    def close(self):
        pass


class AsyncEcho(Echo):
    async def call(self, call):
        failure, wait = self.enter(call)
        await asyncio.sleep(wait)
        return self.leave(call, failure)

    async def close(self):
        pass


class Source:
    """Numbers as images; how far they were read before their answers came."""

    def __init__(self):
        self.read = self.answered = self.ahead = 0

    def __iter__(self):
        for number in range(COUNT):
            self.read += 1
            self.ahead = max(self.ahead, self.read - self.answered)
            yield str(number).encode() if number != 5 else Path("missing.png")

    async def __aiter__(self):
        for image in self.__iter__():
            yield image


def check(model, source, texts):
    assert texts == [str(number) if number not in (5, 7) else "error" for number in range(COUNT)]
    assert 1 < model.most <= AT_ONCE
    assert source.ahead <= 2 * AT_ONCE * BATCH + BATCH


def test_a_long_stream_is_in_order_and_bounded():
    model, source, texts = Echo(), Source(), []
    with Client(model) as client:
        for answer in client.stream(source, batch_size=BATCH, concurrency=AT_ONCE):
            source.answered += 1
            texts.append("error" if answer.error else answer.text)
    check(model, source, texts)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_long_stream_in_asyncio(asynchronous):
    model, source, texts = AsyncEcho(), Source(), []
    async with AsyncClient(model) as client:
        images = source if asynchronous else source.__iter__()
        async for answer in client.stream(images, batch_size=BATCH, concurrency=AT_ONCE):
            source.answered += 1
            texts.append("error" if answer.error else answer.text)
    check(model, source, texts)


def test_only_what_is_unavailable_is_tried_again():
    model = Echo(["UNAVAILABLE", "UNAVAILABLE"])
    assert Client(model, Options(backoff=0.01)).predict(b"x").text == "x"
    assert model.calls == 3
    assert model.timeouts == sorted(model.timeouts, reverse=True)  # one deadline for all tries
    for code in ("RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "INTERNAL", "NOT_FOUND", "ABORTED", "CANCELLED"):
        model = Echo([code])
        with pytest.raises(TargetError) as caught:
            Client(model, Options(backoff=0.01)).predict(b"x")
        assert (caught.value.code, model.calls) == (code, 1)


def test_pauses_grow_and_end_at_the_deadline():
    options = Options(retries=9, backoff=1.0)
    error = TargetError("UNAVAILABLE", "")
    pauses = [options.pause(error, attempt, 1000.0) for attempt in range(4)]
    assert all(2**attempt <= pause <= 1.5 * 2**attempt for attempt, pause in enumerate(pauses))
    assert options.pause(error, 3, 7.9) is None
    assert options.pause(error, 9, 1000.0) is None
    model = Echo(["UNAVAILABLE"] * 100)
    begun = time.monotonic()
    with pytest.raises(TargetError):
        Client(model, Options(retries=99, backoff=0.05)).predict(b"x", timeout=0.4)
    assert time.monotonic() - begun < 0.4
    assert 2 <= model.calls <= 4


def test_a_target_that_fails_ends_the_stream():
    model = Echo([None, None, "INTERNAL"])
    stream = Client(model).stream((b"x" for _ in range(1000)), concurrency=2)
    with pytest.raises(TargetError, match="INTERNAL"):
        list(stream)
    assert model.calls <= 8
    assert model.running == 0
