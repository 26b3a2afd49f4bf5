"""A cluster as the rest of this package sees it: a few verbs on plain objects, by the official Python client.

The client's own classes differ from release to release; `DynamicClient.request` has not, from 25.3 on, and is all that
is used here besides reading kubeconfigs.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from k8s.kustomize import Object
from signatures.errors import MissingExtra, UsageError, VitrinaError

__all__ = ["KINDS", "MANAGER", "ApiError", "Cluster"]

MANAGER = "vitrina"
"""The field manager of everything that is applied."""

#: Kind -> where its objects are: the API's root and the plural name.
KINDS: Mapping[str, tuple[str, str]] = {
    "Pod": ("/api/v1", "pods"),
    "Event": ("/api/v1", "events"),
    "Service": ("/api/v1", "services"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "ServiceAccount": ("/api/v1", "serviceaccounts"),
    "Deployment": ("/apis/apps/v1", "deployments"),
    "ReplicaSet": ("/apis/apps/v1", "replicasets"),
    "HorizontalPodAutoscaler": ("/apis/autoscaling/v2", "horizontalpodautoscalers"),
    "PodDisruptionBudget": ("/apis/policy/v1", "poddisruptionbudgets"),
    "NetworkPolicy": ("/apis/networking.k8s.io/v1", "networkpolicies"),
    "HTTPRoute": ("/apis/gateway.networking.k8s.io/v1", "httproutes"),
    "GRPCRoute": ("/apis/gateway.networking.k8s.io/v1", "grpcroutes"),
    "PodMonitor": ("/apis/monitoring.coreos.com/v1", "podmonitors"),
    "PodMonitoring": ("/apis/monitoring.googleapis.com/v1", "podmonitorings"),
    "ScaledObject": ("/apis/keda.sh/v1alpha1", "scaledobjects"),
}

_APPLY = "application/apply-patch+yaml"
_TRANSIENT = (429, 500, 502, 503, 504)
_TRIES = 6
_LONGEST_WAIT = 10.0
_REQUEST_SECONDS = 60.0


class ApiError(VitrinaError):
    """The API server refused.

    Args:
        status: The HTTP status.
        message: The server's own words.
        told: What the person reads.
    """

    def __init__(self, status: int, message: str, told: str) -> None:
        super().__init__(told)
        self.status = status
        self.message = message


class Cluster:
    """One namespace of one cluster.

    Args:
        kubeconfig: The file; None looks where kubectl does, and within a pod at its service account.
        context: One of the file's; None is its current one.
        namespace: None is the context's, or `default`.

    Raises:
        UsageError: There is no such file or context.
        MissingExtra: The package `kubernetes` is not installed.
    """

    def __init__(
        self, *, kubeconfig: str | None = None, context: str | None = None, namespace: str | None = None
    ) -> None:
        try:
            from kubernetes import config
            from kubernetes.dynamic import DynamicClient
        except ImportError as error:
            raise MissingExtra("kubernetes", "k8s") from error
        client, found = _client(config, kubeconfig, context)
        self.namespace = namespace or found
        self.server = str(client.configuration.host)
        # Discovery would ask for every resource that the cluster has, and keep the answer in a file.
        self._client = DynamicClient(client, discoverer=lambda *_: None)

    def get(self, kind: str, name: str) -> Object | None:
        """An object, or None where there is none.

        Raises:
            ApiError: The server refuses, or cannot be reached.
        """
        try:
            found: Object = self._call("get", self._path(kind, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return found

    def find(self, kind: str, labels: Mapping[str, str] | None = None, *, fields: str | None = None) -> list[Object]:
        """Objects with these labels; none where the cluster does not know the kind.

        Args:
            kind: One of `KINDS`.
            labels: Label -> value.
            fields: A field selector.

        Raises:
            ApiError: The server refuses, or cannot be reached.
        """
        chosen = ",".join(f"{key}={value}" for key, value in (labels or {}).items())
        try:
            found = self._call("get", self._path(kind), label_selector=chosen or None, field_selector=fields)
        except ApiError as error:
            if error.status == 404:
                return []
            raise
        return [{**each, "kind": kind} for each in found["items"]]

    def apply(self, wanted: Object, *, dry_run: bool = False, force: bool = False, manager: str = MANAGER) -> Object:
        """Server-side apply.

        Args:
            wanted: All that the manager wants of the object.
            dry_run: Only say what would be.
            force: Take fields over that others manage.
            manager: The field manager.

        Returns:
            The object as it is afterwards, or would be.

        Raises:
            ApiError: The server refuses.
        """
        metadata = wanted["metadata"]
        found: Object = self._call(
            "patch",
            self._path(wanted["kind"], metadata["name"], namespace=metadata.get("namespace")),
            what=f"{wanted['kind']} {metadata['name']}",
            body=wanted,
            content_type=_APPLY,
            field_manager=manager,
            force_conflicts="true" if force else None,
            dry_run="All" if dry_run else None,
            query_params=[("fieldValidation", "Strict")],
        )
        return found

    def delete(self, kind: str, name: str) -> bool:
        """Deletes an object and what it owns; whether it was there.

        Raises:
            ApiError: The server refuses.
        """
        try:
            self._call("delete", self._path(kind, name), what=f"{kind} {name}", propagation_policy="Background")
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True

    def logs(self, pod: str, container: str, *, previous: bool = False, lines: int = 20) -> list[str]:
        """The last lines that a container wrote; none where it has not started.

        Args:
            pod: The pod's name.
            container: The container's.
            previous: Of the process before the present one.
            lines: At most so many.
        """
        query = [("container", container), ("tailLines", str(lines)), *([("previous", "true")] if previous else [])]
        try:
            text = self._call("get", f"{self._path('Pod', pod)}/log", query_params=query)
        except ApiError as error:
            if error.status in (400, 404):
                return []
            raise
        return str(text).splitlines()

    def ask_pod(self, pod: str, port: int, path: str) -> tuple[int, str]:
        """GET from a pod through the API server: the HTTP status and the body; 0 and why, where nothing answers.

        Args:
            pod: The pod's name.
            port: The container's.
            path: With its leading slash.
        """
        try:
            answer = self._call("get", f"{self._path('Pod', f'{pod}:{port}')}/proxy{path}", tries=1, plain=True)
        except ApiError as error:
            return (error.status if error.status not in (0, 502, 503, 504) else 0), error.message
        return 200, str(answer)

    def _path(self, kind: str, name: str | None = None, *, namespace: str | None = None) -> str:
        root, plural = KINDS[kind]
        path = f"{root}/namespaces/{namespace or self.namespace}/{plural}"
        return path if name is None else f"{path}/{quote(name, safe=':')}"

    def _call(
        self, method: str, path: str, *, what: str = "", tries: int = _TRIES, plain: bool = False, **parameters: Any
    ) -> Any:
        """One request; what is refused for now only is tried again."""
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        for attempt in range(tries):
            last = attempt == tries - 1
            try:
                answer = self._client.request(
                    method,
                    path,
                    _request_timeout=_REQUEST_SECONDS,
                    serialize=False,
                    **{
                        "query_params": [],
                        **parameters,
                        "header_params": {"Accept": "*/*" if plain else "application/json"},
                    },
                )
                data = answer.data.decode("utf-8", "replace")
                return data if plain or path.endswith("/log") else json.loads(data)
            except ApiException as error:
                if error.status not in _TRANSIENT or last:
                    raise self._refused(error, what or path) from error
                wait = float((error.headers or {}).get("Retry-After") or 0.0)
            except HTTPError as error:
                if last:
                    raise ApiError(
                        0, str(error), f"The cluster at {self.server} cannot be reached ({_short(error)})."
                    ) from error
                wait = 0.0
            time.sleep(min(max(wait, 0.2 * 2**attempt), _LONGEST_WAIT))
        raise AssertionError("unreachable")

    def _refused(self, error: Any, what: str) -> ApiError:
        body = error.body.decode("utf-8", "replace") if isinstance(error.body, bytes) else str(error.body or "")
        try:
            message = str(json.loads(body).get("message") or error.reason)
        except (ValueError, AttributeError):
            message = body.strip() or str(error.reason)
        return ApiError(
            int(error.status),
            message,
            f"The cluster refused {what}: {' '.join(message.split())}{_cure(error.status, message, self.namespace)}",
        )


def _client(config: Any, kubeconfig: str | None, context: str | None) -> tuple[Any, str]:
    """The API client and the namespace that its context names."""
    from kubernetes import client

    if kubeconfig is None and context is None:
        try:
            config.load_incluster_config()
            with open("/var/run/secrets/kubernetes.io/serviceaccount/namespace", encoding="utf-8") as file:
                return client.ApiClient(), file.read().strip()
        except (config.ConfigException, OSError):
            pass
    try:
        contexts, active = config.list_kube_config_contexts(config_file=kubeconfig)
        chosen = next((each for each in contexts if each["name"] == context), None) if context else active
        if chosen is None:
            names = ", ".join(each["name"] for each in contexts)
            raise UsageError(f"There is no context {context!r} in the kubeconfig. There are: {names}.")
        found = config.new_client_from_config(config_file=kubeconfig, context=context)
    except (config.ConfigException, OSError) as error:
        raise UsageError(
            f"Got no usable kubeconfig ({_short(error)}). Give --kubeconfig FILE, or set KUBECONFIG as for kubectl."
        ) from error
    return found, str(chosen["context"].get("namespace") or "default")


def _cure(status: int, message: str, namespace: str) -> str:
    if status == 404 and re.search(r"namespaces? \"", message):
        return f" Create it with: kubectl create namespace {namespace}"
    if status == 404:
        return " Its kind is not installed there: install what defines it, or leave the component out."
    if status == 409 and "conflict" in message:
        return " Others manage these fields: leave them, or take them over with --force."
    if status == 403 and "quota" in message:
        return " Ask for less, or for a larger quota."
    if status in (401, 403):
        return " Your account lacks this right: see kubectl auth can-i --list."
    return ""


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
