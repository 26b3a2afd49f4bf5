"""The container's settings, held against the SDK that takes them."""

from __future__ import annotations

import inspect

import pytest

from serving import stock
from signatures.errors import UsageError
from signatures.spec import Card, Source
from vertex.containers import container_spec

CARD = Card(
    task="image-classification",
    labels=("0", "1"),
    source=Source(model="checkpoint", revision=None, cls="TFViTForImageClassification"),
    preprocessing={},
    signatures={},
    packages={},
)


def test_the_server_and_its_routes_agree() -> None:
    spec = container_spec(CARD, "gs://bucket/models/digits/")
    assert (spec.image, spec.command) == (stock.IMAGE, ("tensorflow_model_server",))
    flags = dict(argument.removeprefix("--").split("=", 1) for argument in spec.args)
    assert int(flags["rest_api_port"]) == spec.ports[0]
    assert flags["model_base_path"] == "$(AIP_STORAGE_URI)"
    assert spec.predict_route == f"/v1/models/{flags['model_name']}:predict"
    assert spec.health_route == f"/v1/models/{flags['model_name']}"
    assert int(flags["port"]) not in spec.ports


def test_the_flags_are_ones_that_the_embedded_server_knows_too() -> None:
    flags = pytest.importorskip("serving.flags", reason="the embedded server is not part of this installation")
    spec = container_spec(CARD, "gs://bucket/models/digits")
    parsed = flags.parse([argument.replace("$(AIP_STORAGE_URI)", "/models/digits") for argument in spec.args])
    assert parsed.rest_api_port == 8080


def test_the_sdk_takes_the_arguments() -> None:
    aiplatform = pytest.importorskip("google.cloud.aiplatform", reason="the extra `vertex` is not installed")
    arguments = container_spec(CARD, "gs://bucket/models/digits").upload_arguments()
    inspect.signature(aiplatform.Model.upload).bind(display_name="digits", **arguments)
    assert arguments["artifact_uri"] == "gs://bucket/models/digits"
    assert arguments["labels"] == {"vitrina-task": "image-classification"}


def test_vertex_accepts_the_settings_as_its_own_message() -> None:
    types = pytest.importorskip("google.cloud.aiplatform_v1.types", reason="the extra `vertex` is not installed")
    spec = container_spec(CARD, "gs://bucket/models/digits")
    message = types.ModelContainerSpec(
        image_uri=spec.image,
        command=list(spec.command),
        args=list(spec.args),
        ports=[types.Port(container_port=port) for port in spec.ports],
        predict_route=spec.predict_route,
        health_route=spec.health_route,
        env=[types.EnvVar(name=name, value=value) for name, value in spec.environment.items()],
    )
    assert message.ports[0].container_port == 8080


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("models/digits", "gs://BUCKET/PATH"),
        ("s3://bucket/digits", "gs://BUCKET/PATH"),
        ("gs://bucket/digits/12", "Give gs://bucket/digits instead"),
    ],
)
def test_what_vertex_cannot_read_is_refused(uri: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        container_spec(CARD, uri)
