"""A model behind TF Serving's REST API, over one kept-alive pool of connections."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import httpx
import numpy as np
from numpy.typing import NDArray

from serving.targets import LOOPBACK, Target
from serving.transports.base import Call, Options, TargetError, Tls, explain, object_array
from signatures.errors import UsageError
from signatures.spec import Signature, Tensor

__all__ = ["AsyncHttpTransport", "HttpTransport"]

T = TypeVar("T")

_POOL = httpx.Limits(max_connections=None, max_keepalive_connections=256, keepalive_expiry=60)
"""As many connections as there are callers at a time; how many that are is theirs to bound."""

_CODES = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 409: "ABORTED",
    413: "RESOURCE_EXHAUSTED", 429: "RESOURCE_EXHAUSTED", 499: "CANCELLED", 501: "UNIMPLEMENTED", 502: "UNAVAILABLE",
    503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
}  # fmt: skip
_DTYPES = {"DT_FLOAT": "float32", "DT_DOUBLE": "float64", "DT_HALF": "float16"}


class HttpTransport:
    """One model's URL."""

    def __init__(self, target: Target, options: Options) -> None:
        self._target = target
        self._client = httpx.Client(**_client_options(target, options, httpx.HTTPTransport))
        self._known: dict[str, Signature] | None = None

    def call(self, call: Call) -> dict[str, NDArray[Any]]:
        """Runs POST `:predict` with the columnar `inputs` form."""
        deadline = time.monotonic() + call.timeout
        known = self._signature(call)
        left = max(deadline - time.monotonic(), 0.001)
        answer = self._ask("POST", ":predict", _body(call), left, call.signature)
        return _understood(self._target, answer, lambda: _outputs(answer, known))

    def signatures(self, timeout: float) -> dict[str, Signature]:
        """Runs GET `/metadata`."""
        answer = self._ask("GET", "/metadata", None, timeout, "")
        return _understood(self._target, answer, lambda: _signatures(answer))

    def close(self) -> None:
        """Closes the pool."""
        self._client.close()

    def _signature(self, call: Call) -> Signature | None:
        if self._known is None or (self._known and call.signature not in self._known):
            try:
                self._known = self.signatures(call.timeout)
            except TargetError as error:
                if error.code not in ("NOT_FOUND", "INVALID_ARGUMENT", "UNIMPLEMENTED"):
                    raise
                if error.code == "UNIMPLEMENTED":
                    self._known = {}  # never asked again
                return None  # a gateway that lets only :predict through; dtypes are then guessed from the JSON
        return self._known.get(call.signature)

    def _ask(self, method: str, verb: str, body: bytes | None, timeout: float, signature: str) -> Any:
        url, deadline = self._target.url + verb, time.monotonic() + timeout
        try:
            with self._client.stream(method, url, content=body, timeout=timeout) as response:
                data = bytearray()
                for chunk in response.iter_bytes():
                    data += chunk
                    if time.monotonic() > deadline:  # httpx bounds each read, not their sum
                        raise httpx.ReadTimeout("the answer was not complete")
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise _told(self._target, error, signature, timeout) from error
        return _read(self._target, response.status_code, bytes(data), signature, timeout)


class AsyncHttpTransport:
    """The same for asyncio."""

    def __init__(self, target: Target, options: Options) -> None:
        self._target = target
        self._client = httpx.AsyncClient(**_client_options(target, options, httpx.AsyncHTTPTransport))
        self._known: dict[str, Signature] | None = None

    async def call(self, call: Call) -> dict[str, NDArray[Any]]:
        """Runs POST `:predict` with the columnar `inputs` form."""
        deadline = time.monotonic() + call.timeout
        known = await self._signature(call)
        body = await asyncio.to_thread(_body, call)
        left = max(deadline - time.monotonic(), 0.001)
        answer = await self._ask("POST", ":predict", body, left, call.signature)
        return _understood(self._target, answer, lambda: _outputs(answer, known))

    async def signatures(self, timeout: float) -> dict[str, Signature]:
        """Runs GET `/metadata`."""
        answer = await self._ask("GET", "/metadata", None, timeout, "")
        return _understood(self._target, answer, lambda: _signatures(answer))

    async def close(self) -> None:
        """Closes the pool."""
        await self._client.aclose()

    async def _signature(self, call: Call) -> Signature | None:
        if self._known is None or (self._known and call.signature not in self._known):
            try:
                self._known = await self.signatures(call.timeout)
            except TargetError as error:
                if error.code not in ("NOT_FOUND", "INVALID_ARGUMENT", "UNIMPLEMENTED"):
                    raise
                if error.code == "UNIMPLEMENTED":
                    self._known = {}  # never asked again
                return None
        return self._known.get(call.signature)

    async def _ask(self, method: str, verb: str, body: bytes | None, timeout: float, signature: str) -> Any:
        asked = self._client.request(method, self._target.url + verb, content=body, timeout=timeout)
        try:
            response = await asyncio.wait_for(asked, timeout)
        except (httpx.TransportError, httpx.InvalidURL, asyncio.TimeoutError) as error:
            raise _told(self._target, error, signature, timeout) from error
        return _read(self._target, response.status_code, response.content, signature, timeout)


def _client_options(target: Target, options: Options, transport: Any) -> dict[str, Any]:
    # Reading the system's authorities takes a while, and plain HTTP verifies nobody.
    verify = _verify(options) if target.scheme == "https" else False
    return {
        "headers": {"content-type": "application/json", **options.headers},
        "verify": verify,
        "limits": _POOL,
        # A proxy from the environment serves the outside world, never this machine.
        "mounts": {f"all://{host}": transport(verify=verify, limits=_POOL) for host in LOOPBACK},
    }


def _verify(options: Options) -> ssl.SSLContext:
    tls = options.tls or Tls()
    try:
        context = ssl.create_default_context(cafile=tls.ca) if tls.ca else httpx.create_ssl_context()
        if tls.cert is not None:
            context.load_cert_chain(tls.cert, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"The certificates {tls} cannot be read ({error}). Give PEM files.") from error
    return context


def _body(call: Call) -> bytes:
    for name, array in call.inputs.items():
        if array.dtype.kind == "c":
            raise UsageError(f"The input '{name}' is {array.dtype}, which JSON does not carry. Ask over gRPC.")
    inputs = {name: _json(array) for name, array in call.inputs.items()}
    return json.dumps({"signature_name": call.signature, "inputs": inputs}).encode()


def _json(array: NDArray[Any]) -> Any:
    """Nested lists of an array; strings always as b64, so that any bytes arrive as they are."""
    if array.dtype.kind not in "OSU":
        return array.tolist()

    def spelled(value: Any) -> Any:
        if isinstance(value, list):
            return [spelled(item) for item in value]
        return {"b64": base64.b64encode(value.encode() if isinstance(value, str) else value).decode("ascii")}

    return spelled(array.tolist())


def _read(target: Target, status: int, data: bytes, signature: str, timeout: float) -> Any:
    # TF Serving passes bytes that are no UTF-8 through; surrogateescape keeps them to be turned back below.
    text = data.decode("utf-8", "surrogateescape")
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        answer = None
    if status == 200 and isinstance(answer, dict):
        return answer
    code = _CODES.get(status, "INTERNAL")
    if isinstance(answer, dict) and isinstance(answer.get("error"), str):
        # REST has one status for all that is wrong with a request, gRPC another for a signature that is not there.
        raise explain(target, code, answer["error"], signature=signature, timeout=timeout)
    code = "UNIMPLEMENTED" if code in ("NOT_FOUND", "INVALID_ARGUMENT") or status == 200 else code
    raise explain(target, code, f"HTTP status {status} with {text[:80]!r}", signature=signature, timeout=timeout)


def _understood(target: Target, answer: Any, read: Callable[[], T]) -> T:
    """What an answer says, where it is one of TF Serving's."""
    try:
        return read()
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise explain(target, "UNIMPLEMENTED", f"it answered {json.dumps(answer):.80}") from error


def _outputs(answer: Mapping[str, Any], known: Signature | None) -> dict[str, NDArray[Any]]:
    outputs = answer["outputs"]
    if not isinstance(outputs, dict) or set(outputs) == {"b64"}:  # a single output is written without its name
        name = next(iter(known.outputs)) if known is not None and len(known.outputs) == 1 else "output_0"
        outputs = {name: outputs}
    told: Mapping[str, Tensor] = known.outputs if known is not None else {}
    return {name: _array(outputs[name], told.get(name)) for name in sorted(outputs)}


def _array(value: Any, told: Tensor | None) -> NDArray[Any]:
    if told is not None and told.dtype != "string":
        return _numbers(value, told)
    shape, flat = _shape(value), list(_flat(value))
    if not flat:
        return object_array([], _grown(shape, told)) if told is not None else np.zeros(shape, np.float32)
    if told is not None or isinstance(flat[0], str | dict):
        return object_array([_bytes(item) for item in flat], shape)
    guessed = np.asarray(flat)
    return guessed.astype(np.float32 if guessed.dtype.kind == "f" else guessed.dtype).reshape(shape)


def _numbers(value: Any, told: Tensor) -> NDArray[Any]:
    found = np.asarray(value, dtype="float32" if told.dtype == "bfloat16" else told.dtype)
    return found if found.size else found.reshape(_grown(found.shape, told))


def _grown(shape: tuple[int, ...], told: Tensor) -> tuple[int, ...]:
    """The whole shape of a tensor without elements; JSON shows its axes up to the first empty one."""
    return (*shape, *(size or 0 for size in told.shape[len(shape) :])) if len(told.shape) > len(shape) else shape


def _shape(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list):
        return ()
    return (len(value), *_shape(value[0])) if value else (0,)


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def _bytes(value: Any) -> bytes:
    if isinstance(value, dict):
        return base64.b64decode(value["b64"])
    return str(value).encode("utf-8", "surrogateescape")


def _signatures(answer: Mapping[str, Any]) -> dict[str, Signature]:
    defined = answer["metadata"]["signature_def"]["signature_def"]
    return {
        name: Signature(
            inputs={key: _tensor(info) for key, info in sorted(definition["inputs"].items())},
            outputs={key: _tensor(info) for key, info in sorted(definition["outputs"].items())},
            method_name=definition["method_name"],
        )
        for name, definition in sorted(defined.items())
        if not name.startswith("__saved_model")
    }


def _tensor(info: Mapping[str, Any]) -> Tensor:
    dtype = _DTYPES.get(info["dtype"], info["dtype"].removeprefix("DT_").lower())
    sizes = (int(dim["size"]) for dim in info["tensor_shape"].get("dim", []))
    return Tensor(dtype=dtype, shape=tuple(size if size >= 0 else None for size in sizes), meaning="")


def _told(target: Target, error: Exception, signature: str, timeout: float) -> TargetError:
    detail = str(error) or type(error).__name__
    if isinstance(error, httpx.TimeoutException | asyncio.TimeoutError):
        code = "UNAVAILABLE" if isinstance(error, httpx.ConnectTimeout) else "DEADLINE_EXCEEDED"
    elif isinstance(error, httpx.RemoteProtocolError) and "disconnected" not in detail:
        code, detail = "UNIMPLEMENTED", f"what came back is no HTTP ({detail})"
    else:
        code = "UNAVAILABLE"
    return explain(target, code, detail, signature=signature, timeout=timeout)
