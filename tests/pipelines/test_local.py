"""The pipeline end to end on a few real images: TFX, LocalDagRunner, SQLite, Beam, TFMA and all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tfx", reason="the tfx extra is not installed in this lane")

from pipelines import digits, lineage, local, verdict
from pipelines.local import Event, RunResult
from pipelines.settings import Schedule
from signatures import base_path
from signatures.errors import CheckFailed, UsageError
from signatures.spec import Card

pytestmark = pytest.mark.long

LIMIT = 10
ORDER = [
    "ImageGen",
    "IngestGate",
    "StatisticsGen",
    "SchemaGen",
    "ExampleValidator",
    "DataCheck",
    "DataGate",
    "Trainer",
    "SkewCheck",
    "Evaluator",
    "ServingCheck",
    "ModelReport",
    "BasePathPusher",
]


class Line:
    """A data folder, a checkpoint and a way to run the pipeline on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.checkpoint = folder / "checkpoint"
        self.base = folder / "served" / "digits"
        self.events: list[Event] = []
        digits.write_images(self.data, limit=LIMIT)
        digits.write_checkpoint(self.checkpoint, hidden_size=16, layers=1)

    def run(self, **changes: Any) -> RunResult:
        self.events.clear()
        settings = {
            "data": self.data,
            "model": self.checkpoint,
            "root": self.folder / "root",
            "serving_dir": self.base,
            "schedule": Schedule(epochs=2, batch_size=16, learning_rate=5e-3, shift=0.1, rotate=0.02),
            "threshold": 0.0,
            **changes,
        }
        return local.run(on_event=self.events.append, **settings)


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    return Line(tmp_path_factory.mktemp("line"))


@pytest.fixture(scope="module")
def first(line: Line) -> tuple[RunResult, list[Event]]:
    """The first run, blessed whatever it learned."""
    return line.run(), list(line.events)


def test_a_blessed_model_is_pushed_as_a_whole_servable(line: Line, first: tuple[RunResult, list[Event]]) -> None:
    result, _ = first
    assert result.blessed
    assert result.new
    assert result.pushed == line.base / "1"
    card = Card.read(line.base / "1")
    assert card.labels == digits.CLASSES
    assert card.source.cls == "TFViTForImageClassification"
    assert {"serving_default", "preprocess", "pixels", "model", "from_examples", "classify"} <= set(card.signatures)
    assert card.parity, "the certificate is missing"
    for name in ("model_card.md", "model_card.html"):
        assert f"{result.metrics['accuracy']:.4f}" in (line.base / "1" / "assets.extra" / name).read_text()
    assert result.ingest["counts"] == {"train": 80, "eval": 20}
    assert result.ingest["bad"] == []


def test_tfma_says_what_the_servable_answers_to_bytes(line: Line, first: tuple[RunResult, list[Event]]) -> None:
    import tensorflow as tf

    result, _ = first
    files = sorted((line.data / "eval").glob("*/*.png"))
    answers = tf.saved_model.load(str(result.pushed)).signatures["serving_default"](
        image_bytes=tf.constant([path.read_bytes() for path in files])
    )
    right = sum(
        label.decode() == path.parent.name for label, path in zip(answers["labels"].numpy()[:, 0], files, strict=True)
    )
    assert result.metrics["images"] == len(files) == 20
    assert result.metrics["accuracy"] == pytest.approx(right / len(files))
    per_class = verdict.per_class(result.evaluation)
    assert set(per_class) == set(digits.CLASSES)
    assert sum(each["accuracy"] * each["images"] for each in per_class.values()) == pytest.approx(right)


def test_it_was_served_before_it_was_pushed(first: tuple[RunResult, list[Event]]) -> None:
    result, _ = first
    checks = {finding["check"]: finding["ok"] for finding in result.serving["findings"]}
    assert checks == {
        "parity certificate": True,
        "answers over grpc": True,
        "the trainer's own answers over grpc": True,
        "broken images over grpc": True,
        "answers over rest": True,
        "the trainer's own answers over rest": True,
        "broken images over rest": True,
    }
    assert result.serving["latency_ms"]["grpc"]["p50"] > 0


def test_every_component_is_told_as_it_starts_and_ends(first: tuple[RunResult, list[Event]]) -> None:
    result, events = first
    started = [event.component for event in events if event.text == "started"]
    finished = [event.component for event in events if event.text == "finished"]
    assert started == finished
    assert set(started) == {*ORDER, "LatestBlessed", "AcceptedBefore"}
    assert started.index("Trainer") < min(map(started.index, ("SkewCheck", "Evaluator", "ServingCheck")))
    assert started[-1] == "BasePathPusher"
    assert [event.text[:9] for event in events if event.text.startswith("epoch")] == ["epoch 1/2", "epoch 2/2"]
    assert {component.name: component.state for component in result.components} == dict.fromkeys(
        [*ORDER, "LatestBlessed", "AcceptedBefore"], "COMPLETE"
    )


def test_the_log_has_what_the_terminal_is_spared(first: tuple[RunResult, list[Event]]) -> None:
    result, _ = first
    assert "Component Trainer is running." in result.log.read_text()


def test_lineage_leads_from_the_push_back_to_the_images(line: Line, first: tuple[RunResult, list[Event]]) -> None:
    executions = lineage.last_run(line.folder / "root" / "metadata.sqlite", "vitrina")
    makers = {artifact.id: item.component for item in executions for artifact in item.outputs.values()}
    inputs = {item.component: {makers[number] for number in item.inputs if number in makers} for item in executions}
    assert inputs["BasePathPusher"] == {"Trainer", "Evaluator", "ServingCheck", "ModelReport"}
    assert "ImageGen" in inputs["Trainer"]


def test_a_pushed_version_leads_back_to_its_images_whatever_ran_since(
    line: Line, first: tuple[RunResult, list[Event]]
) -> None:
    metadata = line.folder / "root" / "metadata.sqlite"
    found = {item.component: item for item in lineage.origins(metadata, 1)}
    # Not what passed judgement without leaving anything that went on, nor a later run's look-up of the same model.
    assert set(found) == {
        "ImageGen", "StatisticsGen", "SchemaGen", "Trainer", "Evaluator", "ServingCheck", "ModelReport",
        "BasePathPusher",
    }  # fmt: skip
    assert found["ImageGen"].settings["data"] == str(line.data)
    assert found["BasePathPusher"].outputs["pushed_model"].properties["pushed_destination"] == str(line.base / "1")
    with pytest.raises(UsageError, match="no push of version 9"):
        lineage.origins(metadata, 9)


def test_unchanged_steps_are_taken_over_and_a_worse_model_is_not_pushed(
    line: Line, first: tuple[RunResult, list[Event]]
) -> None:
    result = line.run(threshold=1.0, push_to=["exec:///bin/true"])
    states = {component.name: component.state for component in result.components}
    assert states["ImageGen"] == states["Trainer"] == "CACHED"
    assert states["Evaluator"] == states["BasePathPusher"] == "COMPLETE"
    assert not result.blessed
    assert result.pushed is None
    assert result.failures
    assert result.deployments == ()
    assert list(base_path.versions(line.base)) == [1]


def test_the_latest_blessed_model_is_the_bar(line: Line, first: tuple[RunResult, list[Event]]) -> None:
    before, _ = first
    result = line.run(push_to=["exec:///bin/echo", "exec:///bin/false"])
    # The same model against itself: as good, so it is blessed, and it is already there.
    assert result.metrics["baseline_accuracy"] == pytest.approx(before.metrics["accuracy"])
    assert result.blessed
    assert not result.new
    assert result.version == 1
    assert [(deployed.live, deployed.told) for deployed in result.deployments] == [
        (True, f"{line.base} 1"),
        (False, "/bin/false ended with 1: it said nothing"),
    ]


def test_images_that_break_the_schema_stop_the_run(line: Line, first: tuple[RunResult, list[Event]]) -> None:
    from PIL import Image

    changed = line.folder / "changed"
    shutil.copytree(line.data, changed)
    for path in (changed / "eval" / "9").iterdir():
        # Trained on PNG files only: what is held out is of another kind.
        Image.open(path).convert("RGB").save(path.with_suffix(".jpg"))
        path.unlink()
    with pytest.raises(CheckFailed, match=r"eval: image/format: .*JPEG"):
        line.run(data=changed, name="changed")
    assert list(base_path.versions(line.base)) == [1]


def test_data_that_has_drifted_or_is_not_what_is_served_stops_the_run(
    line: Line, first: tuple[RunResult, list[Event]]
) -> None:
    from PIL import Image, ImageOps

    drifted = line.folder / "drifted"
    shutil.copytree(line.data, drifted)
    for path in drifted.rglob("*.png"):
        ImageOps.invert(Image.open(path)).save(path)
    with pytest.raises(
        CheckFailed, match=r"drift of image/brightness: .* the data that was accepted before"
    ) as stopped:
        line.run(data=drifted)
    report = Path(str(stopped.value).rpartition(" ")[2])
    assert "too far" in report.read_text(), "TFX keeps it, though the run has stopped"
    with pytest.raises(CheckFailed, match=r"skew of image/brightness: .* what is served"):
        line.run(serving_log=drifted / "eval")


def test_the_list_of_what_cannot_be_read_outlives_the_run(line: Line) -> None:
    spoiled = line.folder / "spoiled"
    shutil.copytree(line.data, spoiled)
    for path in sorted(spoiled.rglob("*.png"))[::4]:
        path.write_bytes(b"spoiled")
    with pytest.raises(CheckFailed, match=r"25 of 100 images .* and 20 more") as stopped:
        line.run(data=spoiled, name="spoiled")
    listed = Path(str(stopped.value).rpartition(" ")[2].rstrip(".")).read_text().splitlines()
    assert len(listed) == 25
    assert listed[0].startswith("eval/0/")


def test_a_missing_checkpoint_is_one_clear_line(line: Line) -> None:
    with pytest.raises(UsageError, match="no folder"):
        line.run(model=line.folder / "nowhere", name="missing")


def test_a_missing_data_folder_is_one_clear_line(line: Line) -> None:
    with pytest.raises(UsageError, match="no folder"):
        line.run(data=line.folder / "nowhere")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_root_that_cannot_be_written(line: Line, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(Exception, match="cannot be made"):
        line.run(root=tmp_path / "root")
