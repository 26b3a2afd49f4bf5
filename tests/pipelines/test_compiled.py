"""The job that Vertex AI would run, loaded by the real SDK; what its containers do with it, without a container."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipelines import on_vertex, push
from pipelines.compiled import mounted
from signatures.errors import UsageError
from vitrina.cli import main

IMAGE = "europe-docker.pkg.dev/p/r/vitrina:1"
COMPILE = (
    "pipeline compile --for vertex --model google/vit-base-patch16-224 --name flowers --threshold 0.8 "
    f"--data gs://b/flowers --root gs://b/root --serving-dir gs://b/models/flowers --image {IMAGE} "
    "--push-to k8s://vision/flowers "
)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("tfx", reason="the tfx extra is not installed in this lane")
    out = tmp_path_factory.mktemp("job") / "flowers.json"
    assert main(shlex.split(COMPILE + f"--out {out}")) == 0
    return out


def test_the_sdk_takes_the_job_and_finds_all_in_it(job: Path) -> None:
    aiplatform = pytest.importorskip("google.cloud.aiplatform", reason="the vertex extra is not installed")
    from google.auth.credentials import AnonymousCredentials

    taken = aiplatform.PipelineJob(
        display_name="flowers", template_path=str(job), project="p", location="europe-west4",
        credentials=AnonymousCredentials(),
    )  # fmt: skip
    message = taken.to_dict()
    assert message["runtimeConfig"]["gcsOutputDirectory"] == "gs://b/root"
    assert set(message["pipelineSpec"]["root"]["dag"]["tasks"]) == {
        "ImageGen", "IngestGate", "StatisticsGen", "SchemaGen", "ExampleValidator", "AcceptedBefore", "DataCheck",
        "DataGate", "Trainer", "SkewCheck", "Evaluator", "LatestBlessed-model-blessing-resolver",
        "LatestBlessed-model-resolver", "ServingCheck", "ModelReport", "BasePathPusher", "TargetPusher1",
    }  # fmt: skip


def test_each_component_runs_in_our_image_through_our_entry(job: Path) -> None:
    spec = json.loads(job.read_text())["pipelineSpec"]
    containers = {
        name: executor["container"]
        for name, executor in spec["deploymentSpec"]["executors"].items()
        if "container" in executor
    }
    assert len(containers) == 14
    assert {container["image"] for container in containers.values()} == {IMAGE}
    assert {tuple(container["command"]) for container in containers.values()} == {
        ("python", "-m", "pipelines.on_vertex")
    }
    assert all("{{$}}" in container["args"] for container in containers.values())


def test_buckets_are_read_where_they_are_mounted_and_data_is_never_taken_from_the_cache(job: Path) -> None:
    tasks = json.loads(job.read_text())["pipelineSpec"]["root"]["dag"]["tasks"]
    assert tasks["ImageGen"]["inputs"]["parameters"]["data"]["runtimeValue"]["constant"] == "/gcs/b/flowers"
    assert (
        tasks["BasePathPusher"]["inputs"]["parameters"]["base"]["runtimeValue"]["constant"] == "/gcs/b/models/flowers"
    )
    uncached = {name for name, task in tasks.items() if not task.get("cachingOptions", {}).get("enableCache")}
    resolvers = {name for name in tasks if name.startswith(("LatestBlessed", "AcceptedBefore"))}
    assert uncached == {"ImageGen", "BasePathPusher", "TargetPusher1", *resolvers}
    assert {"SkewCheck", "Evaluator", "ServingCheck"} <= set(tasks["BasePathPusher"]["dependentTasks"]), (
        "a push waits for every verdict"
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("--data flowers", "Got --data flowers, but Vertex AI sees buckets only"),
        ("--name My_Flowers", "lower-case letters"),
        ("--out job.txt", ".json"),
    ],
)
def test_what_vertex_would_refuse_is_refused_here(change: str, told: str, capsys: Any, tmp_path: Path) -> None:
    assert main(shlex.split(f"{COMPILE} --out {tmp_path / 'job.json'} {change}")) == 2
    assert told in capsys.readouterr().err


def test_a_job_that_was_not_compiled_is_not_submitted(capsys: Any) -> None:
    assert main(["pipeline", "submit", "nowhere.json", "--project", "p", "--location", "l"]) == 2
    assert "vitrina pipeline compile" in capsys.readouterr().err


def test_a_container_reads_the_mount_writes_its_own_disk_and_tells_of_the_bucket(tmp_path: Path) -> None:
    mount, scratch = tmp_path / "gcs", tmp_path / "scratch"
    scratch.mkdir()
    given = {
        "inputs": {
            "artifacts": {"examples": {"artifacts": [{"uri": "gs://b/root/examples"}]}},
            "parameterValues": {"schedule": '{"from": "gs://b/weights"}', "epochs": 2},
        },
        "outputs": {
            "artifacts": {"model": {"artifacts": [{"uri": "gs://b/root/model"}]}},
            "outputFile": "gs://b/root/task/executor_output.json",
        },
    }
    moved = on_vertex.moved(json.dumps(given), scratch, f"{mount}/")
    inputs, outputs = moved.invocation["inputs"], moved.invocation["outputs"]
    assert inputs["artifacts"]["examples"]["artifacts"][0]["uri"] == f"{mount}/b/root/examples"
    assert inputs["parameterValues"] == {"schedule": f'{{"from": "{mount}/b/weights"}}', "epochs": 2}
    model = Path(outputs["artifacts"]["model"]["artifacts"][0]["uri"])
    assert model == scratch / "b" / "root" / "model"
    for path, text in {
        model / "Format" / "weights": "w",
        Path(outputs["outputFile"]): json.dumps({"uri": str(model), "pushed": f"{mount}/b/models/3"}),
        scratch / "b" / "root" / "task" / ".temp" / "half": "not for others",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    moved.finish()
    assert (mount / "b" / "root" / "model" / "Format" / "weights").read_text() == "w"
    assert json.loads((mount / "b" / "root" / "task" / "executor_output.json").read_text()) == {
        "uri": "gs://b/root/model",
        "pushed": "gs://b/models/3",
    }
    assert not (mount / "b" / "root" / "task" / ".temp").exists()
    assert mounted("google/vit") == "google/vit"


def run_container(job: Path, component: str, mount: Path, inputs: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """TFX's own entry point on a component's own arguments, with a folder in place of the mounted buckets.

    Returns:
        What Vertex would be told.
    """
    spec = json.loads(job.read_text())["pipelineSpec"]
    defined = spec["components"][component]
    parameters = spec["root"]["dag"]["tasks"][component]["inputs"].get("parameters", {})
    constants = {name: value["runtimeValue"]["constant"] for name, value in parameters.items()}

    def artifacts(kinds: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
        return {
            name: {
                "artifacts": [{"name": name, "uri": f"gs://b/root/{name}", **each, "type": kinds[name]["artifactType"]}]
            }
            for name, each in given.items()
        }

    outputs = defined["outputDefinitions"]["artifacts"]
    invocation = {
        "inputs": {
            "parameterValues": {**constants, **changes},
            "artifacts": artifacts(defined.get("inputDefinitions", {}).get("artifacts", {}), inputs),
        },
        "outputs": {
            "artifacts": artifacts(outputs, {name: {} for name in outputs}),
            "outputFile": "gs://b/root/task/executor_output.json",
        },
    }
    args = spec["deploymentSpec"]["executors"][f"{component}_executor"]["container"]["args"]
    assert on_vertex.main([json.dumps(invocation) if arg == "{{$}}" else arg for arg in args]) == 0
    told = json.loads((mount / "b" / "root" / "task" / "executor_output.json").read_text())
    assert isinstance(told, dict)
    return told


def test_containers_of_the_job_ingest_images_and_serve_a_candidate(
    job: Path, tiny_servable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines import digits
    from signatures.spec import Card

    mount = tmp_path / "gcs"
    root = mount / "b" / "root"
    monkeypatch.setattr(on_vertex, "MOUNT", f"{mount}/")
    digits.write_images(mount / "b" / "flowers", limit=5)
    told = run_container(job, "ImageGen", mount, {}, data=str(mount / "b" / "flowers"))
    report = json.loads((root / "report" / "report.json").read_text())
    assert report["counts"] == {"train": 40, "eval": 10}
    assert any((root / "examples" / "Split-train").iterdir())
    assert told["artifacts"]["report"]["artifacts"][0]["uri"] == "gs://b/root/report"

    # What TFX's InfraValidator is refused for: the candidate is served in the container, and judged there.
    shutil.copytree(tiny_servable / "1", root / "model" / "Format-Serving")
    Card.read(tiny_servable / "1").replace(parity={"holds": True}).write(root / "model" / "Format-Serving")
    (root / "model_run").mkdir()
    examples = told["artifacts"]["examples"]["artifacts"][0]
    told = run_container(
        job, "ServingCheck", mount, {"examples": {"metadata": examples["metadata"]}, "model": {}, "model_run": {}}
    )
    blessing = told["artifacts"]["blessing"]["artifacts"][0]
    assert blessing["metadata"]["blessed"] == 1, (root / "blessing" / "serving.json").read_text()
    assert (root / "blessing" / "INFRA_BLESSED").is_file()
    assert (root / "blessing" / "tf_serving_warmup_requests").stat().st_size


def test_a_push_into_a_mounted_bucket_renames_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("a folder in a bucket is not renamed")

    model, base = tmp_path / "model", tmp_path / "gcs" / "models"
    (model / "variables").mkdir(parents=True)
    monkeypatch.setattr(push, "BUCKETS", str(tmp_path / "gcs"))
    monkeypatch.setattr(Path, "rename", refuse)
    for number, text in ((1, "one"), (2, "two"), (3, "three")):
        for name in ("saved_model.pb", "variables/variables.index"):
            (model / name).write_text(text)
        done = push.push(model, base, keep=2)
        assert (done.version, done.new) == (number, True)
        assert (base / str(number) / "saved_model.pb").read_text() == text
    assert sorted(path.name for path in base.iterdir()) == ["2", "3"]


def test_the_yaml_spec_knows_its_root(job: Path, tmp_path: Path) -> None:
    import yaml

    from pipelines.compiled import _text

    spec = yaml.safe_load(_text(json.loads(job.read_text()), ".yaml"))
    assert spec["defaultPipelineRoot"] == "gs://b/root"
    assert spec["schemaVersion"] == "2.1.0"


def test_no_bucket_is_one_clear_line() -> None:
    from pipelines.compiled import compile

    with pytest.raises(UsageError, match="gs://BUCKET/PATH"):
        compile(data="gs://b/d", model="m", root="here", serving_dir="gs://b/s", image="i", out="job.json")
