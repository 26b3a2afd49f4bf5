"""The kinds of server that run in a container or a pod, with stand-ins for docker and kubectl that record what they
were told: the commands, the mounts and the pod are ours, and a stand-in server answers where they point it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import httpx
import pytest

from pipelines import servers
from pipelines.served import served
from pipelines.servers import kubernetes
from serving import stock
from signatures.errors import UsageError, VitrinaError

SERVER = """
import http.server, json, os, signal, sys
def serve(port, folder):
    ready = os.path.isfile(os.path.join(folder, "1", "saved_model.pb"))
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            state = "AVAILABLE" if ready and self.path == "/v1/models/m" else "UNKNOWN"
            self.send_response(200); self.end_headers()
            self.wfile.write(json.dumps({"model_version_status": [{"state": state}]}).encode())
        def log_message(self, *_): pass
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
here = os.environ["STAND_IN"]
with open(os.path.join(here, "said"), "a") as said:
    said.write(json.dumps(sys.argv[1:]) + "\\n")
"""

DOCKER = """
words = sys.argv[1:]
if words[0] == "version":
    sys.exit(int(os.environ.get("NO_DAEMON", "0")) and (sys.stderr.write("Cannot connect\\n") or 1))
if words[0] == "run":
    options = [word.partition("=") for word in words if word.startswith("--")]
    ports = [value.split(":") for name, _, value in options if name == "--publish"]
    (volume,) = [value for name, _, value in options if name == "--volume"]
    serve(int(dict((inside, outside) for _, outside, inside in ports)["8501"]), volume.split(":")[0])
"""

KUBECTL = """
words = [word for word in sys.argv[1:] if not word.startswith("--namespace")]
models = os.path.join(here, "models")
if words[0] == "create":
    open(os.path.join(here, "pod.json"), "w").write(sys.stdin.read())
elif words[0] == "get":
    whole = os.path.isfile(os.path.join(models, ".whole"))
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": str(whole)}]}
    if os.environ.get("NO_IMAGE"):
        waiting = {"reason": "ErrImagePull", "message": "no such image"}
        status = {"phase": "Pending", "containerStatuses": [{"state": {"waiting": waiting}}]}
    print(json.dumps({"status": status}))
elif words[0] == "exec":
    import tarfile
    tarfile.open(fileobj=sys.stdin.buffer, mode="r|").extractall(models)
elif words[0] == "port-forward":
    serve(int(words[3].split(":")[0]), os.path.join(models, "m"))
elif words[0] == "logs":
    print("what the server said")
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "candidate"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "saved_model.pb").write_bytes(b"graph")
    return folder


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on PATH with both programs, and what they were told in `said`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, program in (("docker", DOCKER), ("kubectl", KUBECTL)):
        (folder / name).write_text(f"#!{sys.executable}\n{SERVER}{program}")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("STAND_IN", str(tmp_path))
    return tmp_path


def said(folder: Path) -> list[list[str]]:
    return [json.loads(line) for line in (folder / "said").read_text().splitlines()]


def test_docker_runs_stock_tf_serving_on_the_candidate_alone(base: Path, stand_ins: Path) -> None:
    log = stand_ins / "log"
    with served(base, name="m", log=log, kind="docker", image="mirror/serving:1") as server:
        assert server.kind == "docker"
        assert httpx.get(f"http://127.0.0.1:{server.rest_port}/v1/models/m").status_code == 200
    _, run, stop = said(stand_ins)
    assert run[:2] == ["run", "--rm"]
    assert f"--volume={base}:/models/m:ro" in run
    assert f"--publish=127.0.0.1:{server.grpc_port}:8500" in run, "open to this machine alone"
    assert run[run.index("mirror/serving:1") - 1 :] == [
        f"--entrypoint={stock.SERVER}", "mirror/serving:1",
        "--port=8500", "--rest_api_port=8501", "--model_name=m", "--model_base_path=/models/m",
    ]  # fmt: skip
    assert stop[0] == "stop"
    assert f"--name={stop[-1]}" in run


def test_docker_without_its_daemon_is_told(base: Path, stand_ins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_DAEMON", "1")
    with (
        pytest.raises(UsageError, match="docker version failed: Cannot connect"),
        served(base, name="m", log=stand_ins / "log", kind="docker"),
    ):
        pytest.fail("there is no daemon")


def test_a_pod_gets_the_candidate_serves_it_and_is_taken_away(
    base: Path, stand_ins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes, "POLL", 0.05)
    log = stand_ins / "log"
    with served(base, name="m", log=log, kind="kubernetes", namespace="vision") as server:
        assert httpx.get(server.rest).status_code == 200
        assert (stand_ins / "models" / "m" / "1" / "saved_model.pb").read_bytes() == b"graph"
    told = said(stand_ins)
    assert {words[0] for words in told} == {"--namespace=vision"}
    verbs = [words[1] for words in told]
    assert list(dict.fromkeys(verbs)) == ["create", "get", "exec", "port-forward", "logs", "delete"]
    pod = json.loads((stand_ins / "pod.json").read_text())
    assert told[-1][2] == f"pod/{pod['metadata']['name']}"
    assert pod["spec"]["containers"][0]["image"] == stock.IMAGE
    assert "what the server said" in log.read_text()


def test_an_image_that_cannot_be_pulled_ends_the_wait_and_the_pod(
    base: Path, stand_ins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_IMAGE", "1")
    with (
        pytest.raises(VitrinaError, match="ErrImagePull: no such image"),
        served(base, name="m", log=stand_ins / "log", kind="kubernetes"),
    ):
        pytest.fail("there is no image")
    assert said(stand_ins)[-1][0] == "delete"


def test_strict_schemas_accept_the_pod(base: Path, tmp_path: Path) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    asked = servers.Asked(
        base=base, name="m", log=tmp_path / "log", grpc_port=1, rest_port=2, image=stock.IMAGE, namespace="", timeout=1
    )
    pod = kubernetes.manifest(asked, "candidate")
    for version in ("1.27", "1.33"):
        validate.validate(pod, version, strict=True)


def test_every_kind_has_both_functions() -> None:
    assert servers.kinds() == ("auto", "docker", "kubernetes", "tensorflow_model_server", "vitrina")
    for kind in servers.kinds()[1:]:
        module = __import__(f"pipelines.servers.{kind}", fromlist=["started"])
        assert callable(module.missing)
        assert callable(module.started)
