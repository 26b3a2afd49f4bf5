"""What a gRPC server says about itself: health checks and reflection (v1alpha), as TF Serving does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from tensorflow_serving.apis import model_service_pb2, prediction_service_pb2

from serving import protos

__all__ = ["health_handlers", "reflection_handlers"]

_SERVING = 1
_SERVICE_UNKNOWN = 3
_KNOWN = ("", "ModelService", "PredictionService")
_NOT_FOUND = 5
# Named so that their files are in the pool that reflection tells of.
_DESCRIBED = (prediction_service_pb2.DESCRIPTOR, model_service_pb2.DESCRIPTOR)
_REFLECTION = "grpc.reflection.v1alpha.ServerReflection"
_HEALTH = "grpc.health.v1.Health"


def health_handlers(stopping: threading.Event) -> dict[str, Any]:
    """The methods of grpc.health.v1.Health.

    Args:
        stopping: Set when the server goes away; ends the watchers.
    """

    def check(request: Any, context: Any) -> Any:
        if request.service not in _KNOWN:
            context.abort(grpc.StatusCode.NOT_FOUND, "service name unknown")
        return protos.HealthCheckResponse(status=_SERVING)

    def watch(request: Any, context: Any) -> Iterator[Any]:
        yield protos.HealthCheckResponse(status=_SERVING if request.service in _KNOWN else _SERVICE_UNKNOWN)
        while context.is_active() and not stopping.wait(0.5):
            pass

    options: dict[str, Any] = {
        "request_deserializer": protos.HealthCheckRequest.FromString,
        "response_serializer": lambda message: message.SerializeToString(),
    }
    return {
        f"/{_HEALTH}/Check": grpc.unary_unary_rpc_method_handler(check, **options),
        f"/{_HEALTH}/Watch": grpc.unary_stream_rpc_method_handler(watch, **options),
    }


def reflection_handlers(services: tuple[str, ...]) -> dict[str, Any]:
    """The method of grpc.reflection.v1alpha.ServerReflection.

    Args:
        services: The names of the services that it tells of.
    """
    names = sorted({*services, _REFLECTION})

    def answer(requests: Iterator[Any], _: Any) -> Iterator[Any]:
        for request in requests:
            yield _reflect(request, names)

    return {
        f"/{_REFLECTION}/ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(
            answer,
            request_deserializer=protos.ReflectionRequest.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )
    }


def _reflect(request: Any, names: list[str]) -> Any:
    response = protos.ReflectionResponse(valid_host=request.host, original_request=request)
    pool: Any = descriptor_pool.Default()
    kind = request.WhichOneof("message_request")
    try:
        if kind == "list_services":
            for name in names:
                response.list_services_response.service.add(name=name)
        elif kind == "file_by_filename":
            _files(response, lambda: pool.FindFileByName(request.file_by_filename))
        elif kind == "file_containing_symbol":
            _files(response, lambda: pool.FindFileContainingSymbol(request.file_containing_symbol))
        elif kind == "file_containing_extension":
            asked = request.file_containing_extension
            owner = pool.FindMessageTypeByName(asked.containing_type)
            _files(response, lambda: pool.FindExtensionByNumber(owner, asked.extension_number).file)
        elif kind == "all_extension_numbers_of_type":
            owner = pool.FindMessageTypeByName(request.all_extension_numbers_of_type)
            response.all_extension_numbers_response.base_type_name = owner.full_name
            numbers = sorted(extension.number for extension in pool.FindAllExtensions(owner))
            response.all_extension_numbers_response.extension_number.extend(numbers)
        else:
            response.error_response.error_code = 3
            response.error_response.error_message = grpc.StatusCode.INVALID_ARGUMENT.value[1]
    except KeyError:
        response.error_response.error_code = _NOT_FOUND
        response.error_response.error_message = grpc.StatusCode.NOT_FOUND.value[1]
    return response


def _files(response: Any, find: Callable[[], Any]) -> None:
    """Adds a file and all that it imports."""
    seen: set[str] = set()
    waiting = [find()]
    while waiting:
        file = waiting.pop(0)
        if file.name in seen:
            continue
        seen.add(file.name)
        proto = descriptor_pb2.FileDescriptorProto()
        file.CopyToProto(proto)
        response.file_descriptor_response.file_descriptor_proto.append(proto.SerializeToString())
        waiting.extend(file.dependencies)
