"""Classify and regress requests in JSON: lists of features to serialized tf.Examples."""

from __future__ import annotations

from typing import Any

from tensorflow.core.example import example_pb2, feature_pb2

from serving.errors import ServingError, invalid_argument
from serving.json_reader import Json, Object
from serving.wire import decode_base64, float32, format_error, is_base64, json_type, text

__all__ = ["examples"]

_KINDS = {"bytes_list": "bytes", "float_list": "float", "int64_list": "int64"}


def examples(doc: Object) -> list[bytes]:
    """The examples of a request, each with the context's features before its own.

    Args:
        doc: The request.

    Raises:
        ServingError: INVALID_ARGUMENT where they are missing or cannot be examples.
    """
    context = _example(doc.find("context")).SerializeToString() if doc.has("context") else b""
    if not doc.has("examples"):
        raise format_error(doc, "When method is classify, key 'examples' is expected and was not found")
    items = doc.find("examples")
    if not isinstance(items, list) or isinstance(items, Object):
        raise format_error(doc, "Expecting 'examples' value to be an list/array")
    if not items:
        raise format_error(doc, "'examples' value is an empty array")
    # Serialized protos merge by standing one after another.
    return [context + _example(item).SerializeToString() for item in items]


def _example(value: Json) -> Any:
    if not isinstance(value, Object):
        raise invalid_argument(f"Example must be JSON object but got JSON {json_type(value)}")
    example = example_pb2.Example()
    for key, content in value:
        # Names are C strings there: they end at a zero byte. A later one of the same name replaces the earlier.
        name = text(key.partition("\0")[0])
        feature = feature_pb2.Feature()
        many = isinstance(content, list) and not isinstance(content, Object)
        for element in content if many else [content]:
            _add(element, name, feature)
        proto_name = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        example.features.feature[proto_name].CopyFrom(feature)
    return example


def _add(value: Any, name: str, feature: Any) -> None:
    if value is None or (isinstance(value, list) and not is_base64(value)):
        raise invalid_argument(f"Feature: {name} has element with unexpected JSON type: {json_type(value)}")
    if isinstance(value, bool):
        _values(feature, "int64_list", name).append(int(value))
    elif isinstance(value, int):
        values = _values(feature, "int64_list", name)
        if value >= 1 << 63:
            raise invalid_argument(f"Feature: {name} has uint64_t element. Only int64_t is supported.")
        values.append(value)
    elif isinstance(value, float):
        _values(feature, "float_list", name).extend(float32([value]).tolist())
    elif isinstance(value, str):
        _values(feature, "bytes_list", name).append(value.encode("latin-1"))
    else:
        values = _values(feature, "bytes_list", name)
        decoded = decode_base64(value[0][1])
        if decoded is None:
            raise invalid_argument("Unable to base64 decode")
        values.append(decoded)


def _values(feature: Any, kind: str, name: str) -> Any:
    known = feature.WhichOneof("kind")
    if known not in (None, kind):
        raise _mixed(name, known)
    return getattr(feature, kind).value


def _mixed(name: str, known: str) -> ServingError:
    return invalid_argument(f"Unexpected element type in feature: {name} expecting type: {_KINDS[known]}")
