"""What the manifest says is done to a real server process: its arguments, its mounted files, its probes."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import yaml

from k8s.render import render
from serving.server import free_port

#: grpc.health.v1.HealthCheckResponse with `status: SERVING`, as it is on the wire.
SERVING = b"\x08\x01"
START_SECONDS = 300


@contextlib.contextmanager
def pod(manifest: dict[str, Any], mounts: dict[str, Path], ports: dict[str, int]) -> Iterator[None]:
    """Runs the manifest's container with our server in the place of TF Serving's, on other ports and mount points."""
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    declared = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert container["command"] == ["tensorflow_model_server"]

    def here(argument: str) -> str:
        for name, number in declared.items():
            argument = re.sub(rf"=\b{number}\b", f"={ports[name]}", argument)
        for mount, folder in mounts.items():
            argument = argument.replace(f"={mount}/", f"={folder}/")
        return argument

    command = [sys.executable, "-m", "vitrina", "serve", *map(here, container["args"])]
    with subprocess.Popen(command) as process:
        try:
            yield
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()


def becomes_ready(url: str) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url).status_code == 200:
                return True
        time.sleep(0.2)
    return False


def test_the_probes_hold_for_a_server_started_by_the_manifest(tiny_servable: Path, tmp_path: Path) -> None:
    import vitrina

    text = render("gs://bucket/tiny", name="tiny").replace("gs://bucket/tiny", str(tiny_servable))
    found = list(yaml.safe_load_all(text))
    (config,) = (each for each in found if each["kind"] == "ConfigMap")
    (deployment,) = (each for each in found if each["kind"] == "Deployment")
    for name, content in config["data"].items():
        (tmp_path / name).write_text(content)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    ports = {"grpc": free_port(), "rest": free_port()}
    rest = f"http://localhost:{ports['rest']}"
    with pod(deployment, {"/etc/tf-serving": tmp_path}, ports):
        startup, readiness, liveness = (
            container[name] for name in ("startupProbe", "readinessProbe", "livenessProbe")
        )  # fmt: skip
        assert becomes_ready(rest + startup["httpGet"]["path"])
        assert httpx.get(rest + readiness["httpGet"]["path"]).status_code == 200
        assert liveness["grpc"] == {"port": 8500}
        with grpc.insecure_channel(f"localhost:{ports['grpc']}") as channel:
            assert channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=10) == SERVING
        annotations = deployment["spec"]["template"]["metadata"]["annotations"]
        scraped = httpx.get(rest + annotations["prometheus.io/path"])
        assert (scraped.status_code, annotations["prometheus.io/port"]) == (200, "8501")
        assert ":tensorflow:serving:" in scraped.text
        assert not vitrina.predict(f"grpc://localhost:{ports['grpc']}/tiny", _pixel()).error


def _pixel() -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), "teal").save(buffer, "PNG")
    return buffer.getvalue()
