# ruff: noqa: E402 (what is skipped over is not imported)
"""Data beside the data before it and beside what is served: TFDV's distances, the serving log, and the report."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

tfdv = pytest.importorskip("tensorflow_data_validation", reason="the tfx extra is not installed in this lane")

from pipelines import serving_log
from pipelines.data_report import DataReport, read
from pipelines.drift import distances, served_statistics, summary
from pipelines.examples import FORMAT, IMAGE_MEASURES, TEXT, to_example
from signatures.errors import UsageError


def picture(level: int, kind: str = "PNG", side: int = 8) -> bytes:
    pixels = np.clip(np.random.default_rng(level).normal(level, 8, (side, side)), 0, 255).astype(np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, kind)
    return encoded.getvalue()


def statistics(classes: dict[str, int], formats: dict[str, int], brightness: float) -> Any:
    import pandas as pd

    def column(counts: dict[str, int]) -> list[str]:
        return [name for name, count in counts.items() for _ in range(count)]

    count = sum(classes.values())
    light = np.random.default_rng(7).normal(brightness, 0.05, count)
    return tfdv.generate_statistics_from_dataframe(
        pd.DataFrame({TEXT: column(classes), FORMAT: column(formats), "image/brightness": light}), n_jobs=1
    )


FEATURES = (TEXT, FORMAT, "image/brightness", "image/width")
BEFORE = statistics({"cat": 500, "dog": 500}, {"PNG": 1000}, 0.4)


def test_the_same_data_is_near_and_each_change_is_far() -> None:
    same = distances(statistics({"cat": 250, "dog": 250}, {"PNG": 500}, 0.4), BEFORE, features=FEATURES, most=0.3)
    assert {each.feature for each in same} == {TEXT, FORMAT, "image/brightness"}, "what both have"
    assert all(each.ok and each.value < 0.1 for each in same)
    other = statistics({"cat": 450, "dog": 50}, {"JPEG": 500}, 0.8)
    found = {each.feature: each for each in distances(other, BEFORE, features=FEATURES, most=0.3)}
    assert found[TEXT].value == pytest.approx(0.4, abs=0.01)
    assert found[FORMAT].value == pytest.approx(1.0)
    assert found["image/brightness"].value > 0.8
    assert not any(each.ok for each in found.values())
    line = found[FORMAT].told("span 1")
    assert line.startswith("image/format: 1.00 away from span 1, more than 0.3")
    assert "(PNG 100% -> JPEG 100%)" in line


def test_few_images_may_differ_by_chance() -> None:
    few = distances(statistics({"cat": 4}, {"PNG": 4}, 0.45), BEFORE, features=FEATURES, most=0.3)
    assert all(each.ok for each in few)
    assert max(each.value for each in few) > 0.45
    many = distances(statistics({"cat": 400}, {"PNG": 400}, 0.45), BEFORE, features=FEATURES, most=0.3)
    assert not all(each.ok for each in many)


def requests(folder: Path) -> dict[str, Path]:
    """The same four images in every form."""
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    sent = [[picture(40), picture(50)], [picture(60), b"no image"]]
    forms = {name: folder / name for name in ("log.tfrecord", "examples.tfrecord", "log.jsonl", "files")}
    assert serving_log.write(sent, forms["log.tfrecord"], model="m") == 2
    with tf.io.TFRecordWriter(str(forms["examples.tfrecord"]), "GZIP") as writer:
        for pair in sent:
            log = prediction_log_pb2.PredictionLog()
            for encoded in pair:
                example = log.classify_log.request.input.example_list.examples.add()
                example.features.feature["image/encoded"].bytes_list.value.append(encoded)
            writer.write(log.SerializeToString())
    b64 = [[{"b64": base64.b64encode(each).decode()} for each in pair] for pair in sent]
    rows = [{"instances": [{"image_bytes": each} for each in b64[0]]}, {"inputs": {"image_bytes": b64[1]}}]
    forms["log.jsonl"].write_text("\n".join(map(json.dumps, rows)))
    forms["files"].mkdir()
    for number, encoded in enumerate(each for pair in sent for each in pair):
        (forms["files"] / f"{number}.png").write_bytes(encoded)
    return forms


def test_every_form_of_the_log_holds_the_same_images(tmp_path: Path) -> None:
    forms = requests(tmp_path)
    wanted = sorted([picture(40), picture(50), picture(60), b"no image"])
    for name, path in forms.items():
        assert sorted(serving_log.images(str(path), limit=100)) == wanted, name
        assert len(list(serving_log.images(str(path), limit=3))) == 3
    served, read_, bad = served_statistics(serving_log.images(str(forms["log.tfrecord"]), limit=100))
    assert (read_, bad) == (3, 1)
    assert set(summary(served)) == set(IMAGE_MEASURES)
    before = serving_log.fingerprint(str(tmp_path / "*.jsonl"))
    forms["log.jsonl"].write_text("")
    assert serving_log.fingerprint(str(tmp_path / "*.jsonl")) != before


@pytest.mark.parametrize(
    ("name", "content"), [("a.jsonl", b'{"instances": [1]}'), ("a.tfrecord", b"no records at all")]
)
def test_what_is_no_log(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=name):
        list(serving_log.images(str(tmp_path / name), limit=1))
    with pytest.raises(UsageError, match="no serving log"):
        list(serving_log.images(str(tmp_path / "nowhere*"), limit=1))


def test_the_report_says_what_stops_a_run(tmp_path: Path) -> None:
    other = statistics({"cat": 500, "dog": 500}, {"JPEG": 1000}, 0.4)
    report = DataReport(
        data="<flowers>",
        anomalies=("eval: image/width: too wide",),
        drift=distances(other, BEFORE, features=FEATURES, most=0.3),
        previous="span 1",
        features={"train": summary(other)},
        counts={"train": 1000},
    )
    assert [line.partition(":")[0] for line in report.findings] == ["eval", "drift of image/format"]
    report.write(tmp_path)
    assert read(tmp_path)["findings"] == report.findings
    page = (tmp_path / "report.html").read_text()
    assert "&lt;flowers&gt;" in page
    assert "too far" in page
    assert (tmp_path / "anomalies.txt").read_text().splitlines() == report.findings


def test_the_span_before_this_one_is_the_bar() -> None:
    pytest.importorskip("tfx", reason="the tfx extra is not installed in this lane")
    from pipelines.components.accepted import AcceptedBefore

    def verdict(id: int, span: int) -> Any:
        return SimpleNamespace(id=id, get_int_custom_property=lambda _: span)

    known = [verdict(1, 1), verdict(2, 2), verdict(3, 2), verdict(4, 3), verdict(5, 1)]

    def resolved(span: int) -> list[int]:
        return [each.id for each in AcceptedBefore(span).resolve_artifacts(None, {"accepted": known})["accepted"]]

    assert (resolved(3), resolved(2), resolved(1), resolved(0)) == ([3], [5], [], [5])


def test_examples_have_the_features_that_requests_have() -> None:
    feature = to_example(picture(40), label=0, text="a", filename="a").features.feature
    assert set(IMAGE_MEASURES) <= set(feature)
