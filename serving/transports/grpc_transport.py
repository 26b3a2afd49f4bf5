"""A model behind TF Serving's gRPC API. Needs grpcio and protobuf only, no TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from numpy.typing import NDArray

from serving.inspection import signature_from_proto
from serving.messages import array_to_tensor, message, tensor_to_array
from serving.targets import Target
from serving.transports.base import Call, Options, TargetError, Tls, explain
from signatures.errors import UsageError
from signatures.spec import Signature

__all__ = ["AsyncGrpcTransport", "GrpcTransport"]

_SERVICE = "/tensorflow.serving.PredictionService/"
_CHANNEL = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Servers hang up on who pings more often than every five minutes while an answer takes its time.
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),  # otherwise a channel refuses to try again for a second
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.enable_retries", 0),  # the client above decides what is tried again
]


class GrpcTransport:
    """One channel to one model."""

    def __init__(self, target: Target, options: Options) -> None:
        self._target = target
        self._metadata = _metadata(options)
        self._channel = _channel(grpc, target, options)
        self._predict = _method(self._channel, "Predict", "PredictResponse")
        self._describe = _method(self._channel, "GetModelMetadata", "GetModelMetadataResponse")

    def call(self, call: Call) -> dict[str, NDArray[Any]]:
        """Runs PredictionService.Predict."""
        request = _predict_request(self._target, call)
        try:
            response = self._predict(request, timeout=call.timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise _told(self._target, error, call.signature, call.timeout) from error
        return _outputs(self._target, response)

    def signatures(self, timeout: float) -> dict[str, Signature]:
        """Runs PredictionService.GetModelMetadata."""
        try:
            response = self._describe(_metadata_request(self._target), timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise _told(self._target, error, "", timeout) from error
        return _signatures(response)

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()


class AsyncGrpcTransport:
    """The same for asyncio."""

    def __init__(self, target: Target, options: Options) -> None:
        from grpc import aio

        self._target = target
        self._metadata = _metadata(options)
        self._channel = _channel(aio, target, options)
        self._predict = _method(self._channel, "Predict", "PredictResponse")
        self._describe = _method(self._channel, "GetModelMetadata", "GetModelMetadataResponse")

    async def call(self, call: Call) -> dict[str, NDArray[Any]]:
        """Runs PredictionService.Predict."""
        request = _predict_request(self._target, call)
        try:
            response = await self._predict(request, timeout=call.timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise _told(self._target, error, call.signature, call.timeout) from error
        return _outputs(self._target, response)

    async def signatures(self, timeout: float) -> dict[str, Signature]:
        """Runs PredictionService.GetModelMetadata."""
        try:
            response = await self._describe(_metadata_request(self._target), timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise _told(self._target, error, "", timeout) from error
        return _signatures(response)

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close()


def _channel(api: Any, target: Target, options: Options) -> Any:
    """A channel of `grpc` or `grpc.aio`; encrypted for `grpcs://` or where certificates were given."""
    arguments: list[tuple[str, Any]] = [*_CHANNEL]
    if target.is_here:  # a proxy from the environment serves the outside world
        arguments.append(("grpc.enable_http_proxy", 0))
    if target.scheme == "grpc" and options.tls is None:
        return api.insecure_channel(target.address, options=arguments)
    tls = options.tls or Tls()
    credentials = grpc.ssl_channel_credentials(_pem(tls.ca), _pem(tls.key), _pem(tls.cert))
    if tls.server_name:
        arguments.append(("grpc.ssl_target_name_override", tls.server_name))
    return api.secure_channel(target.address, credentials, options=arguments)


def _pem(path: str | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"The certificate file {path} cannot be read ({error.strerror}). Give a PEM file.") from error


def _method(channel: Any, name: str, response: str) -> Callable[..., Any]:
    method: Callable[..., Any] = channel.unary_unary(
        _SERVICE + name,
        request_serializer=lambda request: request.SerializeToString(),
        response_deserializer=type(message(response)).FromString,
    )
    return method


def _metadata(options: Options) -> tuple[tuple[str, str], ...]:
    return tuple((name.lower(), value) for name, value in options.headers.items())


def _spec(target: Target, signature: str = "") -> Any:
    spec = message("ModelSpec", name=target.model, signature_name=signature, version_label=target.label or "")
    if target.version is not None:
        spec.version.value = target.version
    return spec


def _predict_request(target: Target, call: Call) -> Any:
    inputs = {name: array_to_tensor(array) for name, array in call.inputs.items()}
    return message("PredictRequest", model_spec=_spec(target, call.signature), inputs=inputs)


def _metadata_request(target: Target) -> Any:
    return message("GetModelMetadataRequest", model_spec=_spec(target), metadata_field=["signature_def"])


def _outputs(target: Target, response: Any) -> dict[str, NDArray[Any]]:
    try:
        return {name: tensor_to_array(response.outputs[name]) for name in sorted(response.outputs)}
    except ValueError as error:
        raise explain(target, "INTERNAL", f"a tensor that cannot be read: {error}") from error


def _signatures(response: Any) -> dict[str, Signature]:
    defined = message("SignatureDefMap")
    defined.MergeFromString(response.metadata["signature_def"].value)
    names = sorted(name for name in defined.signature_def if not name.startswith("__saved_model"))
    return {name: signature_from_proto(defined.signature_def[name]) for name in names}


def _told(target: Target, error: Any, signature: str, timeout: float) -> TargetError:
    return explain(target, error.code().name, error.details() or "", signature=signature, timeout=timeout)
