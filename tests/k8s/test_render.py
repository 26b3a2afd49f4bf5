"""The manifests: as the golden files, valid for strict schemas, and the same to kubectl as to us."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8s import render as module
from k8s.render import Location, render
from serving import stock
from signatures.errors import UsageError
from vitrina.cli import main

GOLDEN = Path(__file__).parent / "golden"
RENDERED = {
    "bucket": lambda: render("gs://bucket/models/digits", name="digits", namespace="vision", service_account="reader"),
    "claim": lambda: render("pvc://models/vision/digits/", name="digits", replicas=1, cpu="500m", memory="1Gi"),
}
#: The oldest and the newest Kubernetes that the schemas at hand describe and that we promise.
KUBERNETES = ("1.27.0", "1.33.0")

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on PATH")


def objects(text: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(text))


def by_kind_and_name(text: str) -> dict[tuple[str, str], dict[str, Any]]:
    return {(found["kind"], found["metadata"]["name"]): found for found in objects(text)}


def kustomize(folder: Path) -> str:
    return subprocess.run(
        ["kubectl", "kustomize", str(folder)], check=True, capture_output=True, text=True, timeout=60
    ).stdout


@pytest.mark.parametrize("case", sorted(RENDERED))
def test_it_renders_the_golden_file(case: str) -> None:
    golden = GOLDEN / f"{case}.yaml"
    text = RENDERED[case]()
    if os.environ.get("REWRITE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text(), "render changed: look at the difference, then REWRITE_GOLDEN=1 make test"


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("case", sorted(RENDERED))
def test_strict_schemas_accept_it(case: str, version: str) -> None:
    import kubernetes_validate

    found = objects(RENDERED[case]())
    assert [each["kind"] for each in found] == ["ConfigMap", "Service", "Service", "Deployment"]
    for each in found:
        kubernetes_validate.validate(each, version, strict=True)


def test_strict_schemas_would_refuse_a_misspelt_field() -> None:
    import kubernetes_validate

    deployment = objects(RENDERED["claim"]())[-1]
    deployment["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, KUBERNETES[0], strict=True)


@needs_kubectl
@pytest.mark.parametrize("case", sorted(RENDERED))
def test_kubectl_reads_the_same_objects(case: str, tmp_path: Path) -> None:
    (tmp_path / "rendered.yaml").write_text(RENDERED[case]())
    (tmp_path / "kustomization.yaml").write_text("resources: [rendered.yaml]\n")
    assert by_kind_and_name(kustomize(tmp_path)) == by_kind_and_name(RENDERED[case]())


@needs_kubectl
def test_the_base_is_what_render_fills_in() -> None:
    # Only the hash in the ConfigMap's name is computed differently: by kustomize there, by us here.
    def unhashed(text: str) -> dict[tuple[str, str], dict[str, Any]]:
        return by_kind_and_name(re.sub(r"(servable-config)-\w{10}", r"\1", text))

    ours = unhashed(render("gs://bucket/servable", name="servable").replace("gs://bucket/servable", "/models/servable"))
    assert ours == unhashed(kustomize(module.BASE))


def test_the_claim_is_mounted_where_the_server_reads() -> None:
    found = by_kind_and_name(RENDERED["claim"]())
    pod = found["Deployment", "digits"]["spec"]["template"]["spec"]
    mounts = {mount["name"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts["models"] == {
        "name": "models", "mountPath": "/models/digits", "readOnly": True, "subPath": "vision/digits",
    }  # fmt: skip
    (config,) = (each for (kind, _), each in found.items() if kind == "ConfigMap")
    assert 'base_path: "/models/digits"' in config["data"]["models.config"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["config"]["configMap"]["name"] == config["metadata"]["name"]
    assert volumes["models"]["persistentVolumeClaim"] == {"claimName": "models", "readOnly": True}


def test_another_place_is_another_config_and_so_a_rollout() -> None:
    names = {
        objects(render(f"gs://bucket/{folder}", name="digits"))[0]["metadata"]["name"] for folder in ("one", "two")
    }
    assert len(names) == 2


def test_the_server_s_config_is_what_tf_serving_parses() -> None:
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    config = objects(render("gs://bucket/models/digits", name="digits"))[0]["data"]["models.config"]
    parsed = text_format.Parse(config, model_server_config_pb2.ModelServerConfig())
    (model,) = parsed.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("digits", "gs://bucket/models/digits", "tensorflow")


@pytest.mark.parametrize(
    ("location", "arguments", "words"),
    [
        ("models/digits", {}, "gs://BUCKET/PATH or pvc://CLAIM/PATH"),
        ("s3://bucket/digits", {}, "gs://BUCKET/PATH or pvc://CLAIM/PATH"),
        ("gs://", {}, "gs://BUCKET/PATH or pvc://CLAIM/PATH"),
        ("gs://bucket/digits/3/", {}, "Give gs://bucket/digits instead"),
        ("gs://bucket/digits", {"name": "Digits"}, "the name 'Digits'"),
        ("gs://bucket/digits", {"name": "d" * 60}, "at most 52"),
        ("gs://bucket/digits", {"namespace": "a_b"}, "the namespace 'a_b'"),
        ("gs://bucket/digits", {"service_account": "-"}, "the service account '-'"),
        ("gs://bucket/digits", {"replicas": 0}, "Got 0 replicas"),
    ],
)
def test_what_a_cluster_would_refuse_is_refused(location: str, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)) as caught:
        render(location, **{"name": "digits", **arguments})
    assert "\n" not in str(caught.value)


def test_locations() -> None:
    assert Location.parse("gs://bucket/a/b/", name="m") == Location(base_path="gs://bucket/a/b")
    assert Location.parse("pvc://claim", name="m") == Location(base_path="/models/m", claim="claim")


def test_the_command_prints_what_the_function_returns(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["k8s", "render", "gs://bucket/digits", "--name", "digits", "--replicas", "3"]) == 0
    assert capsys.readouterr().out == render("gs://bucket/digits", name="digits", replicas=3)
    assert main(["k8s", "render", "gs://bucket/digits", "--name", "Digits"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_base_has_the_pinned_image() -> None:
    assert f"image: {stock.IMAGE}\n" in (module.BASE / "deployment.yaml").read_text()
