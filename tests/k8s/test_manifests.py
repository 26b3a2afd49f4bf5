"""`k8s/base`, its components and overlays: built by kubectl, accepted by strict schemas, and true in themselves."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from k8s.kustomize import BASE, COMPONENTS, build, components
from serving import stock
from serving.flags import Flags
from tests.k8s.schemas import SDK, Found, Object, by_kind_and_name, kustomize, objects, validate

OVERLAYS = sorted((BASE.parent / "overlays").iterdir())
KUBECTLS = [str(SDK / f"kubectl.1.{minor}") for minor in (29, 32, 33)]
#: The oldest and the newest Kubernetes that the schemas describe, and what lies between.
KUBERNETES = tuple(f"1.{minor}.0" for minor in range(29, 38))
#: Kubernetes that has volumes of images.
IMAGE_VOLUMES = "1.31.0"
DRAIN_SECONDS = 20

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on PATH")


@functools.cache
def built(name: str) -> Found:
    """An overlay, the base, or the base with a component."""
    overlay = BASE.parent / "overlays" / name
    if overlay.is_dir():
        return by_kind_and_name(build(overlay))
    return by_kind_and_name(build(BASE, () if name == "base" else [name]))


CASES = ("base", *components(), *(path.name for path in OVERLAYS))
SERVERS = tuple(name for name in CASES if name != "kserve")


def deployment(name: str) -> Object:
    return built(name)["Deployment", "servable"]


def container(name: str) -> Object:
    (only,) = deployment(name)["spec"]["template"]["spec"]["containers"]
    return only


def config(name: str) -> Object:
    (only,) = (
        each for (kind, key), each in built(name).items() if kind == "ConfigMap" and key.startswith("servable-config-")
    )
    return only


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_kubectl_builds_what_we_build(overlay: Path) -> None:
    assert by_kind_and_name(objects(kustomize(overlay))) == built(overlay.name)


@needs_kubectl
@pytest.mark.parametrize("name", ["base", *components()])
def test_kubectl_builds_every_component_as_we_do(name: str, tmp_path: Path) -> None:
    lines = [f"resources: [{os.path.relpath(BASE, tmp_path)}]"]
    if name != "base":
        lines.append(f"components: [{os.path.relpath(COMPONENTS / name, tmp_path)}]")
    (tmp_path / "kustomization.yaml").write_text("\n".join(lines) + "\n")
    assert by_kind_and_name(objects(kustomize(tmp_path))) == built(name)


@pytest.mark.skipif(not all(map(os.path.exists, KUBECTLS)), reason=f"not all of kubectl 1.29, 1.32, 1.33 in {SDK}")
def test_every_kubectl_builds_the_same_text() -> None:
    for overlay in OVERLAYS:
        assert len({kustomize(overlay, kubectl) for kubectl in KUBECTLS}) == 1, overlay.name


def test_strict_schemas_of_every_kubernetes_accept_all_of_it() -> None:
    distinct = {json.dumps(found): name for name in CASES for found in built(name).values()}
    assert len(distinct) > 30
    for version in KUBERNETES:
        for text, name in distinct.items():
            if name != "oci-image" or KUBERNETES.index(version) >= KUBERNETES.index(IMAGE_VOLUMES):
                validate(json.loads(text), version)


def test_strict_schemas_would_refuse_a_misspelt_field() -> None:
    import kubernetes_validate

    spoilt = json.loads(json.dumps(deployment("base")))
    spoilt["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(spoilt, KUBERNETES[0])
    route = json.loads(json.dumps(built("gateway-canary")["HTTPRoute", "servable"]))
    route["spec"]["rules"][0]["backendRefs"][0]["weigth"] = 1
    with pytest.raises(jsonschema.ValidationError):
        validate(route, KUBERNETES[0])


def flags(name: str) -> dict[str, str]:
    pairs = (argument.removeprefix("--").partition("=") for argument in container(name)["args"])
    return {flag: value for flag, _, value in pairs}


@pytest.mark.parametrize("name", SERVERS)
def test_the_flags_are_tf_serving_s_own(name: str) -> None:
    beyond_stock = {"shutdown_grace_seconds", "log_format", "rest_api_ssl"}
    assert not set(flags(name)) - set(Flags.__dataclass_fields__)
    assert not set(flags(name)) & beyond_stock
    assert container(name)["command"] == [stock.SERVER]


@pytest.mark.parametrize("name", SERVERS)
def test_every_file_that_a_flag_names_is_mounted(name: str) -> None:
    pod = deployment(name)["spec"]["template"]["spec"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container(name)["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert {volumes[each]["name"] for each in mounts.values()} == set(mounts.values())
    for flag, value in flags(name).items():
        if flag.endswith("_file"):
            folder, _, file = value.rpartition("/")
            volume = volumes[mounts[folder]]
            if "configMap" in volume:
                assert volume["configMap"]["name"] == config(name)["metadata"]["name"]
                assert file in config(name)["data"]
            else:
                assert (file, list(volume)) == ("ssl.config", ["name", "emptyDir"])
                assert name == "tls"
    assert set(config(name)["data"]) == {"models.config", "batching.config", "monitoring.config"}


def models(name: str) -> Any:
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    parsed = text_format.Parse(config(name)["data"]["models.config"], model_server_config_pb2.ModelServerConfig())
    (model,) = parsed.model_config_list.config
    return model


@pytest.mark.parametrize("name", SERVERS)
def test_what_is_scraped_is_what_the_server_opens(name: str) -> None:
    assert (models(name).name, models(name).model_platform) == ("servable", "tensorflow")
    scraped = deployment(name)["spec"]["template"]["metadata"]["annotations"]
    assert f'path: "{scraped["prometheus.io/path"]}"' in config(name)["data"]["monitoring.config"]
    assert scraped["prometheus.io/port"] == flags(name)["rest_api_port"]


@pytest.mark.parametrize("name", SERVERS)
def test_the_model_lies_where_the_server_reads(name: str) -> None:
    where = models(name).base_path
    mounted = {mount["mountPath"] for mount in container(name)["volumeMounts"] if mount["name"] == "models"}
    if where.startswith("gs://"):
        assert mounted == set()
    elif mounted:
        assert mounted == {where}
    else:  # the base alone, and components that say nothing of it
        assert where == "/models/servable"
    for copier in deployment(name)["spec"]["template"]["spec"].get("initContainers", ()):
        if copier["name"] == "copy-model":
            assert copier["command"][-1] == where == copier["volumeMounts"][0]["mountPath"]


@pytest.mark.parametrize("name", SERVERS)
def test_probes_and_ports_are_the_server_s(name: str) -> None:
    ports = {port["name"]: port["containerPort"] for port in container(name)["ports"]}
    assert {str(ports["grpc"]), str(ports["rest"])} == {flags(name)["port"], flags(name)["rest_api_port"]}
    startup, readiness, liveness = (container(name)[f"{which}Probe"] for which in ("startup", "readiness", "liveness"))
    # Only metadata wants an available version; the status alone is 200 for a model that failed.
    assert (
        startup["httpGet"]
        == readiness["httpGet"]
        == {"path": f"/v1/models/{models(name).name}/metadata", "port": "rest"}
    )
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 600
    if "ssl_config_file" in flags(name):
        assert liveness["tcpSocket"] == {"port": "grpc"}
        assert "grpc" not in liveness
    else:
        assert liveness["grpc"] == {"port": ports["grpc"]}
        assert flags(name)["enable_grpc_healthcheck_service"] == "true"
    for service in services(name):
        for port in service["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"]
    assert {service["spec"].get("clusterIP") for service in services(name)} == {None, "None"}


def services(name: str) -> list[Object]:
    return [found for (kind, _), found in built(name).items() if kind == "Service"]


@pytest.mark.parametrize("name", SERVERS)
def test_every_selector_selects_the_pods(name: str) -> None:
    labels = deployment(name)["spec"]["template"]["metadata"]["labels"]

    def selectors(value: Any) -> Iterator[Object]:
        if isinstance(value, dict):
            for key, inner in value.items():
                if key in ("selector", "podSelector", "labelSelector") and inner:
                    yield inner.get("matchLabels", inner)
                elif key != "from":
                    yield from selectors(inner)
        elif isinstance(value, list):
            for item in value:
                yield from selectors(item)

    found = list(selectors(list(built(name).values())))
    assert len(found) >= 5
    assert all(each == labels for each in found)


@pytest.mark.parametrize("name", SERVERS)
def test_names_lead_to_what_is_there(name: str) -> None:
    pod = deployment(name)["spec"]["template"]["spec"]
    assert ("ServiceAccount", pod["serviceAccountName"]) in built(name)
    for (kind, _), found in built(name).items():
        if kind in ("HorizontalPodAutoscaler", "ScaledObject"):
            target = found["spec"]["scaleTargetRef"]
            assert (target["kind"], target["name"]) in built(name)
        if kind in ("HTTPRoute", "GRPCRoute"):
            for rule in found["spec"]["rules"]:
                for backend in rule["backendRefs"]:
                    ports = built(name)["Service", backend["name"]]["spec"]["ports"]
                    assert backend["port"] in {port["port"] for port in ports}
        if kind == "PodMonitor":
            (endpoint,) = found["spec"]["podMetricsEndpoints"]
        if kind == "PodMonitoring":
            (endpoint,) = found["spec"]["endpoints"]
        if kind.startswith("PodMonitor"):
            assert endpoint["port"] == "rest"
            assert f'path: "{endpoint["path"]}"' in config(name)["data"]["monitoring.config"]
    scalers = [kind for kind, _ in built(name) if kind in ("HorizontalPodAutoscaler", "ScaledObject")]
    assert len(scalers) == (0 if name == "dev" else 1), "two autoscalers would fight"
    assert ("replicas" in deployment(name)["spec"]) == (not scalers), "replicas are the autoscaler's"


@pytest.mark.parametrize("name", SERVERS)
def test_it_is_safe_and_stays_available(name: str) -> None:
    spec, pod = deployment(name)["spec"], deployment(name)["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert built(name)["ServiceAccount", "servable"]["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for each in (*pod["containers"], *pod.get("initContainers", ())):
        context = each["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert re.fullmatch(r"[\w./-]+:\d+\.[\w.-]+", each["image"]), "a pinned tag"
        assert {"cpu", "memory"} <= set(each["resources"]["requests"])
        assert "memory" in each["resources"]["limits"]
    assert {"name": "tmp", "emptyDir": {}} in pod["volumes"]
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    sleep = int(container(name)["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > sleep
    assert sleep >= (3 if name == "dev" else DRAIN_SECONDS)
    policy = built(name)["NetworkPolicy", "servable"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert [port["port"] for port in policy["ingress"][0]["ports"]] == ["grpc", "rest"]


def test_the_images_are_those_of_the_code() -> None:
    assert container("base")["image"] == stock.IMAGE
    assert container("gpu")["image"] == f"{stock.IMAGE}-gpu"
    kserve = built("kserve")["InferenceService", "servable"]["spec"]["predictor"]["model"]
    assert f"tensorflow/serving:{kserve['runtimeVersion']}" == stock.IMAGE


def test_the_dashboard_asks_for_metrics_that_the_server_has() -> None:
    from serving.metrics import Registry

    names = {metric.name for metric in Registry().metrics()}
    dashboard = json.loads((COMPONENTS / "grafana-dashboard" / "dashboard.json").read_text())
    asked = {
        metric
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for metric in re.findall(r":tensorflow:serving:[\w:]+", target["expr"])
    }
    assert len(dashboard["panels"]) == len({panel["id"] for panel in dashboard["panels"]}) >= 6
    assert {re.sub(r"_(bucket|sum|count)$", "", each) for each in asked} - {
        re.sub(r"_(bucket|sum|count)$", "", each) for each in names
    } == set()
