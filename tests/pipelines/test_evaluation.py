"""TFMA on the bytes signature, with models whose answers are known."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("tfx", reason="the tfx extra is not installed in this lane")

from pipelines import verdict
from pipelines.evaluation import eval_config, scores_in_label_order
from pipelines.examples import to_example
from pipelines.runners import beam_args
from pipelines.settings import Bar
from signatures.spec import Card, Source

#: 4 of each class are as they should be; 1 dark image is called bright.
LABELLED = [("bright", 200)] * 5 + [("dark", 20)] * 4 + [("dark", 200)]


def png(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), level, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def save_model(folder: Path, answer: Callable[[Any], Any], labels: tuple[str, ...] = ("bright", "dark")) -> Path:
    """A servable that decodes bytes itself: whoever sends it whole Examples gets an error."""
    import tensorflow as tf

    def level(encoded: Any) -> Any:
        return tf.reduce_mean(tf.cast(tf.io.decode_png(encoded, 3), tf.float32))

    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
        def serve(self, image_bytes: Any) -> dict[str, Any]:
            levels = tf.map_fn(level, image_bytes, fn_output_signature=tf.float32)
            return {
                "labels": tf.expand_dims(answer(levels), 1),
                "scores": tf.fill([tf.shape(image_bytes)[0], 1], 0.9),
                "error": tf.fill([tf.shape(image_bytes)[0]], ""),
            }

    module = Module()
    path = folder / "Format-Serving"
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.serve})
    Card(
        task="image-classification",
        labels=labels,
        source=Source(model="toy", revision=None, cls="Toy"),
        preprocessing={},
        signatures={},
        packages={},
    ).write(path)
    return folder


def by_level(levels: Any) -> Any:
    import tensorflow as tf

    return tf.where(levels > 128, "bright", "dark")


def always_bright(levels: Any) -> Any:
    import tensorflow as tf

    return tf.fill(tf.shape(levels), "bright")


def never_readable(levels: Any) -> Any:
    import tensorflow as tf

    return tf.fill(tf.shape(levels), "")


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("examples")
    (folder / "Split-eval").mkdir()
    with tf.io.TFRecordWriter(str(folder / "Split-eval" / "data.gz"), "GZIP") as writer:
        for number, (text, level) in enumerate(LABELLED):
            # Label ids in another order than the models': names decide.
            label = {"dark": 0, "bright": 1}[text]
            writer.write(to_example(png(level), label=label, text=text, filename=str(number)).SerializeToString())
    return folder


def evaluate(examples: Path, candidate: Path, out: Path, *, baseline: Path | None = None, **bar: float) -> bool:
    """What TFX's Evaluator does with our configuration; whether it blesses."""
    from tfx.components.evaluator.executor import Executor
    from tfx.components.util import examples_utils
    from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
    from tfx.proto import example_gen_pb2
    from tfx.types import artifact_utils, standard_artifacts
    from tfx.utils import json_utils, proto_utils

    def artifact(kind: Any, uri: Path) -> list[Any]:
        made = kind()
        made.uri = str(uri)
        return [made]

    data = artifact(standard_artifacts.Examples, examples)
    data[0].split_names = artifact_utils.encode_split_names(["eval"])
    examples_utils.set_payload_format(data[0], example_gen_pb2.PayloadFormat.FORMAT_TF_EXAMPLE)
    examples_utils.set_file_format(data[0], "tfrecords_gzip")
    inputs = {"examples": data, "model": artifact(standard_artifacts.Model, candidate)}
    if baseline is not None:
        inputs["baseline_model"] = artifact(standard_artifacts.Model, baseline)
    outputs = {
        "evaluation": artifact(standard_artifacts.ModelEvaluation, out / "evaluation"),
        "blessing": artifact(standard_artifacts.ModelBlessing, out / "blessing"),
    }
    (out / "blessing").mkdir(parents=True)
    Executor(BaseBeamExecutor.Context(beam_pipeline_args=beam_args())).Do(
        inputs,
        outputs,
        {
            "eval_config": proto_utils.proto_to_json(
                eval_config(Bar(**{"threshold": 0.0, **bar}), slices=["image/format"])
            ),
            "module_path": "pipelines.evaluation",
            "example_splits": json_utils.dumps(["eval"]),
        },
    )
    return (out / "blessing" / "BLESSED").is_file()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("good"), by_level)


@pytest.fixture(scope="module")
def poor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half right, and with its labels in another order."""
    return save_model(tmp_path_factory.mktemp("poor"), always_bright, labels=("dark", "bright"))


def test_the_figures_and_the_absolute_bar(examples: Path, good: Path, tmp_path: Path) -> None:
    assert evaluate(examples, good, tmp_path / "low", threshold=0.85)
    assert verdict.metrics(tmp_path / "low" / "evaluation") == {
        "accuracy": pytest.approx(0.9),
        "top_k_accuracy": pytest.approx(1.0),
        # Its scores are 0.9 throughout.
        "calibration_error": pytest.approx(0.0, abs=1e-6),
        "images": 10,
    }
    assert verdict.per_class(tmp_path / "low" / "evaluation") == {
        "bright": {"accuracy": pytest.approx(1.0), "images": 5},
        "dark": {"accuracy": pytest.approx(0.8), "images": 5},
    }
    assert verdict.per_slice(tmp_path / "low" / "evaluation")["image/format"] == {
        "PNG": {"accuracy": pytest.approx(0.9), "images": 10}
    }
    assert verdict.failures(tmp_path / "low" / "evaluation") == ()
    assert not evaluate(examples, good, tmp_path / "high", threshold=0.95)
    (failure,) = verdict.failures(tmp_path / "high" / "evaluation")
    assert "accuracy" in failure
    assert "0.9" in failure
    assert "0.95" in failure


def test_a_worse_model_than_the_latest_blessed_is_refused(
    examples: Path, good: Path, poor: Path, tmp_path: Path
) -> None:
    assert not evaluate(examples, poor, tmp_path / "worse", baseline=good)
    assert verdict.metrics(tmp_path / "worse" / "evaluation") == {
        "accuracy": pytest.approx(0.5),
        "top_k_accuracy": pytest.approx(1.0),
        "calibration_error": pytest.approx(0.4),
        "images": 10,
        "baseline_accuracy": pytest.approx(0.9),
    }
    assert "0.4 less" in " ".join(verdict.failures(tmp_path / "worse" / "evaluation"))
    assert evaluate(examples, good, tmp_path / "better", baseline=poor)
    assert evaluate(examples, good, tmp_path / "same", baseline=good)
    assert evaluate(examples, poor, tmp_path / "tolerated", baseline=good, max_loss=0.5)


def test_single_classes_and_calibration_can_be_held_to_a_bar(
    examples: Path, good: Path, poor: Path, tmp_path: Path
) -> None:
    bars = {"class_threshold": 0.9, "max_class_loss": 0.1, "max_calibration_error": 0.3, "top_k_threshold": 0.9}
    assert not evaluate(examples, poor, tmp_path / "poor", baseline=good, max_loss=1.0, **bars)
    assert set(verdict.failures(tmp_path / "poor" / "evaluation")) == {
        "accuracy of class dark 0.0000 is below 0.9000",
        "accuracy of class dark 0.8 less than the latest blessed model's; at most 0.1 is allowed",
        "calibration error 0.4000 is above 0.3000",
    }
    served = {"findings": [{"check": "answers over grpc", "ok": True, "told": "as in process"}]}
    held = verdict.checks(tmp_path / "poor" / "evaluation", Bar(threshold=0.0, max_loss=1.0, **bars), served)
    assert [(check.ok, check.name, check.told) for check in held] == [
        (True, "accuracy", "0.5000, at least 0"),
        (True, "accuracy against the latest blessed model", "-0.4000, at least -1"),
        (True, "top 5 accuracy", "1.0000, at least 0.9"),
        (False, "accuracy of the worst class, dark", "0.0000, at least 0.9"),
        (False, "class dark against the latest blessed model", "-0.8000, at least -0.1"),
        (False, "calibration error", "0.4000, at most 0.3"),
        (True, "answers over grpc", "as in process"),
    ]
    assert evaluate(examples, good, tmp_path / "good", baseline=poor, **{**bars, "class_threshold": 0.8 - 1e-6})


def test_an_image_without_an_answer_counts_as_wrong(examples: Path, tmp_path: Path) -> None:
    silent = save_model(tmp_path / "silent", never_readable)
    evaluate(examples, silent, tmp_path / "out")
    assert verdict.metrics(tmp_path / "out" / "evaluation")["accuracy"] == 0.0


def test_scores_in_label_order() -> None:
    names = np.array([[b"c", b"a"], [b"", b""], [b"x", b"b"]], object)
    scores = np.array([[0.7, 0.2], [0.0, 0.0], [0.6, 0.4]], np.float32)
    dense = scores_in_label_order(names, scores, ("a", "b", "c"))
    np.testing.assert_allclose(dense, [[0.2, 0, 0.7, 0], [0, 0, 0, 1], [0, 0.4, 0, 0]], atol=1e-7)
