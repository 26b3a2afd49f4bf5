"""The configuration files, read by TensorFlow Serving's own protos in a process that has TensorFlow."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from k8s.render import objects
from k8s.settings import Settings
from tests.emulators.kube.zygote import Zygote
from tests.k8s.test_manifests import SERVERS, config, deployment
from tests.k8s.test_render import the_config


def parsed(zygote: Zygote, folder: Path, texts: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Message name and text -> the fields that are set; fails where one is not what the proto parses."""
    (folder / "texts.json").write_text(json.dumps(texts))
    command = ["tests.k8s.servables:parse", str(folder / "texts.json"), str(folder / "parsed.json")]
    done = zygote.start(command, env={}, address="127.0.0.1", log=folder / "log", folder=folder)
    assert done.wait(120)
    assert done.returncode == 0, (folder / "log").read_text()
    found: list[dict[str, Any]] = json.loads((folder / "parsed.json").read_text())
    return found


def test_the_protos_parse_every_configuration(zygote: Zygote, tmp_path: Path) -> None:
    data = [config(name)["data"] for name in SERVERS]
    batching = parsed(zygote, tmp_path, [("BatchingParameters", each["batching.config"]) for each in data])
    assert all(int(each["max_execution_batch_size"]) <= int(each["max_batch_size"]) for each in batching)
    assert all(each["enable_large_batch_splitting"] for each in batching)
    monitoring = parsed(zygote, tmp_path, [("MonitoringConfig", each["monitoring.config"]) for each in data])
    assert all(each["prometheus_config"] == monitoring[0]["prometheus_config"] for each in monitoring)
    assert monitoring[0]["prometheus_config"]["enable"]


def test_the_protos_parse_the_batching_of_every_size(zygote: Zygote, tmp_path: Path) -> None:
    sizes = ((1, 128), (8, 128), (200, 200))
    settings = [Settings(location="gs://b/d", name="d", max_batch=size, cpu="2500m") for size, _ in sizes]
    texts = [("BatchingParameters", the_config(objects(each))["batching.config"]) for each in settings]
    found = parsed(zygote, tmp_path, texts)
    assert [(each["max_execution_batch_size"], each["max_batch_size"]) for each in found] == [
        (str(size), str(most)) for size, most in sizes
    ]
    assert {each["num_batch_threads"] for each in found} == {"3"}


def test_the_tls_component_writes_what_tf_serving_parses(zygote: Zygote, tmp_path: Path) -> None:
    key, chain = (
        "-----BEGIN KEY-----\nAB+/\nCD==\n-----END KEY-----\n",
        "-----BEGIN CERT-----\nEF\n-----END CERT-----\n",
    )
    (tmp_path / "tls.key").write_text(key)
    (tmp_path / "tls.crt").write_text(chain * 2)
    (writer,) = deployment("tls")["spec"]["template"]["spec"]["initContainers"]
    *shell, script = writer["command"]
    script = script.replace("/etc/tls/", f"{tmp_path}/").replace("/etc/tf-serving-tls/", f"{tmp_path}/")
    subprocess.run([*shell, script], check=True, timeout=30)
    (found,) = parsed(zygote, tmp_path, [("SSLConfig", (tmp_path / "ssl.config").read_text())])
    assert (found["server_key"], found["server_cert"]) == (key.rstrip(), (chain * 2).rstrip())
    assert (tmp_path / "ssl.config").stat().st_mode & 0o077 == 0
