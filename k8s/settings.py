"""What one servable's manifests are made from: plain data, checked, and kept on the Deployment itself."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from k8s.kustomize import check_component
from k8s.locations import Location
from signatures.errors import UsageError, VitrinaError

__all__ = ["ANNOTATION", "CANARY", "STABLE", "Settings", "cpus", "gibibytes"]

ANNOTATION = "vitrina.dev/settings"
"""Where a Deployment carries what it was rendered from."""

STABLE = "stable"
CANARY = "canary"
"""TF Serving's labels of the version that everybody gets and of the one on trial."""

#: Room for `-canary-grpc` within the 63 characters of a Service's name.
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,48}[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_QUANTITY = re.compile(r"(?P<number>\d+(\.\d+)?)(?P<unit>m|k|Ki|M|Mi|G|Gi|T|Ti)?")
_UNITS = {None: 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_UNITS |= {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One servable on Kubernetes. None leaves to the base and its components what they say.

    Args:
        location: The servable's base path as the cluster sees it, see `Location.parse`.
        name: What the objects and the model are called, such as `digits`; clients ask for `/v1/models/digits`.
        namespace: The objects' namespace; None leaves it to `kubectl` or the context.
        version: The one version that is served; None follows the base path: always its highest.
        canary: A second version, served beside it under the label `canary`.
        replicas: Exactly so many pods, without an autoscaler; None lets one decide.
        min_replicas: The fewest pods that the autoscaler leaves.
        max_replicas: The most that it starts.
        image: A TF Serving image, 2.16 or newer.
        cpu: CPU requested per pod, as Kubernetes writes it (`500m`, `2`).
        memory: Memory requested and allowed per pod, as Kubernetes writes it (`2Gi`).
        max_batch: How many images of several requests run at once; 0 runs every request by itself.
        service_account: An existing ServiceAccount for the pods; None makes one without rights.
        gateway: The Gateway of the Gateway API that routes to it.
        components: Names of folders in `k8s/components`.
    """

    location: str
    name: str
    namespace: str | None = None
    version: int | None = None
    canary: int | None = None
    replicas: int | None = None
    min_replicas: int = 2
    max_replicas: int = 10
    image: str | None = None
    cpu: str | None = None
    memory: str | None = None
    max_batch: int | None = None
    service_account: str | None = None
    gateway: str | None = None
    components: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._check_names()
        self._check_numbers()
        self._check_components()

    def _check_names(self) -> None:
        wanted = "small letters, digits and dashes, a letter first and no dash last"
        for what, value, most in (("name", self.name, 50), ("service account", self.service_account, 50)):
            if value is not None and not _NAME.fullmatch(value):
                raise UsageError(
                    f"Got the {what} {value!r}, but Kubernetes wants at most {most} {wanted}. Choose such a one."
                )
        for what, value in (("namespace", self.namespace), ("gateway", self.gateway)):
            if value is not None and not _NAMESPACE.fullmatch(value):
                raise UsageError(f"Got the {what} {value!r}, but Kubernetes wants at most 63 {wanted.split(',')[0]}.")
        if self.image is not None and not re.fullmatch(r"[\w.:/@-]+", self.image):
            raise UsageError(f"Got the image {self.image!r}, wanted one such as tensorflow/serving:2.19.1.")

    def _check_numbers(self) -> None:
        if self.replicas is not None and self.replicas < 1:
            raise UsageError(f"Got {self.replicas} replicas, wanted one or more. Give --replicas 1 or leave it out.")
        if not 1 <= self.min_replicas <= self.max_replicas:
            raise UsageError(
                f"Got {self.min_replicas} to {self.max_replicas} replicas, wanted 1 or more, and the most not below "
                "the fewest. Change --min-replicas or --max-replicas."
            )
        for option, version in (("version", self.version), ("canary", self.canary)):
            if version is not None and version < 1:
                raise UsageError(f"Got {option} {version}, wanted the number of a version, 1 or more.")
        if self.canary is not None and (self.version is None or self.version == self.canary):
            raise UsageError(
                f"Got the canary {self.canary} beside the version {self.version}, wanted two different versions."
            )
        if self.max_batch is not None and not 0 <= self.max_batch <= 4096:
            raise UsageError(f"Got the batch size {self.max_batch}, wanted 0 (none) to 4096.")
        for what, value in (("--cpu", self.cpu), ("--memory", self.memory)):
            if value is not None and not _quantity(value) > 0:
                raise UsageError(
                    f"Got {what} {value!r}, wanted a quantity as Kubernetes writes it: 500m, 2, 512Mi, 2Gi."
                )
        if self.memory is not None and _quantity(self.memory) < 2**20:
            raise UsageError(
                f"Got --memory {self.memory!r}, which is less than a MiB. Did you forget the unit, as in 2Gi?"
            )

    def _check_components(self) -> None:
        for name in self.components:
            check_component(name)
        place = Location.parse(self.location)
        readers = {name for each in ("gs", "s3", "pvc", "image", "host") for name in _readers(each)}
        asked = [name for name in self.components if name in readers]
        wrong = [name for name in asked if name not in place.readers]
        if wrong or len(asked) > 1:
            raise UsageError(
                f"Got the component {', '.join(asked)} with {self.location}, which is read by one of: "
                f"{', '.join(place.readers)}. Leave --with out, or name one of these."
            )

    @property
    def reader(self) -> str:
        """The component that brings the servable to the server."""
        place = Location.parse(self.location)
        return next((name for name in self.components if name in place.readers), place.readers[0])

    @property
    def all_components(self) -> tuple[str, ...]:
        """What is applied to the base, in order: the reader, what was asked for, the routes of a Gateway."""
        others = [name for name in self.components if name != self.reader]
        if self.gateway is not None and "gateway-canary" not in others:
            others.append("gateway-canary")
        return (self.reader, *dict.fromkeys(others))

    def replace(self, **changes: Any) -> Settings:
        """A copy with some fields changed, checked as any other."""
        return dataclasses.replace(self, **changes)

    def to_json(self) -> str:
        """As the annotation holds it: one line, only what is not left open."""
        told = {field.name: getattr(self, field.name) for field in fields(self)}
        return json.dumps({key: value for key, value in told.items() if value not in (None, ())}, sort_keys=True)

    @classmethod
    def from_annotations(cls, annotations: Mapping[str, str], *, name: str) -> Settings:
        """Reads what `to_json` wrote from a Deployment's annotations.

        Raises:
            VitrinaError: There is none, or one that this Vitrina does not know.
        """
        text = annotations.get(ANNOTATION)
        if text is None:
            raise VitrinaError(
                f"The Deployment {name} was not made by `vitrina k8s apply`: it lacks the annotation {ANNOTATION}. "
                "Apply it once with that command."
            )
        try:
            told = json.loads(text)
            return cls(**{**told, "components": tuple(told.get("components", ()))})
        except (ValueError, TypeError) as error:
            raise VitrinaError(
                f"The Deployment {name} has settings that this Vitrina does not know ({error}). Apply it anew."
            ) from error


def _readers(scheme: str) -> tuple[str, ...]:
    return Location(scheme=scheme, root="", path="").readers


def _quantity(text: str) -> float:
    found = _QUANTITY.fullmatch(text)
    return float(found["number"]) * _UNITS[found["unit"]] if found else -1.0


def cpus(text: str) -> float:
    """CPUs from Kubernetes' writing: `500m` is 0.5."""
    return _quantity(text)


def gibibytes(text: str) -> float:
    """GiB from Kubernetes' writing: `512Mi` is 0.5."""
    return _quantity(text) / 2**30
