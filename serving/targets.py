"""What a TARGET names: a servable on disk, or a model behind gRPC, HTTP or Vertex AI. Pure text, no connection."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from signatures.errors import UsageError, did_you_mean

__all__ = ["FORMS", "LOOPBACK", "Target", "parse"]

FORMS = "BASE, grpc://host:port/model or http[s]://host:port/model (each model with @version or :label)"

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
"""This machine, as targets name it."""

_SCHEMES = ("grpc", "grpcs", "http", "https", "vertex")
_PORTS = {"grpc": 8500, "grpcs": 8500, "http": 8501, "https": 443}
_MODEL = re.compile(r"(?P<model>[^/@:]+)(?:@(?P<version>[^/@:]+)|:(?P<label>[^/@:]+))?")


@dataclass(frozen=True, kw_only=True)
class Target:
    """A parsed TARGET.

    Args:
        text: As it was given.
        scheme: `path`, `grpc`, `grpcs`, `http`, `https` or `vertex`.
        host: Host name or address, IPv6 in brackets; "" for `path` and `vertex`.
        port: TCP port; 0 for `path` and `vertex`.
        prefix: HTTP only: the path before `/v1/models`, for servers behind an ingress; "" or begins with `/`.
        model: The served model's name; for `path` and `vertex` the rest of the text.
        version: Ask this version only.
        label: Ask the version that carries this label.
    """

    text: str
    scheme: str
    host: str = ""
    port: int = 0
    prefix: str = ""
    model: str = ""
    version: int | None = None
    label: str | None = None

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"{self.host}:{self.port}"

    @property
    def is_here(self) -> bool:
        """Whether the host is this machine."""
        return self.host in LOOPBACK

    @property
    def url(self) -> str:
        """HTTP only: the model's URL without the `:predict` verb, version or label included."""
        which = f"/versions/{self.version}" if self.version is not None else ""
        which = f"/labels/{quote(self.label, safe='')}" if self.label else which
        return f"{self.scheme}://{self.address}{self.prefix}/v1/models/{quote(self.model, safe='')}{which}"


def parse(text: str) -> Target:
    """Reads a TARGET.

    >>> parse("grpc://localhost:8500/vit@3").version
    3
    >>> parse("https://host/models/vit:stable").url
    'https://host:443/models/v1/models/vit/labels/stable'

    Args:
        text: One of `FORMS`. The port may be left out: 8500 for gRPC, 8501 for http, 443 for https. `grpcs://` is
            gRPC over TLS. A URL that already has `/v1/models/` in it is understood.

    Raises:
        UsageError: It has none of these forms.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        return Target(text=text, scheme="path", model=text)
    if scheme not in _SCHEMES:
        raise UsageError(f"Got the target {text!r}, wanted {FORMS}.{did_you_mean(scheme, _SCHEMES)}")
    if scheme == "vertex":
        return Target(text=text, scheme=scheme, model=rest)
    host, port, path = _address(text, scheme)
    prefix, _, name = path.rpartition("/")
    prefix = prefix.removesuffix("/v1/models").rstrip("/")
    found = _MODEL.fullmatch(name)
    if found is None or "/v1/models" in prefix or (prefix and scheme.startswith("grpc")):
        raise UsageError(f"Got the target {text!r}, wanted {FORMS}. Write the model's name after host:port/.")
    version = found["version"]
    if version is not None and not (version.isascii() and version.isdigit()):
        raise UsageError(f"Got the version {version!r} in {text!r}, wanted an integer. For a label write model:label.")
    return Target(
        text=text, scheme=scheme, host=host, port=port, prefix=prefix, model=found["model"],
        version=None if version is None else int(version), label=found["label"],
    )  # fmt: skip


def _address(text: str, scheme: str) -> tuple[str, int, str]:
    """Host, port and path."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"Got the target {text!r}, which has no host:port ({error}). Wanted {FORMS}.") from error
    if not host:
        raise UsageError(f"Got the target {text!r}, which names no host. Wanted {FORMS}.")
    return (f"[{host}]" if ":" in host else host), port if port is not None else _PORTS[scheme], parts.path
