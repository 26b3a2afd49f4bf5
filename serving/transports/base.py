"""What every way to a model offers, and how its failures are told."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from serving.targets import Target
from signatures.errors import UsageError, VitrinaError
from signatures.spec import Signature

__all__ = ["Arrays", "AsyncTransport", "Call", "Options", "RefusedError", "TargetError", "Tls", "Transport", "explain"]

Arrays = Mapping[str, NDArray[Any]]
"""Tensors by name; strings are object arrays of bytes."""


@dataclass(frozen=True, kw_only=True)
class Tls:
    """Certificates for an encrypted connection, as paths of PEM files.

    Args:
        ca: The authority that signed the server's certificate; None for the system's.
        cert: The client's certificate, where the server asks for one.
        key: The key of `cert`.
        server_name: Check the server's certificate against this name instead of the host's (gRPC only).
    """

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    server_name: str | None = None


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to talk to a target.

    Args:
        timeout: Seconds for one answer, retries included.
        retries: How often to try again where the target is unavailable; nothing else is tried again.
        backoff: Seconds before the first retry; doubled each time, with a random part of up to a half.
        tls: Certificates; None for the system's authorities where the scheme is encrypted.
        headers: Further HTTP headers or gRPC metadata, such as an authorization.
    """

    timeout: float = 30.0
    retries: int = 3
    backoff: float = 0.1
    tls: Tls | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def pause(self, error: TargetError, attempt: int, left: float) -> float | None:
        """Seconds to wait before the next try, or None where the error is to be raised.

        Args:
            error: What the last try met.
            attempt: The number of that try, from 0.
            left: Seconds to the deadline.
        """
        seconds = self.backoff * float(2**attempt) * (1 + random.random() / 2)
        return None if error.code != "UNAVAILABLE" or attempt >= self.retries or seconds >= left else seconds


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request: a signature's name, its inputs, and the seconds until its deadline."""

    signature: str
    inputs: Arrays
    timeout: float


_LOST = re.compile(
    r"connect|resol|socket|handshake|refused|reset|broken pipe|goaway|unreachable|timed out|EOF|name or service|"
    r"transport|stream removed|keepalive|errno",
    re.IGNORECASE,
)
"""What gRPC and HTTP clients say where nobody answered; all else that is UNAVAILABLE is a server's own word."""
_REFUSALS = ("INVALID_ARGUMENT", "FAILED_PRECONDITION")
_TLS = re.compile(r"\bssl|certificate", re.IGNORECASE)


class Transport(Protocol):
    """A connection to one model. Safe to use from several threads."""

    def call(self, call: Call) -> dict[str, NDArray[Any]]:
        """Runs one signature once, without retries; raises `TargetError`."""

    def signatures(self, timeout: float) -> dict[str, Signature]:
        """The model's signatures; `meaning` is "" where the target does not tell it."""

    def close(self) -> None:
        """Lets the connection go."""


class AsyncTransport(Protocol):
    """A connection to one model for asyncio."""

    async def call(self, call: Call) -> dict[str, NDArray[Any]]:
        """As `Transport.call`."""

    async def signatures(self, timeout: float) -> dict[str, Signature]:
        """As `Transport.signatures`."""

    async def close(self) -> None:
        """Lets the connection go."""


class TargetError(VitrinaError):
    """A target did not answer, or answered with an error.

    Args:
        code: The canonical status name, such as `NOT_FOUND`, the same from every kind of target.
        message: One line for a person.
        detail: What the target itself said.
    """

    def __init__(self, code: str, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.detail = detail


class RefusedError(TargetError, UsageError):
    """The target refused the request as malformed: a wrong signature, input or value. The command exits with 2."""


def explain(target: Target, code: str, detail: str, *, signature: str = "", timeout: float = 0) -> TargetError:
    """The one line for a person of a target's status code and message."""
    detail = " ".join(detail.split())
    where = f"{target.scheme}://{target.address}" if target.host else target.text
    if code == "UNAVAILABLE":
        advice = _unavailable(target, where, detail)
    elif code == "DEADLINE_EXCEEDED":
        advice = (
            f"{where} did not answer within {timeout:.3g} s. Allow more with a longer timeout, or send less at once."
        )
    elif code == "NOT_FOUND":
        advice = (
            f"{where} has no model '{_named(target)}': {detail}. Check the name after the host, @version and :label."
        )
    elif code == "UNIMPLEMENTED" and detail.startswith("Conversion of JSON"):
        advice = f"{where} cannot read an input of '{_named(target)}' as JSON: {detail}. Ask it over gRPC."
    elif code == "UNIMPLEMENTED":
        advice = f"{where} does not speak TF Serving's API: {detail}. Is this the right port (gRPC and REST differ)?"
    elif code in _REFUSALS:
        asked = f" to signature '{signature}'" if signature else ""
        model = f" of '{_named(target)}'" if target.host else ""
        advice = f"{where} refused the request{asked}{model}: {detail}"
    else:
        advice = f"{where} answered {code}: {detail}"
    kind = RefusedError if code in _REFUSALS else TargetError
    return kind(code, advice, detail)


def _unavailable(target: Target, where: str, detail: str) -> str:
    if not _LOST.search(detail) and not _TLS.search(detail):
        return f"{where} is not available now: {detail.rstrip('.')}. Ask again later, or less at once."
    if _TLS.search(detail):
        return (
            f"No encrypted connection to {where}: {detail.rstrip('.')}. Give the authority that signed the server's "
            "certificate (ca), and a certificate and key where the server asks for them."
        )
    door = "gRPC" if target.scheme.startswith("grpc") else "REST"
    advice = f"Is it running, and is this its port for {door}? Start it with: vitrina serve"
    return f"Nothing serves at {where} now: {detail.rstrip('.')}. {advice}"


def _named(target: Target) -> str:
    which = f"@{target.version}" if target.version is not None else f":{target.label}" if target.label else ""
    return target.model + which


def object_array(values: list[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """An object array of this shape; numpy would look into the values by itself."""
    array: NDArray[Any] = np.empty(len(values), dtype=object)
    array[:] = values
    return array.reshape(shape)
