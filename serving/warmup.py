"""Warmup: a version's recorded requests, replayed before it is AVAILABLE."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from serving import inference
from serving.errors import Code, ServingError, from_tensorflow, invalid_argument
from serving.inference import CLASSIFY, REGRESS, Task
from serving.messages_in import input_examples, model_spec
from serving.predict import Core
from serving.servable import Servable, quiet

__all__ = ["replay"]

_LOG = logging.getLogger("vitrina.serving")
_FILE = os.path.join("assets.extra", "tf_serving_warmup_requests")
_MAX_RECORDS = 1000
_NUMBERS = {"session_run_log": 5, "predict_streamed_log": 7}


def replay(core: Core, servable: Servable, iterations: int = 1) -> int:
    """Replays a version's warmup requests, where it has any.

    Args:
        core: What runs them.
        servable: The loaded version.
        iterations: How often each request is asked.

    Returns:
        How many requests there were.

    Raises:
        ServingError: The file is broken, or a request failed.
    """
    path = os.path.join(servable.path, _FILE)
    if not tf.io.gfile.exists(path):
        return 0
    started = time.perf_counter_ns()
    count = 0

    def measured(status: str) -> None:
        core.metrics.warmup_latency.observe((time.perf_counter_ns() - started) / 1000, servable.path, status)

    # Where a request fails, nothing is measured, as in TF Serving.
    try:
        for record in _records(path):
            for _ in range(iterations):
                _run(core, servable, _parsed(record, path))
            count += 1
            if count > _MAX_RECORDS:
                raise invalid_argument(f"Number of warmup records exceeds the maximum ({_MAX_RECORDS}) at {path}")
    except _Unreadable as error:
        measured(str(error))
        raise ServingError(error.code, error.message + error.advice) from error
    measured("OK")
    _LOG.info("warmed up", extra={"model": servable.name, "version": servable.version, "requests": count})
    return count


def _records(path: str) -> Iterator[bytes]:
    try:
        with quiet():
            reader = tf.compat.v1.io.tf_record_iterator(path)
        yield from reader
    except tf.errors.OpError as error:
        found = from_tensorflow(error)
        raise _Unreadable(found.code, found.message) from error


class _Unreadable(ServingError):
    """The file itself cannot be read."""

    @property
    def advice(self) -> str:
        lost = self.code is Code.DATA_LOSS
        return ". Please verify your warmup data is in TFRecord format." if lost else ""


def _parsed(record: bytes, path: str) -> Any:
    log = prediction_log_pb2.PredictionLog()
    try:
        log.ParseFromString(record)
    except Exception as error:
        text = record.decode("utf-8", "replace")
        raise invalid_argument(f"Failed to parse warmup record: {text} from {path}") from error
    return log


def _run(core: Core, servable: Servable, log: Any) -> None:
    kind = log.WhichOneof("log_type")
    if kind is None:
        return
    if kind in _NUMBERS:
        raise ServingError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {_NUMBERS[kind]}")
    request = getattr(log, kind).request
    if kind == "predict_log":
        spec = model_spec(request.model_spec)
        core.predict_on(servable, spec.signature, request.inputs, request.output_filter, 0)
    elif kind == "multi_inference_log":
        tasks = [Task(model_spec(task.model_spec), task.method_name) for task in request.tasks]
        inference.ask_many_on(core, servable, tasks, input_examples(request.input), 0)
    else:
        method = CLASSIFY if kind == "classify_log" else REGRESS
        spec = model_spec(request.model_spec)
        inference.ask_on(core, servable, spec, method, input_examples(request.input), 0)
