"""The gRPC door: PredictionService and ModelService, translated to the core and back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import any_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
)

from serving import tensors
from serving.errors import ServingError, from_tensorflow, invalid_argument
from serving.predict import Answer, Core, ModelSpec
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
        port: The TCP port, 0 for any free one.
        max_threads: How many calls may run at once; more are refused.
    """

    port: int = 8500
    max_threads: int = 16


def model_spec(proto: Any) -> ModelSpec:
    """A ModelSpec message as the core knows it."""
    choice = proto.WhichOneof("version_choice")
    return ModelSpec(
        proto.name,
        proto.version.value if choice == "version" else None,
        proto.version_label if choice == "version_label" else None,
        proto.signature_name,
    )


def _required_spec(request: Any) -> ModelSpec:
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")
    return model_spec(request.model_spec)


def fill_model_spec(proto: Any, name: str, version: int, signature: str | None = None) -> None:
    """Echoes which model answered."""
    proto.name = name
    proto.version.value = version
    if signature is not None:
        proto.signature_name = signature


def predict_response(answer: Answer) -> predict_pb2.PredictResponse:
    """An answer as its message."""
    response = predict_pb2.PredictResponse()
    fill_model_spec(response.model_spec, answer.name, answer.version, answer.signature)
    for alias, output in answer.outputs.items():
        tensors.encode(output.values, output.dtype, response.outputs[alias])
    return response


def signature_map(signatures: Mapping[str, Any]) -> get_model_metadata_pb2.SignatureDefMap:
    """A servable's signatures as the message that metadata holds."""
    found = get_model_metadata_pb2.SignatureDefMap()
    for name, definition in signatures.items():
        found.signature_def[name].CopyFrom(definition)
    return found


class Handlers:
    """What each method does with a parsed request; they raise `ServingError`.

    Args:
        core: The core below.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    def predict(self, request: Any, timeout_ms: int) -> Any:
        """PredictionService.Predict."""
        spec = _required_spec(request)
        return predict_response(self._core.predict(spec, request.inputs, request.output_filter, timeout_ms))

    def get_model_metadata(self, request: Any, _: int) -> Any:
        """PredictionService.GetModelMetadata."""
        spec = _required_spec(request)
        if not request.metadata_field:
            raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
        for name in request.metadata_field:
            if name != "signature_def":
                raise invalid_argument(f"Metadata field {name} is not supported")
        servable = self._core.find(spec)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        fill_model_spec(response.model_spec, servable.name, servable.version)
        value = any_pb2.Any()
        value.Pack(signature_map(servable.signatures))
        response.metadata["signature_def"].CopyFrom(value)
        return response

    def get_model_status(self, request: Any, _: int) -> Any:
        """ModelService.GetModelStatus."""
        spec = _required_spec(request)
        response = get_model_status_pb2.GetModelStatusResponse()
        for status in self._core.repository.status(spec.name, spec.version):
            entry = response.model_version_status.add(version=status.version, state=int(status.state))
            entry.status.SetInParent()
            if status.error is not None:
                entry.status.error_code = int(status.error.code)
                entry.status.error_message = status.error.message
        return response


@dataclass(frozen=True)
class _Method:
    request: Any
    handle: Callable[[Any, int], Any]
    api: str = ""


def _table(handlers: Handlers) -> dict[str, _Method]:
    return {
        f"/{_PREDICTION}/Predict": _Method(predict_pb2.PredictRequest, handlers.predict, "Predict"),
        f"/{_PREDICTION}/GetModelMetadata": _Method(
            get_model_metadata_pb2.GetModelMetadataRequest, handlers.get_model_metadata
        ),
        f"/{_MODEL}/GetModelStatus": _Method(get_model_status_pb2.GetModelStatusRequest, handlers.get_model_status),
    }


class _Router(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, core: Core, max_threads: int) -> None:
        self._core = core
        self._methods = {path: self._handler(method) for path, method in _table(Handlers(core)).items()}
        self._free = threading.Semaphore(max_threads)

    def service(self, handler_call_details: Any) -> Any:
        return self._methods.get(handler_call_details.method)

    def _handler(self, method: _Method) -> Any:
        def call(request: Any, context: Any) -> Any:
            if not self._free.acquire(blocking=False):
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted")
            try:
                return self._answer(method, request, context)
            finally:
                self._free.release()

        return grpc.unary_unary_rpc_method_handler(
            call,
            request_deserializer=method.request.FromString,
            response_serializer=lambda response: response.SerializeToString(),
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
                self._record(method.api, request.model_spec.name, error, started)
        context.abort(_CODES[int(error.code)], _details(error.message))
        raise AssertionError

    def _record(self, api: str, name: str, error: ServingError | None, started: int) -> None:
        metrics = self._core.metrics
        metrics.request_count.add(name, error.code.name if error else "OK")
        if error is None:
            metrics.request_latency.observe((time.perf_counter_ns() - started) / 1000, name, api, "GRPC")


def _details(message: str) -> bytes:
    data = message.encode("utf-8", "surrogateescape")
    return data if len(data) <= _MESSAGE_LIMIT else data[:_MESSAGE_LIMIT] + b"...TRUNCATED"


def _timeout_ms(context: Any) -> int:
    remaining = context.time_remaining()
    # gRPC says "no deadline" as None or as an absurdly distant time.
    if remaining is None or remaining > 10**8:
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
        # Beyond the limit calls are refused, which needs threads of its own.
        self._pool = ThreadPoolExecutor(options.max_threads + 4, "vitrina-grpc")
        self._server = grpc.server(
            self._pool,
            handlers=(_Router(core, options.max_threads),),
            options=_channel_options(),
        )
        self.port = self._bind(options.port)

    def _bind(self, port: int) -> int:
        try:
            bound = int(self._server.add_insecure_port(f"0.0.0.0:{port}"))
        except RuntimeError:
            bound = 0
        if not bound:
            raise VitrinaError(
                f"Port {port} for gRPC is taken by another process. Stop that process, or choose another port with "
                "--port."
            )
        return bound

    def start(self) -> None:
        """Answers from now on."""
        self._server.start()

    def stop(self, grace: float) -> None:
        """Refuses new calls and waits for those in flight, at most `grace` seconds."""
        self._server.stop(grace).wait()
        self._pool.shutdown(wait=False)


def _channel_options() -> Sequence[tuple[str, int]]:
    return (
        ("grpc.max_receive_message_length", _INT32_MAX),
        ("grpc.max_send_message_length", -1),
        # Two servers must not share a port by accident.
        ("grpc.so_reuseport", 0),
    )
