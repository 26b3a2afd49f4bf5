"""A whole server: versions changing under traffic, warmup, model lists, TLS, signals, ports, logs."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import text_format
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2, prediction_service_pb2_grpc

from serving.client import Tls, connect
from serving.flags import parse
from serving.server import Server, free_port, main
from signatures.errors import VitrinaError
from tests.serving import conversation
from tests.serving.conversation import MODEL, PREDICTION, Conversation

ROOT = Path(__file__).parent.parent.parent
ONE = (
    'inputs { key: "hours" value { dtype: DT_FLOAT tensor_shape { dim { size: 1 } } float_val: 1 } } '
    'model_spec { name: "tide" }'
)


def tide(models: Path, base: Path, version: int, source: int | None = None) -> Path:
    """A version of the tide model below `base`, put there in one step."""
    staging = base / f".staging-{version}"
    shutil.copytree(models / "tide" / str(source or version), staging)
    staging.rename(base / str(version))
    return base / str(version)


def setup(*flags: str, **files: str) -> dict[str, Any]:
    return {"flags": list(flags), "files": files, "wait_for": ["tide"]}


def states(server: Conversation, model: str = "tide") -> dict[str, str]:
    body = json.loads(server.http("GET", f"/v1/models/{model}")[2])
    return {entry["version"]: entry["state"] for entry in body.get("model_version_status", [])}


def settle(wanted: Any, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not wanted():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    found = tmp_path / "tide"
    found.mkdir()
    return found


def test_versions_change_under_traffic_without_a_wrong_answer(golden_models: Path, base: Path, tmp_path: Path) -> None:
    tide(golden_models, base, 1)
    with conversation.talk(setup("--model_name=tide", f"--model_base_path={base}"), golden_models, tmp_path) as server:
        stop = threading.Event()
        answers: list[Any] = []

        def over_rest() -> None:
            while not stop.is_set():
                status, body = server.post("tide:predict", {"instances": [1]})
                answers.append((status, tuple(json.loads(body).get("predictions", [body]))))

        def over_grpc() -> None:
            while not stop.is_set():
                got = server.rpc({"service": PREDICTION, "method": "Predict", "request_textproto": ONE})
                response = text_format.Parse(got["response_textproto"] or "", predict_pb2.PredictResponse())
                answers.append(
                    (200 if got["code"] == "OK" else got["code"], tuple(response.outputs["height"].float_val))
                )

        threads = [threading.Thread(target=target) for target in (over_rest, over_grpc, over_grpc)]
        for thread in threads:
            thread.start()
        tide(golden_models, base, 2)
        settle(lambda: states(server) == {"1": "END", "2": "AVAILABLE"})
        (base / "3").mkdir()
        (base / "3" / "saved_model.pb").write_bytes(b"\xff nonsense")
        settle(lambda: "3" in states(server))
        tide(golden_models, base, 5, source=1)
        settle(lambda: states(server).get("5") == "AVAILABLE")
        shutil.rmtree(base / "3")
        shutil.rmtree(base / "5")
        settle(lambda: states(server).get("5") == "END")
        stop.set()
        for thread in threads:
            thread.join()
    assert set(answers) == {(200, (11.0,)), (200, (102.0,))}


def test_a_corrupt_version_is_reported_and_the_good_one_serves_on(
    golden_models: Path, base: Path, tmp_path: Path
) -> None:
    tide(golden_models, base, 1)
    flags = ["--model_name=tide", f"--model_base_path={base}", "--max_num_load_retries=0"]
    with conversation.talk(setup(*flags), golden_models, tmp_path) as server:
        broken = tide(golden_models, base, 2)
        # As if the disk had been full: the weights are cut off.
        shutil.rmtree(base / "2")
        shutil.copytree(golden_models / "tide" / "2", base / ".cut")
        data = next((base / ".cut" / "variables").glob("*.data*"))
        data.write_bytes(data.read_bytes()[:3])
        (base / ".cut").rename(broken)
        settle(lambda: states(server).get("2") == "END")
        body = json.loads(server.http("GET", "/v1/models/tide/versions/2")[2])["model_version_status"][0]
        assert body["status"]["error_code"] != "OK"
        assert body["status"]["error_message"]
        assert server.post("tide:predict", {"instances": [1]})[0] == 200
        (base / "4").mkdir()
        settle(lambda: states(server).get("4") == "END")
        body = json.loads(server.http("GET", "/v1/models/tide/versions/4")[2])["model_version_status"][0]["status"]
        assert body["error_code"] == "NOT_FOUND"
        assert body["error_message"].startswith("Could not find SavedModel .pb or .pbtxt at supplied export directory")


def record(data: bytes) -> bytes:
    """A TFRecord; the checksums are masked CRC32C."""

    def masked(piece: bytes) -> bytes:
        crc = crc32c(piece)
        return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def warmup(version: Path, *requests: str) -> None:
    folder = version / "assets.extra"
    folder.mkdir(exist_ok=True)
    logs = [text_format.Parse(text, prediction_log_pb2.PredictionLog()) for text in requests]
    records = b"".join(record(log.SerializeToString()) for log in logs)
    (folder / "tf_serving_warmup_requests").write_bytes(records)


def test_warmup_is_replayed_before_a_version_is_available(golden_models: Path, base: Path, tmp_path: Path) -> None:
    good = f"predict_log {{ request {{ {ONE} }} }}"
    bad = good.replace("hours", "minutes")
    warmup(tide(golden_models, base, 1), good, good)
    flags = ["--model_name=tide", f"--model_base_path={base}", "--max_num_load_retries=0"]
    flags += ["--monitoring_config_file=$CONFIG/monitoring", "--num_request_iterations_for_warmup=3"]
    with conversation.talk(
        setup(*flags, monitoring="prometheus_config { enable: true }"), golden_models, tmp_path
    ) as server:
        page = server.http("GET", "/monitoring/prometheus/metrics")[2].decode()
        assert f':tensorflow:serving:model_warmup_latency_count{{model_path="{base}/1",status="OK"}} 1' in page
        assert ':tensorflow:serving:runtime_latency_count{model_name="tide",API="Predict",runtime="TF1"} 6' in page
        shutil.copytree(golden_models / "tide" / "2", base / ".bad")
        warmup(base / ".bad", good, bad)
        (base / ".bad").rename(base / "2")
        settle(lambda: states(server).get("2") == "END")
        error = json.loads(server.http("GET", "/v1/models/tide/versions/2")[2])["model_version_status"][0]["status"]
        assert error["error_message"].startswith("Signature input alias: hours(feed name: serving_default_hours:0)")
        shutil.copytree(golden_models / "tide" / "2", base / ".worse")
        (base / ".worse" / "assets.extra").mkdir()
        (base / ".worse" / "assets.extra" / "tf_serving_warmup_requests").write_bytes(b"this is no TFRecord at all")
        (base / ".worse").rename(base / "3")
        settle(lambda: states(server).get("3") == "END")
        error = json.loads(server.http("GET", "/v1/models/tide/versions/3")[2])["model_version_status"][0]["status"]
        assert error["error_code"] == "DATA_LOSS"
        assert error["error_message"].endswith(". Please verify your warmup data is in TFRecord format.")
        page = server.http("GET", "/monitoring/prometheus/metrics")[2].decode()
        assert f'model_warmup_latency_count{{model_path="{base}/3",status="DATA_LOSS: ' in page
        assert f'model_path="{base}/2"' not in page
        assert states(server)["1"] == "AVAILABLE"


def entry(models: Path, name: str, more: str = "") -> str:
    return f'config {{ name: "{name}" base_path: "{models}/{name}" model_platform: "tensorflow" {more} }}'


def test_the_model_list_is_polled(golden_models: Path, tmp_path: Path) -> None:
    flags = ["--model_config_file=$CONFIG/models", "--model_config_file_poll_wait_seconds=1"]
    files = {"models": f"model_config_list {{ {entry(golden_models, 'tide')} }}"}
    with conversation.talk(setup(*flags, **files), golden_models, tmp_path) as server:
        assert server.http("GET", "/v1/models/gauge")[0] == 404
        (tmp_path / "models").write_text("model_config_list { this is no textproto")
        time.sleep(1.5)
        assert states(server) == {"2": "AVAILABLE"}
        both = f"{entry(golden_models, 'tide', 'model_version_policy { all {} }')} {entry(golden_models, 'gauge')}"
        (tmp_path / "models").write_text(f"model_config_list {{ {both} }}")
        settle(lambda: states(server) == {"1": "AVAILABLE", "2": "AVAILABLE"})
        settle(lambda: states(server, "gauge") == {"1": "AVAILABLE"})


def test_reload_returns_how_metrics_grew(golden_models: Path, tmp_path: Path) -> None:
    with conversation.talk(
        setup("--model_name=tide", "--model_base_path=$MODELS/tide"), golden_models, tmp_path
    ) as server:
        server.post("tide:predict", {"instances": [1]})
        text = f"config {{ model_config_list {{ {entry(golden_models, 'tide')} }} }}"
        text += ' metric_names: "/tensorflow/serving/request_count" metric_names: "/no/such"'
        got = server.rpc({"service": MODEL, "method": "HandleReloadConfigRequest", "request_textproto": text})
        assert got["code"] == "OK"
        assert 'name: "/tensorflow/serving/request_count"' in got["response_textproto"]
        assert 'name: "/no/such"' in got["response_textproto"]
        twice = f"config {{ model_config_list {{ {entry(golden_models, 'tide') * 2} }} }}"
        got = server.rpc({"service": MODEL, "method": "HandleReloadConfigRequest", "request_textproto": twice})
        assert (got["code"], got["details"]) == (
            "INVALID_ARGUMENT",
            "Illegal to list model tide multiple times in config list",
        )


def test_metrics_of_our_own(golden_models: Path, tmp_path: Path) -> None:
    flags = ["--model_name=tide", "--model_base_path=$MODELS/tide", "--monitoring_config_file=$CONFIG/monitoring"]
    with conversation.talk(
        setup(*flags, monitoring="prometheus_config { enable: true }"), golden_models, tmp_path
    ) as server:
        server.post("tide:predict", {"instances": [1]})
        server.post("tide:predict", {"instances": ["x"]})
        page = server.http("GET", "/monitoring/prometheus/metrics")[2].decode().splitlines()
    assert 'vitrina:model_version_available{model_name="tide",version="2"} 1' in page
    assert 'vitrina:signature_latency_count{model_name="tide",version="2",signature="serving_default"} 1' in page


def test_a_unix_socket_and_tensor_content(golden_models: Path, tmp_path: Path) -> None:
    path = tmp_path / "s"
    flags = [
        "--model_name=tide",
        "--model_base_path=$MODELS/tide",
        f"--grpc_socket_path={path}",
        "--enable_serialization_as_tensor_content",
        "--grpc_channel_arguments=grpc.max_connection_age_ms=60000",
    ]
    with (
        conversation.talk(setup(*flags), golden_models, tmp_path),
        grpc.insecure_channel(f"unix:{path}") as channel,
    ):
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        answer = stub.Predict(text_format.Parse(ONE, predict_pb2.PredictRequest()), timeout=30)
    assert answer.outputs["height"].tensor_content == struct.pack("<f", 102.0)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA, and what it signed for a server and for a client."""
    folder = tmp_path_factory.mktemp("certificates")
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl on PATH to make certificates with")

    def run(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    new = ["req", "-newkey", "rsa:2048", "-nodes"]
    run(*new, "-x509", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Test CA",
        "-addext", "keyUsage=critical,keyCertSign,cRLSign")  # fmt: skip
    # Python 3.13 checks certificates strictly: they have to name their issuer's key.
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nauthorityKeyIdentifier=keyid\n")
    for name in ("server", "client"):
        run(*new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        run("x509", "-req", "-days", "2", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-CAcreateserial", "-extfile", "names", "-out", f"{name}.pem")  # fmt: skip
    return folder


def quoted(path: Path) -> str:
    return json.dumps(path.read_text())


@pytest.fixture
def tls_server(golden_models: Path, certificates: Path, tmp_path: Path) -> Iterator[Server]:
    config = tmp_path / "ssl"
    config.write_text(
        f"server_key: {quoted(certificates / 'server.key')}\nserver_cert: {quoted(certificates / 'server.pem')}\n"
        f"custom_ca: {quoted(certificates / 'ca.pem')}\nclient_verify: true\n"
    )
    server = Server(
        parse([f"--port={free_port()}", f"--rest_api_port={free_port()}", "--model_name=tide",
               f"--model_base_path={golden_models}/tide", f"--ssl_config_file={config}", "--rest_api_ssl"])
    )  # fmt: skip
    server.start(timeout=60)
    yield server
    server.stop(2)


def test_tls_with_client_certificates(tls_server: Server, certificates: Path) -> None:
    ca, key, chain = ((certificates / name).read_bytes() for name in ("ca.pem", "client.key", "client.pem"))
    address = f"localhost:{tls_server.ports.grpc}"
    ask = text_format.Parse(ONE, predict_pb2.PredictRequest())
    with grpc.secure_channel(address, grpc.ssl_channel_credentials(ca, key, chain)) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        assert stub.Predict(ask, timeout=30).outputs["height"].float_val == [102.0]
    names = {"ca": "ca.pem", "cert": "client.pem", "key": "client.key"}
    pems = Tls(**{kind: str(certificates / name) for kind, name in names.items()})
    for target in (f"grpcs://{address}/tide", f"https://localhost:{tls_server.ports.rest}/tide"):
        with connect(target, tls=pems) as client:
            assert client.call({"hours": np.float32([1])})["height"].tolist() == [102.0]
    for credentials in (grpc.ssl_channel_credentials(ca), None):
        channel = grpc.secure_channel(address, credentials) if credentials else grpc.insecure_channel(address)
        with channel, pytest.raises(grpc.RpcError):
            prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(ask, timeout=3)
    context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    context.load_cert_chain(certificates / "client.pem", certificates / "client.key")
    connection = http.client.HTTPSConnection("localhost", tls_server.ports.rest, context=context, timeout=30)
    connection.request("POST", "/v1/models/tide:predict", b'{"instances": [1]}')
    assert connection.getresponse().status == 200
    connection.close()
    bare = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    refused = http.client.HTTPSConnection("localhost", tls_server.ports.rest, context=bare, timeout=30)
    with pytest.raises((OSError, http.client.HTTPException)):
        refused.request("GET", "/v1/models/tide")
        refused.getresponse()


@pytest.mark.parametrize("flag", ["--port", "--rest_api_port"])
def test_a_busy_port_is_one_clear_line(golden_models: Path, flag: str) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        flags = {"--port": free_port(), "--rest_api_port": free_port(), flag: port}
        server = Server(parse([f"{key}={value}" for key, value in flags.items()] + ["--model_base_path=/nowhere"]))
        with pytest.raises(VitrinaError, match=f"Port {port} for .* is taken by another process.*{flag}"):
            server.start()


def test_a_model_that_cannot_be_loaded(tmp_path: Path) -> None:
    (tmp_path / "m" / "7").mkdir(parents=True)
    server = Server(
        parse(
            [f"--port={free_port()}", "--model_name=m", f"--model_base_path={tmp_path}/m", "--max_num_load_retries=0"]
        )
    )
    with pytest.raises(VitrinaError) as caught:
        server.start(timeout=60)
    assert str(caught.value).startswith(
        "Failed to start server. Error: UNKNOWN: 1 servable(s) did not become available: {{{name: m version: 7} due to "
        "error: NOT_FOUND: Could not find SavedModel"
    )
    waiting = Server(parse([f"--port={free_port()}", f"--model_base_path={tmp_path}/none"]))
    with pytest.raises(VitrinaError, match=r"not available after 0\.2 seconds"):
        waiting.start(timeout=0.2)


@pytest.mark.parametrize(
    ("flag", "text", "problem"),
    [
        ("model_config_file", "custom_model_config {}", "ModelServer does not yet support custom model config."),
        ("model_config_file", "model_config_list { config { nme: 3 } }", "Invalid protobuf file: '{file}' (1:30 : "),
        ("batching_parameters_file", "num_batch_threads { value: 0 }", "num_batch_threads must be positive; was 0"),
        ("ssl_config_file", 'server_key: "x"', "wants both server_key and server_cert, in PEM"),
        ("ssl_config_file", 'server_key: "x" server_cert: "y"', "server_key and server_cert do not fit"),
        ("monitoring_config_file", "prometheus_config { enable: maybe }", "Invalid protobuf file: '{file}' (1:29 : "),
    ],
)
def test_settings_that_cannot_be(golden_models: Path, tmp_path: Path, flag: str, text: str, problem: str) -> None:
    file = tmp_path / "settings"
    file.write_text(text)
    words = [f"--port={free_port()}", f"--rest_api_port={free_port()}", "--model_name=tide",
             f"--model_base_path={golden_models}/tide", "--enable_batching", f"--{flag}={file}"]  # fmt: skip
    with pytest.raises(VitrinaError, match=re.escape(problem.format(file=file))):
        Server(parse(words)).start(timeout=60)


def test_a_process_serves_and_drains_on_sigterm(golden_models: Path, tmp_path: Path) -> None:
    port, rest = free_port(), free_port()
    words = [sys.executable, "-X", "importtime", "-m", "serving", f"--port={port}", f"--rest_api_port={rest}",
             "--model_name=tide", f"--model_base_path={golden_models}/tide", "--log_format=json"]  # fmt: skip
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if line.startswith("Serving: "):
            break
    assert f"gRPC at 0.0.0.0:{port}, REST at http://0.0.0.0:{rest}" in seen[-1], seen
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        ask = text_format.Parse(ONE, predict_pb2.PredictRequest())
        assert stub.Predict(ask, timeout=60).outputs["height"].float_val == [102.0]
        in_flight = [stub.Predict.future(ask, timeout=60) for _ in range(8)]
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert all(future.result().outputs["height"].float_val == [102.0] for future in in_flight)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    logs = [json.loads(line) for line in (*seen, *errors.splitlines()) if line.startswith("{")]
    assert {"loading", "available", "stopping"} <= {log["message"] for log in logs}
    assert next(log for log in logs if log["message"] == "available")["version"] == 2
    imported = {line.rpartition("|")[2].strip() for line in seen if line.startswith("import time:")}
    assert {"tensorflow.python.client.session", "serving.assembly"} <= imported
    assert not imported & {"keras.src", "tf_keras.src", "transformers", "tfx", "scipy._lib", "googleapiclient.http"}


def test_wrong_usage_exits_with_2_and_failures_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--port=abc", "--model_base_path=/m"]) == 2
    assert capsys.readouterr().err == "vitrina serve: --port got 'abc', but wants a whole number.\n"
    assert main(["--help"]) == 0
    assert "--model_base_path" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("vitrina ")
    assert main([f"--port={free_port()}", f"--model_config_file={tmp_path}/none"]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert errors[-1].startswith("vitrina serve: Failed to start server. Error: NOT_FOUND: ")
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        words = [f"--port={taken.getsockname()[1]}", "--model_base_path=/m"]
        assert main(words) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1
        codes = []
        # A log on a full disk, which cannot be closed without an error either.
        with contextlib.suppress(OSError), open("/dev/full", "w") as full, pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stderr", full)
            codes.append(main(words))
        assert codes == [1]
