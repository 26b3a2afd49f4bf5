"""The gRPC door: it listens, parses, counts, and maps domain errors to gRPC's codes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

from serving.errors import ServingError, from_tensorflow
from serving.grpc_extras import health_handlers, reflection_handlers
from serving.grpc_handlers import Handlers
from serving.predict import Core
from serving.tls import Tls, credentials, ssl_context
from signatures.errors import VitrinaError

__all__ = ["GrpcDoor", "GrpcOptions"]

_LOG = logging.getLogger("vitrina.serving")
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_MESSAGE_LIMIT = 1024
_INT32_MAX = (1 << 31) - 1
_PREDICTION = "tensorflow.serving.PredictionService"
_MODEL = "tensorflow.serving.ModelService"


@dataclass(frozen=True)
class GrpcOptions:
    """How the door opens.

    Args:
        port: The TCP port; 0 for none.
        socket_path: A UNIX socket to listen on as well; "" for none.
        max_threads: How many calls may run at once; more are refused.
        tls: TLS in place of plain text, or None.
        arguments: Channel arguments: `key=value`, comma-separated.
        health: Whether the health service answers.
        as_content: Whether predictions are answered in `tensor_content`.
    """

    port: int = 8500
    socket_path: str = ""
    max_threads: int = 16
    tls: Tls | None = None
    arguments: str = ""
    health: bool = False
    as_content: bool = False


@dataclass(frozen=True)
class _Method:
    """One method: how its request is parsed and handled, and under what name it counts; "" for not at all."""

    request: Any
    handle: Callable[[Any, int], Any]
    api: str = ""


def _table(handlers: Handlers) -> dict[str, _Method]:
    return {
        f"/{_PREDICTION}/Predict": _Method(predict_pb2.PredictRequest, handlers.predict, "Predict"),
        f"/{_PREDICTION}/Classify": _Method(classification_pb2.ClassificationRequest, handlers.classify, "Classify"),
        f"/{_PREDICTION}/Regress": _Method(regression_pb2.RegressionRequest, handlers.regress, "Regress"),
        f"/{_PREDICTION}/MultiInference": _Method(inference_pb2.MultiInferenceRequest, handlers.multi_inference),
        f"/{_PREDICTION}/GetModelMetadata": _Method(
            get_model_metadata_pb2.GetModelMetadataRequest, handlers.get_model_metadata
        ),
        f"/{_MODEL}/GetModelStatus": _Method(get_model_status_pb2.GetModelStatusRequest, handlers.get_model_status),
        f"/{_MODEL}/HandleReloadConfigRequest": _Method(
            model_management_pb2.ReloadConfigRequest, handlers.reload_config
        ),
    }


def _unimplemented(_: Any, context: Any) -> Any:
    context.abort(grpc.StatusCode.UNIMPLEMENTED, "")


# grpcio's own refusal of unknown methods carries a text, TF Serving's none. Streaming fits calls of every kind.
_UNKNOWN = grpc.stream_stream_rpc_method_handler(_unimplemented)


class _Router(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Finds a method's handler, and keeps to the limit of calls at once."""

    def __init__(self, core: Core, options: GrpcOptions, stopping: threading.Event) -> None:
        self._core = core
        self._free = threading.Semaphore(options.max_threads)
        table = _table(Handlers(core, options.as_content))
        self._methods = {path: self._handler(method) for path, method in table.items()}
        self._methods.update(reflection_handlers((_PREDICTION, _MODEL)))
        if options.health:
            self._methods.update(health_handlers(stopping))

    def service(self, handler_call_details: Any) -> Any:
        """Called by grpcio for each call."""
        return self._methods.get(handler_call_details.method, _UNKNOWN)

    def _handler(self, method: _Method) -> Any:
        def call(data: bytes, context: Any) -> Any:
            if not self._free.acquire(blocking=False):
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted")
            try:
                return self._answer(method, _parsed(method, data, context), context)
            finally:
                self._free.release()

        # Without a deserializer bytes arrive: grpcio's refusal of what cannot be parsed carries a text of its own.
        return grpc.unary_unary_rpc_method_handler(
            call, response_serializer=lambda response: response.SerializeToString()
        )

    def _answer(self, method: _Method, request: Any, context: Any) -> Any:
        started = time.perf_counter_ns()
        error: ServingError | None = None
        try:
            return method.handle(request, _timeout_ms(context))
        except ServingError as found:
            error = found
        except Exception as found:
            _LOG.exception("a call failed")
            error = from_tensorflow(found)
        finally:
            if method.api:
                self._core.metrics.record(method.api, "GRPC", request.model_spec.name, error, started)
        context.abort(_CODES[int(error.code)], _details(error.message))
        raise AssertionError("abort() raises")


def _parsed(method: _Method, data: bytes, context: Any) -> Any:
    try:
        return method.request.FromString(data)
    except DecodeError:
        context.abort(grpc.StatusCode.INTERNAL, "")


def _details(message: str) -> bytes:
    data = message.encode("utf-8", "surrogateescape")
    return data if len(data) <= _MESSAGE_LIMIT else data[:_MESSAGE_LIMIT] + b"...TRUNCATED"


def _timeout_ms(context: Any) -> int:
    remaining = context.time_remaining()
    # gRPC says "no deadline" as None or as an absurdly distant time.
    if remaining is None or remaining > 10**6:
        return 0
    return max(int(remaining * 1000), 1)


class GrpcDoor:
    """A listening gRPC server.

    Args:
        core: What answers.
        options: See there.

    Raises:
        VitrinaError: The port is taken.
    """

    def __init__(self, core: Core, options: GrpcOptions) -> None:
        self._stopping = threading.Event()
        # Beyond the limit calls are refused, and health is answered, which needs threads of its own.
        self._pool = ThreadPoolExecutor(options.max_threads + 4, "vitrina-grpc")
        self._server = grpc.server(
            self._pool,
            handlers=(_Router(core, options, self._stopping),),
            options=_channel_options(options.arguments),
        )
        self._tls = options.tls
        self.port = self._bind(f"0.0.0.0:{options.port}", options.port) if options.port else None
        if options.socket_path:
            self._bind(f"unix:{options.socket_path}", 0)

    def _bind(self, address: str, port: int) -> int:
        try:
            if self._tls is None:
                bound = int(self._server.add_insecure_port(address))
            else:
                bound = int(self._server.add_secure_port(address, credentials(self._tls)))
        except RuntimeError:
            bound = 0
        if bound:
            return bound
        if self._tls is not None:
            ssl_context(self._tls)  # says what is wrong with it; grpcio only logs that
        if port:
            raise VitrinaError(
                f"Port {port} for gRPC is taken by another process. Stop that process, or choose another port with "
                "--port."
            )
        raise VitrinaError(f"The gRPC socket {address} cannot be made. Choose another --grpc_socket_path.")

    def start(self) -> None:
        """Answers from now on."""
        self._server.start()

    def stop(self, grace: float) -> None:
        """Refuses new calls and waits for those in flight, at most `grace` seconds."""
        self._stopping.set()
        self._server.stop(grace).wait()
        self._pool.shutdown(wait=False)


def _channel_options(arguments: str) -> Sequence[tuple[str, int | str]]:
    options: list[tuple[str, int | str]] = [
        ("grpc.max_receive_message_length", _INT32_MAX),
        ("grpc.max_send_message_length", -1),
        # Two servers must not share a port by accident.
        ("grpc.so_reuseport", 0),
    ]
    for argument in filter(None, arguments.split(",")):
        key, _, value = argument.partition("=")
        options.append((key.strip(), int(value) if value.strip().lstrip("-").isdigit() else value.strip()))
    return options
