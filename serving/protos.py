"""Messages that TF Serving knows and the tensorflow-serving-api package does not carry, and textproto files.

They are described here by their fields, in a pool of their own, so that a process that has the generated classes
as well does not see them twice.
"""

from __future__ import annotations

from typing import Any, TypeVar

import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from google.protobuf.message import Message as AnyMessage

from serving.errors import from_tensorflow, invalid_argument

__all__ = [
    "BatchingParameters",
    "HealthCheckRequest",
    "HealthCheckResponse",
    "MonitoringConfig",
    "ReflectionRequest",
    "ReflectionResponse",
    "SSLConfig",
    "exists",
    "read_text",
]

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
    "bool": _Field.TYPE_BOOL,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
}
_WRAPPERS = "google/protobuf/wrappers.proto"
Message = TypeVar("Message", bound=AnyMessage)

# package -> message -> field -> (number, type); a type that ends in * is repeated, one with a dot another message.
_SERVING: dict[str, dict[str, tuple[int, str]]] = {
    "BatchingParameters": {
        "max_batch_size": (1, ".google.protobuf.Int64Value"),
        "batch_timeout_micros": (2, ".google.protobuf.Int64Value"),
        "max_enqueued_batches": (3, ".google.protobuf.Int64Value"),
        "num_batch_threads": (4, ".google.protobuf.Int64Value"),
        "thread_pool_name": (5, ".google.protobuf.StringValue"),
        "allowed_batch_sizes": (6, "int64*"),
        "pad_variable_length_inputs": (7, "bool"),
        "enable_large_batch_splitting": (8, ".google.protobuf.BoolValue"),
        "max_execution_batch_size": (9, ".google.protobuf.Int64Value"),
    },
    "PrometheusConfig": {"enable": (1, "bool"), "path": (2, "string")},
    "MonitoringConfig": {"prometheus_config": (1, ".tensorflow.serving.PrometheusConfig")},
    "SSLConfig": {
        "server_key": (1, "string"),
        "server_cert": (2, "string"),
        "custom_ca": (3, "string"),
        "client_verify": (4, "bool"),
    },
}
_HEALTH: dict[str, dict[str, tuple[int, str]]] = {
    "HealthCheckRequest": {"service": (1, "string")},
    "HealthCheckResponse": {"status": (1, "int32")},
}
_REFLECTION: dict[str, dict[str, tuple[int, str]]] = {
    "ExtensionRequest": {"containing_type": (1, "string"), "extension_number": (2, "int32")},
    "ServerReflectionRequest": {
        "host": (1, "string"),
        "file_by_filename": (3, "string|message_request"),
        "file_containing_symbol": (4, "string|message_request"),
        "file_containing_extension": (5, ".grpc.reflection.v1alpha.ExtensionRequest|message_request"),
        "all_extension_numbers_of_type": (6, "string|message_request"),
        "list_services": (7, "string|message_request"),
    },
    "FileDescriptorResponse": {"file_descriptor_proto": (1, "bytes*")},
    "ExtensionNumberResponse": {"base_type_name": (1, "string"), "extension_number": (2, "int32*")},
    "ServiceResponse": {"name": (1, "string")},
    "ListServiceResponse": {"service": (1, ".grpc.reflection.v1alpha.ServiceResponse*")},
    "ErrorResponse": {"error_code": (1, "int32"), "error_message": (2, "string")},
    "ServerReflectionResponse": {
        "valid_host": (1, "string"),
        "original_request": (2, ".grpc.reflection.v1alpha.ServerReflectionRequest"),
        "file_descriptor_response": (4, ".grpc.reflection.v1alpha.FileDescriptorResponse|message_response"),
        "all_extension_numbers_response": (5, ".grpc.reflection.v1alpha.ExtensionNumberResponse|message_response"),
        "list_services_response": (6, ".grpc.reflection.v1alpha.ListServiceResponse|message_response"),
        "error_response": (7, ".grpc.reflection.v1alpha.ErrorResponse|message_response"),
    },
}


def _field(name: str, number: int, kind: str, message: Any) -> Any:
    kind, _, oneof = kind.partition("|")
    repeated = kind.endswith("*")
    kind = kind.rstrip("*")
    field = _Field(name=name, number=number, label=_Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL)
    if kind.startswith("."):
        field.type, field.type_name = _Field.TYPE_MESSAGE, kind
    else:
        field.type = _SCALARS[kind]
    if oneof:
        if not message.oneof_decl:
            message.oneof_decl.add(name=oneof)
        field.oneof_index = 0
    return field


def _file(name: str, package: str, messages: dict[str, dict[str, tuple[int, str]]]) -> Any:
    file = descriptor_pb2.FileDescriptorProto(name=name, package=package, syntax="proto3", dependency=[_WRAPPERS])
    for message_name, fields in messages.items():
        message = file.message_type.add(name=message_name)
        for field_name, (number, kind) in fields.items():
            message.field.append(_field(field_name, number, kind, message))
    return file


def _pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    wrappers = descriptor_pb2.FileDescriptorProto()
    wrappers_pb2.DESCRIPTOR.CopyToProto(wrappers)
    for file in (
        wrappers,
        _file("vitrina/serving.proto", "tensorflow.serving", _SERVING),
        _file("vitrina/health.proto", "grpc.health.v1", _HEALTH),
        _file("vitrina/reflection.proto", "grpc.reflection.v1alpha", _REFLECTION),
    ):
        pool.Add(file) if not hasattr(pool, "AddSerializedFile") else pool.AddSerializedFile(file.SerializeToString())
    return pool


_POOL = _pool()


def _old_class(descriptor: Any) -> Any:
    factory: Any = message_factory.MessageFactory(_POOL)
    return factory.GetPrototype(descriptor)


def _class(name: str) -> Any:
    descriptor = _POOL.FindMessageTypeByName(name)
    get = getattr(message_factory, "GetMessageClass", None)  # protobuf 4 and later
    return get(descriptor) if get is not None else _old_class(descriptor)


BatchingParameters = _class("tensorflow.serving.BatchingParameters")
MonitoringConfig = _class("tensorflow.serving.MonitoringConfig")
SSLConfig = _class("tensorflow.serving.SSLConfig")
HealthCheckRequest = _class("grpc.health.v1.HealthCheckRequest")
HealthCheckResponse = _class("grpc.health.v1.HealthCheckResponse")
ReflectionRequest = _class("grpc.reflection.v1alpha.ServerReflectionRequest")
ReflectionResponse = _class("grpc.reflection.v1alpha.ServerReflectionResponse")


def exists(path: str) -> bool:
    """Whether there is a file, on any file system that `tf.io.gfile` reads."""
    return bool(tf.io.gfile.exists(path))


def read_text(path: str, message: Message) -> Message:
    """Fills a message from a textproto file.

    Args:
        path: A file, or a URI that `tf.io.gfile` reads.
        message: The message to fill.

    Raises:
        ServingError: The file cannot be read, or is no such textproto.
    """
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            text = file.read()
    except tf.errors.OpError as error:
        raise from_tensorflow(error) from error
    try:
        text_format.Parse(text, message)
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise invalid_argument(f"Invalid protobuf file: '{path}' ({error})") from error
    return message
