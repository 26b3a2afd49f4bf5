"""Every recorded exchange with TensorFlow Serving, replayed: against our server, and against a
`tensorflow_model_server` where one is on PATH."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving import conversation
from tests.serving.conversation import GOLDEN, PREDICTION, Conversation

REST = conversation.load("rest.jsonl")
GRPC = conversation.load("grpc.jsonl")
# TensorFlow's own decoder lists the formats it knows, and later releases know more than the recorded one.
for line in REST:
    if line["id"] == "image-undecodable":
        line.update(compare="prefix", prefix="Unknown image file format. One of JPEG")
PROFILES = list(dict.fromkeys(line["server"]["profile"] for line in REST + GRPC))


@pytest.fixture(scope="module", params=["vitrina", "tensorflow_model_server"])
def peer(request: pytest.FixtureRequest) -> str | None:
    """The command of the server to talk to; None is ours."""
    if request.param == "vitrina":
        return None
    command = shutil.which(request.param)
    if command is None:
        pytest.skip("there is no tensorflow_model_server on PATH to compare with")
    return command


@pytest.fixture(scope="module", params=PROFILES)
def talking(
    request: pytest.FixtureRequest, peer: str | None, golden_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Conversation]]:
    """A server as one profile of the recordings sets it up."""
    setup = next(line["server"] for line in REST + GRPC if line["server"]["profile"] == request.param)
    with conversation.talk(setup, golden_models, tmp_path_factory.mktemp("config"), peer) as found:
        yield request.param, found


def test_all_recorded_exchanges_replay_equal(talking: tuple[str, Conversation]) -> None:
    profile, server = talking
    problems = {}
    lines = [line for line in REST if line["server"]["profile"] == profile]
    for line in lines:
        problems[line["id"]] = conversation.rest_difference(line, server.rest(line["request"]))
    calls = [line for line in GRPC if line["server"]["profile"] == profile]
    for line in calls:
        deadline = time.monotonic() + line.get("poll_s", 0)
        problem = conversation.grpc_difference(line, server.rpc(line))
        while problem and time.monotonic() < deadline:
            time.sleep(0.1)
            problem = conversation.grpc_difference(line, server.rpc(line))
        problems["grpc " + line["id"]] = problem
    assert len(problems) == len(lines) + len(calls) > 0
    assert not {name: problem for name, problem in problems.items() if problem}


def test_the_recordings_are_complete() -> None:
    assert len(REST) == 116
    assert len(GRPC) == 76


BEFORE_SCRAPE = [
    ("slope:predict", b'{"signature_name": "direct", "instances": [1, 2, 3]}'),
    ("slope:predict", b'{"signature_name": "direct", "instances": [4]}'),
    ("slope:predict", b'{"signature_name": "direct", "instances": ["x"]}'),
    ("tide:predict", b'{"instances": [0.5]}'),
    ("slope:regress", b'{"signature_name": "climb", "examples": [{"run": 1.0}]}'),
    ("slope:classify", b'{"signature_name": "terrain", "examples": [{"run": 1.0}]}'),
    ("tide", None),
    ("tide/metadata", None),
    ("compass:predict", b'{"instances": [1]}'),
]
METRICS_SETUP: dict[str, Any] = {
    "flags": ["--model_config_file=$CONFIG/models.config", "--monitoring_config_file=$CONFIG/monitoring.config"],
    "files": {
        "models.config": "model_config_list {\n"
        + "".join(
            f'config {{ name: "{name}" base_path: "$MODELS/{name}" model_platform: "tensorflow" }}\n'
            for name in ("slope", "ledger", "tide")
        )
        + "}\n",
        "monitoring.config": 'prometheus_config { enable: true path: "/tower/metrics" }\n',
    },
    "wait_for": ["slope", "ledger", "tide"],
}


def test_metrics_page(peer: str | None, golden_models: Path, tmp_path: Path) -> None:
    with conversation.talk(METRICS_SETUP, golden_models, tmp_path, peer) as server:
        for target, body in BEFORE_SCRAPE:
            server.http("POST" if body else "GET", f"/v1/models/{target}", {}, body)
        for name in ("hours", "minutes"):
            text = f'model_spec {{ name: "tide" }} inputs {{ key: "{name}" value {{ dtype: DT_FLOAT tensor_shape {{ '
            text += "dim { size: 1 } } float_val: 3 } }"
            server.rpc({"service": PREDICTION, "method": "Predict", "request_textproto": text})
        status, headers, page = server.http("GET", "/tower/metrics")
        server.rpc(next(line for line in GRPC if line["id"] == "multi"))
        again = server.http("GET", "/tower/metrics")[2].decode()
        refused = server.http("GET", "/tower/metrics?x=1")
    assert (status, headers["Content-Type"]) == (200, "text/plain")
    assert ':tensorflow:serving:request_example_count_total{model="slope"} ' in again
    assert ':tensorflow:serving:request_example_counts_count{model="slope"} 1' in again
    assert (refused[0], refused[2]) == (400, b"Unexpected path: /tower/metrics?x=1. Should be /tower/metrics")
    wanted = "".join(
        line for line in (GOLDEN / "metrics.txt").read_text().splitlines(True) if not line.startswith("#-")
    )
    got = page.decode()
    assert _counts(got) == _counts(wanted)
    for name, kind in _kinds(wanted).items():
        if name.startswith(":tensorflow:serving:"):
            assert _kinds(got)[name] == kind
    assert _bounds(got) == _bounds(wanted)


def _counts(page: str) -> list[str]:
    kept = (":tensorflow:serving:request_count", ":tensorflow:serving:request_latency_count")
    more = (":tensorflow:serving:runtime_latency_count",)
    return sorted(line for line in page.splitlines() if line.startswith(kept + more))


def _kinds(page: str) -> dict[str, str]:
    return dict(re.findall(r"^# TYPE (\S+) (\S+)", page, re.MULTILINE))


def _bounds(page: str) -> list[str]:
    pattern = r'^:tensorflow:serving:request_latency_bucket\{model_name="tide",API="Predict".*le="([^"]+)"'
    return re.findall(pattern, page, re.MULTILINE)
