"""What Vertex AI is told of the container that serves a servable: stock TF Serving, by plain data.

Vertex's prebuilt TensorFlow containers end at 2.15, so newer servables run on a stock TF Serving image. The contract of
custom containers: the server listens on one HTTP port of every address, Vertex copies the artifact folder to a bucket
of its own and puts its place into `AIP_STORAGE_URI`, and `$(NAME)` in arguments is replaced by the container's
environment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from serving import stock
from signatures.errors import UsageError
from signatures.spec import Card

__all__ = ["ContainerSpec", "container_spec"]

REST_PORT = 8080
GRPC_PORT = 8500
MODEL_NAME = "model"
"""Vertex names the model itself, and routes by endpoint: inside the container one fixed name is enough."""


@dataclass(frozen=True, kw_only=True)
class ContainerSpec:
    """A serving container for Vertex AI.

    Args:
        artifact_uri: `gs://` folder with the version folders (1, 2, ...) in it.
        image: The container's image.
        command: What runs, in place of the image's entry point.
        args: Its arguments; `$(AIP_STORAGE_URI)` is filled in by Vertex.
        ports: The ports that the container listens on; Vertex calls the first.
        predict_route: The HTTP path that Vertex sends `:predict` bodies to.
        health_route: The HTTP path that answers 200 once requests are welcome.
        environment: Further environment variables.
        labels: Vertex resource labels that tell what the servable is.
    """

    artifact_uri: str
    image: str
    command: tuple[str, ...]
    args: tuple[str, ...]
    ports: tuple[int, ...]
    predict_route: str
    health_route: str
    environment: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    def upload_arguments(self) -> dict[str, Any]:
        """The same as keyword arguments of the SDK's `aiplatform.Model.upload`."""
        return {
            "artifact_uri": self.artifact_uri,
            "serving_container_image_uri": self.image,
            "serving_container_command": list(self.command),
            "serving_container_args": list(self.args),
            "serving_container_ports": list(self.ports),
            "serving_container_predict_route": self.predict_route,
            "serving_container_health_route": self.health_route,
            "serving_container_environment_variables": dict(self.environment),
            "labels": dict(self.labels),
        }


def container_spec(card: Card, artifact_uri: str, *, image: str = stock.IMAGE) -> ContainerSpec:
    """The container that serves a servable on Vertex AI.

    Args:
        card: The servable's card; its task becomes a label of the Vertex model.
        artifact_uri: Where its base path was copied to, `gs://BUCKET/PATH`: the folder above `1/`.
        image: A TF Serving image, 2.16 or newer, that Vertex may pull.

    Returns:
        The container's settings, for `Model.upload` or for a pipeline's component.

    Raises:
        UsageError: `artifact_uri` is no `gs://` folder, or names one version.

    Example:
        >>> spec = container_spec(Card.read(version), "gs://bucket/models/digits")  # doctest: +SKIP
        >>> aiplatform.Model.upload(display_name="digits", **spec.upload_arguments())  # doctest: +SKIP
    """
    if not re.fullmatch(r"gs://[^/\s]+(/\S*)?", artifact_uri):
        raise UsageError(
            f"Got the artifact URI {artifact_uri!r}, but Vertex AI reads gs://BUCKET/PATH. "
            "Copy the servable's base path there and give that."
        )
    folder = artifact_uri.rstrip("/")
    stock.refuse_version(folder)
    return ContainerSpec(
        artifact_uri=folder,
        image=image,
        command=(stock.SERVER,),
        args=(
            f"--port={GRPC_PORT}",
            f"--rest_api_port={REST_PORT}",
            f"--model_name={MODEL_NAME}",
            "--model_base_path=$(AIP_STORAGE_URI)",
        ),
        ports=(REST_PORT,),
        predict_route=f"/v1/models/{MODEL_NAME}:predict",
        health_route=f"/v1/models/{MODEL_NAME}",
        environment={"TF_CPP_MIN_LOG_LEVEL": "1"},
        labels={"vitrina-task": card.task},
    )
