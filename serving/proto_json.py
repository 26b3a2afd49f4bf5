"""Protos as JSON, as TF Serving prints status and metadata: one space of indentation, every default spelled out."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

__all__ = ["metadata_json", "to_json"]

_INT64 = (
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_UINT64,
    FieldDescriptor.TYPE_SINT64,
    FieldDescriptor.TYPE_FIXED64,
    FieldDescriptor.TYPE_SFIXED64,
)


def to_json(message: Any) -> str:
    """A message as TF Serving prints it: proto field names, 64-bit integers as strings, defaults included."""
    return json.dumps(_message(message), indent=1, ensure_ascii=False) + "\n"


def metadata_json(model_spec: Any, signatures: Any) -> str:
    """The body of a metadata answer, put together from two messages as TF Serving does.

    Args:
        model_spec: The ModelSpec.
        signatures: The SignatureDefMap.
    """
    return f'{{\n"model_spec":{to_json(model_spec)},\n"metadata": {{"signature_def": {to_json(signatures)}}}\n}}\n'


def _message(message: Any) -> Any:
    if message.DESCRIPTOR.full_name == "google.protobuf.Int64Value":
        return str(message.value)
    plain: dict[str, Any] = {}
    nested: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if _is_map(field):
            plain[field.name] = _map(field, getattr(message, field.name))
        elif _is_repeated(field):
            plain[field.name] = [_value(field, item) for item in getattr(message, field.name)]
        elif field.message_type is not None:
            if message.HasField(field.name):
                nested[field.name] = _message(getattr(message, field.name))
        elif field.containing_oneof is None or message.HasField(field.name):
            plain[field.name] = _value(field, getattr(message, field.name))
    return {**plain, **nested}


def _is_repeated(field: Any) -> bool:
    # protobuf 6 deprecates `label`; protobuf 3 has nothing else.
    known = getattr(field, "is_repeated", None)
    return bool(known) if known is not None else field.label == FieldDescriptor.LABEL_REPEATED


def _is_map(field: Any) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _map(field: Any, entries: Mapping[Any, Any]) -> dict[str, Any]:
    value = field.message_type.fields_by_name["value"]
    return {str(key): _value(value, entries[key]) for key in sorted(entries)}


def _value(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return _message(value)
    if field.enum_type is not None:
        number = field.enum_type.values_by_number.get(value)
        return number.name if number is not None else value
    if field.type in _INT64:
        return str(value)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return base64.b64encode(value).decode("ascii")
    return value
