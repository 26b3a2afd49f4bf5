from __future__ import annotations

import base64
import hashlib
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.own_answers import OwnAnswer, difference, mask_difference
from pipelines.serving_check import REPORT_FILE, WARMUP_FILE, Serving, check_served, differences
from signatures.errors import VitrinaError
from signatures.spec import Card

pytestmark = pytest.mark.long


@pytest.fixture
def candidate(tiny_servable: Path, tmp_path: Path) -> Path:
    """A copy of the shared servable with a certificate that holds (it was exported without measuring)."""
    model = tmp_path / "model"
    shutil.copytree(tiny_servable / "1", model)
    card = Card.read(model)
    card.replace(parity={"holds": True}).write(model)
    return model


def own_answers(model: Path, images: list[bytes]) -> dict[str, OwnAnswer]:
    """As the trainer would have written them down, all labels with their scores."""
    import tensorflow as tf

    logits = tf.saved_model.load(str(model)).signatures
    pixels = logits["preprocess"](image_bytes=tf.constant(images))["pixel_values"]
    scores = tf.nn.softmax(logits["model"](pixel_values=pixels)["logits"]).numpy()
    labels = Card.read(model).labels
    digests = [hashlib.sha256(image).hexdigest() for image in images]
    return {
        digest: OwnAnswer(digest=digest, scores=dict(zip(labels, map(float, row), strict=True)))
        for digest, row in zip(digests, scores, strict=True)
    }


def test_a_good_servable_passes_over_both_doors(candidate: Path, photos: list[bytes], tmp_path: Path) -> None:
    report = check_served(
        candidate,
        photos,
        folder=tmp_path,
        own=own_answers(candidate, photos),
        serving=Serving(kind="vitrina", max_latency_ms=60_000, max_size_mb=100),
    )
    assert report.ok, report.failures
    assert [finding.check for finding in report.findings] == [
        "size",
        "parity certificate",
        "answers over grpc",
        "the trainer's own answers over grpc",
        "broken images over grpc",
        "latency over grpc",
        "answers over rest",
        "the trainer's own answers over rest",
        "broken images over rest",
        "latency over rest",
    ]
    assert report.size_mb > 0.1
    assert not list(tmp_path.glob(".candidate-*")), "what was served is left behind"
    # What will be pushed asks about the held-out images, in the batch sizes of the export.
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    records = list(tf.data.TFRecordDataset(str(tmp_path / WARMUP_FILE)).as_numpy_iterator())
    requests = [prediction_log_pb2.PredictionLog.FromString(record).predict_log.request for record in records]
    asked = [list(tf.make_ndarray(request.inputs["image_bytes"])) for request in requests]
    assert asked == [photos[:1], photos[:4]]
    assert "warmed up" in (tmp_path / "server.log").read_text()
    report.write(tmp_path / "report")
    assert (tmp_path / "report" / REPORT_FILE).is_file()


def test_what_does_not_hold_is_told(candidate: Path, photos: list[bytes], tmp_path: Path) -> None:
    Card.read(candidate).replace(parity={}).write(candidate)
    own = own_answers(candidate, photos[:1])
    ((digest, answer),) = own.items()
    flipped = dict(zip(answer.scores, reversed(answer.scores.values()), strict=True))
    report = check_served(
        candidate,
        photos[:1],
        folder=tmp_path,
        own={digest: OwnAnswer(digest=digest, scores=flipped)},
        serving=Serving(kind="vitrina", max_latency_ms=0.001, max_size_mb=0.01),
    )
    assert not report.ok
    assert [failure.partition(":")[0] for failure in report.failures] == [
        "size",
        "parity certificate",
        "the trainer's own answers over grpc",
        "latency over grpc",
        "the trainer's own answers over rest",
        "latency over rest",
    ]
    assert "the trained model gives it" in report.failures[2]


def test_a_server_that_does_not_start_is_a_finding(
    candidate: Path, photos: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.servers.vitrina.sys.executable", "/bin/false")
    report = check_served(candidate, photos[:1], folder=tmp_path, serving=Serving(kind="vitrina"))
    assert any(failure.startswith("serving: The server ended") for failure in report.failures)


def test_no_images_is_an_error(candidate: Path, tmp_path: Path) -> None:
    with pytest.raises(VitrinaError, match="no images"):
        check_served(candidate, [], folder=tmp_path)


@pytest.mark.parametrize(
    ("labels", "scores", "told"),
    [
        ([b"cat", b"dog"], [0.7, 0.3], ""),
        ([b"cat"], [0.70005], ""),
        ([b"dog", b"cat"], [0.3, 0.7], "it answers 'dog', the trained model 'cat'"),
        ([b"cat", b"dog"], [0.7, 0.2], "dog has 0.2000, the trained model gives it 0.3000"),
        ([b"cat", b"dog"], [float("nan"), 0.3], "cat has nan"),
        ([b"cow"], [0.7], "does not know"),
        ([], [], "it answers 'nothing'"),
    ],
)
def test_what_the_trained_model_answered(labels: list[bytes], scores: list[float], told: str) -> None:
    found = difference(OwnAnswer(digest="", scores={"cat": 0.7, "dog": 0.3}), labels, scores)
    assert (told in found) if told else not found


def png(ids: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(ids).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_mask_beside_the_trained_models() -> None:
    ids = np.arange(1000).reshape(20, 50).astype(np.uint16) % 3
    own = OwnAnswer(digest="", mask=base64.b64encode(png(ids)).decode())
    rounded, other = ids.astype(np.uint8), ids.astype(np.uint8)
    rounded[0, 0], other[:10] = 2, 0
    assert mask_difference(own, png(rounded)) == ""
    assert "0.6" in mask_difference(own, png(other))
    assert "shape (50, 20)" in mask_difference(own, png(ids.T.astype(np.uint8)))


def answer(**changes: object) -> dict[str, object]:
    return {
        "labels": np.array([[b"cat", b"dog"]], object),
        "scores": np.array([[0.75, 0.25]], np.float32),
        "error": np.array([b""], object),
        **changes,
    }


def test_the_same_answers() -> None:
    assert differences(answer(), answer()) == ""
    assert differences(answer(scores=np.array([[0.75005, 0.25]])), answer()) == ""
    assert differences(answer(labels=np.array([["cat", "dog"]])), answer()) == ""


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"scores": np.array([[0.76, 0.24]])}, "scores differs by 0.01"),
        ({"scores": np.array([[np.nan, 0.25]])}, "scores differs by nan"),
        ({"labels": np.array([[b"dog", b"cat"]], object)}, "labels differs"),
        ({"labels": np.array([[b"cat"]], object)}, "labels has shape"),
        ({"more": np.zeros(1)}, "outputs"),
    ],
)
def test_other_answers(changes: dict[str, object], told: str) -> None:
    assert told in differences(answer(**changes), answer())
