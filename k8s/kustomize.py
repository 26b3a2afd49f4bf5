"""Builds a Kustomize base with components as `kubectl kustomize` does, as far as the folders beside this file go.

So `render` needs no kubectl, and what it fills in is what `kubectl apply -k` takes. A test holds both against each
other, for the base, every component and every overlay.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from signatures.errors import MissingExtra, UsageError, did_you_mean

__all__ = [
    "BASE",
    "COMPONENTS",
    "Object",
    "build",
    "check_component",
    "components",
    "hashed_name",
    "map_strings",
    "to_yaml",
]

BASE = Path(__file__).parent / "base"
"""The Kustomize base; `kubectl apply -k` takes it too."""

COMPONENTS = Path(__file__).parent / "components"
"""What a base can be given besides, a folder each."""

Object = dict[str, Any]

#: What tells one item of a list from another where a patch merges lists; other lists are replaced.
_MERGE_KEYS = {
    "containers": ("name",),
    "initContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "ports": ("containerPort", "port"),
}
_NO_LIST_MERGE = ("networking.k8s.io",)
#: The digits and letters that Kubernetes takes for others, so that a hash spells no word.
_HASH_LETTERS = str.maketrans("013ae", "ghkmt")


def components() -> tuple[str, ...]:
    """The names of the components that there are."""
    return tuple(sorted(path.parent.name for path in COMPONENTS.glob("*/kustomization.yaml")))


def check_component(name: str) -> None:
    """Refuses a name that is no component's.

    Raises:
        UsageError: There is no such component.
    """
    known = components()
    if name not in known:
        raise UsageError(f"There is no component {name!r}.{did_you_mean(name, known)} There are: {', '.join(known)}.")


def build(
    folder: Path, extra: Sequence[str] = (), *, change: Callable[[list[Object]], None] | None = None
) -> list[Object]:
    """The objects of a kustomization.

    Args:
        folder: One with a `kustomization.yaml`.
        extra: Names of components to apply last.
        change: Called with the objects before ConfigMaps are named after what they hold, to change them in place.

    Returns:
        The objects, ConfigMaps under their hashed names and every reference to them following.

    Raises:
        UsageError: There is no such component.
        MissingExtra: PyYAML is not installed.
    """
    built = _Build()
    built.take(folder)
    for name in extra:
        check_component(name)
        built.take(COMPONENTS / name)
    if change is not None:
        change(built.objects)
    built.name_config_maps()
    return built.objects


class _Build:
    """Objects so far, and the ConfigMaps whose names are to be hashed."""

    def __init__(self) -> None:
        self.objects: list[Object] = []
        self._plain_names: set[str] = set()

    def take(self, folder: Path) -> None:
        """Adds a base or applies a component."""
        (told,) = read_yaml(folder / "kustomization.yaml")
        for resource in told.get("resources", ()):
            path = folder / resource
            if path.is_dir():
                self.take(path)
            else:
                self.objects += read_yaml(path)
        for generator in told.get("configMapGenerator", ()):
            self._generate(folder, generator)
        for component in told.get("components", ()):
            self.take(folder / component)
        for patch in told.get("patches", ()):
            for found in read_yaml(folder / patch["path"]):
                self._patch(found, patch.get("target"))
        for image in told.get("images", ()):
            for container in self._containers():
                if container["image"].partition(":")[0] == image["name"]:
                    container["image"] = f"{image['name']}:{image['newTag']}"

    def _generate(self, folder: Path, generator: Object) -> None:
        data = {}
        for entry in generator["files"]:
            key, separator, path = entry.partition("=")
            data[key] = (folder / (path if separator else key)).read_text(encoding="utf-8")
        if generator.get("behavior") == "merge":
            self._find("ConfigMap", generator["name"])["data"].update(data)
            return
        options = generator.get("options", {})
        if options.get("disableNameSuffixHash"):
            self._plain_names.add(generator["name"])
        metadata = {"name": generator["name"], "labels": dict(options["labels"])}
        self.objects.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})

    def _patch(self, patch: Any, target: Object | None) -> None:
        if target is not None:
            _json_patch(self._find(target["kind"], target["name"]), patch)
            return
        found = self._find(patch["kind"], patch["metadata"]["name"])
        if patch.get("$patch") == "delete":
            self.objects.remove(found)
            return
        group = patch["apiVersion"].partition("/")[0]
        _merge(found, patch, lists=group not in _NO_LIST_MERGE)

    def _find(self, kind: str, name: str) -> Object:
        (found,) = (each for each in self.objects if each["kind"] == kind and each["metadata"]["name"] == name)
        return found

    def _containers(self) -> Iterator[Object]:
        for found in self.objects:
            if found["kind"] == "Deployment":
                pod = found["spec"]["template"]["spec"]
                yield from (*pod.get("initContainers", ()), *pod["containers"])

    def name_config_maps(self) -> None:
        """Gives ConfigMaps the names that tell what they hold, and makes the pods mount them under these."""
        names = {
            found["metadata"]["name"]: hashed_name(found)
            for found in self.objects
            if found["kind"] == "ConfigMap" and "grafana_dashboard" not in found["metadata"]["labels"]
        }
        for found in self.objects:
            if found["kind"] == "ConfigMap":
                found["metadata"]["name"] = names.get(found["metadata"]["name"], found["metadata"]["name"])
            if found["kind"] == "Deployment":
                for volume in found["spec"]["template"]["spec"]["volumes"]:
                    if "configMap" in volume:
                        volume["configMap"]["name"] = names[volume["configMap"]["name"]]


def hashed_name(config_map: Object) -> str:
    """A ConfigMap's name with the hash of its data, as Kustomize makes it.

    Args:
        config_map: With its plain name and text data.

    Returns:
        The name, a dash and ten characters.
    """
    told = {"data": config_map["data"], "kind": "ConfigMap", "name": ""}  # what it is called does not count
    text = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":  # as Go writes JSON
        text = text.replace(character, f"\\u{ord(character):04x}")
    digest = hashlib.sha256(text.encode()).hexdigest()[:10].translate(_HASH_LETTERS)
    return f"{config_map['metadata']['name']}-{digest}"


def _merge(into: Object, patch: Object, *, lists: bool) -> None:
    """A strategic merge patch: mappings by key, named lists by name, the patch's items first; all else is replaced."""
    for key, value in patch.items():
        present = into.get(key)
        if isinstance(value, dict) and isinstance(present, dict):
            _merge(present, value, lists=lists)
        elif lists and key in _MERGE_KEYS and isinstance(present, list):
            into[key] = _merge_lists(present, value, _MERGE_KEYS[key])
        else:
            into[key] = copy.deepcopy(value)


def _merge_lists(present: list[Object], patch: list[Object], keys: tuple[str, ...]) -> list[Object]:
    def identity(item: Object) -> Any:
        return next((item[key] for key in keys if key in item), None)

    first = []
    rest = list(present)
    for item in patch:
        same = next((each for each in rest if identity(each) == identity(item)), None)
        if same is None:
            first.append(copy.deepcopy(item))
        else:
            rest.remove(same)
            _merge(same, item, lists=True)
            first.append(same)
    return [*first, *rest]


def _json_patch(into: Object, operations: list[Object]) -> None:
    """`add` and `remove` of RFC 6902."""
    for operation in operations:
        *path, last = operation["path"].strip("/").split("/")
        place: Any = into
        for part in path:
            place = place[int(part)] if isinstance(place, list) else place[part]
        if operation["op"] == "remove":
            del place[last]
        elif isinstance(place, list):
            place.append(operation["value"])
        else:
            place[last] = copy.deepcopy(operation["value"])


def map_strings(value: Any, change: Callable[[str], str]) -> Any:
    """A copy of plain data with every string changed, keys excepted."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [map_strings(item, change) for item in value]
    if isinstance(value, dict):
        return {key: map_strings(item, change) for key, item in value.items()}
    return value


def read_yaml(path: Path) -> list[Any]:
    """Every document of a file."""
    return list(_yaml().safe_load_all(path.read_text(encoding="utf-8")))


def to_yaml(objects: Sequence[Object]) -> str:
    """Several documents, keys in their order and files in ConfigMaps readable."""
    yaml = _yaml()

    class Dumper(yaml.SafeDumper):  # type: ignore[misc, name-defined]  # a class of a lazily imported module
        """Keeps files that a ConfigMap holds readable, and writes nothing as a reference to something above."""

        def ignore_aliases(self, _: Any) -> bool:
            return True

    def text(dumper: Any, value: str) -> Any:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    documents = (
        yaml.dump(found, Dumper=Dumper, sort_keys=False, default_flow_style=False, width=10_000) for found in objects
    )
    return "---\n".join(documents)


def _yaml() -> Any:
    try:
        import yaml
    except ImportError as error:
        raise MissingExtra("yaml", "k8s") from error
    return yaml
