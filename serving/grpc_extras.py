"""What a gRPC server says about itself: health checks and reflection (v1alpha), as TF Serving does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

from serving import protos

__all__ = ["health_handlers", "reflection_handlers"]

_SERVING = 1
_SERVICE_UNKNOWN = 3
_KNOWN = ("", "ModelService", "PredictionService")
_NOT_FOUND = 5
# The modules `prediction_service_pb2` and `model_service_pb2` of tensorflow-serving-api 2.19 do not import beside
# protobuf 6, so the files with the services are described here: method -> request and response.
_SERVICES: dict[str, dict[str, tuple[Any, Any]]] = {
    "PredictionService": {
        "Classify": (classification_pb2.ClassificationRequest, classification_pb2.ClassificationResponse),
        "Regress": (regression_pb2.RegressionRequest, regression_pb2.RegressionResponse),
        "Predict": (predict_pb2.PredictRequest, predict_pb2.PredictResponse),
        "MultiInference": (inference_pb2.MultiInferenceRequest, inference_pb2.MultiInferenceResponse),
        "GetModelMetadata": (
            get_model_metadata_pb2.GetModelMetadataRequest,
            get_model_metadata_pb2.GetModelMetadataResponse,
        ),
    },
    "ModelService": {
        "GetModelStatus": (get_model_status_pb2.GetModelStatusRequest, get_model_status_pb2.GetModelStatusResponse),
        "HandleReloadConfigRequest": (
            model_management_pb2.ReloadConfigRequest,
            model_management_pb2.ReloadConfigResponse,
        ),
    },
}
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
    for service in _SERVICES:
        # The same bytes as the generated module's, which another part of this process may have added already.
        descriptor_pool.Default().AddSerializedFile(_service_file(service).SerializeToString())

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


def _service_file(service: str) -> Any:
    """The .proto file of one service of TensorFlow Serving, as its generated module has it."""
    methods = _SERVICES[service]
    stem = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in service).strip("_")
    file = descriptor_pb2.FileDescriptorProto(
        name=f"tensorflow_serving/apis/{stem}.proto",
        package="tensorflow.serving",
        dependency=sorted({message.DESCRIPTOR.file.name for pair in methods.values() for message in pair}),
        options=descriptor_pb2.FileOptions(cc_enable_arenas=True),
        syntax="proto3",
    )
    described = file.service.add(name=service)
    for name, (request, response) in methods.items():
        asked, answered = (f".{message.DESCRIPTOR.full_name}" for message in (request, response))
        described.method.add(name=name, input_type=asked, output_type=answered)
    return file


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
