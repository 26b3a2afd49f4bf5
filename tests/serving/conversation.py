"""Talks to a model server over real HTTP and gRPC, and compares what it says with what was recorded.

The recordings in `tests/golden/tfserving` are answers of TensorFlow Serving 2.17.1. Each line of `rest.jsonl` and
`grpc.jsonl` names the server that it was recorded from (`server`), the request, the answer, and how the two are to
be compared (`compare`): `bytes`, `json`, `prefix`, `proto` or `text`.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import math
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf import text_format
from PIL import Image
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
from serving.flags import parse
from serving.server import Server, free_port

GOLDEN = Path(__file__).parent.parent / "golden" / "tfserving"
PREDICTION = "tensorflow.serving.PredictionService"
MODEL = "tensorflow.serving.ModelService"
HEALTH = "grpc.health.v1.Health"

TYPES = {
    (PREDICTION, "Predict"): (predict_pb2.PredictRequest, predict_pb2.PredictResponse),
    (PREDICTION, "Classify"): (classification_pb2.ClassificationRequest, classification_pb2.ClassificationResponse),
    (PREDICTION, "Regress"): (regression_pb2.RegressionRequest, regression_pb2.RegressionResponse),
    (PREDICTION, "MultiInference"): (inference_pb2.MultiInferenceRequest, inference_pb2.MultiInferenceResponse),
    (PREDICTION, "GetModelMetadata"): (
        get_model_metadata_pb2.GetModelMetadataRequest,
        get_model_metadata_pb2.GetModelMetadataResponse,
    ),
    (MODEL, "GetModelStatus"): (
        get_model_status_pb2.GetModelStatusRequest,
        get_model_status_pb2.GetModelStatusResponse,
    ),
    (MODEL, "HandleReloadConfigRequest"): (
        model_management_pb2.ReloadConfigRequest,
        model_management_pb2.ReloadConfigResponse,
    ),
    (HEALTH, "Check"): (protos.HealthCheckRequest, protos.HealthCheckResponse),
}


def load(name: str) -> list[dict[str, Any]]:
    """The lines of a recording."""
    with open(GOLDEN / name, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


class Conversation:
    """A running server, its flags and files written out for `$MODELS` and `$CONFIG`.

    Args:
        setup: The `server` of a recorded line.
        models: Where the models are.
        config: An empty folder for the files.
        command: A model server's command, or None for ours in this process.
        max_threads: How many gRPC calls run at once.
    """

    def __init__(
        self, setup: dict[str, Any], models: Path, config: Path, command: str | None = None, max_threads: int = 64
    ) -> None:
        self.models, self.config = str(models), str(config)
        for name, text in setup["files"].items():
            (config / name).write_text(self.show(text))
        flags = [self.show(flag) for flag in setup["flags"]]
        self.grpc_port, self.rest_port = free_port(), free_port()
        flags += [f"--port={self.grpc_port}", f"--rest_api_port={self.rest_port}", f"--grpc_max_threads={max_threads}"]
        self._server: Server | None = None
        self._process: subprocess.Popen[bytes] | None = None
        if command is None:
            self._server = Server(parse(flags))
            self._server.start(timeout=60)
        else:
            self._process = subprocess.Popen([command, *flags], stderr=subprocess.DEVNULL)
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.grpc_port}")
        self._wait(setup["wait_for"])

    def _wait(self, models: list[str]) -> None:
        deadline = time.monotonic() + 60
        while not all(self._is_ready(model) for model in models):
            assert time.monotonic() < deadline, "the server did not become ready"
            time.sleep(0.05)

    def _is_ready(self, model: str) -> bool:
        request = f'model_spec {{ name: "{model}" }}'
        answer = self.rpc({"service": MODEL, "method": "GetModelStatus", "request_textproto": request})
        states = re.findall(r"state: (\w+)", answer["response_textproto"] or "")
        if answer["code"] != "OK" or not states or set(states) != {"AVAILABLE"}:
            return False
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.rest_port), 5).close()
            return True
        return False

    def show(self, text: str) -> str:
        """A recorded text with this conversation's paths."""
        return text.replace("$MODELS", self.models).replace("$CONFIG", self.config)

    def hide(self, text: str) -> str:
        """The reverse of `show`."""
        return text.replace(self.models, "$MODELS").replace(self.config, "$CONFIG")

    def http(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """One HTTP request on a connection of its own: status, headers, body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.rest_port, timeout=60)
        with contextlib.closing(connection):
            connection.putrequest(method, path, skip_accept_encoding=True)
            for key, value in (headers or {}).items():
                connection.putheader(key, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            return response.status, response.headers, response.read()

    def rest(self, request: dict[str, Any]) -> dict[str, Any]:
        """A recorded request, asked: `status`, `content_type` and `body` (bytes)."""
        status, headers, body = self.http(request["method"], request["path"], request["headers"], get_body(request))
        return {"status": status, "content_type": headers.get("Content-Type"), "body": body}

    def post(self, path: str, body: bytes | str | dict[str, Any]) -> tuple[int, bytes]:
        """A POST below /v1/models/: status and body."""
        if isinstance(body, dict):
            body = json.dumps(body)
        data = body.encode() if isinstance(body, str) else body
        status, _, answer = self.http("POST", "/v1/models/" + path, {}, data)
        return status, answer

    def rpc(self, record: dict[str, Any]) -> dict[str, Any]:
        """A recorded call, made: `code`, `details` and `response_textproto`."""
        ask, answer = TYPES[record["service"], record["method"]]
        request = text_format.Parse(self.show(record["request_textproto"]), ask())
        call = self.channel.unary_unary(
            f"/{record['service']}/{record['method']}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        try:
            response = call(request, timeout=60, wait_for_ready=self._process is not None)
        except grpc.RpcError as error:
            return {"code": error.code().name, "details": self.hide(error.details() or ""), "response_textproto": None}
        text = self.hide(text_format.MessageToString(response))
        return {"code": "OK", "details": "", "response_textproto": text}

    def stop(self, grace: float) -> bool:
        """Stops our server, and says whether all that was in flight ended in time."""
        assert self._server is not None
        return self._server.stop(grace)

    def close(self) -> None:
        """Ends the server."""
        self.channel.close()
        if self._server is not None:
            self._server.stop(grace=5)
        if self._process is not None:
            self._process.terminate()
            self._process.wait(15)


@contextlib.contextmanager
def talk(
    setup: dict[str, Any], models: Path, config: Path, command: str | None = None, max_threads: int = 64
) -> Iterator[Conversation]:
    """A `Conversation`, closed at the end."""
    conversation = Conversation(setup, models, config, command, max_threads)
    try:
        yield conversation
    finally:
        conversation.close()


def get_body(record: dict[str, Any]) -> bytes | None:
    """The bytes of a recorded body."""
    if "body_b64" in record:
        return base64.b64decode(record["body_b64"])
    return record["body"].encode() if "body" in record else None


def rest_difference(record: dict[str, Any], got: dict[str, Any]) -> str | None:
    """What differs between a recorded REST answer and one just got; None for nothing."""
    wanted = record["response"]
    for key in ("status", "content_type"):
        if wanted[key] != got[key]:
            return f"{key} {got[key]!r}, expected {wanted[key]!r} ({got['body']!r})"
    body = get_body(wanted)
    assert body is not None
    if record["compare"] == "bytes":
        return None if body == got["body"] else f"body {got['body']!r}, expected {body!r}"
    ours, theirs = (json.loads(text, parse_float=_Number) for text in (got["body"], body))
    if record["compare"] == "prefix":
        good = ours.keys() == {"error"} and ours["error"].startswith(record["prefix"])
    else:
        if "metadata" in theirs:
            ours, theirs = _nameless(ours), _nameless(theirs)
        good = _same(ours, theirs, record.get("tolerance", 0.0), record.get("png", ()))
    return None if good else f"{ours!r}, expected {theirs!r}"


class _Number(str):
    """A float as it was written, since the digits are recorded."""

    __slots__ = ()


def _nameless(value: Any) -> Any:
    """Without the names of graph tensors, which depend on the TensorFlow that built the models."""
    if isinstance(value, dict):
        named = "tensor_shape" in value
        return {key: _nameless(item) for key, item in value.items() if not (named and key == "name")}
    return [_nameless(item) for item in value] if isinstance(value, list) else value


def _same(a: Any, b: Any, tolerance: float, images: Any, key: str = "") -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        if key in images and a.keys() == b.keys() == {"b64"}:
            return _pixels(base64.b64decode(a["b64"])) == _pixels(base64.b64decode(b["b64"]))
        return a.keys() == b.keys() and all(_same(a[name], b[name], tolerance, images, name) for name in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(_same(x, y, tolerance, images, key) for x, y in zip(a, b, strict=True))
    if isinstance(a, float):  # NaN and infinities; finite floats are texts
        return a == b or (math.isnan(a) and math.isnan(b))
    return a == b or (isinstance(a, _Number) and tolerance > 0 and abs(float(a) - float(b)) <= tolerance)


def _pixels(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data)) as image:
        return repr((image.mode, image.size)).encode() + np.asarray(image).tobytes()


def grpc_difference(record: dict[str, Any], got: dict[str, Any]) -> str | None:
    """What differs between a recorded gRPC answer and one just got; None for nothing."""
    if got["code"] != record["code"]:
        return f"code {got['code']} ({got['details']}), expected {record['code']}"
    if record["compare"] == "prefix":
        good = _any_formats(got["details"]).startswith(_any_formats(record["prefix"]))
    elif record["compare"] == "text":
        good = _any_formats(got["details"]) == _any_formats(record["details"])
    else:
        answer = TYPES[record["service"], record["method"]][1]
        texts = []
        for source in (record, got):
            message = text_format.Parse(_known(source["response_textproto"]), answer())
            for name in record.get("png", ()):
                message.outputs[name].string_val[:] = [_pixels(png) for png in message.outputs[name].string_val]
            # As text, since NaN is not equal to NaN.
            text = text_format.MessageToString(message)
            texts.append(re.sub(r'name: "\w+:\d+"', "", text) if record["method"] == "GetModelMetadata" else text)
        good = texts[0] == texts[1]
    return None if good else f"{got}, expected {record['details'] or record['response_textproto']}"


def _any_formats(text: str) -> str:
    """A newer TensorFlow's op reads, and lists, more image formats than the recorded one did."""
    return re.sub(r"One of [\w, ]+ required", "One of ... required", text)


def _known(text: str) -> str:
    """Our HealthCheckResponse has a number where the recording has the enum's name."""
    return text.replace("status: SERVING", "status: 1")
