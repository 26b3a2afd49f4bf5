"""What the manifests are held against: Kubernetes' own strict schemas, and those of the kinds that others define."""

from __future__ import annotations

import functools
import json
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import yaml

CRDS = Path(__file__).parent / "crds"
SDK = Path("/usr/lib/google-cloud-sdk/bin")
"""Where Google Cloud's packages put kubectl, several versions of it."""

Object = dict[str, Any]
Found = dict[tuple[str, str], Object]


@functools.cache
def crds() -> dict[tuple[str, str], Object]:
    """apiVersion and kind -> group, version, kind, plural and schema of a kind that others define."""
    read = [json.loads(path.read_text()) for path in sorted(CRDS.glob("*.json"))]
    return {(f"{each['group']}/{each['version']}", each["kind"]): each for each in read}


def validate(found: Object, version: str) -> None:
    """Refuses an object that a strict API server of this version would refuse."""
    import kubernetes_validate

    if not hasattr(kubernetes_validate.utils.schema_contents, "cache_info"):  # else it reads megabytes for every object
        kubernetes_validate.utils.schema_contents = functools.lru_cache(8)(kubernetes_validate.utils.schema_contents)
    crd = crds().get((found["apiVersion"], found["kind"]))
    if crd is None:
        kubernetes_validate.validate(found, version, strict=True)
    else:
        jsonschema.validate(found, crd["schema"])


def objects(text: str) -> list[Object]:
    return [each for each in yaml.safe_load_all(text) if each is not None]


def by_kind_and_name(found: list[Object]) -> Found:
    named = {(each["kind"], each["metadata"]["name"]): each for each in found}
    assert len(named) == len(found), "two objects of one kind and name"
    return named


def kustomize(folder: Path, kubectl: str = "kubectl") -> str:
    return subprocess.run(
        [kubectl, "kustomize", str(folder)], check=True, capture_output=True, text=True, timeout=60
    ).stdout
