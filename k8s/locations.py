"""Where a cluster finds a servable, and what the manifests need to read it there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from k8s.kustomize import Object
from serving import stock
from signatures import base_path
from signatures.errors import UsageError

__all__ = ["FORMS", "Location"]

FORMS = "gs://BUCKET/PATH, s3://BUCKET/PATH, pvc://CLAIM/PATH, image://IMAGE or a folder that every node has"

#: The component that reads each kind of place, unless another one that can is asked for.
_READERS = {
    "gs": ("gcs", "gcs-fuse", "copy-gcs"),
    "s3": ("copy-s3",),
    "pvc": ("pvc",),
    "image": ("oci-image",),
    "host": ("host-path",),
}


@dataclass(frozen=True, kw_only=True)
class Location:
    """Where a cluster finds a servable's base path.

    Args:
        scheme: `gs`, `s3`, `pvc`, `image`, or `host` for a folder of the node.
        root: The bucket, the claim, the image's reference; "" for a folder.
        path: The folder below it, without slashes at its ends; "" is the root itself. A node's folder is absolute.
    """

    scheme: str
    root: str
    path: str

    @classmethod
    def parse(cls, text: str) -> Location:
        """Reads a location.

        Args:
            text: The base path, the folder with 1, 2, ... in it, as a URI or as a folder.

        Raises:
            UsageError: It is none of these, or it names one version instead of the base path.
        """
        scheme, separator, rest = text.partition("://")
        if not separator:
            return cls._folder(text)
        if scheme == "image" and re.fullmatch(r"[\w.-]+(:\d+)?(/[\w.-]+)*((:[\w.-]+)|(@sha256:[0-9a-f]{64}))?", rest):
            return cls(scheme=scheme, root=rest, path="")
        root, _, path = rest.partition("/")
        good = scheme in ("gs", "s3", "pvc") and re.fullmatch(r"[a-z0-9][a-z0-9._-]*", root)
        parts = path.strip("/").split("/")
        if not good or (path.strip("/") and not all(re.fullmatch(r"[^\s\"'\\]+", part) for part in parts)):
            raise UsageError(
                f"Got the location {text!r}, but a cluster reads {FORMS}. "
                "Copy the servable's base path there and give that."
            )
        if scheme == "pvc" and ".." in parts:
            raise UsageError(f"Got the location {text!r}, but a folder of a claim is named without '..'. Leave it out.")
        stock.refuse_version(text)
        return cls(scheme=scheme, root=root, path=path.strip("/"))

    @classmethod
    def _folder(cls, text: str) -> Location:
        folder = Path(text)
        if (folder / "saved_model.pb").is_file():
            stock.refuse_version(str(folder.resolve()))
        if not folder.is_absolute() and not base_path.versions(folder):
            raise UsageError(
                f"Got the location {text!r}, which is no folder with versions here, but a cluster reads {FORMS}. "
                "Copy the servable's base path there and give that."
            )
        stock.refuse_version(text)
        return cls(scheme="host", root="", path=str(folder.resolve()))

    @property
    def readers(self) -> tuple[str, ...]:
        """The components that can read it, the usual one first."""
        return _READERS[self.scheme]

    def base_path(self, reader: str, model: str) -> str:
        """What TF Serving is told to read.

        Args:
            reader: One of `readers`.
            model: The model's name, which the mount point carries.
        """
        return f"gs://{self.root}/{self.path}".rstrip("/") if reader == "gcs" else f"/models/{model}"

    def fill(self, reader: str, pod: Object, *, version: int | None = None) -> None:
        """Puts this place in where the reader's component names an example.

        Args:
            reader: One of `readers`, already applied.
            pod: The pod's spec, changed in place.
            version: The one version that is wanted, where what is copied can be less than all; None is all.
        """
        if reader == "gcs":
            return
        (volume,) = (each for each in pod["volumes"] if each["name"] == "models")
        (mount,) = (each for each in pod["containers"][0]["volumeMounts"] if each["name"] == "models")
        if reader == "pvc":
            volume["persistentVolumeClaim"]["claimName"] = self.root
            mount.pop("subPath")
            if self.path:
                mount["subPath"] = self.path
        elif reader == "host-path":
            volume["hostPath"]["path"] = self.path
        elif reader == "oci-image":
            volume["image"]["reference"] = self.root
        elif reader == "gcs-fuse":
            attributes = volume["csi"]["volumeAttributes"]
            attributes["bucketName"] = self.root
            options = attributes["mountOptions"].split(",")
            kept = [each for each in options if not each.startswith("only-dir=")]
            attributes["mountOptions"] = ",".join([*kept, *([f"only-dir={self.path}"] if self.path else [])])
        else:
            (copier,) = (each for each in pod["initContainers"] if each["name"] == "copy-model")
            *command, _, target = copier["command"]
            part = f"/{version}" if version is not None else ""
            source = f"{self.scheme}://{self.root}/{self.path}".rstrip("/")
            copier["command"] = [*command, f"{source}{part}", f"{target}{part}"]
