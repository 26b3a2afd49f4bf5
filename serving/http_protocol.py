"""HTTP/1 as TF Serving's HTTP library speaks it, where uvicorn's own protocol answers otherwise.

Unknown methods are 501, what is not HTTP and targets with characters that URIs do not have are 400, all as the
library's HTML pages. The target is handed on as it came, fragment and empty query included, since TF Serving
matches it in full.
"""

from __future__ import annotations

import re
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["KEPT", "TARGET", "Protocol", "page"]

TARGET = "vitrina.target"
"""The key of the ASGI scope that holds the raw target."""

KEPT = "vitrina.kept"
"""The key of the ASGI scope that says that an HTTP/1.0 client asked for its connection to be kept."""

_MAX_HEADERS = 1 << 20
_MAX_BODY = 1 << 30
_PATH = rb"(?:[\w\-.~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*"
_QUERY = rb"(?:[\w\-.~!$&'()*+,;=:@/?]|%[0-9A-Fa-f]{2})*"
_STRICT = re.compile(rb"%b(?:\?%b)?(?:#%b)?" % (_PATH, _QUERY, _QUERY))
_ORIGIN = re.compile(rb"[a-zA-Z][a-zA-Z0-9+.\-]*://[^/?#]*")
_REQUEST_LINE = re.compile(rb"[^ \r\n]+ [^ \r\n]+ HTTP/1\.[01]\r\n")
_UPGRADE = re.compile(rb"\r\nUpgrade[ \t]*:", re.IGNORECASE)
_REASONS = {
    400: "Bad Request",
    404: "Not Found",
    413: "Request Entity Too Large",
    417: "Expectation Failed",
    501: "Not Implemented",
}


def page(status: int) -> bytes:
    """The HTML page of a refusal."""
    reason = _REASONS[status]
    return (
        f"<HTML><HEAD>\n<TITLE>{status} {reason}</TITLE>\n</HEAD><BODY>\n<H1>{reason}</H1>\n</BODY></HTML>\n"
    ).encode()


class Protocol(HttpToolsProtocol):
    """One connection."""

    _in_head = True

    def data_received(self, data: bytes) -> None:
        """Parses what came; what cannot be parsed ends the connection."""
        self._unset_keepalive_if_required()
        if self._in_head and b"pgrade" in data.lower():
            # Java's client offers HTTP/2 with every first request, and the parser would take no body after that.
            head, end, body = data.partition(b"\r\n\r\n")
            data = _UPGRADE.sub(b"\r\nX-Upgrade:", head) + end + body
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserInvalidMethodError:
            self._refuse(501 if _REQUEST_LINE.match(data) else 400)
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause.status if isinstance(cause, _Refusal) else 400)

    def on_message_begin(self) -> None:
        """A new request starts."""
        super().on_message_begin()
        self._header_bytes = 0
        self._body_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; too many are refused before they fill the memory."""
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > _MAX_HEADERS:
            raise _Refusal(400)
        key = name.lower()
        if key == b"content-length" and value.strip().isdigit() and int(value) > _MAX_BODY:
            raise _Refusal(413)
        if key == b"expect" and value.lower() != b"100-continue":
            raise _Refusal(417)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The request can be started."""
        target = _ORIGIN.sub(b"", self.url, count=1)
        version = self.parser.get_http_version()
        if not _STRICT.fullmatch(target) or version not in ("1.0", "1.1"):
            raise _Refusal(400)
        self._in_head = False
        super().on_headers_complete()
        scope: Any = self.scope
        scope[TARGET] = target.decode("ascii")
        if version == "1.0":
            cycle: Any = self.cycle
            cycle.transport = _OldTransport(self.transport)
            cycle.waiting_for_100_continue = False
            if self.parser.should_keep_alive():
                scope[KEPT] = cycle.keep_alive = True

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._body_bytes += len(body)
        if self._body_bytes > _MAX_BODY:
            raise _Refusal(413)
        self.cycle.waiting_for_100_continue = False  # it did not wait to be asked
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request ends."""
        self._in_head = True
        self.cycle.waiting_for_100_continue = False
        super().on_message_complete()

    def _refuse(self, status: int) -> None:
        body = page(status)
        head = f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: text/html\r\nConnection: close\r\n"
        self.transport.write(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self.transport.close()


class _OldTransport:
    """Writes an answer as one of HTTP/1.0, which closes its connection without saying so."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._begun = False

    def write(self, data: bytes) -> None:
        if not self._begun:
            self._begun = True
            data = data.replace(b"HTTP/1.1", b"HTTP/1.0", 1).replace(b"\r\nconnection: close\r\n", b"\r\n", 1)
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Refusal(Exception):
    """Ends a request while it is parsed."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status
