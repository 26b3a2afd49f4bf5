"""An OpenAPI 3.1 document of a served model: TF Serving's REST API with the model's own tensors."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from serving.inspection import Inspection
from signatures.spec import CLASSIFY_METHOD, Signature, Tensor

__all__ = ["document"]

_DEFAULT = "serving_default"
_INTEGERS = {
    "int8": (-(2**7), 2**7 - 1), "int16": (-(2**15), 2**15 - 1), "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1), "uint8": (0, 2**8 - 1), "uint32": (0, 2**32 - 1), "uint64": (0, 2**64 - 1),
}  # fmt: skip
_FLOATS = ("float32", "float64")
_REFUSALS = {
    "400": "The request does not fit: its JSON, its signature or its inputs.",
    "404": "There is no such model or version.",
    "503": "The model's queue is full; try again later.",
    "504": "The deadline of the server has passed.",
}


@dataclass(frozen=True)
class _Way:
    """How a path says which version is meant.

    Args:
        path: What follows the model's name.
        suffix: What its operations' ids end in.
        phrase: What their summaries end in.
        parameters: Its OpenAPI parameters.
    """

    path: str = ""
    suffix: str = ""
    phrase: str = ""
    parameters: tuple[dict[str, Any], ...] = ()

    def on(self, operation: dict[str, Any]) -> dict[str, Any]:
        """The operation, asked of this version."""
        told = {
            **operation,
            "operationId": operation["operationId"] + self.suffix,
            "summary": operation["summary"] + self.phrase,
        }
        return {**told, "parameters": list(self.parameters)} if self.parameters else told


def _parameter(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": schema}


_WAYS = (
    _Way(),
    _Way(
        "/versions/{version}", "OfVersion", ", of one version",
        (_parameter("version", {"type": "integer", "minimum": 1, "maximum": 2**63 - 1}),),
    ),
    _Way(
        "/labels/{label}", "OfLabel", ", of the version that carries a label",
        (_parameter("label", {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"}),),
    ),
)  # fmt: skip


def document(inspection: Inspection, *, name: str, url: str = "http://localhost:8501") -> dict[str, Any]:
    """The document.

    Args:
        inspection: What `serving.inspection.inspect` read.
        name: The name that the model is served under (`--model_name`).
        url: Where the REST API listens.

    Returns:
        JSON values. Signatures with dtypes that the REST API does not carry (float16, complex, ...) are left out.
    """
    told = {key: signature for key, signature in inspection.signatures.items() if _carried(signature)}
    card = inspection.card
    model = f"/v1/models/{quote(name, safe='')}"
    classifying = [key for key, signature in told.items() if signature.method_name == CLASSIFY_METHOD]
    paths: dict[str, Any] = {}
    for way in _WAYS:
        at = f"{model}{way.path}"
        paths[at] = {"get": way.on(_operation("status", "The versions and their states", response=_ref("Status")))}
        metadata = _operation("metadata", "The signatures", response={"type": "object"})
        paths[f"{at}/metadata"] = {"get": way.on(metadata)}
        if told:
            paths[f"{at}:predict"] = {"post": way.on(_predict(told))}
        if classifying:
            paths[f"{at}:classify"] = {"post": way.on(_classify(classifying))}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"{name}: {card.task}" if card else name,
            "description": str(card.extra.get("description", "")) if card else "",
            "version": str(inspection.version or 0),
        },
        "servers": [{"url": url}],
        "paths": paths,
        "components": {"schemas": {**_COMMON, **_schemas(told)}},
    }


def _carried(signature: Signature) -> bool:
    tensors = [*signature.inputs.values(), *signature.outputs.values()]
    return all(tensor.dtype in (*_INTEGERS, *_FLOATS, "bool", "string") for tensor in tensors)


def _predict(told: Mapping[str, Signature]) -> dict[str, Any]:
    bodies = [body for key in told for body in _bodies(key)]
    answers = [_answer(_ref(_schema(key, "prediction")), _ref(_schema(key, "outputs"))) for key in told]
    flat = [answer for pair in answers for answer in pair]
    return _operation("predict", "Asks the model", body={"anyOf": bodies}, response={"anyOf": flat})


def _bodies(key: str) -> list[dict[str, Any]]:
    """The row form (`instances`) and the columnar one (`inputs`) of one signature."""
    forms = {
        "instances": {"type": "array", "minItems": 1, "items": _ref(_schema(key, "instance"))},
        "inputs": _ref(_schema(key, "inputs")),
    }
    optional = key == _DEFAULT
    return [
        {
            "type": "object",
            "description": f"{'By rows' if form == 'instances' else 'By columns'}, signature {key}",
            "properties": {"signature_name": {"const": key, "type": "string"}, form: schema},
            "required": [form] if optional else ["signature_name", form],
            "not": {"required": ["inputs" if form == "instances" else "instances"]},
        }
        for form, schema in forms.items()
    ]


def _answer(prediction: dict[str, Any], outputs: dict[str, Any]) -> list[dict[str, Any]]:
    rows = {"type": "array", "items": prediction}
    return [
        {"type": "object", "properties": {"predictions": rows}, "required": ["predictions"]},
        {"type": "object", "properties": {"outputs": outputs}, "required": ["outputs"]},
    ]


def _classify(signatures: list[str]) -> dict[str, Any]:
    # `prefixItems` would say that the label comes first, but not every reader of OpenAPI knows it.
    either = {"anyOf": [{"type": "string"}, {"type": "number"}]}
    pair = {"type": "array", "description": "label, score", "items": either, "minItems": 2, "maxItems": 2}
    example = {"type": "object", "properties": {"image/encoded": _ref("Bytes")}, "required": ["image/encoded"]}
    body = {
        "type": "object",
        "properties": {
            "signature_name": {"enum": signatures, "type": "string"},
            "examples": {"type": "array", "minItems": 1, "items": example},
        },
        "required": ["signature_name", "examples"],
    }
    results = {"type": "array", "items": {"type": "array", "items": pair}}
    response = {"type": "object", "properties": {"results": results}, "required": ["results"]}
    return _operation("classify", "Labels with scores of tf.Examples", body=body, response=response)


def _operation(
    name: str, summary: str, *, response: dict[str, Any], body: dict[str, Any] | None = None
) -> dict[str, Any]:
    def content(schema: dict[str, Any]) -> dict[str, Any]:
        return {"application/json": {"schema": schema}}

    refused = {code: {"description": told, "content": content(_ref("Error"))} for code, told in _REFUSALS.items()}
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": summary,
        "responses": {"200": {"description": "The answer", "content": content(response)}, **refused},
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": content(body)}
    return operation


def _schemas(told: Mapping[str, Signature]) -> dict[str, Any]:
    schemas: dict[str, Any] = {}
    for key, signature in told.items():
        ins = {name: _read(tensor) for name, tensor in signature.inputs.items()}
        outs = {name: _written(name, tensor) for name, tensor in signature.outputs.items()}
        schemas[_schema(key, "instance")] = _named(
            {name: _nested(leaf, signature.inputs[name], skip=1) for name, leaf in ins.items()}, closed=True, bare=True
        )
        schemas[_schema(key, "inputs")] = _named(
            {name: _nested(leaf, signature.inputs[name]) for name, leaf in ins.items()}, bare=True
        )
        schemas[_schema(key, "prediction")] = _named(
            {name: _nested(leaf, signature.outputs[name], skip=1) for name, leaf in outs.items()}, unwrapped=True
        )
        schemas[_schema(key, "outputs")] = _named(
            {name: _nested(leaf, signature.outputs[name]) for name, leaf in outs.items()}, unwrapped=True
        )
    return schemas


def _named(
    schemas: dict[str, Any], *, closed: bool = False, bare: bool = False, unwrapped: bool = False
) -> dict[str, Any]:
    """An object of tensors; one alone may stand without its name in a request, and always does in an answer."""
    single: dict[str, Any] | None = next(iter(schemas.values())) if len(schemas) == 1 else None
    if unwrapped and single is not None:
        return single
    named: dict[str, Any] = {"type": "object", "properties": schemas, "required": list(schemas)}
    if closed:
        named["additionalProperties"] = False
    return {"anyOf": [named, single]} if bare and single is not None else named


def _read(tensor: Tensor) -> dict[str, Any]:
    """One value of an input."""
    if tensor.dtype == "string":
        return {"anyOf": [_ref("Bytes"), {"type": "string"}]}
    return _number(tensor)


def _written(name: str, tensor: Tensor) -> dict[str, Any]:
    """One value of an output; TF Serving writes strings as base64 where the name ends in `_bytes`."""
    if tensor.dtype == "string":
        return _ref("Bytes") if name.endswith("_bytes") else {"type": "string"}
    return _number(tensor)


def _number(tensor: Tensor) -> dict[str, Any]:
    if tensor.dtype in _INTEGERS:
        low, high = _INTEGERS[tensor.dtype]
        return {"type": "integer", "minimum": low, "maximum": high}
    return {"type": "boolean"} if tensor.dtype == "bool" else {"type": "number"}


def _nested(leaf: dict[str, Any], tensor: Tensor, *, skip: int = 0) -> dict[str, Any]:
    """Arrays in arrays as the shape says; `skip` leaves out the batch."""
    schema = leaf
    for size in reversed(tensor.shape[skip:]):
        schema = {"type": "array", "items": schema}
        if size is not None:
            schema |= {"minItems": size, "maxItems": size}
    return {**schema, "description": tensor.meaning} if tensor.meaning and "$ref" not in schema else schema


def _schema(key: str, part: str) -> str:
    """The name of a schema of one signature; other characters than these OpenAPI does not take there."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", key)
    return f"{plain}.{part}" if plain == key else f"{plain}_{zlib.crc32(key.encode()):08x}.{part}"


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


_COMMON: dict[str, Any] = {
    "Error": {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]},
    "Bytes": {
        "type": "object",
        "description": "Any bytes, such as an image file, as base64",
        "properties": {"b64": {"type": "string", "contentEncoding": "base64"}},
        "required": ["b64"],
        "additionalProperties": False,
    },
    "Status": {
        "type": "object",
        "properties": {
            "model_version_status": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "version": {"type": "string", "pattern": "^[0-9]+$"},
                        "state": {"enum": ["UNKNOWN", "START", "LOADING", "AVAILABLE", "UNLOADING", "END"]},
                        "status": {
                            "type": "object",
                            "properties": {"error_code": {"type": "string"}, "error_message": {"type": "string"}},
                            "required": ["error_code", "error_message"],
                        },
                    },
                    "required": ["version", "state", "status"],
                },
            }
        },
        "required": ["model_version_status"],
    },
}
