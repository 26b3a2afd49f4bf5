from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pipelines import digits
from pipelines.examples import to_example
from pipelines.settings import Schedule
from signatures.errors import UsageError

if TYPE_CHECKING:
    from pipelines.training import Trained

pytestmark = pytest.mark.long

HAS_TENSORBOARD = importlib.util.find_spec("tensorboard") is not None


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    digits.write_images(folder, limit=5)
    return folder / "train"


@pytest.fixture(scope="module")
def records(images: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    import tensorflow as tf

    path = tmp_path_factory.mktemp("records") / "data.gz"
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for file in sorted(images.rglob("*.png")):
            text = file.parent.name
            example = to_example(file.read_bytes(), label=int(text), text=text, filename=file.name)
            writer.write(example.SerializeToString())
    return str(path)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    digits.write_checkpoint(folder, hidden_size=16, layers=1)
    return folder


TASK = "image-classification"
QUICK = Schedule(epochs=2, batch_size=16, learning_rate=1e-3, shift=0.1, rotate=0.02)


def test_training_sees_what_the_checkpoints_own_processor_makes(records: str, images: Path, checkpoint: Path) -> None:
    from PIL import Image
    from transformers import ViTImageProcessor

    from pipelines.inputs import dataset
    from signatures.sources.transformers import preprocessing

    features, targets = next(
        iter(dataset([records], preprocessing=preprocessing(str(checkpoint)), labels=digits.CLASSES, batch_size=64))
    )
    files = sorted(images.rglob("*.png"))
    processor = ViTImageProcessor.from_pretrained(checkpoint)
    wanted = processor([Image.open(file).convert("RGB") for file in files], return_tensors="np")["pixel_values"]
    assert features["pixel_values"].shape == (40, 3, 16, 16)
    np.testing.assert_allclose(features["pixel_values"].numpy(), wanted, atol=1e-6)
    assert targets.numpy().argmax(1).tolist() == [int(file.parent.name) for file in files]


def test_augmentation_is_random_and_only_while_training(records: str, checkpoint: Path) -> None:
    from pipelines.inputs import dataset
    from signatures.sources.transformers import preprocessing

    def pixels(schedule: Schedule | None) -> list[bytes]:
        batches = dataset(
            [records],
            preprocessing=preprocessing(str(checkpoint)),
            labels=digits.CLASSES,
            batch_size=8,
            schedule=schedule,
        )
        return sorted(image.numpy().tobytes() for features, _ in batches for image in features["pixel_values"])

    plain = pixels(None)
    assert pixels(None) == plain
    assert pixels(Schedule()) == plain, "shuffled, but otherwise as they are"
    assert pixels(QUICK) != plain


def test_an_interrupted_training_goes_on(records: str, checkpoint: Path, tmp_path: Path) -> None:
    from pipelines.training import fine_tune

    schedule = Schedule(epochs=4, batch_size=16, learning_rate=1e-3)
    told: list[str] = []

    def killed(line: str) -> None:
        told.append(line)
        if line.startswith("epoch 3/4"):
            raise KeyboardInterrupt

    arguments = {
        "files": [records],
        "labels": digits.CLASSES,
        "out": tmp_path / "out",
        "schedule": schedule,
        "resume": tmp_path / "resume",
    }
    with pytest.raises(KeyboardInterrupt):
        fine_tune(str(checkpoint), report=killed, **arguments)
    assert not (tmp_path / "out").exists()
    told.clear()
    trained = fine_tune(str(checkpoint), report=told.append, **arguments)
    assert told[0].startswith("going on with the training that was interrupted")
    assert [line[:9] for line in told[1:]] == ["epoch 4/4"]
    assert len(trained.history["loss"]) == 4
    # What is kept until the export is safe: a third try has nothing left to train.
    told.clear()
    assert fine_tune(str(checkpoint), report=told.append, **arguments).history == trained.history
    assert not any(line.startswith("epoch") for line in told)
    assert (trained.checkpoint / "preprocessor_config.json").is_file()


@pytest.fixture(scope="module")
def headed(records: str, tiny_vit: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Path]:
    """What training with a new head gave, and the folder for TensorBoard; without that package nothing is there."""
    from pipelines.training import fine_tune

    out = tmp_path_factory.mktemp("headed")
    trained = fine_tune(
        str(tiny_vit),
        files=[records],
        labels=digits.CLASSES,
        out=out / "out",
        # What follows the head's epochs is too little to move anything by much.
        schedule=Schedule(head_epochs=1, epochs=1, batch_size=64, learning_rate=1e-9),
        logs=out / "logs" if HAS_TENSORBOARD else None,
    )
    return trained, out / "logs"


def test_a_new_head_for_other_labels_and_its_epochs_alone(headed: tuple[Trained, Path], tiny_vit: Path) -> None:
    from pipelines.trainable import load

    trained, _ = headed
    before = load(str(tiny_vit), digits.CLASSES, task=TASK)
    assert before.new_head
    assert trained.new_head
    assert trained.labels == digits.CLASSES
    after = load(str(trained.checkpoint), digits.CLASSES, task=TASK)
    assert not after.new_head
    for one, other in zip(before.native.vit.weights, after.native.vit.weights, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=1e-5)
    config = json.loads((trained.checkpoint / "config.json").read_text())
    assert config["id2label"] == {str(number): name for number, name in enumerate(digits.CLASSES)}
    assert (trained.checkpoint / "preprocessor_config.json").read_text() == (
        tiny_vit / "preprocessor_config.json"
    ).read_text()


@pytest.mark.skipif(not HAS_TENSORBOARD, reason="TensorBoard, of the tfx extra, is not installed in this lane")
def test_tensorboard_shows_each_phase(headed: tuple[Trained, Path]) -> None:
    _, logs = headed
    assert {path.parent.parent.name for path in logs.rglob("events.*")} == {"head", "all"}


@pytest.mark.skipif(HAS_TENSORBOARD, reason="TensorBoard is installed")
def test_logs_want_tensorboard(records: str, tiny_vit: Path, tmp_path: Path) -> None:
    from pipelines.training import fine_tune

    with pytest.raises(UsageError, match=r"tensorboard.*vitrina\[tfx\]"):
        fine_tune(
            str(tiny_vit),
            files=[records],
            labels=digits.CLASSES,
            out=tmp_path / "out",
            schedule=Schedule(),
            logs=tmp_path / "logs",
        )


def test_the_same_labels_in_another_order_keep_their_ids(tiny_vit: Path) -> None:
    from pipelines.trainable import load

    found = load(str(tiny_vit), [f"kind {letter}" for letter in "lkjihgfedcba"], task=TASK)
    assert not found.new_head
    assert found.labels[0] == found.native.config.id2label[0] == "kind a"


def test_a_class_with_few_images_weighs_more() -> None:
    from pipelines.training import class_weights

    weights = class_weights([30, 10, 0])
    assert weights == [pytest.approx(40 / 60), pytest.approx(2.0), 0.0]
    assert sum(count * weights[number] for number, count in enumerate([30, 10, 0])) == pytest.approx(40)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"head_epochs": -1},
        {"shift": 2.0},
        {"early_stopping": -1},
        {"precision": "float16"},
        {"devices": "two"},
    ],
)
def test_a_schedule_that_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Schedule(**wrong)
