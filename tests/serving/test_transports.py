"""What the ways to a model make of answers: failures in a person's words, and JSON that is none of TF Serving's."""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import threading

import numpy as np
import pytest

from serving import requests
from serving.async_client import connect_async
from serving.client import TargetError, connect
from serving.targets import parse
from serving.transports import http_transport
from serving.transports.base import RefusedError, explain
from signatures.errors import UsageError
from signatures.spec import Signature, Tensor

FULL = "The batch scheduling queue to which this task was submitted is full"


@pytest.mark.parametrize(
    ("code", "detail", "says"),
    [
        ("UNAVAILABLE", "failed to connect to all addresses", "Nothing serves at grpc://host:1 now"),
        ("UNAVAILABLE", "Server disconnected without sending a response.", "is this its port for gRPC"),
        ("UNAVAILABLE", FULL, "Ask again later, or less at once"),
        ("UNAVAILABLE", "Ssl handshake failed: CERTIFICATE_VERIFY_FAILED", "Give the authority that signed"),
        ("UNAVAILABLE", "[SSL: CERTIFICATE_VERIFY_FAILED] self-signed", "No encrypted connection to grpc://host:1"),
        ("DEADLINE_EXCEEDED", "", "did not answer within 0.5 s"),
        ("NOT_FOUND", "Servable not found", "has no model 'm:canary'"),
        ("UNIMPLEMENTED", "", "Is this the right port"),
        ("UNIMPLEMENTED", "Conversion of JSON Value: 1 to type: half", "Ask it over gRPC"),
        ("INVALID_ARGUMENT", "Unrecognized servable version label: canary", "refused the request of 'm:canary': Unr"),
        ("RESOURCE_EXHAUSTED", "too\nmuch", "answered RESOURCE_EXHAUSTED: too much"),
    ],
)
def test_every_failure_is_one_line_that_says_what_to_do(code, detail, says):
    error = explain(parse("grpc://host:1/m:canary"), code, detail, timeout=0.49998)
    assert says in str(error)
    assert "\n" not in str(error)
    assert error.code == code
    assert isinstance(error, RefusedError) == (code in ("INVALID_ARGUMENT", "FAILED_PRECONDITION"))


def tensors(**shapes):
    return {name: Tensor(dtype="string", shape=shape, meaning="") for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("signature", "sent", "says"),
    [
        ("ask", ["image_bytes"], "'ask' also wants question. .*--input question="),
        ("line", ["image_bytes"], "'line' takes no images in 'image_bytes', but x"),
        ("aks", ["image_bytes"], "no signature 'aks'.*Did you mean 'ask'"),
        ("ask", ["image_bytes", "question"], None),
    ],
)
def test_why_a_model_refuses(signature, sent, says):
    known = {
        "ask": Signature(inputs=tensors(image_bytes=(None,), question=(None,)), outputs={}),
        "line": Signature(inputs=tensors(x=(None,)), outputs={}),
    }
    told = requests.reason(signature, sent, known)
    assert (told is None) if says is None else re.search(says, told or "")


@contextlib.contextmanager
def answering(status, body, wait=None):
    """A server that gives every request this answer; with `wait`, only once that is set."""

    answering.connections = answering.requests = 0

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self):
            answering.connections += 1
            super().setup()

        def do_POST(self):
            answering.requests += 1
            if wait is not None:
                wait.wait(10)
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)

        def do_GET(self):
            self.do_POST()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/m"
    finally:
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (200, b'{"status": "ok"}', "UNIMPLEMENTED"),
        (200, b"[]", "UNIMPLEMENTED"),
        (200, b"<html>", "UNIMPLEMENTED"),
        (200, b"[" * 100_000, "UNIMPLEMENTED"),
        (404, b"<html>", "UNIMPLEMENTED"),
        (404, b'{"error": "Servable not found"}', "NOT_FOUND"),
        (503, b'{"error": "%s"}' % FULL.encode(), "UNAVAILABLE"),
        (502, b"<html>", "UNAVAILABLE"),
        (413, b"<html>", "RESOURCE_EXHAUSTED"),
        (500, b"", "INTERNAL"),
    ],
)
async def test_whatever_http_answers_is_one_line(status, body, code):
    with answering(status, body) as target:
        with connect(target, retries=0, timeout=20) as client, pytest.raises(TargetError) as caught:
            client.predict(b"x")
        async with connect_async(target, retries=0, timeout=20) as client:
            with pytest.raises(TargetError) as again:
                await client.predict(b"x")
    assert caught.value.code == again.value.code == code
    assert str(caught.value) == str(again.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_connections_are_kept(asynchronous):
    body = json.dumps({"outputs": {"labels": [["a"]], "scores": [[0.5]]}}).encode()
    with answering(200, body) as target:
        if asynchronous:
            async with connect_async(target, retries=0) as client:
                assert [(await client.predict(b"x")).label for _ in range(3)] == ["a"] * 3
        else:
            with connect(target, retries=0) as client:
                assert [client.predict(b"x").label for _ in range(3)] == ["a"] * 3
    assert answering.connections == 1
    assert answering.requests == 4  # without metadata it is asked for once


def test_metadata_counts_to_the_deadline():
    with answering(404, b"<html>", threading.Event()) as target, connect(target, timeout=0.4) as client:
        with pytest.raises(TargetError, match=r"did not answer within 0\.\d+ s"):
            client.predict(b"x")
        with pytest.raises(TargetError, match=r"did not answer within 0\.\d+ s"):
            client.predict(b"x", question="How many?", timeout=0.2)


def outputs(answer, known=None):
    return http_transport._outputs(json.loads(json.dumps(answer)), known)


def test_json_outputs_get_their_dtype_and_shape():
    known = Signature(
        inputs={},
        outputs={
            "text": Tensor(dtype="string", shape=(None, None), meaning=""),
            "score": Tensor(dtype="bfloat16", shape=(None, 5), meaning=""),
            "count": Tensor(dtype="uint64", shape=(None,), meaning=""),
        },
    )
    got = outputs({"outputs": {"text": [], "score": [], "count": [2**64 - 1]}}, known)
    assert (got["text"].shape, got["text"].dtype) == ((0, 0), object)
    assert (got["score"].shape, got["score"].dtype) == ((0, 5), np.float32)
    assert got["count"].tolist() == [2**64 - 1]
    got = outputs({"outputs": {"text": [["ü", {"b64": "/w=="}]], "score": [[1, 2.5, 0, 0, 0]], "count": [0]}}, known)
    assert got["text"].tolist() == [["ü".encode(), b"\xff"]]
    assert got["score"].dtype == np.float32
    # Without metadata, as behind a gateway that lets nothing else through.
    assert outputs({"outputs": [[1.5, 2]]})["output_0"].dtype == np.float32
    assert outputs({"outputs": {"b64": "eA=="}})["output_0"].item() == b"x"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (np.zeros(1, "datetime64[s]"), "has dtype datetime64"),
        (np.zeros(1, np.longdouble), "which no signature takes"),
        (np.array([b"x", 3], dtype=object), "holds a int"),
        ([None], "holds a NoneType"),
    ],
)
def test_tensors_that_no_request_carries(value, says):
    with connect("grpc://localhost:1/m") as client, pytest.raises(UsageError, match=says):
        client.call({"x": value})


def test_complex_numbers_go_over_grpc_only():
    with (
        answering(404, b"<html>") as target,
        connect(target) as client,
        pytest.raises(UsageError, match="complex64, which JSON does not carry"),
    ):
        client.call({"x": np.zeros(1, np.complex64)})


def test_a_version_of_a_base_on_disk(served):
    with connect(served["path"] + "@1") as client:
        assert "serving_default" in client.signatures()
    with pytest.raises(UsageError, match="There is no folder"):
        connect(served["path"] + "@7")
