"""A servable to Kubernetes manifests: `k8s/base` filled in, as plain YAML for `kubectl apply -f -`.

The same arguments always give the same text, so what is rendered can be kept in git and compared.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving import stock
from signatures.errors import MissingExtra, UsageError

__all__ = ["BASE", "Location", "render"]

BASE = Path(__file__).parent / "base"
"""The Kustomize base; `kubectl apply -k` takes it too."""

#: What the base calls everything that `render` names: objects, labels, the model and its paths.
PLACEHOLDER = "servable"

NAME_PATTERN = re.compile(r"[a-z]([-a-z0-9]{0,50}[a-z0-9])?")
Object = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Location:
    """Where a cluster finds a servable's base path.

    Args:
        base_path: What TF Serving reads: `gs://bucket/path`, or a folder inside the container.
        claim: The PersistentVolumeClaim that is mounted at `base_path`, or None.
        sub_path: The folder within the claim; "" is its root.
    """

    base_path: str
    claim: str | None = None
    sub_path: str = ""

    @classmethod
    def parse(cls, text: str, *, name: str) -> Location:
        """Reads `gs://BUCKET/PATH` or `pvc://CLAIM/PATH`.

        Args:
            text: The base path, the folder with 1, 2, ... in it.
            name: The model's name, which the mount point carries.

        Raises:
            UsageError: It is neither, or it names one version instead of the base path.
        """
        scheme, separator, rest = text.partition("://")
        root, _, path = rest.rstrip("/").partition("/")
        if scheme not in ("gs", "pvc") or not separator or not root:
            raise UsageError(
                f"Got the location {text!r}, but a cluster reads gs://BUCKET/PATH or pvc://CLAIM/PATH. "
                "Copy the servable's base path there and give that."
            )
        stock.refuse_version(text)
        if scheme == "gs":
            return cls(base_path=f"gs://{root}/{path}".rstrip("/"))
        return cls(base_path=f"/models/{name}", claim=root, sub_path=path)


def render(
    location: str,
    *,
    name: str,
    namespace: str | None = None,
    replicas: int = 2,
    image: str = stock.IMAGE,
    cpu: str = "1",
    memory: str = "2Gi",
    service_account: str | None = None,
) -> str:
    """Manifests of a Deployment, its Services and its ConfigMap that serve one servable on stock TF Serving.

    Args:
        location: The servable's base path as the cluster sees it: `gs://BUCKET/PATH` or `pvc://CLAIM/PATH`.
        name: What the objects and the model are called, such as `digits`; clients ask for `/v1/models/digits`.
        namespace: The objects' namespace; None leaves it to `kubectl`.
        replicas: How many pods, one or more.
        image: A TF Serving image, 2.16 or newer.
        cpu: CPU requested per pod, as Kubernetes writes it (`500m`, `2`).
        memory: Memory requested and allowed per pod, as Kubernetes writes it (`2Gi`).
        service_account: The ServiceAccount of the pods, where reading `gs://` needs one (workload identity).

    Returns:
        YAML of several documents, in an order that can be applied.

    Raises:
        UsageError: A name that Kubernetes refuses, no replicas, or a location that a cluster cannot read.
        MissingExtra: PyYAML is not installed.

    Example:
        >>> print(render("gs://bucket/models/digits", name="digits", namespace="vision"))  # doctest: +SKIP
    """
    for what, value in (("name", name), ("namespace", namespace), ("service account", service_account)):
        if value is not None and not NAME_PATTERN.fullmatch(value):
            raise UsageError(
                f"Got the {what} {value!r}, but Kubernetes wants at most 52 small letters, digits and dashes, a letter "
                "first. Choose such a one."
            )
    if replicas < 1:
        raise UsageError(f"Got {replicas} replicas, wanted one or more. Give --replicas 1 or leave it out.")
    where = Location.parse(location, name=name)
    config = _config_map(name, where)
    deployment, *services = _base_objects(name)
    _fill_deployment(deployment, where, config["metadata"]["name"], replicas, image, cpu, memory, service_account)
    objects = [config, *services, deployment]
    if namespace is not None:
        for found in objects:
            found["metadata"]["namespace"] = namespace
    return _to_yaml(objects)


def _fill_deployment(
    deployment: Object,
    where: Location,
    config_name: str,
    replicas: int,
    image: str,
    cpu: str,
    memory: str,
    service_account: str | None,
) -> None:
    deployment["spec"]["replicas"] = replicas
    pod = deployment["spec"]["template"]["spec"]
    if service_account is not None:
        pod["serviceAccountName"] = service_account
    (container,) = pod["containers"]
    container["image"] = image
    container["resources"] = {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": memory}}
    (config_volume,) = (volume for volume in pod["volumes"] if volume["name"] == "config")
    config_volume["configMap"]["name"] = config_name
    if where.claim is not None:
        mount: Object = {"name": "models", "mountPath": where.base_path, "readOnly": True}
        if where.sub_path:
            mount["subPath"] = where.sub_path
        container["volumeMounts"].append(mount)
        source = {"claimName": where.claim, "readOnly": True}
        pod["volumes"].append({"name": "models", "persistentVolumeClaim": source})


def _config_map(name: str, where: Location) -> Object:
    """The ConfigMap with the server's two files, named after what it holds: a change of it is a roll-out."""
    mounted = f'base_path: "/models/{PLACEHOLDER}"'
    models = (BASE / "models.config").read_text(encoding="utf-8").replace(mounted, f'base_path: "{where.base_path}"')
    data = {
        "models.config": models.replace(f'name: "{PLACEHOLDER}"', f'name: "{name}"'),
        "monitoring.config": (BASE / "monitoring.config").read_text(encoding="utf-8"),
    }
    digest = hashlib.sha256("\0".join(f"{key}\0{data[key]}" for key in sorted(data)).encode()).hexdigest()[:10]
    labels = {"app.kubernetes.io/name": "tf-serving", "app.kubernetes.io/instance": name}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{name}-config-{digest}", "labels": labels},
        "data": data,
    }


def _base_objects(name: str) -> list[Object]:
    """The base's Deployment and Services, every placeholder replaced."""
    loaded = [found for file in ("deployment.yaml", "services.yaml") for found in _read_yaml(BASE / file)]
    pattern = re.compile(rf"\b{PLACEHOLDER}\b")
    return [_map_strings(found, lambda text: pattern.sub(name, text)) for found in loaded]


def _map_strings(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_map_strings(item, change) for item in value]
    if isinstance(value, dict):
        return {key: _map_strings(item, change) for key, item in value.items()}
    return value


def _read_yaml(path: Path) -> Iterator[Object]:
    yaml = _yaml()
    yield from yaml.safe_load_all(path.read_text(encoding="utf-8"))


def _to_yaml(objects: list[Object]) -> str:
    yaml = _yaml()

    class Dumper(yaml.SafeDumper):  # type: ignore[misc, name-defined]  # a class of a lazily imported module
        """Keeps files that a ConfigMap holds readable."""

    def text(dumper: Any, value: str) -> Any:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    documents = (yaml.dump(found, Dumper=Dumper, sort_keys=False, default_flow_style=False) for found in objects)
    return "---\n".join(documents)


def _yaml() -> Any:
    try:
        import yaml
    except ImportError as error:
        raise MissingExtra("yaml", "k8s") from error
    return yaml
