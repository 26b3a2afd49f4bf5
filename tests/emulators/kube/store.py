"""The emulated cluster's objects: versions, watches, owners."""

from __future__ import annotations

import datetime
import pickle
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from tests.emulators.kube.kinds import Kind, Object, named

Key = tuple[str, str, str]
"""Kind, namespace ("" for none), name."""


def copied(found: Any) -> Any:
    """A deep copy of plain data, several times faster than `copy.deepcopy`."""
    return pickle.loads(pickle.dumps(found, pickle.HIGHEST_PROTOCOL))


class Failure(Exception):
    """What the API answers with a Status.

    Args:
        code: HTTP status.
        reason: Kubernetes' word for it.
        message: For people.
        details: Of the Status.
    """

    def __init__(self, code: int, reason: str, message: str, details: Object | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.details = details or {}


def now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


class Store:
    """Objects by key, and everything that ever happened to them."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self._objects: dict[Key, Object] = {}
        self._log: list[tuple[int, str, Object]] = []
        self._version = 0

    def key(self, found: Object) -> Key:
        namespace = found["metadata"].get("namespace", "") if named(found["kind"]).namespaced else ""
        return found["kind"], namespace, found["metadata"]["name"]

    def get(self, kind: str, namespace: str, name: str) -> Object:
        """A copy of one.

        Raises:
            Failure: 404.
        """
        with self.changed:
            found = self._objects.get((kind, namespace, name))
            if found is None:
                plural = named(kind).plural
                group = f".{named(kind).group}" if named(kind).group else ""
                raise Failure(404, "NotFound", f'{plural}{group} "{name}" not found', {"name": name, "kind": plural})
            return copied(found)

    def list(
        self, kind: str, namespace: str | None = None, where: Callable[[Object], bool] | None = None
    ) -> list[Object]:
        """Copies, by name."""
        with self.changed:
            found = [
                each for (of, where_it_is, _), each in sorted(self._objects.items())
                if of == kind and namespace in (None, "", where_it_is) and (where is None or where(each))
            ]  # fmt: skip
            return copied(found)

    @property
    def version(self) -> int:
        return self._version

    def create(self, found: Object) -> Object:
        """Adds one.

        Raises:
            Failure: 409, it is there; 404, its namespace is not.
        """
        with self.changed:
            key = self.key(found)
            if key in self._objects:
                plural = named(key[0]).plural
                raise Failure(409, "AlreadyExists", f'{plural} "{key[2]}" already exists')
            if key[1] and ("Namespace", "", key[1]) not in self._objects:
                raise Failure(404, "NotFound", f'namespaces "{key[1]}" not found')
            found = copied(found)
            metadata = found["metadata"]
            metadata.update(uid=str(uuid.uuid4()), creationTimestamp=now(), generation=1)
            self._put(key, found, "ADDED")
            return copied(found)

    def update(self, found: Object, *, status: bool = False) -> Object:
        """Replaces one; a `resourceVersion` that is not the present one is refused.

        Raises:
            Failure: 404 or 409.
        """
        with self.changed:
            key = self.key(found)
            present = self.get(*key)
            wanted = found["metadata"].get("resourceVersion")
            if wanted and wanted != present["metadata"]["resourceVersion"]:
                raise Failure(
                    409, "Conflict",
                    f'Operation cannot be fulfilled on {named(key[0]).plural} "{key[2]}": the object has been '
                    "modified; please apply your changes to the latest version and try again",
                )  # fmt: skip
            found = copied(found)
            for name in ("uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds"):
                if name in present["metadata"]:
                    found["metadata"][name] = present["metadata"][name]
            if status:
                found = {**present, "status": found.get("status", {})}
            elif "status" in present:
                found["status"] = present["status"]
            if found.get("spec") != present.get("spec"):
                found["metadata"]["generation"] = present["metadata"]["generation"] + 1
            if _without_version(found) != _without_version(present):
                self._put(key, found, "MODIFIED")
            return copied(self._objects[key])

    def change(
        self, kind: str, namespace: str, name: str, change: Callable[[Object], None], *, status: bool = False
    ) -> None:
        """Changes one in place, if it is still there."""
        with self.changed:
            if (kind, namespace, name) in self._objects:
                found = self.get(kind, namespace, name)
                change(found)
                self.update(found, status=status)

    def delete(self, kind: str, namespace: str, name: str, *, grace: int | None = None) -> Object:
        """Removes one and, by and by, what it owns; a pod is only told to go, and the kubelet removes it.

        Raises:
            Failure: 404.
        """
        with self.changed:
            found = self.get(kind, namespace, name)
            bound = kind == "Pod" and found["spec"].get("nodeName") and grace != 0
            if bound:
                if "deletionTimestamp" not in found["metadata"]:
                    seconds = grace if grace is not None else found["spec"].get("terminationGracePeriodSeconds", 30)
                    found["metadata"].update(deletionTimestamp=now(), deletionGracePeriodSeconds=seconds)
                    self._put((kind, namespace, name), found, "MODIFIED")
                return copied(found)
            del self._objects[kind, namespace, name]
            self._version += 1
            found["metadata"]["resourceVersion"] = str(self._version)
            self._log.append((self._version, "DELETED", found))
            self.changed.notify_all()
            return found

    def _put(self, key: Key, found: Object, how: str) -> None:
        self._version += 1
        found["metadata"]["resourceVersion"] = str(self._version)
        self._objects[key] = found
        self._log.append((self._version, how, copied(found)))
        self.changed.notify_all()

    def collect_orphans(self) -> None:
        """Removes what belongs to owners that are gone, and what lives in namespaces that are gone."""
        with self.changed:
            uids = {each["metadata"]["uid"] for each in self._objects.values()}
            for (kind, namespace, name), found in list(self._objects.items()):
                owners = found["metadata"].get("ownerReferences", ())
                homeless = namespace and ("Namespace", "", namespace) not in self._objects
                orphan = owners and not any(owner["uid"] in uids for owner in owners)
                if (orphan or homeless) and "deletionTimestamp" not in found["metadata"]:
                    self.delete(kind, namespace, name)

    def events(self, kind: Kind, since: int, stop: Callable[[], bool]) -> Iterator[tuple[str, Object] | None]:
        """What happens to objects of a kind after a version; None from time to time, so that the caller can look up."""
        position = next((index for index, (version, _, _) in enumerate(self._log) if version > since), len(self._log))
        while not stop():
            with self.changed:
                if position == len(self._log):
                    self.changed.wait(0.2)
                fresh = self._log[position:]
                position = len(self._log)
            for _, how, found in fresh:
                if found["kind"] == kind.kind:
                    yield how, copied(found)
            yield None


def _without_version(found: Object) -> Any:
    metadata = {
        key: value for key, value in found["metadata"].items() if key not in ("resourceVersion", "managedFields")
    }
    owned = [{**each, "time": ""} for each in found["metadata"].get("managedFields", ())]
    return {**found, "metadata": {**metadata, "managedFields": owned}}
