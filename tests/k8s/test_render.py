"""What `render` makes of settings: as the golden files, valid for strict schemas, and refused where a cluster would."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from k8s import sizing
from k8s.kustomize import BASE, build, hashed_name
from k8s.locations import Location
from k8s.render import objects as rendered_objects
from k8s.render import render
from k8s.settings import ANNOTATION, Settings
from signatures.errors import UsageError, VitrinaError
from signatures.spec import Card, Signature, Source, Tensor
from tests.k8s.schemas import Object, by_kind_and_name, kustomize, objects, validate
from vitrina.cli import main

GOLDEN = Path(__file__).parent / "golden"
RENDERED: dict[str, dict[str, Any]] = {
    "bucket": {"location": "gs://bucket/models/digits", "namespace": "vision", "service_account": "reader"},
    "claim": {"location": "pvc://models/vision/digits/", "replicas": 1, "cpu": "500m", "memory": "1Gi", "max_batch": 0},
    "pinned": {
        "location": "s3://bucket/models/digits", "version": 3, "min_replicas": 3, "max_replicas": 30, "max_batch": 256,
        "components": ("pod-monitor", "tls"), "gateway": "public", "image": "registry.example.com/serving:2.19.1",
    },
    "gpu": {
        "location": "gs://bucket/models/digits", "version": 3, "canary": 4,
        "components": ("gcs-fuse", "gpu", "keda", "grafana-dashboard"),
    },
}  # fmt: skip
KUBERNETES = ("1.29.0", "1.37.0")


def text(case: str) -> str:
    return render(name="digits", **RENDERED[case])


def the(kind: str, found: list[Object]) -> Object:
    (only,) = (each for each in found if each["kind"] == kind)
    return only


def refuses(words: str, **settings: Any) -> None:
    with pytest.raises(UsageError, match=re.escape(words)) as caught:
        render(**{"location": "gs://bucket/digits", "name": "digits", **settings})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", sorted(RENDERED))
def test_it_renders_the_golden_file(case: str) -> None:
    golden = GOLDEN / f"{case}.yaml"
    if os.environ.get("REWRITE_GOLDEN"):
        golden.write_text(text(case))
    assert text(case) == golden.read_text(), "render changed: look at the difference, then REWRITE_GOLDEN=1 make test"


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("case", sorted(RENDERED))
def test_strict_schemas_accept_it(case: str, version: str) -> None:
    for found in objects(text(case)):
        validate(found, version)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on PATH")
@pytest.mark.parametrize("case", sorted(RENDERED))
def test_kubectl_reads_the_same_objects(case: str, tmp_path: Path) -> None:
    (tmp_path / "rendered.yaml").write_text(text(case))
    (tmp_path / "kustomization.yaml").write_text("resources: [rendered.yaml]\n")
    read = by_kind_and_name(objects(kustomize(tmp_path)))
    assert read == by_kind_and_name(objects(text(case)))


def test_the_base_is_what_render_fills_in() -> None:
    ours = rendered_objects(Settings(location="gs://bucket/models/servable", name="servable"))
    for found in ours:
        found["metadata"]["labels"].pop("app.kubernetes.io/managed-by")
        found["metadata"].pop("annotations", None)
    assert by_kind_and_name(ours) == by_kind_and_name(build(BASE, ["gcs"]))


def test_nothing_of_the_placeholder_is_left() -> None:
    for case in RENDERED:
        assert "servable" not in text(case).replace("servable-", "").replace("vitrina-", ""), case


def test_the_claim_is_mounted_where_the_server_reads() -> None:
    found = objects(text("claim"))
    pod = the("Deployment", found)["spec"]["template"]["spec"]
    mounts = {mount["name"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts["models"] == {
        "name": "models", "mountPath": "/models/digits", "readOnly": True, "subPath": "vision/digits",
    }  # fmt: skip
    assert 'base_path: "/models/digits"' in the("ConfigMap", found)["data"]["models.config"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["config"]["configMap"]["name"] == the("ConfigMap", found)["metadata"]["name"]
    assert volumes["models"]["persistentVolumeClaim"] == {"claimName": "models", "readOnly": True}
    assert not any("batching" in argument for argument in pod["containers"][0]["args"])
    assert "batching.config" not in the("ConfigMap", found)["data"]


@pytest.mark.parametrize("change", [{"location": "gs://bucket/other"}, {"version": 4}, {"max_batch": 4}, {"cpu": "3"}])
def test_another_configuration_is_another_name_and_so_a_rollout(change: dict[str, Any]) -> None:
    first, second = (
        the("ConfigMap", rendered_objects(Settings(**{"location": "gs://bucket/one", "name": "digits", **each})))
        for each in ({}, change)
    )
    assert first["metadata"]["name"] != second["metadata"]["name"]
    second["metadata"]["name"] = "digits-config"
    assert hashed_name(second).rpartition("-")[2] not in first["metadata"]["name"]


@pytest.mark.parametrize("case", sorted(RENDERED))
def test_tf_serving_parses_which_versions_are_served(case: str) -> None:
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    data = the_config(objects(text(case)))["models.config"]
    (model,) = text_format.Parse(data, model_server_config_pb2.ModelServerConfig()).model_config_list.config
    version, canary = RENDERED[case].get("version"), RENDERED[case].get("canary")
    assert model.name == "digits"
    assert list(model.model_version_policy.specific.versions) == [each for each in (version, canary) if each]
    labels = {"stable": version, "canary": canary}
    assert dict(model.version_labels) == {label: number for label, number in labels.items() if number}


def the_config(found: list[Object]) -> dict[str, str]:
    (only,) = (each for each in found if each["kind"] == "ConfigMap" and "models.config" in each["data"])
    data: dict[str, str] = only["data"]
    return data


def test_a_canary_of_its_own_stands_beside() -> None:
    settings = Settings(location="pvc://models/d", name="digits", version=4, gateway="public", components=("keda",))
    stable, canary = rendered_objects(settings), rendered_objects(settings, on_trial=2)
    assert [each["kind"] for each in canary] == ["ConfigMap", "Service", "Service", "Deployment", "NetworkPolicy"]
    assert not set(by_kind_and_name(stable)) & set(by_kind_and_name(canary))
    deployment = the("Deployment", canary)
    pod = deployment["spec"]["template"]
    assert (deployment["metadata"]["name"], deployment["spec"]["replicas"]) == ("digits-canary", 2)
    assert pod["metadata"]["labels"]["app.kubernetes.io/instance"] == "digits-canary"
    assert pod["spec"]["serviceAccountName"] == "digits"
    assert pod["spec"]["containers"][0]["readinessProbe"]["httpGet"]["path"] == "/v1/models/digits/metadata"
    assert 'name: "digits"' in the("ConfigMap", canary)["data"]["models.config"]


def test_the_settings_travel_with_the_deployment() -> None:
    for case, told in RENDERED.items():
        settings = Settings(name="digits", **told)
        annotations = the("Deployment", rendered_objects(settings))["metadata"]["annotations"]
        assert Settings.from_annotations(annotations, name="digits") == settings, case
    for wrong in ({}, {ANNOTATION: "{"}, {ANNOTATION: json.dumps({"location": "gs://b/d", "nmae": "d"})}):
        with pytest.raises(VitrinaError, match="digits"):
            Settings.from_annotations(wrong, name="digits")


def test_what_a_cluster_would_refuse_is_refused(tmp_path: Path) -> None:
    forms = "gs://BUCKET/PATH, s3://BUCKET/PATH"
    for location in (
        "models/digits",
        "http://host/digits",
        "gs://",
        "gs://Bucket/x",
        'gs://b/a"b',
        "gs://b/a b",
        "",
        "://",
    ):
        refuses(forms, location=location)
    refuses("Give gs://bucket/digits instead", location="gs://bucket/digits/3/")
    refuses("Give /models/digits instead", location="/models/digits/3")
    refuses("without '..'", location="pvc://claim/../other")
    refuses(forms, location="image://Upper Case")
    for name in ("Digits", "d" * 51, "-a", "a-", "1a", "", "a_b", "digits\n"):
        refuses(f"the name {name!r}", name=name)
    refuses("the namespace 'a_b'", namespace="a_b")
    refuses("the service account '-'", service_account="-")
    refuses("the image 'a b'", image="a b")
    refuses("Got 0 replicas", replicas=0)
    refuses("Got 5 to 2 replicas", min_replicas=5, max_replicas=2)
    refuses("Got version 0", version=0)
    refuses("two different versions", version=3, canary=3)
    refuses("two different versions", canary=3)
    refuses("batch size 9999", max_batch=9999)
    for cpu in ("lots", "-1", "0", "1e3", "", "2 "):
        refuses(f"--cpu {cpu!r}", cpu=cpu)
    refuses("forget the unit", memory="2")
    refuses("There is no component 'kedda'. Did you mean 'keda'?", components=("kedda",))
    refuses("read by one of: gcs, gcs-fuse, copy-gcs", components=("pvc",))
    refuses("Got the component gcs, gcs-fuse", components=("gcs", "gcs-fuse"))


def test_locations(tmp_path: Path) -> None:
    assert Location.parse("gs://bucket/a/b/") == Location(scheme="gs", root="bucket", path="a/b")
    assert Location.parse("pvc://claim") == Location(scheme="pvc", root="claim", path="")
    image = "image://registry.example.com:5000/team/digits:3"
    assert Location.parse(image).root == "registry.example.com:5000/team/digits:3"
    (tmp_path / "m" / "1").mkdir(parents=True)
    assert Location.parse(str(tmp_path / "m")) == Location(scheme="host", root="", path=str(tmp_path / "m"))


def test_what_is_copied_is_the_pinned_version_alone() -> None:
    settings = Settings(location="s3://bucket/models/digits", name="digits")
    for given, command in (
        (settings, ["s3://bucket/models/digits", "/models/digits"]),
        (settings.replace(version=3), ["s3://bucket/models/digits/3", "/models/digits/3"]),
        (settings.replace(version=3, canary=4), ["s3://bucket/models/digits", "/models/digits"]),
    ):
        pod = the("Deployment", rendered_objects(given))["spec"]["template"]["spec"]
        assert pod["initContainers"][0]["command"][-2:] == command


def card(shape: tuple[int | None, ...] = (None,), **extra: Any) -> Card:
    tensor = Tensor(dtype="string", shape=shape, meaning="")
    return Card(
        task="image-classification", labels=(), source=Source(model="m", revision=None, cls="M"), preprocessing={},
        signatures={"serving_default": Signature(inputs={"image_bytes": tensor}, outputs={})}, packages={}, extra=extra,
    )  # fmt: skip


def test_sizes_follow_from_what_was_measured(tmp_path: Path) -> None:
    base = tmp_path / "digits"
    card(measured={"latency_ms": {"p50": 40.0}, "memory_mb": 2147.483648, "cpus": 2}).write(base / "1")
    settings = Settings(location="gs://bucket/digits", name="digits")
    measured = sizing.read(base)
    filled, told = sizing.sized(settings, measured, rate=100)
    # 2 GiB measured and 1.5 GiB for the next version, a quarter more, in steps; 25 images/s each, 60 % busy, one more.
    assert (filled.cpu, filled.memory, filled.min_replicas, filled.max_replicas) == ("2", "4608Mi", 2, 8)
    assert len(told) == 3
    assert filled.max_batch is None
    pinned, _ = sizing.sized(settings.replace(version=1, cpu="4"), measured, rate=100)
    assert (pinned.cpu, pinned.memory, pinned.max_replicas) == ("4", "2560Mi", 5)
    assert sizing.sized(settings.replace(memory="9Gi"), measured)[0].memory == "9Gi"


def test_sizes_without_figures(tmp_path: Path) -> None:
    base = tmp_path / "digits"
    card(shape=(None, None)).write(base / "1")
    settings = Settings(location="gs://bucket/digits", name="digits")
    filled, _ = sizing.sized(settings, sizing.read(base))
    assert (filled.cpu, filled.memory, filled.max_batch) == (None, "1Gi", 0)
    assert sizing.sized(settings, sizing.Measured()) == (settings, ())
    with pytest.raises(UsageError, match="nothing tells what one replica answers"):
        sizing.sized(settings, sizing.Measured(), rate=5)
    with pytest.raises(UsageError, match="--rate -1"):
        sizing.sized(settings, sizing.Measured(latency_ms=3), rate=-1)
    card(measured={"cpus": "two"}).write(base / "1")
    with pytest.raises(UsageError, match="cpus 'two'"):
        sizing.read(base)


def test_the_command_prints_what_the_function_returns(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["k8s", "render", "gs://bucket/digits", "--name", "digits", "--replicas", "3", "--with", "keda"]) == 0
    assert capsys.readouterr().out == render("gs://bucket/digits", name="digits", replicas=3, components=("keda",))
    assert main(["k8s", "render", "gs://bucket/digits", "--name", "Digits"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_command_reads_the_card_of_a_servable_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card(measured={"latency_ms": 25, "memory_mb": 1000, "cpus": 1}).write(tmp_path / "digits" / "1")
    assert main(["k8s", "render", str(tmp_path / "digits"), "--name", "digits", "--rate", "60"]) == 0
    printed = capsys.readouterr()
    assert f"path: {tmp_path}/digits" in printed.out
    assert "maxReplicas: 4" in printed.out
    assert "2 to 4 replicas: 60 images/s over 40 that one answers" in printed.err
