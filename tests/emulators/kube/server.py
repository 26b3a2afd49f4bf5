"""The emulated API server's HTTP: discovery, OpenAPI, verbs, watches, logs and the proxy to pods."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.emulators.kube.api import Api, Fault, Request, Target, selector, target
from tests.emulators.kube.kinds import Kind, Object, known
from tests.emulators.kube.schema import VERSION
from tests.emulators.kube.store import Failure

_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


class ApiServer:
    """Listens on a loopback address.

    Args:
        api: What it does.
        logs: (namespace, pod, previous) -> what a container wrote.
        address: (namespace, pod) -> the address of a running pod.
    """

    def __init__(self, api: Api, logs: Callable[[str, str, bool], str], address: Callable[[str, str], str]) -> None:
        self.api = api
        self.watch_delay = 0.0
        """Seconds by which watches come late."""
        self.requests: list[tuple[str, str]] = []
        """Method and path with query of every call."""
        self._stopping = threading.Event()
        outer = self

        class Handler(_Handler):
            server_of = outer

        Handler.logs, Handler.address = staticmethod(logs), staticmethod(address)
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True, name="kube-api")
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def stop(self) -> None:
        self._stopping.set()
        self._http.shutdown()
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_of: ApiServer
    logs: Callable[[str, str, bool], str]
    address: Callable[[str, str], str]

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def _answer(self) -> None:
        split = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        request = Request(
            self.command,
            unquote(split.path).rstrip("/"),
            dict(parse_qsl(split.query, keep_blank_values=True)),
            self.headers.get("Content-Type", ""),
            self.rfile.read(length) if length else b"",
            self.headers.get("User-Agent", ""),
        )
        self.server_of.requests.append((self.command, self.path))
        try:
            self.server_of.api.fail_where_told(request)
            self._route(request)
        except Failure as error:
            self._status(error)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _status(self, error: Failure) -> None:
        body = {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": str(error),
            "reason": error.reason, "details": error.details, "code": error.code,
        }  # fmt: skip
        wait = error.details.get("retryAfterSeconds")
        self._send(body, error.code, {"Retry-After": str(wait)} if wait else {})

    def _send(self, body: Object | str, code: int = 200, headers: dict[str, str] | None = None) -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain" if isinstance(body, str) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _route(self, request: Request) -> None:
        told = _documents(request.path)
        if told is not None:
            self._send(told)
            return
        where = target(request.path)
        if where is None:
            raise Failure(404, "NotFound", "the server could not find the requested resource")
        if where.sub == "proxy":
            self._proxy(where)
        elif where.sub == "log":
            self._log(where, request)
        elif request.method == "GET" and request.query.get("watch", "").lower() in ("true", "1"):
            self._watch(where, request)
        elif where.sub == "eviction":
            self.server_of.api.store.delete("Pod", where.namespace, where.name)
            self._send({"kind": "Status", "apiVersion": "v1", "status": "Success"}, 201)
        else:
            api = self.server_of.api
            verbs = {"GET": api.read, "POST": api.create, "PUT": api.replace, "PATCH": api.patch, "DELETE": api.delete}
            self._send(verbs[request.method](where, request), 201 if request.method == "POST" else 200)

    def _watch(self, where: Target, request: Request) -> None:
        api = self.server_of.api
        query = dict(request.query)
        if where.name:
            query["fieldSelector"] = f"metadata.name={where.name}"
        passes = selector(query)
        since = query.get("resourceVersion", "")
        until = time.monotonic() + float(query.get("timeoutSeconds", 3600))
        with api.store.changed:
            first = api.store.list(where.kind.kind, where.namespace, passes) if since in ("", "0") else []
            version = api.store.version if since in ("", "0") else int(since)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for found in first:
            self._event("ADDED", found)
        stop = lambda: self.server_of.stopping or time.monotonic() > until  # noqa: E731
        for event in api.store.events(where.kind, version, stop):
            if event is None:
                continue
            how, found = event
            inside = where.namespace in ("", found["metadata"].get("namespace", ""))
            if inside and passes(found):
                time.sleep(self.server_of.watch_delay)
                self._event(how, found)
        self.wfile.write(b"0\r\n\r\n")

    def _event(self, how: str, found: Object) -> None:
        data = json.dumps({"type": how, "object": found}).encode() + b"\n"
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _log(self, where: Target, request: Request) -> None:
        self.server_of.api.store.get("Pod", where.namespace, where.name)
        text = self.logs(where.namespace, where.name, request.query.get("previous") == "true")
        tail = request.query.get("tailLines")
        lines = text.splitlines()[-int(tail) :] if tail else text.splitlines()
        self._send("".join(f"{line}\n" for line in lines))

    def _proxy(self, where: Target) -> None:
        pod, _, port = where.name.partition(":")
        address = self.address(where.namespace, pod)
        if not address:
            raise Failure(503, "ServiceUnavailable", f"no endpoints available for pod {pod}")
        connection = http.client.HTTPConnection(address, int(port or 80), timeout=10)
        try:
            connection.request(self.command, where.rest or "/")
            reply = connection.getresponse()
            data = reply.read()
        except OSError as error:
            raise Failure(503, "ServiceUnavailable", f"error trying to reach service: {error}") from error
        finally:
            connection.close()
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.headers.get("Content-Type", "text/plain"))
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _documents(path: str) -> Object | None:
    """Discovery, OpenAPI and the version; None for every other path."""
    groups = sorted({(kind.group, kind.version) for kind in known() if kind.group})
    if path == "/version":
        major, minor, _ = VERSION.split(".")
        return {"major": major, "minor": minor, "gitVersion": f"v{VERSION}", "platform": "linux/amd64"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
    if path == "/apis":
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(*each) for each in groups]}
    if path == "/openapi/v3":
        roots = [f"apis/{group}/{version}" for group, version in groups] + ["api/v1"]
        return {"paths": {root: {"serverRelativeURL": f"/openapi/v3/{root}?hash=0"} for root in roots}}
    for kind in known():
        if path == kind.root:
            return _resources(path)
        if path == f"/openapi/v3{kind.root}":
            return _openapi(kind.root)
    return None


def _group(group: str, version: str) -> Object:
    told = {"groupVersion": f"{group}/{version}", "version": version}
    return {"name": group, "versions": [told], "preferredVersion": told}


def _resources(root: str) -> Object:
    found: list[Object] = []
    for kind in known():
        if kind.root == root:
            common = {"singularName": kind.kind.lower(), "namespaced": kind.namespaced, "kind": kind.kind}
            found.append({"name": kind.plural, **common, "verbs": _VERBS, "shortNames": list(kind.short)})
            found.append({"name": f"{kind.plural}/status", **common, "verbs": ["get", "patch", "update"]})
            if kind.scale:
                scale = {"kind": "Scale", "group": "autoscaling", "version": "v1", "verbs": ["get", "patch", "update"]}
                found.append({"name": f"{kind.plural}/scale", "singularName": "", "namespaced": True, **scale})
            if kind.kind == "Pod":
                found.append(
                    {"name": "pods/log", "singularName": "", "namespaced": True, "kind": "Pod", "verbs": ["get"]}
                )
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": root.split("/", 2)[2], "resources": found}


def _openapi(root: str) -> Object:
    """No more than kubectl looks for: that patches can be validated by the server."""

    def patch(kind: Kind) -> Object:
        parameters = [{"name": name, "in": "query"} for name in ("dryRun", "fieldManager", "fieldValidation", "force")]
        told = {"group": kind.group, "kind": kind.kind, "version": kind.version}
        return {
            "patch": {"x-kubernetes-action": "patch", "x-kubernetes-group-version-kind": told, "parameters": parameters}
        }

    paths = {}
    for kind in known():
        if kind.root == root:
            namespaced = "/namespaces/{namespace}" if kind.namespaced else ""
            paths[f"{root}{namespaced}/{kind.plural}/{{name}}"] = patch(kind)
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": f"v{VERSION}"},
        "paths": paths,
        "components": {"schemas": {}},
    }


__all__ = ["ApiServer", "Fault"]
