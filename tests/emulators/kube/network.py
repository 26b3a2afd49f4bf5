"""The emulated network: an address for every Service, and a Gateway that keeps to the weights of its routes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import threading
from typing import Any

from tests.emulators.kube.controllers import is_ready, selected
from tests.emulators.kube.kinds import Object
from tests.emulators.kube.store import Failure, Store


class Network:
    """Connections to Services and routes go on to pods that are ready.

    Args:
        store: The objects.
        services: The network of the Services' addresses, such as `127.96`.
    """

    def __init__(self, store: Store, services: str) -> None:
        self._store = store
        self._addresses = (f"{services}.{number // 250}.{number % 250 + 1}" for number in itertools.count())
        self._loop = asyncio.new_event_loop()
        self._servers: dict[tuple[Any, ...], asyncio.Server] = {}
        self._gateways: dict[str, str] = {}
        self._known: dict[tuple[str, str], tuple[int, list[str]]] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kube-network", daemon=True)
        self._thread.start()

    def next_address(self) -> str:
        return next(self._addresses)

    def gateway(self, name: str) -> str:
        """The address of a Gateway."""
        if name not in self._gateways:
            self._gateways[name] = self.next_address()
        return self._gateways[name]

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(10)

    def endpoints(self, namespace: str, name: str) -> list[str]:
        """The addresses of the ready pods behind a Service."""
        version = self._store.version
        if self._known.get((namespace, name), (-1, []))[0] != version:
            self._known[namespace, name] = (version, self._endpoints(namespace, name))
        return self._known[namespace, name][1]

    def _endpoints(self, namespace: str, name: str) -> list[str]:
        try:
            wanted = self._store.get("Service", namespace, name)["spec"]["selector"]
        except Failure:
            return []
        pods = self._store.list("Pod", namespace, lambda pod: selected(pod["metadata"].get("labels", {}), wanted))
        return [pod["status"]["podIP"] for pod in pods if is_ready(pod) and "deletionTimestamp" not in pod["metadata"]]

    def _run(self) -> None:
        self._loop.run_until_complete(self._watch())
        self._loop.close()

    async def _watch(self) -> None:
        version = -1
        while not self._stopping.is_set():
            if self._store.version != version:
                version = self._store.version
                await self._listen()
            await asyncio.sleep(0.02)
        for server in self._servers.values():
            server.close()
        while others := asyncio.all_tasks() - {asyncio.current_task()}:  # type: ignore[arg-type]
            for task in others:
                task.cancel()
            await asyncio.wait(others, timeout=1)

    async def _listen(self) -> None:
        wanted = set()
        for service in self._store.list("Service"):
            address = service["spec"].get("clusterIP", "None")
            for port in service["spec"]["ports"] if address != "None" else ():
                where = (service["metadata"]["namespace"], service["metadata"]["name"])
                wanted.add((address, port["port"], "Service", *where))
        for kind in ("HTTPRoute", "GRPCRoute"):
            for route in self._store.list(kind):
                for parent in route["spec"]["parentRefs"]:
                    port = route["spec"]["rules"][0]["backendRefs"][0]["port"]
                    where = (route["metadata"]["namespace"], route["metadata"]["name"])
                    wanted.add((self.gateway(parent["name"]), port, kind, *where))
        for gone in set(self._servers) - wanted:
            self._servers.pop(gone).close()
        for fresh in wanted - set(self._servers):
            address, port, *what = fresh
            handler = self._handler(*what)
            self._servers[fresh] = await asyncio.start_server(handler, address, port)
            self._servers[fresh].target_port = port  # type: ignore[attr-defined]

    def _handler(self, kind: str, namespace: str, name: str) -> Any:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            port = writer.get_extra_info("sockname")[1]
            service = name if kind == "Service" else self._by_weight(kind, namespace, name)
            addresses = self.endpoints(namespace, service)
            if not addresses:
                writer.transport.abort()
                return
            try:
                there = await asyncio.open_connection(random.choice(addresses), port)
            except OSError:
                writer.transport.abort()
                return
            try:
                await asyncio.gather(_pipe(reader, there[1]), _pipe(there[0], writer))
            except asyncio.CancelledError:
                pass
            finally:
                there[1].close()
                writer.close()

        return handle

    def _by_weight(self, kind: str, namespace: str, name: str) -> str:
        route: Object = self._store.get(kind, namespace, name)
        backends = [each for rule in route["spec"]["rules"] for each in rule["backendRefs"]]
        weights = [each.get("weight", 1) for each in backends]
        return str(random.choices([each["name"] for each in backends], weights)[0]) if any(weights) else ""


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, asyncio.CancelledError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError, RuntimeError):
        if writer.can_write_eof():
            writer.write_eof()
        else:
            writer.close()
