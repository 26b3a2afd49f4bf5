"""The document beside what the server really takes and answers."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.inspection import inspect
from serving.openapi import document
from serving.targets import parse

jsonschema = pytest.importorskip("jsonschema")

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


@pytest.fixture(scope="module")
def told(served):
    return document(inspect(served["path"]), name="tiny", url=parse(served["http"]).url.partition("/v1")[0])


@pytest.fixture(scope="module")
def rest(told):
    with httpx.Client(base_url=told["servers"][0]["url"], timeout=120, trust_env=False) as client:
        yield client


def valid(told, schema, value):
    whole = {**schema, "components": told["components"]}
    checker = jsonschema.Draft202012Validator(whole)
    return checker.is_valid(value)


def body_schema(told, path):
    return told["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]


def answer_schema(told, path, method="post", code="200"):
    return told["paths"][path][method]["responses"][code]["content"]["application/json"]["schema"]


def b64(data):
    return {"b64": base64.b64encode(data).decode()}


def test_every_schema_is_one(told):
    for name, schema in told["components"]["schemas"].items():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert {f"{key}.instance" for key in ("serving_default", "pixels", "classify")} <= set(
            told["components"]["schemas"]
        ), name
    assert told["openapi"] == "3.1.0"
    assert told["info"]["title"] == "tiny: image-classification"
    assert told["info"]["version"] == "1"


def test_every_reference_leads_somewhere(told):
    def references(value):
        if isinstance(value, dict):
            if "$ref" in value:
                yield value["$ref"]
            for item in value.values():
                yield from references(item)
        elif isinstance(value, list):
            for item in value:
                yield from references(item)

    found = set(references(told))
    assert found == {f"#/components/schemas/{name}" for name in told["components"]["schemas"]}


PREDICT = "/v1/models/tiny:predict"


@pytest.mark.parametrize("form", ["rows", "named rows", "columns", "bare columns"])
@pytest.mark.parametrize("signature", [None, "serving_default", "preprocess", "from_examples"])
def test_what_it_describes_is_what_is_taken_and_answered(told, rest, photos, form, signature):
    from serving.messages import example

    name = "examples" if signature == "from_examples" else "image_bytes"
    images = [b64(example({"image/encoded": photo}) if name == "examples" else photo) for photo in photos[2:]]
    body = {
        "rows": {"instances": images},
        "named rows": {"instances": [{name: image} for image in images]},
        "columns": {"inputs": {name: images}},
        "bare columns": {"inputs": images},
    }[form]
    if signature:
        body["signature_name"] = signature
    assert valid(told, body_schema(told, PREDICT), body)
    response = rest.post(PREDICT, json=body)
    assert response.status_code == 200, response.text
    assert valid(told, answer_schema(told, PREDICT), response.json())


def test_pixels_and_tensors(told, rest):
    pixels = np.zeros((2, 4, 5, 3), int).tolist()
    tensors = np.zeros((1, 3, 32, 32)).tolist()
    for body in (
        {"signature_name": "pixels", "instances": pixels},
        {"signature_name": "pixels", "inputs": {"pixels": pixels}},
        {"signature_name": "model", "inputs": tensors},
    ):
        assert valid(told, body_schema(told, PREDICT), body)
        response = rest.post(PREDICT, json=body)
        assert response.status_code == 200, response.text
        assert valid(told, answer_schema(told, PREDICT), response.json())


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"instances": []},
        {"instances": [{"image": "x"}]},
        {"instances": [{"b64": "eA=="}], "inputs": [{"b64": "eA=="}]},
        {"instances": "x"},
        {"instances": [3]},
        {"inputs": {"other": ["x"]}},
        {"signature_name": "nobody", "instances": ["x"]},
        {"signature_name": "pixels", "instances": [[[[0.5, 0, 0]]]]},
        {"signature_name": "pixels", "instances": [[[[0, 0, "x"]]]]},
    ],
)
def test_what_it_forbids_is_refused_as_it_says(told, rest, body):
    assert not valid(told, body_schema(told, PREDICT), body)
    response = rest.post(PREDICT, json=body)
    assert response.status_code == 400, response.text
    assert valid(told, answer_schema(told, PREDICT, code="400"), response.json())


def values_of(schema: Any, told: Any) -> st.SearchStrategy[Any]:
    """What a schema of the document allows, bounded in size."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name == "Bytes":
            return st.binary(max_size=30).map(b64)
        return values_of(told["components"]["schemas"][name], told)
    if "anyOf" in schema:
        return st.one_of([values_of(each, told) for each in schema["anyOf"]])
    if "const" in schema or "enum" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    if schema["type"] == "object":
        members = {name: values_of(each, told) for name, each in schema["properties"].items()}
        needed = {name: member for name, member in members.items() if name in schema["required"]}
        return st.fixed_dictionaries(
            needed, optional={name: member for name, member in members.items() if name not in needed}
        )
    if schema["type"] == "array":
        least = schema.get("minItems", 0)
        return st.lists(values_of(schema["items"], told), min_size=least, max_size=min(schema.get("maxItems", 3), 32))
    return {
        "string": st.text(max_size=8),
        "integer": st.integers(schema.get("minimum"), schema.get("maximum")),
        "number": st.floats(width=32, allow_nan=False, allow_infinity=False),
        "boolean": st.booleans(),
    }[schema["type"]]


def posts(told: Any) -> list[tuple[str, Any]]:
    paths = {path: methods["post"] for path, methods in told["paths"].items() if "post" in methods}
    return list(paths.items())


@given(st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_it_allows_is_answered_as_it_says(told: Any, rest: Any, data: st.DataObject) -> None:
    path, post = data.draw(st.sampled_from(posts(told)))
    schema = post["requestBody"]["content"]["application/json"]["schema"]
    body = data.draw(values_of(schema, told) | JSON)
    response = rest.post(path.format(version=1, label="stable"), content=json.dumps(body).encode())
    # What is ragged, of another size, or not in the document at all is refused; nothing fails.
    code = str(response.status_code)
    assert code in ("200", "400"), (body, response.text)
    answer = json.loads(response.content.decode("utf-8", "replace"))  # errors quote what came, whatever it was
    assert valid(told, answer_schema(told, path, code=code), answer), (body, response.text)


def test_classify_status_and_metadata(told, rest, photos):
    path = "/v1/models/tiny:classify"
    body = {"signature_name": "classify", "examples": [{"image/encoded": b64(photos[2])}]}
    assert valid(told, body_schema(told, path), body)
    response = rest.post(path, json=body)
    assert response.status_code == 200, response.text
    assert valid(told, answer_schema(told, path), response.json())
    for path in ("/v1/models/tiny", "/v1/models/tiny/metadata"):
        assert valid(told, answer_schema(told, path, "get"), rest.get(path).json())
    assert not valid(told, answer_schema(told, "/v1/models/tiny", "get"), {"model_version_status": [{}]})
    missing = rest.get("/v1/models/nobody")
    assert missing.status_code == 404
    assert valid(told, answer_schema(told, "/v1/models/tiny", "get", "404"), missing.json())


def test_one_version(told, rest, photos):
    path = "/v1/models/tiny/versions/{version}:predict"
    assert told["paths"][path]["post"]["parameters"][0]["name"] == "version"
    body = {"instances": [b64(photos[3])]}
    assert rest.post(path.format(version=1), json=body).status_code == 200
    assert rest.post(path.format(version=7), json=body).status_code == 404
    assert rest.post("/v1/models/tiny/labels/nobody:predict", json=body).status_code == 400
    ids = [operation["operationId"] for methods in told["paths"].values() for operation in methods.values()]
    assert len(set(ids)) == len(ids) == 12


def test_an_independent_reader_finds_no_fault_with_it(told):
    validator = pytest.importorskip("openapi_spec_validator")
    validator.validate(told)


def test_a_model_with_odd_names_is_described_too(told, served):
    validator = pytest.importorskip("openapi_spec_validator")
    inspection = inspect(served["path"])
    odd = dict(zip(("a b", "a/b", "ü"), inspection.signatures.values(), strict=False))
    found = document(dataclasses.replace(inspection, signatures=odd, card=None), name="my model")
    validator.validate(found)
    assert "/v1/models/my%20model:predict" in found["paths"]
    assert len(found["components"]["schemas"]) == len(told["components"]["schemas"]) - 4 * (
        len(inspection.signatures) - 3
    )


@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_schemathesis_finds_no_answer_beside_it(told, mode):
    schemathesis = pytest.importorskip("schemathesis")
    from schemathesis.specs.openapi import checks

    # Left out: that all lists of an axis are of one length no JSON Schema says, so that what the document allows may be
    # refused; and other methods get TF Serving's own answers, not 405.
    left_out = [checks.positive_data_acceptance, checks.unsupported_method]
    loaded = schemathesis.openapi.from_dict(told)
    loaded.config.update(base_url=told["servers"][0]["url"])
    operations = [found.ok() for found in loaded.get_all_operations()]
    assert len(operations) == 12
    for operation in operations:
        if mode == "negative" and (operation.path_parameters or not operation.body):
            continue  # TF Serving refuses versions beyond 64 bits without a body, and a GET has nothing to get wrong

        @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode)))
        @settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
        def ask(case):
            response = case.call(timeout=120)
            # A model's overflow is answered in TF Serving's own words, which no reader of strict JSON takes.
            if not re.search(rb"\b(NaN|Infinity)\b", response.content):
                case.validate_response(response, excluded_checks=left_out)

        ask()
