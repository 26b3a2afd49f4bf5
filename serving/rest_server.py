"""The REST door: TF Serving's paths, bodies and status codes, on a bare ASGI application."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import logging
import re
import socket
import threading
import time
import urllib.parse
import zlib
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import uvicorn
from tensorflow_serving.apis import get_model_status_pb2, model_pb2

from serving import inference, json_writer, proto_json, wire, wire_examples
from serving.errors import Code, ServingError, from_tensorflow, invalid_argument
from serving.grpc_handlers import Handlers, fill_model_spec, signature_map
from serving.http_protocol import KEPT, TARGET, Protocol, page
from serving.inference import CLASSIFY, REGRESS, Result
from serving.predict import DEFAULT_SIGNATURE, Core, ModelSpec
from serving.tls import Tls, ssl_context
from serving.wire_predict import PredictBody
from signatures.errors import VitrinaError

__all__ = ["RestDoor", "RestOptions"]

_LOG = logging.getLogger("vitrina.serving")
_POST = re.compile(
    r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?:(classify|regress|predict)", re.IGNORECASE | re.ASCII
)
_GET = re.compile(
    r"/v1/models(?:/([^/:]+))?(?:/versions/(\d+)|/labels/([^/:]+))?(?:/(metadata))?", re.IGNORECASE | re.ASCII
)
_HANDLED = re.compile(r"/v1/.*", re.IGNORECASE)
_METHODS = ("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH")
_ORIGIN = re.compile(rb"https?://")
_MAX_UNZIPPED = 100 << 20
_MAX_VERSION = (1 << 63) - 1
_JSON = (b"content-type", b"application/json")
_UNTOLD = (b"content-type", b"text/html; charset=ISO-8859-1")
"""What TF Serving's HTTP library says of answers whose type nobody told it."""
_CORS = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"POST, GET"),
    (b"access-control-allow-headers", b"Content-Type"),
]
_HTTP = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class RestOptions:
    """How the door opens.

    Args:
        port: The TCP port, 0 for any free one.
        threads: How many requests may run at once; more wait.
        timeout_ms: After how many milliseconds a run is given up.
        cors: Whether every answer carries CORS headers.
        metrics_path: Where Prometheus finds the metrics; "" for nowhere.
        tls: TLS in place of plain text, or None.
    """

    port: int
    threads: int = 16
    timeout_ms: int = 30000
    cors: bool = False
    metrics_path: str = ""
    tls: Tls | None = None


@dataclass(frozen=True)
class Reply:
    """An HTTP answer."""

    status: int
    headers: Headers
    body: bytes


@dataclass
class _Call:
    """What a path says, as far as it could be read; the metrics want it even for refusals."""

    model: str = ""
    method: str = ""


def html(status: int) -> Reply:
    """The page that TF Serving's HTTP library sends for what it does not hand on."""
    return Reply(status, [(b"content-type", b"text/html"), (b"connection", b"close")], page(status))


def unzipped(data: bytes) -> bytes:
    """A gzip body, unpacked; empty where it is broken, followed by more, or larger than 100 MB."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        plain = unpacker.decompress(data, _MAX_UNZIPPED)
    except zlib.error:
        return b""
    return plain if unpacker.eof and not unpacker.unused_data else b""


class Api:
    """Answers one request; knows HTTP's words but no sockets.

    Args:
        core: The core below.
        options: Timeout and CORS.
    """

    def __init__(self, core: Core, options: RestOptions) -> None:
        self._core = core
        self._options = options
        self._status = Handlers(core)
        self.metrics_path = options.metrics_path or None

    def handle(self, method: str, path: str, headers: dict[bytes, bytes], body: bytes) -> Reply:
        """The answer to a request.

        Args:
            method: GET, POST ...
            path: The path with its query, percent-encoded as it came.
            headers: By lower-case name.
            body: The body, still compressed where it was.
        """
        started = time.perf_counter_ns()
        if b"gzip" in headers.get(b"content-encoding", b""):
            body = unzipped(body)
        call = _Call()
        reply_headers: Headers = []
        error: ServingError | None = None
        output = b""
        if method == "OPTIONS":
            reply_headers.append(_UNTOLD)
            if not _ORIGIN.search(headers.get(b"origin", b"")):
                error = ServingError(Code.FAILED_PRECONDITION, "Origin header is missing in CORS preflight")
        else:
            reply_headers.append(_JSON)
            try:
                output = self._process(method, path, body, call)
            except _Unreadable as found:
                error = found
            except ServingError as found:
                error, output = found, json_writer.error_body(found.message)
            except Exception as found:
                _LOG.exception("a request failed")
                error = from_tensorflow(found)
                output = json_writer.error_body(error.message)
        if self._options.cors:
            reply_headers += _CORS
        self._core.metrics.record(call.method, "REST", call.model, error, started)
        return Reply(_HTTP[error.code if error else Code.OK], reply_headers, output)

    def metrics(self, path: str) -> Reply:
        """The page for Prometheus, which is refused with a query."""
        headers = [(b"content-type", b"text/plain")]
        if path != self._options.metrics_path:
            text = f"Unexpected path: {path}. Should be {self._options.metrics_path}"
            return Reply(400, headers, text.encode())
        return Reply(200, headers, self._core.metrics.page().encode())

    def _process(self, method: str, path: str, body: bytes, call: _Call) -> bytes:
        match = {"POST": _POST, "GET": _GET}[method].fullmatch(path) if method in ("GET", "POST") else None
        if match is None:
            raise invalid_argument(f"Malformed request: {method} {path}")
        name, version, label, action = match.groups()
        call.model = _unquote(name or "")
        if version and int(version) > _MAX_VERSION:
            raise _Unreadable(Code.INVALID_ARGUMENT, f"Failed to convert version: {version} to numeric.")
        spec = ModelSpec(call.model, int(version) if version else None, _unquote(label) if label else None)
        if method == "GET":
            if not spec.name:
                raise invalid_argument("Missing model name in request.")
            return self._metadata(spec) if action == "metadata" else self._model_status(spec)
        call.method = action
        if action == "predict":
            return self._predict(spec, body)
        if action == "classify":
            return self._classify(spec, body)
        if action == "regress":
            return self._regress(spec, body)
        raise invalid_argument(f"Malformed request: {method} {path}")

    def _predict(self, spec: ModelSpec, body: bytes) -> bytes:
        asked = PredictBody(body)
        signature = asked.signature
        with self._core.using(spec) as servable:
            name = signature or DEFAULT_SIGNATURE
            definition = servable.signatures.get(name)
            if definition is None:
                raise invalid_argument(f'Serving signature name: "{name}" not found in signature def')
            dtypes = {alias: info.dtype for alias, info in definition.inputs.items()}
            request = asked.inputs(dtypes)
            answer = self._core.predict_on(servable, signature, request.inputs, (), self._options.timeout_ms)
        outputs = {alias: output.values for alias, output in answer.outputs.items()}
        if not outputs:
            raise invalid_argument("Cannot convert empty tensor map to JSON")
        text = json_writer.rows(outputs) if request.row else json_writer.columns(outputs)
        return text.encode("latin-1")

    def _classify(self, spec: ModelSpec, body: bytes) -> bytes:
        result = self._infer(spec, body, CLASSIFY)
        assert result.classes is not None
        return json_writer.classifications(result.classes.rows()).encode("latin-1")

    def _regress(self, spec: ModelSpec, body: bytes) -> bytes:
        result = self._infer(spec, body, REGRESS)
        assert result.values is not None
        return json_writer.regressions(result.values).encode("latin-1")

    def _infer(self, spec: ModelSpec, body: bytes, method: str) -> Result:
        doc = wire.document(body)
        spec = dataclasses.replace(spec, signature=wire.signature_name(doc))
        return inference.ask(self._core, spec, method, wire_examples.examples(doc), self._options.timeout_ms)

    def _model_status(self, spec: ModelSpec) -> bytes:
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = _utf8(spec.name)
        if spec.version is not None:
            request.model_spec.version.value = spec.version
        return proto_json.to_json(self._status.get_model_status(request, 0)).encode()

    def _metadata(self, spec: ModelSpec) -> bytes:
        servable = self._core.find(spec)
        proto = model_pb2.ModelSpec()
        fill_model_spec(proto, servable.name, servable.version)
        return proto_json.metadata_json(proto, signature_map(servable.signatures)).encode()


class _Unreadable(ServingError):
    """A refusal that TF Serving sends without a body."""


def _unquote(text: str) -> str:
    return urllib.parse.unquote_to_bytes(text).decode("utf-8", "surrogateescape")


def _utf8(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


class App:
    """The ASGI application: reads the body, answers on a thread, writes.

    Args:
        api: What answers.
        pool: Where it answers.
    """

    def __init__(self, api: Api, pool: ThreadPoolExecutor) -> None:
        self._api = api
        self._pool = pool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope[TARGET]
        method = scope["method"]
        body = await _body(receive)
        if body is None:
            return
        if method not in _METHODS:
            reply = html(501)
        elif re.split("[?#]", path, maxsplit=1)[0] == self._api.metrics_path:
            reply = self._api.metrics(path)
        elif not _HANDLED.fullmatch(path):
            reply = html(404)
        else:
            headers = dict(scope["headers"])
            loop = asyncio.get_running_loop()
            reply = await loop.run_in_executor(self._pool, self._api.handle, method, path, headers, body)
        headers_out = [*reply.headers, (b"content-length", str(len(reply.body)).encode())]
        if scope.get(KEPT) and (b"connection", b"close") not in headers_out:
            headers_out.append((b"connection", b"keep-alive"))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers_out})
        await send({"type": "http.response.body", "body": reply.body if method != "HEAD" else b""})


async def _body(receive: Receive) -> bytes | None:
    """The whole body, or None where the client went away before its end."""
    parts = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return parts[0] if len(parts) == 1 else b"".join(parts)


class RestDoor:
    """A listening HTTP server, on a thread of its own.

    Args:
        core: What answers.
        options: See there.

    Raises:
        VitrinaError: The port is taken.
    """

    def __init__(self, core: Core, options: RestOptions) -> None:
        self._socket = _listen(options.port)
        self.port = int(self._socket.getsockname()[1])
        self._pool = ThreadPoolExecutor(options.threads, "vitrina-rest")
        config = uvicorn.Config(
            App(Api(core, options), self._pool),
            http=Protocol,
            loop="asyncio",
            lifespan="off",
            ws="none",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=3600,
        )
        if options.tls is not None:
            config.load()
            config.ssl = ssl_context(options.tls)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name="vitrina-http", daemon=True)

    def _serve(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._socket]))

    def start(self) -> None:
        """Answers from now on."""
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.001)

    def stop(self, grace: float) -> None:
        """Closes idle connections and waits for requests in flight, at most `grace` seconds."""
        self._server.config.timeout_graceful_shutdown = max(int(grace), 1)
        self._server.should_exit = True
        self._thread.join(grace + 1)
        self._socket.close()
        self._pool.shutdown(wait=False)


def _listen(port: int) -> socket.socket:
    """A listening socket on all addresses, of IPv6 too where this machine has it."""
    try:
        try:
            return _bound(socket.AF_INET6, "::", port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise
            return _bound(socket.AF_INET, "0.0.0.0", port)
    except OSError as error:
        raise VitrinaError(
            f"Port {port} for REST is taken by another process. Stop that process, or choose another port with "
            "--rest_api_port."
        ) from error


def _bound(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    # asyncio turns Nagle's algorithm off only where the protocol is named; with it, answers take 40 ms longer.
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        found.bind((address, port))
        found.listen(2048)
    except BaseException:
        found.close()
        raise
    return found
