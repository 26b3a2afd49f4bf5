"""TF Serving's messages and TensorFlow's tensors on the wire, without TensorFlow.

The generated modules of `tensorflow-serving-api` import all of TensorFlow (seconds, hundreds of megabytes), which a
client does not need. The few messages that a client exchanges are declared below as in the public `.proto` files:
same field numbers and types, so the same bytes. Enums are written as `int32` and `oneof`s as plain fields, which
protobuf encodes alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from numpy.typing import NDArray

__all__ = ["DTYPES", "array_to_tensor", "dtype_name", "example", "message", "tensor_to_array"]

_PACKAGE = "vitrina.wire"

_SCHEMA = """
message Int64Value { int64 value = 1; }
message Any { string type_url = 1; bytes value = 2; }

message Dim { int64 size = 1; string name = 2; }
message TensorShapeProto { repeated Dim dim = 2; bool unknown_rank = 3; }
message TensorProto {
  int32 dtype = 1; TensorShapeProto tensor_shape = 2; int32 version_number = 3; bytes tensor_content = 4;
  repeated float float_val = 5; repeated double double_val = 6; repeated int32 int_val = 7;
  repeated bytes string_val = 8; repeated float scomplex_val = 9; repeated int64 int64_val = 10;
  repeated bool bool_val = 11; repeated double dcomplex_val = 12; repeated int32 half_val = 13;
  repeated uint32 uint32_val = 16; repeated uint64 uint64_val = 17;
}
message TensorInfo { string name = 1; int32 dtype = 2; TensorShapeProto tensor_shape = 3; }
message SignatureDef { map<TensorInfo> inputs = 1; map<TensorInfo> outputs = 2; string method_name = 3; }
message SignatureDefMap { map<SignatureDef> signature_def = 1; }
message MetaGraphDef { map<SignatureDef> signature_def = 5; }
message SavedModel { int64 saved_model_schema_version = 1; repeated MetaGraphDef meta_graphs = 2; }

message ModelSpec { string name = 1; Int64Value version = 2; string signature_name = 3; string version_label = 4; }
message PredictRequest { ModelSpec model_spec = 1; map<TensorProto> inputs = 2; repeated string output_filter = 3; }
message PredictResponse { map<TensorProto> outputs = 1; ModelSpec model_spec = 2; }
message GetModelMetadataRequest { ModelSpec model_spec = 1; repeated string metadata_field = 2; }
message GetModelMetadataResponse { ModelSpec model_spec = 1; map<Any> metadata = 2; }
message GetModelStatusRequest { ModelSpec model_spec = 1; }
message StatusProto { int32 error_code = 1; string error_message = 2; }
message ModelVersionStatus { int64 version = 1; int32 state = 2; StatusProto status = 3; }
message GetModelStatusResponse { repeated ModelVersionStatus model_version_status = 1; }

message BytesList { repeated bytes value = 1; }
message Feature { BytesList bytes_list = 1; }
message Features { map<Feature> feature = 1; }
message Example { Features features = 1; }
"""

DTYPES: dict[str, tuple[int, str]] = {
    "float32": (1, "float_val"),
    "float64": (2, "double_val"),
    "int32": (3, "int_val"),
    "uint8": (4, "int_val"),
    "int16": (5, "int_val"),
    "int8": (6, "int_val"),
    "string": (7, "string_val"),
    "complex64": (8, "scomplex_val"),
    "int64": (9, "int64_val"),
    "bool": (10, "bool_val"),
    "bfloat16": (14, "half_val"),
    "uint16": (17, "int_val"),
    "complex128": (18, "dcomplex_val"),
    "float16": (19, "half_val"),
    "uint32": (22, "uint32_val"),
    "uint64": (23, "uint64_val"),
}
"""dtype name -> (its number in `types.proto`, the `TensorProto` field that holds its values)."""

_NAMES = {number: name for name, (number, _) in DTYPES.items()}


def dtype_name(number: int) -> str:
    """The name of a `types.proto` dtype number; `invalid` for those that no signature of images uses."""
    return _NAMES.get(number, "invalid")


def _declare(file: descriptor_pb2.FileDescriptorProto) -> None:
    field_types = descriptor_pb2.FieldDescriptorProto
    for name, body in re.findall(r"message (\w+) \{(.*?)\}", _SCHEMA, re.S):
        declared = file.message_type.add(name=name)
        for kind, field_name, number in re.findall(r"((?:repeated )?[\w<>]+) (\w+) = (\d+);", body):
            field = declared.field.add(name=field_name, number=int(number), label=field_types.LABEL_OPTIONAL)
            if kind.startswith(("repeated ", "map<")):
                field.label = field_types.LABEL_REPEATED
            kind = kind.removeprefix("repeated ")
            if kind.startswith("map<"):
                _declare_map(declared, field, kind[4:-1])
            else:
                _set_type(field, kind)


def _declare_map(owner: descriptor_pb2.DescriptorProto, field: descriptor_pb2.FieldDescriptorProto, value: str) -> None:
    """`map<string, value>`, which protobuf stores as a repeated nested message with `key` and `value`."""
    entry = owner.nested_type.add(name="".join(part.title() for part in field.name.split("_")) + "Entry")
    entry.options.map_entry = True
    for name, number, kind in [("key", 1, "string"), ("value", 2, value)]:
        _set_type(entry.field.add(name=name, number=number, label=field.LABEL_OPTIONAL), kind)
    _set_type(field, f"{owner.name}.{entry.name}")


def _set_type(field: descriptor_pb2.FieldDescriptorProto, kind: str) -> None:
    scalar = getattr(field, f"TYPE_{kind.upper()}", None) if kind.islower() or kind[-2:].isdigit() else None
    if scalar is not None:
        field.type = scalar
    else:
        field.type = field.TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{kind}"


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="vitrina/wire.proto", package=_PACKAGE, syntax="proto3")
    _declare(file)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    get: Any = getattr(message_factory, "GetMessageClass", None)  # protobuf >= 4.22; before it, a factory of the pool
    if get is None:
        factory: Any = message_factory.MessageFactory(pool)
        get = factory.GetPrototype
    return {m.name: get(pool.FindMessageTypeByName(f"{_PACKAGE}.{m.name}")) for m in file.message_type}


_MESSAGES = _classes()


def message(name: str, /, **fields: Any) -> Any:
    """A new message, such as `message("ModelSpec", name="vit")`."""
    return _MESSAGES[name](**fields)


def array_to_tensor(array: NDArray[Any]) -> Any:
    """A `TensorProto` of an array; object, bytes and str arrays become DT_STRING (str as UTF-8)."""
    array = np.asarray(array)
    shape = message("TensorShapeProto", dim=[message("Dim", size=size) for size in array.shape])
    if array.dtype.kind in "OSU":
        values = [value.encode() if isinstance(value, str) else bytes(value) for value in array.reshape(-1).tolist()]
        return message("TensorProto", dtype=DTYPES["string"][0], tensor_shape=shape, string_val=values)
    number, _ = DTYPES[array.dtype.name]
    content = np.ascontiguousarray(array).tobytes()
    return message("TensorProto", dtype=number, tensor_shape=shape, tensor_content=content)


def tensor_to_array(tensor: Any) -> NDArray[Any]:
    """The array of a `TensorProto`; DT_STRING as an object array of bytes, bfloat16 widened to float32.

    As in TensorFlow, values that are missing at the end repeat the last one.

    Raises:
        ValueError: The dtype is none of `DTYPES`, or the values do not fit the shape.
    """
    name = dtype_name(tensor.dtype)
    if name == "invalid":
        raise ValueError(f"A tensor has dtype number {tensor.dtype}, which is none that Vitrina reads.")
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if name == "string":
        strings: NDArray[Any] = np.empty(len(tensor.string_val), dtype=object)
        strings[:] = list(tensor.string_val)
        return _filled(strings, shape)
    if tensor.tensor_content:
        raw = "uint16" if name == "bfloat16" else name
        values = np.frombuffer(tensor.tensor_content, dtype=np.dtype(raw).newbyteorder("<")).astype(raw)
    else:
        values = _listed(name, getattr(tensor, DTYPES[name][1]))
    if name == "bfloat16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return _filled(values, shape)


def _listed(name: str, values: Sequence[Any]) -> NDArray[Any]:
    if name in ("float16", "bfloat16"):
        bits = np.asarray(values, dtype=np.uint16)
        return bits.view(np.float16) if name == "float16" else bits
    if name.startswith("complex"):
        parts = np.asarray(values, dtype=np.float32 if name == "complex64" else np.float64)
        return parts.view(name)
    return np.asarray(values, dtype=name)


def _filled(values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    count = int(np.prod(shape, dtype=np.int64))
    if 0 < values.size < count:
        values = np.concatenate([values, np.repeat(values[-1:], count - values.size)])
    elif values.size == 0 and count:
        values = np.zeros(count, values.dtype) if values.dtype != object else np.full(count, b"", dtype=object)
    return values.reshape(shape)


def example(features: dict[str, bytes]) -> bytes:
    """A serialized `tf.train.Example` of bytes features, such as `{"image/encoded": jpeg}`."""

    def pairs() -> Iterator[tuple[str, Any]]:
        for key, value in features.items():
            yield key, message("Feature", bytes_list=message("BytesList", value=[value]))

    return bytes(message("Example", features=message("Features", feature=dict(pairs()))).SerializeToString())
