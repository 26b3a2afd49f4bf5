"""What the emulated API server does with a request, without HTTP: `server.py` has that."""

from __future__ import annotations

import copy
import random
import re
import string
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from tests.emulators.kube import patch as patches
from tests.emulators.kube import schema as schemas
from tests.emulators.kube.kinds import Kind, Object, known
from tests.emulators.kube.store import Failure, Store, now

APPLY = "application/apply-patch+yaml"
PATCHES = {
    "application/merge-patch+json": lambda found, sent: patches.merge_patch(found, sent),
    "application/json-patch+json": lambda found, sent: patches.json_patch(found, sent),
    "application/strategic-merge-patch+json": lambda found, sent: patches.strategic(found, sent, schemas.of(found)),
}


@dataclass
class Fault:
    """Something that goes wrong.

    Args:
        code: The HTTP status that is answered.
        method: Of the requests that it hits; "" is all.
        path: A regular expression that their path has to match somewhere.
        times: How often.
        reason: Kubernetes' word for it.
        retry_after: Seconds that the answer tells to wait; 0 tells nothing.
    """

    code: int
    method: str = ""
    path: str = ""
    times: int = 1
    reason: str = "InternalError"
    retry_after: int = 0
    hits: int = field(default=0, init=False)


@dataclass(frozen=True)
class Request:
    """One call of the API."""

    method: str
    path: str
    query: dict[str, str]
    content_type: str = ""
    body: bytes = b""
    agent: str = ""

    def sent(self) -> Any:
        """The body as plain data.

        Raises:
            Failure: It is nothing that this server reads.
        """
        if "protobuf" in self.content_type:
            raise Failure(415, "UnsupportedMediaType", "the emulated server reads JSON and YAML only")
        try:
            return yaml.safe_load(self.body) if "yaml" in self.content_type else __import__("json").loads(self.body)
        except ValueError as error:
            raise Failure(400, "BadRequest", f"the body cannot be read: {error}") from error

    @property
    def manager(self) -> str:
        return self.query.get("fieldManager") or self.agent.partition("/")[0] or "unknown"

    @property
    def dry(self) -> bool:
        return self.query.get("dryRun") == "All"


@dataclass(frozen=True)
class Target:
    """What a path names."""

    kind: Kind
    namespace: str
    name: str
    sub: str
    rest: str


def target(path: str) -> Target | None:
    """Reads a path; None where it names no resource."""
    for kind in known():
        where = re.fullmatch(
            rf"{re.escape(kind.root)}(?:/namespaces/(?P<namespace>[^/]+))?/{kind.plural}"
            r"(?:/(?P<name>[^/]+)(?:/(?P<sub>status|scale|log|eviction|proxy(?=(?P<rest>/.*)?$)).*)?)?",
            path,
        )
        if where and (kind.namespaced or not where["namespace"]):
            return Target(kind, where["namespace"] or "", where["name"] or "", where["sub"] or "", where["rest"] or "")
    return None


class Api:
    """The verbs on objects.

    Args:
        store: Where they are kept.
        admit: Called with every object before it is written, to refuse it or fill it in.
    """

    def __init__(self, store: Store, admit: Callable[[Object, Object | None], None]) -> None:
        self.store = store
        self.faults: list[Fault] = []
        self._admit = admit

    def fail_where_told(self, request: Request) -> None:
        """Raises a fault that is due."""
        for fault in self.faults:
            due = (
                fault.hits < fault.times
                and fault.method in ("", request.method)
                and re.search(fault.path, request.path)
            )
            if due:
                fault.hits += 1
                details = {"retryAfterSeconds": fault.retry_after} if fault.retry_after else {}
                raise Failure(fault.code, fault.reason, f"injected fault {fault.code}", details)

    def read(self, where: Target, request: Request) -> Object:
        """GET of one object, its scale, or a list."""
        if not where.name:
            found = self.store.list(where.kind.kind, where.namespace, selector(request.query))
            return {
                "kind": f"{where.kind.kind}List", "apiVersion": where.kind.api_version,
                "metadata": {"resourceVersion": str(self.store.version)}, "items": found,
            }  # fmt: skip
        found_one = self.store.get(where.kind.kind, where.namespace, where.name)
        return _scale(found_one) if where.sub == "scale" else found_one

    def create(self, where: Target, request: Request) -> Object:
        """POST."""
        found = self._taken(where, request.sent(), request)
        metadata = found["metadata"]
        if "name" not in metadata and "generateName" in metadata:
            metadata["name"] = metadata["generateName"] + "".join(random.choices(string.ascii_lowercase, k=5))
        patches.updated(None, found, request.manager, now())
        self._admit(found, None)
        return found if request.dry else self.store.create(found)

    def replace(self, where: Target, request: Request) -> Object:
        """PUT, of the object, its status or its scale."""
        sent = request.sent()
        with self.store.changed:
            before = self.store.get(where.kind.kind, where.namespace, where.name)
            if where.sub == "scale":
                after = copy.deepcopy(before)
                after["spec"]["replicas"] = sent["spec"]["replicas"]
                return _scale(self._written(before, after, where, request))
            return self._written(before, self._taken(where, sent, request), where, request)

    def patch(self, where: Target, request: Request) -> Object:
        """PATCH in its four kinds."""
        with self.store.changed:
            if request.content_type.partition(";")[0] == APPLY:
                return self._apply(where, request)
            before = self.store.get(where.kind.kind, where.namespace, where.name)
            how = PATCHES.get(request.content_type.partition(";")[0])
            if how is None:
                raise Failure(415, "UnsupportedMediaType", f"no patch of the kind {request.content_type}")
            if where.sub == "scale":
                sent = how(_scale(before), request.sent())
                after = copy.deepcopy(before)
                after["spec"]["replicas"] = sent["spec"]["replicas"]
                return _scale(self._written(before, after, where, request))
            try:
                after = how(copy.deepcopy(before), request.sent())
            except (ValueError, KeyError, IndexError, TypeError) as error:
                raise Failure(422, "Invalid", f"the patch does not fit: {error!r}") from error
            if after["metadata"].get("resourceVersion") == before["metadata"]["resourceVersion"]:
                after["metadata"].pop("resourceVersion")
            self._check(after, request)
            return self._written(before, after, where, request)

    def _apply(self, where: Target, request: Request) -> Object:
        if "fieldManager" not in request.query:
            raise Failure(400, "BadRequest", "metadata.fieldManager: Required value: is required for apply patch")
        sent = self._taken(where, request.sent(), request)
        if sent["metadata"].get("managedFields"):
            raise Failure(400, "BadRequest", "metadata.managedFields must be nil")
        try:
            before: Object | None = self.store.get(where.kind.kind, where.namespace, where.name)
        except Failure:
            before = None
        force = request.query.get("force", "").lower() == "true"
        try:
            after = patches.apply(before, sent, request.query["fieldManager"], force=force, now=now())
        except patches.Conflict as error:
            causes = [
                {"reason": "FieldManagerConflict", "message": f'conflict with "{who}"', "field": told}
                for who, told in error.fields
            ]
            raise Failure(
                409, "Conflict",
                f"Apply failed with {len(causes)} conflict{'s' * (len(causes) > 1)}: "
                + ", ".join(f'conflict with "{who}": {told}' for who, told in error.fields),
                {"causes": causes},
            ) from error  # fmt: skip
        self._admit(after, before)
        if request.dry:
            return {**after, "metadata": {**(before or after)["metadata"], **after["metadata"]}}
        if before is None:
            return self.store.create(after)
        after["metadata"].pop("resourceVersion", None)
        return self.store.update(after)

    def delete(self, where: Target, request: Request) -> Object:
        """DELETE of one, or of all that are selected."""
        options = request.sent() if request.body else {}
        grace = options.get("gracePeriodSeconds", request.query.get("gracePeriodSeconds"))
        if request.dry:
            return self.read(where, request)
        if not where.name:
            for found in self.store.list(where.kind.kind, where.namespace, selector(request.query)):
                self.store.delete(where.kind.kind, where.namespace, found["metadata"]["name"])
            return {"kind": "Status", "apiVersion": "v1", "status": "Success"}
        found = self.store.delete(
            where.kind.kind, where.namespace, where.name, grace=int(grace) if grace is not None else None
        )
        if where.kind.kind in ("Pod", "Service"):
            return found
        details = {
            "name": where.name,
            "kind": where.kind.plural,
            "group": where.kind.group,
            "uid": found["metadata"]["uid"],
        }
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}

    def _taken(self, where: Target, sent: Any, request: Request) -> Object:
        """An object as it was sent, checked against where it was sent to."""
        if not isinstance(sent, dict):
            raise Failure(400, "BadRequest", "the body is no object")
        found: Object = sent
        found.setdefault("apiVersion", where.kind.api_version)
        found.setdefault("kind", where.kind.kind)
        if (found["apiVersion"], found["kind"]) != (where.kind.api_version, where.kind.kind):
            raise Failure(400, "BadRequest", f"{found['apiVersion']} {found['kind']} does not belong to {request.path}")
        metadata = found.setdefault("metadata", {})
        if where.kind.namespaced and metadata.setdefault("namespace", where.namespace) != where.namespace:
            raise Failure(400, "BadRequest", "the namespace of the object does not match the namespace of the request")
        if where.name and metadata.setdefault("name", where.name) != where.name:
            raise Failure(400, "BadRequest", "the name of the object does not match the name on the URL")
        self._check(found, request)
        return found

    def _check(self, found: Object, request: Request) -> None:
        strict = request.query.get("fieldValidation") == "Strict"
        told = schemas.complaint(found, strict=strict)
        if told:
            raise Failure(
                400,
                "BadRequest",
                f"{found['kind']} in version {found['apiVersion']} cannot be handled: strict decoding error: {told}",
            )

    def _written(self, before: Object, after: Object, where: Target, request: Request) -> Object:
        if where.sub != "status":
            patches.updated(before, after, request.manager, now())
            self._admit(after, before)
        if request.dry:
            after["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"]
            return after
        return self.store.update(after, status=where.sub == "status")


def _scale(found: Object) -> Object:
    metadata = {
        key: found["metadata"][key]
        for key in ("name", "namespace", "uid", "resourceVersion")
        if key in found["metadata"]
    }
    labels = found["spec"]["selector"]["matchLabels"]
    return {
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": {"replicas": found["spec"]["replicas"]},
        "status": {
            "replicas": found.get("status", {}).get("replicas", 0),
            "selector": ",".join(f"{key}={value}" for key, value in labels.items()),
        },
    }  # fmt: skip


def selector(query: dict[str, str]) -> Callable[[Object], bool]:
    """What `labelSelector` and `fieldSelector` let through."""
    labels = [part.strip() for part in re.split(r",(?![^(]*\))", query.get("labelSelector", "")) if part.strip()]
    fields = [part.strip() for part in query.get("fieldSelector", "").split(",") if part.strip()]

    def by_label(told: dict[str, str], part: str) -> bool:
        some = re.fullmatch(r"(\S+) (in|notin) \(([^)]*)\)", part)
        if some:
            inside = told.get(some[1]) in {each.strip() for each in some[3].split(",")}
            return inside if some[2] == "in" else not inside
        key, operator, value = re.fullmatch(r"(!?[^=!]+)(==|!=|=)?(.*)", part).groups()  # type: ignore[union-attr]
        if operator is None:
            return key[1:] not in told if key.startswith("!") else key in told
        return (told.get(key) == value) != (operator == "!=")

    def by_field(found: Any, part: str) -> bool:
        key, operator, value = re.fullmatch(r"([^=!]+)(==|!=|=)(.*)", part).groups()  # type: ignore[union-attr]
        for step in key.split("."):
            found = found.get(step, "") if isinstance(found, dict) else ""
        return (str(found) == value) != (operator == "!=")

    def passes(found: Object) -> bool:
        told = found["metadata"].get("labels", {})
        return all(by_label(told, part) for part in labels) and all(by_field(found, part) for part in fields)

    return passes
