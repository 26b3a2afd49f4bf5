"""The base under a real container runtime: `podman kube play`, where podman works. Asked for by VITRINA_PODMAN=1.

No image can be downloaded, so the image is made here, of this machine's own Python and a stand-in for the server, which
tells what it may do. What is proven is what the kernel enforces, and that files and probes are where the pod looks.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from k8s.kustomize import to_yaml
from k8s.render import objects
from k8s.settings import Settings

PYTHON = Path("/usr/bin/python3")
IMAGE = "localhost/tensorflow/serving:2.19.1"
SETTINGS = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
SERVER = """
import http.server, os, sys

def may_write(path):
    try:
        open(path, "w").close()
    except OSError as error:
        return type(error).__name__
    return "yes"

status = open("/proc/self/status").read()
print("user", os.getuid(), os.getgid(), "root", may_write("/file"), "tmp", may_write("/tmp/file"))
print("model", may_write("/models/m/file"), sorted(os.listdir("/models/m")))
told = [line.replace("\\t", " ") for line in status.splitlines()]
print(*[line for line in told if line.startswith(("CapEff", "NoNewPrivs", "Seccomp:"))], sep="\\n")
print(*sys.argv[1:])
print(open("/etc/tf-serving/models.config").read(), flush=True)

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/v1/models/m/metadata" else 404)
        self.end_headers()

http.server.HTTPServer(("127.0.0.1", 8501), Handler).serve_forever()
"""

pytestmark = pytest.mark.skipif(
    not os.environ.get("VITRINA_PODMAN") or shutil.which("podman") is None or not PYTHON.exists(),
    reason="asked for by VITRINA_PODMAN=1, with podman, runc and Debian's Python on this machine",
)


@pytest.fixture
def podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Settings that work within containers, and the image."""
    (tmp_path / "containers.conf").write_text(SETTINGS)
    monkeypatch.setenv("CONTAINERS_CONF", str(tmp_path / "containers.conf"))
    run("import", "--change", "ENV PATH=/usr/bin:/bin", str(root(tmp_path)), IMAGE)
    yield
    run("rmi", "--force", IMAGE)


def run(*words: str) -> str:
    done = subprocess.run(["podman", *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def root(folder: Path) -> Path:
    """A file system with Python, a few programs and the stand-in."""
    program = PYTHON.resolve()
    files = {Path("/bin/sh"), Path("/bin/sleep"), program}
    for file in list(files):
        linked = subprocess.run(["ldd", str(file)], capture_output=True, text=True, check=True).stdout
        files |= {Path(found) for found in re.findall(r"/\S+", linked)}
    (folder / "server.py").write_text(SERVER)
    (folder / "start").write_text(f'#!/bin/sh\nexec {program} /server.py "$@"\n')
    (folder / "start").chmod(0o755)
    with tarfile.open(folder / "root.tar", "w") as tar:
        for file in files:
            tar.add(file.resolve(), arcname=str(file))
        tar.add(Path("/usr/lib") / program.name, arcname=f"/usr/lib/{program.name}")
        tar.add(folder / "server.py", arcname="/server.py")
        tar.add(folder / "start", arcname="/usr/bin/tensorflow_model_server")
    return folder / "root.tar"


def test_the_kernel_enforces_what_the_manifest_says(podman: None, tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    settings = Settings(location=str(tmp_path / "m"), name="m", version=1, replicas=1, image=IMAGE)
    found = [each for each in objects(settings) if each["kind"] in ("ConfigMap", "Deployment")]
    (deployment,) = (each for each in found if each["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    # podman knows neither named ports nor probes of gRPC, and one kind of probe alone.
    ports = {port["name"]: port["containerPort"] for port in container.pop("ports")}
    probe = container.pop("readinessProbe")
    probe["httpGet"]["port"] = ports[probe["httpGet"]["port"]]
    container["livenessProbe"] = probe
    del container["startupProbe"]
    (tmp_path / "pod.yaml").write_text(to_yaml(found))
    run("kube", "play", "--network", "none", str(tmp_path / "pod.yaml"))
    try:
        name = "m-pod-0-tf-serving"
        until = time.monotonic() + 30
        while "model_config_list" not in (said := run("logs", name)):
            assert time.monotonic() < until, said
            time.sleep(0.2)
        assert "user 10001 10001 root OSError tmp yes" in said
        assert "model OSError ['1']" in said
        assert "CapEff: 0000000000000000" in said
        assert "NoNewPrivs: 1" in said
        assert "--model_config_file=/etc/tf-serving/models.config" in said
        assert 'base_path: "/models/m"' in said
    finally:
        run("kube", "down", str(tmp_path / "pod.yaml"))
