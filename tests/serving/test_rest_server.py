"""The REST door beyond the recordings: routing, HTTP's corners, JSON's corners, numbers, features."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.serving import conversation
from tests.serving.conversation import Conversation

NOT_FOUND = b"<HTML><HEAD>\n<TITLE>404 Not Found</TITLE>\n</HEAD><BODY>\n<H1>Not Found</H1>\n</BODY></HTML>\n"


def error_of(body: bytes) -> str:
    text = json.loads(body)["error"]
    assert body == ('{\n    "error": ' + json.dumps(text, ensure_ascii=False) + "\n}").encode()
    return str(text)


def raw(server: Conversation, data: bytes, *more: bytes) -> bytes:
    """What comes back for bytes as they are, until the server closes or is silent."""
    with socket.create_connection(("127.0.0.1", server.rest_port), 10) as connection:
        connection.sendall(data)
        for part in more:
            connection.sendall(part)
        connection.settimeout(1.0)
        parts = []
        try:
            while part := connection.recv(65536):
                parts.append(part)
        except TimeoutError:
            pass
    return b"".join(parts)


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("GET", "/", 404, NOT_FOUND),
        ("GET", "/v1", 404, NOT_FOUND),
        ("POST", "/v2/models/tide:predict", 404, NOT_FOUND),
        ("GET", "/monitoring/prometheus/metrics", 404, NOT_FOUND),
        ("GET", "/v1/models", 400, "Missing model name in request."),
        ("GET", "/V1/Models", 400, "Missing model name in request."),
        ("GET", "/v1/models/half?x=1", 404, "Could not find any versions of model half?x=1"),
        ("GET", "/v1/models/half?", 404, "Could not find any versions of model half?"),
        ("GET", "/v1/models/half%3a1", 404, "Could not find any versions of model half:1"),
        ("GET", "/v1/models/%zz", 400, None),
        ("PUT", "/v1/models/tide", 400, "Malformed request: PUT /v1/models/tide"),
        ("PATCH", "/v1/models/tide", 400, "Malformed request: PATCH /v1/models/tide"),
        ("DELETE", "/v1/models/tide", 400, "Malformed request: DELETE /v1/models/tide"),
        ("POST", "/v1/models/tide:PREDICT", 400, "Malformed request: POST /v1/models/tide:PREDICT"),
        ("POST", "/v1/models/tide", 400, "Malformed request: POST /v1/models/tide"),
        ("POST", "/v1/models/tide:predict?a=b", 400, "Malformed request: POST /v1/models/tide:predict?a=b"),
        ("GET", "/v1/models/tide/", 400, "Malformed request: GET /v1/models/tide/"),
        ("GET", "/v1/models/tide/versions/x", 400, "Malformed request: GET /v1/models/tide/versions/x"),
        ("GET", "/v1/models/tide/versions/9223372036854775808", 400, b""),
        ("GET", "/v1/models/tide/versions/9223372036854775807", 404,
         "Could not find version 9223372036854775807 of model tide"),
        ("GET", "/v1/metadata", 400, "Malformed request: GET /v1/metadata"),
    ],
)  # fmt: skip
def test_routing(golden_server: Conversation, method: str, path: str, status: int, body: str | bytes | None) -> None:
    got, headers, answer = golden_server.http(method, path, {}, b"" if method == "POST" else None)
    assert got == status
    if isinstance(body, str):
        assert error_of(answer) == body
    elif body is not None:
        assert answer == body
    if body == NOT_FOUND:
        assert headers["Connection"].lower() == "close"
        assert headers["Content-Type"] == "text/html"
    elif body is not None:
        assert headers["Content-Type"] == "application/json"


def test_percent_encoded_names_and_case(golden_server: Conversation) -> None:
    assert golden_server.post("t%69de/labels/e%62b:predict", {"instances": [1]})[0] == 200
    assert golden_server.http("GET", "/V1/MODELS/tide/VERSIONS/1/metadata")[0] == 200
    # The verb's case counts after all: this is a status, not metadata.
    assert b"model_version_status" in golden_server.http("GET", "/v1/models/tide/METADATA")[2]


def test_head_has_no_body(golden_server: Conversation) -> None:
    status, headers, body = golden_server.http("HEAD", "/v1/models/tide")
    assert (status, body, headers["Content-Type"]) == (400, b"", "application/json")


@pytest.mark.parametrize("method", ["TRACE", "BREW", "PROPFIND"])
def test_methods_that_are_not_known(golden_server: Conversation, method: str) -> None:
    answer = raw(golden_server, f"{method} /v1/models/tide HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 501 ")
    assert answer.endswith(
        b"<TITLE>501 Not Implemented</TITLE>\n</HEAD><BODY>\n<H1>Not Implemented</H1>\n</BODY></HTML>\n"
    )


def test_options(golden_server: Conversation) -> None:
    assert golden_server.http("OPTIONS", "/v1/models/tide:predict", {"Origin": "https://a.example"})[::2] == (200, b"")
    assert golden_server.http("OPTIONS", "/v1/models/tide:predict")[::2] == (400, b"")
    kind = golden_server.http("OPTIONS", "/v1/models/tide:predict")[1]["Content-Type"]
    assert kind == "text/html; charset=ISO-8859-1"
    assert golden_server.http("OPTIONS", "/v1/models/tide:predict", {"Origin": "file:"})[::2] == (400, b"")


def test_cors_headers_come_with_errors_too(golden_models: Path, tmp_path: Path) -> None:
    setup: dict[str, Any] = {
        "flags": ["--model_name=tide", "--model_base_path=$MODELS/tide", "--rest_api_enable_cors_support"],
        "files": {},
        "wait_for": ["tide"],
    }
    with conversation.talk(setup, golden_models, tmp_path) as server:
        for method, path in [("GET", "/v1/models/tide"), ("GET", "/v1/models/x"), ("OPTIONS", "/v1/models/tide")]:
            headers = server.http(method, path, {"Origin": "http://a.example"})[1]
            assert headers["Access-Control-Allow-Origin"] == "*"
            assert headers["Access-Control-Allow-Methods"] == "POST, GET"
            assert headers["Access-Control-Allow-Headers"] == "Content-Type"


def test_connections_are_kept_after_refusals_and_http_1_0_works(golden_server: Conversation) -> None:
    bad = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
    good = b"GET /v1/models/tide/versions/2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answers = raw(golden_server, bad, good)
    assert answers.count(b"HTTP/1.1 ") == 2
    assert b'"AVAILABLE"' in answers
    assert b'"AVAILABLE"' in raw(golden_server, b"GET /v1/models/tide HTTP/1.0\r\n\r\n")
    kept = b"GET /v1/models/tide HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    answers = raw(golden_server, kept, b"GET /elsewhere HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert answers.count(b"connection: keep-alive") == 1
    assert answers.count(b"HTTP/1.0 ") == 2
    assert b"HTTP/1.1" not in answers


def test_a_client_that_offers_http_2_is_answered_in_http_1(golden_server: Conversation) -> None:
    """Java's client does so with its first request, body and all."""
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\nUpgrade: h2c\r\n"
    body = b'{"instances": [1.5]}'
    ask = b"POST /v1/models/tide:predict HTTP/1.1\r\n" + offer + b"Content-Length: %d\r\n\r\n" % len(body) + body
    answers = raw(golden_server, ask, b"GET /v1/models/tide HTTP/1.1\r\n" + offer + b"\r\n")
    assert answers.count(b"HTTP/1.1 200 ") == 2
    assert b"[152.0" in answers


def test_ipv6(golden_server: Conversation) -> None:
    if not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    connection = http.client.HTTPConnection("::1", golden_server.rest_port, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", "/v1/models/tide")
        assert connection.getresponse().status == 200


def test_chunked_bodies_and_expect(golden_server: Conversation) -> None:
    head = b"POST /v1/models/tide:predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    chunks = b'5\r\n{"ins\r\n12\r\ntances": [1.5]}   \r\n0\r\n\r\n'
    assert b"[152.0" in raw(golden_server, head + b"Transfer-Encoding: chunked\r\n\r\n", chunks)
    body = b'{"instances": [1.5]}'
    expecting = head + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
    with socket.create_connection(("127.0.0.1", golden_server.rest_port), 60) as connection:
        connection.sendall(expecting)
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK")
    assert raw(golden_server, expecting + body).startswith(b"HTTP/1.1 200 OK"), "it did not wait to be asked"
    assert raw(golden_server, expecting.replace(b"100-continue", b"more")).startswith(b"HTTP/1.1 417 ")


def test_gzip(golden_server: Conversation) -> None:
    def post(body: bytes) -> tuple[int, bytes]:
        return golden_server.http("POST", "/v1/models/tide:predict", {"Content-Encoding": "x-gzip"}, body)[::2]

    assert post(gzip.compress(b'{"instances": [1]}')) == (200, b'{\n    "predictions": [102.0\n    ]\n}')
    empty = b'{\n    "error": "JSON Parse error: The document is empty"\n}'
    assert post(b"no gzip at all") == (400, empty)
    assert post(gzip.compress(b'{"instances": [1]}') + gzip.compress(b" ")) == (400, empty)
    assert post(gzip.compress(b'{"instances": [1]}')[:-9]) == (400, empty)
    assert post(gzip.compress(b" " * (101 << 20), 1)) == (400, empty)


def test_what_is_not_http_is_refused(golden_server: Conversation) -> None:
    for nonsense in (b"hello\r\n\r\n", b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET /v1/models/a b HTTP/1.1\r\n\r\n"):
        answer = raw(golden_server, nonsense)
        assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 ")), (nonsense, answer)
    for target in (b"/v1/models/{tide}", b"/v1/models/tide#a#b", b"/v1/models/tide[0]"):
        assert raw(golden_server, b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert raw(golden_server, b"GET /v1/models/tide HTTP/2.0\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    many = b"GET /v1/models/tide HTTP/1.1\r\n" + b"X-Long: " + b"a" * 60_000 + b"\r\n"
    assert raw(golden_server, many + many[30:] * 20).startswith(b"HTTP/1.1 400 ")
    huge = b"POST /v1/models/tide:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n"
    assert raw(golden_server, huge).startswith(b"HTTP/1.1 413 ")


def test_half_sent_requests_and_idle_connections_harm_nobody(golden_server: Conversation) -> None:
    half = b'POST /v1/models/tide:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"instances": ['
    idle = [socket.create_connection(("127.0.0.1", golden_server.rest_port), 10) for _ in range(100)]
    try:
        for connection in idle[::2]:
            connection.sendall(half)
        assert golden_server.post("tide:predict", {"instances": [1]})[0] == 200
    finally:
        for connection in idle:
            connection.close()
    assert golden_server.post("tide:predict", {"instances": [1]})[0] == 200


def test_clients_that_never_read_harm_nobody(golden_server: Conversation) -> None:
    body = json.dumps({"inputs": ["x" * 1000] * 500, "signature_name": "plain"}).encode()
    ask = b"POST /v1/models/parrot:predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    deaf = []
    try:
        for _ in range(8):  # each sends until nobody takes more, and reads nothing
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", golden_server.rest_port))
            connection.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                for _ in range(50):
                    connection.sendall(ask)
            deaf.append(connection)
        assert golden_server.post("tide:predict", {"instances": [1]})[0] == 200
    finally:
        for connection in deaf:
            connection.close()
    assert golden_server.post("tide:predict", {"instances": [1]})[0] == 200


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("", "JSON Parse error: The document is empty"),
        ("  ", "JSON Parse error: The document is empty. at offset: 2"),
        ("[1]", "JSON Value: [\n    1\n] Is not object"),
        ("12", "JSON Value: 12 Is not object"),
        ('"x"', 'JSON Value: "x" Is not object'),
        ("NaN", "JSON Value: NaN Is not object"),
        ("[NaN, 1]", "JSON Value: [\n     Is not object"),
        ("nan", "JSON Parse error: Invalid value. at offset: 1"),
        ('{"instances": [1]} 2',
         "JSON Parse error: The document root must not be followed by other values. at offset: 19"),
        ('{"instances": [01]}', "JSON Parse error: Missing a comma or ']' after an array element. at offset: 16"),
        ('{"instances": [.5]}', "JSON Parse error: Invalid value. at offset: 15"),
        ('{"instances": [+1]}', "JSON Parse error: Invalid value. at offset: 15"),
        ('{"instances": [1.]}', "JSON Parse error: Miss fraction part in number. at offset: 17"),
        ('{"instances": [1e]}', "JSON Parse error: Miss exponent in number. at offset: 17"),
        ('{"instances": [1e400]}', "JSON Parse error: Number too big to be stored in double. at offset: 15"),
        ('{"instances": [1' + "0" * 400 + "]}",
         "JSON Parse error: Number too big to be stored in double. at offset: 15"),
        ("{'instances': [1]}", "JSON Parse error: Missing a name for object member. at offset: 1"),
        ('{"instances" [1]}', "JSON Parse error: Missing a colon after a name of object member. at offset: 13"),
        ('{"instances": ["a\nb"]}', "JSON Parse error: Invalid escape character in string. at offset: 17"),
        ('{"instances": ["\\x"]}', "JSON Parse error: Invalid escape character in string. at offset: 16"),
        ('{"instances": ["\\u12g4"]}',
         "JSON Parse error: Incorrect hex digit after \\u escape in string. at offset: 16"),
        ('{"instances": ["\\ud800"]}', "JSON Parse error: The surrogate pair in string is invalid. at offset: 16"),
        ('{"instances": ["a', "JSON Parse error: Missing a closing quotation mark in string. at offset: 17"),
        ('{"instances": [1] /* no */}', "JSON Parse error: Missing a comma or '}' after an object member. at offset: 18"),  # noqa: E501
        ("{}", "Missing 'inputs' or 'instances' key"),
        ('{"signature_name": 5, "instances": [1]}',
         ('JSON Value: {\n    "signature_name": 5,\n    "instances": [\n        1\n    ]\n} not formatted correctly. '
         "'signature_name' key must be a string value.")),
        ('{"instances": {"hours": 1}}',
         'JSON Value: {\n    "instances": {\n        "hours": 1\n    }\n} Expecting \'instances\' to be an list/array'),
        ('{"instances": [[1], 2]}', ("Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
         "Expecting shape [1] but got: []")),
        ('{"instances": [[1, 2], [[3, 4]]]}', ("Failed to process element: 1 of 'instances' list. Error: "
         "INVALID_ARGUMENT: Expecting shape [2] but got: [1,2]")),
        ('{"instances": [{"hours": 1}, 2]}', "Expecting object but got list at item 1 of input list"),
        ('{"instances": [1, {"hours": 2}]}', "Expecting value/list but got object at item 1 of input list"),
        ('{"instances": [1, [[2], 3]]}', ("Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
         "JSON Value: 3 found at incorrect level: 2 in the JSON DOM. Expected at level: 2")),
        ('{"instances": [[1, [2]]]}', ("Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: "
         "Encountered list at unexpected level: 1 expected < 1")),
        ('{"instances": [{}]}', ("Failed to process element: 0 of 'instances' list. JSON object: {} keys must be equal "
         "to: hours")),
        ('{"instances": [{"b64": 5}]}', ("Failed to process element: 0 key: b64 of 'instances' list. Error: "
         "INVALID_ARGUMENT: JSON object: does not have named input: b64")),
        ('{"instances": [{"b64": "AA=="}]}', ("Failed to process element: 0 of 'instances' list. Error: "
         'INVALID_ARGUMENT: JSON Value: {\n    "b64": "AA=="\n} Type: Object is not of expected type: float')),
        ('{"instances": [null]}', ("Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: JSON "
         "Value: null Type: Null is not of expected type: float")),
        ('{"instances": [true]}', ("Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: JSON "
         "Value: true Type: True is not of expected type: float")),
        ('{"inputs": {"hours": {"x": [1e30, -0.5, 12345678]}}}', ('JSON Value: {\n    "x": [\n        1e30,\n        '
         "-0.5,\n        12345678\n    ]\n} Type: Object is not of expected type: float")),
        ('{"inputs": {"minutes": 1}}', "Missing named input: hours in 'inputs' object."),
    ],
)  # fmt: skip
def test_refused_predict_requests(golden_server: Conversation, body: str, error: str) -> None:
    status, answer = golden_server.post("tide:predict", body)
    assert (status, error_of(answer)) == (400, error)


def test_bad_json_comes_before_an_unknown_model(golden_server: Conversation) -> None:
    assert golden_server.post("compass:predict", "{")[0] == 400
    assert golden_server.post("compass:predict", "{}")[0] == 404
    assert golden_server.post("compass:regress", '{"examples": [1]}')[0] == 400


@pytest.mark.parametrize(
    ("model", "body", "answer"),
    [
        ("tide", '\ufeff{"instances": [1]}', '"predictions": [102.0\n    ]'),
        ("tide", '{"instances": [1], "instances": [2], "x": {"y": [[]]}}', '"predictions": [102.0\n    ]'),
        ("tide", '{"instances": [Inf, -Inf, Infinity]}', '"predictions": [Infinity, -Infinity, Infinity\n    ]'),
        ("tide", '{"instances": [1e300, -1e300]}', '"predictions": [Infinity, -Infinity\n    ]'),
        ("tide", '{"inputs": 1}', '"outputs": 102.0'),
        ("tide", '{"inputs": []}', '"outputs": []'),
        ("gauge", '{"signature_name": "octet", "instances": [256, -1, 511]}', '"predictions": [0, 255, 255\n    ]'),
        ("gauge", '{"signature_name": "single", "instances": [[], []]}', '"predictions": [[], []\n    ]'),
        ("gauge", '{"signature_name": "single", "inputs": [[[]], [[]]]}',
         '"outputs": [\n        [\n            []\n        ],\n        [\n            []\n        ]\n    ]'),
        ("gauge", '{"signature_name": "double", "instances": [1e22, 0.3333333333333333, 20000000000000000000]}',
         '"predictions": [1e+22, 0.33333333333333331, 2e+19\n    ]'),
        ("gauge", '{"signature_name": "single", "instances": [9000000, 999999, 16777216, -0.0, -1e-45]}',
         '"predictions": [9e+06, 999999.0, 16777216.0, -0.0, -0.0\n    ]'),
        ("gauge", '{"signature_name": "whole", "instances": [[[1, 2]], [[3, 4]]]}',
         '"predictions": [[[1, 2]], [[3, 4]]\n    ]'),
        ("parrot", '{"signature_name": "plain", "instances": ["\\u0001\\u001f\\b\\f/\\u007f\\u00e9"]}',
         '"predictions": ["\\u0001\\u001F\\b\\f/\x7f\u00e9"\n    ]'),
        ("parrot", '{"signature_name": "plain", "inputs": "alone"}', '"outputs": "alone"'),
        ("parrot", '{"signature_name": "raw", "inputs": {"phrase": {"b64": "YQ=="}}}',
         '"outputs": {\n        "b64": "YQ=="\n    }'),
        ("parrot", '{"signature_name": "plain", "inputs": [{"b64": "YQ"}, {"b64": "YQ=="}, {"b64": " Y Q = = "}]}',
         '"outputs": [\n        "a",\n        "a",\n        "a"\n    ]'),
    ],
)  # fmt: skip
def test_accepted_predict_requests(golden_server: Conversation, model: str, body: str, answer: str) -> None:
    status, got = golden_server.post(f"{model}:predict", body)
    assert (status, got.decode()) == (200, "{\n    " + answer + "\n}")


def test_bytes_that_are_not_utf_8_pass_through(golden_server: Conversation) -> None:
    body = b'{"signature_name": "plain", "instances": ["\xff\xfe \xe9"]}'
    assert golden_server.post("parrot:predict", body) == (200, b'{\n    "predictions": ["\xff\xfe \xe9"\n    ]\n}')
    status, answer = golden_server.post("parrot:predict", b'{"signature_name": "\xff", "instances": ["x"]}')
    assert (status, answer) == (
        400,
        b'{\n    "error": "Serving signature name: \\"\xff\\" not found in signature def"\n}',
    )


def test_messages_that_quote_bytes_pass_them_through(golden_server: Conversation) -> None:
    status, answer = golden_server.post("slope:predict", '{"instances": [{"b64": "gP+A"}]}')
    assert status == 400
    assert answer.startswith(b'{\n    "error": "Could not parse example input, value: \'\x80\xff\x80\'\\n')


@pytest.mark.parametrize("bad", ["-_==", "YQ=", "Y", "YQ===", "YQ=Q", "\\u00e9"])
def test_base64_is_standard_and_padded_rightly_or_not_at_all(golden_server: Conversation, bad: str) -> None:
    body = f'{{"signature_name": "plain", "inputs": [{{"b64": "{bad}"}}]}}'
    status, answer = golden_server.post("parrot:predict", body)
    assert (status, error_of(answer)) == (400, "Unable to base64 decode")


@pytest.mark.parametrize(
    ("signature", "value"),
    [("whole", "1.0"), ("whole", "2147483648"), ("octet", "2147483648"), ("whole", "true"), ("invert", "1")],
)
def test_integers_and_bools_want_their_tokens(golden_server: Conversation, signature: str, value: str) -> None:
    status, answer = golden_server.post("gauge:predict", f'{{"signature_name": "{signature}", "inputs": [{value}]}}')
    assert status == 400
    assert error_of(answer).startswith(f"JSON Value: {value} Type: ")


def test_deep_nesting_and_huge_numbers_harm_nobody(golden_server: Conversation) -> None:
    deep = '{"instances": [' + "[" * 300_000 + "]" * 300_000 + "]}"
    status, _ = golden_server.post("tide:predict", deep)
    assert status == 400
    status, answer = golden_server.post("tide:predict", '{"x": ' + "[" * 100_000)
    assert (status, error_of(answer)) == (400, "JSON Parse error: Invalid value. at offset: 100006")
    assert golden_server.post("tide:predict", '{"instances": [0.%s1]}' % ("0" * 100_000))[0] == 200
    assert golden_server.post("tide:predict", '{"instances": [1e-%s]}' % ("9" * 10_000))[0] == 200


@pytest.mark.parametrize(
    ("target", "body", "error"),
    [
        ("slope:regress", '{"signature_name": "climb", "examples": [1]}',
         "Example must be JSON object but got JSON Number"),
        ("slope:classify", '{"signature_name": "terrain", "examples": {"run": 1}}',
         ('JSON Value: {\n    "signature_name": "terrain",\n    "examples": {\n        "run": 1\n    }\n} '
         "Expecting 'examples' value to be an list/array")),
        ("slope:regress", '{"signature_name": "climb", "context": 3, "examples": [{}]}',
         "Example must be JSON object but got JSON Number"),
        ("slope:regress", '{"signature_name": "climb", "examples": [{"run": [1, 2.5]}]}',
         "Unexpected element type in feature: run expecting type: int64"),
        ("slope:regress", '{"signature_name": "climb", "examples": [{"run": [1.5, "x"]}]}',
         "Unexpected element type in feature: run expecting type: float"),
        ("slope:regress", '{"signature_name": "climb", "examples": [{"run": ["x", true]}]}',
         "Unexpected element type in feature: run expecting type: bytes"),
        ("slope:regress", '{"signature_name": "climb", "examples": [{"run": null}]}',
         "Feature: run has element with unexpected JSON type: Null"),
        ("slope:regress", '{"signature_name": "climb", "examples": [{"run": [[1.0]]}]}',
         "Feature: run has element with unexpected JSON type: Array"),
        ("slope:regress", '{"signature_name": "climb", "examples": [{"run": {"b64": 1}}]}',
         "Feature: run has element with unexpected JSON type: Object"),
        ("slope:regress", '{"signature_name": "climb", "examples": [{"run": 9223372036854775808}]}',
         "Feature: run has uint64_t element. Only int64_t is supported."),
        ("slope:regress", '{"signature_name": "climb", "examples": [{"run": {"b64": "-"}}]}',
         "Unable to base64 decode"),
        ("slope:classify", '{"signature_name": "direct", "examples": [{"run": 1.0}]}', None),
        ("slope:regress", '{"signature_name": "nowhere", "examples": [{"run": 1.0}]}',
         "No signature was found with the name: nowhere"),
        ("gauge:classify", '{"examples": [{"run": 1.0}]}', "Expected one or two output Tensors, found 4"),
        ("ledger:classify", '{"examples": [{"run": 1.0}]}', "Expected one input Tensor."),
        ("gauge:regress", '{"examples": [{"run": 1.0}]}', "Expected one output Tensor."),
    ],
)  # fmt: skip
def test_refused_examples(golden_server: Conversation, target: str, body: str, error: str | None) -> None:
    status, answer = golden_server.post(target, body)
    assert status == 400
    if error is not None:
        assert error_of(answer) == error
    else:
        assert error_of(answer).startswith("No classification inputs found in SignatureDef: inputs {")


def test_whole_numbers_are_no_floats_in_examples(golden_server: Conversation) -> None:
    status, answer = golden_server.post("slope:regress", '{"signature_name": "climb", "examples": [{"run": 2}]}')
    assert status == 400
    assert "Data types don't match. Data type: int64 but expected type: float" in error_of(answer)
    # The last of two features of one name counts, and an empty list is no value.
    twice = '{"signature_name": "climb", "examples": [{"run": 2.0, "run": 6.0, "bias": []}]}'
    assert golden_server.post("slope:regress", twice) == (200, b'{\n    "results": [6.0]\n}')


def test_many_clients_at_once_get_their_own_answers(golden_server: Conversation) -> None:
    wrong = []

    def ask(number: int) -> None:
        for step in range(10):
            value = number * 10 + step
            status, body = golden_server.post("tide/versions/1:predict", {"instances": [value]})
            if (status, json.loads(body)) != (200, {"predictions": [value * 10.0 + 1.0]}):
                wrong.append((value, status, body))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_answers_on_a_kept_connection_do_not_wait_for_acknowledgements(golden_server: Conversation) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", golden_server.rest_port, timeout=60)
    took = []
    for _ in range(20):
        begun = time.perf_counter()
        connection.request("POST", "/v1/models/tide:predict", b'{"instances": [1]}')
        assert connection.getresponse().read()
        took.append(time.perf_counter() - begun)
    connection.close()
    assert min(took) < 0.03, "Nagle's algorithm with delayed acknowledgements costs 40 ms"
