"""Keras models as training takes them: files of both generations, presets, functions; and what then is served."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines import trainable
from pipelines.examples import to_example
from pipelines.masks import read_mask
from pipelines.settings import Schedule
from signatures.errors import UsageError, VitrinaError
from signatures.preprocessing import from_options

CLASSIFY, SEGMENT = "image-classification", "image-segmentation"
LABELS = ("dark", "light", "mid")
LEVELS = {"dark": 30, "mid": 128, "light": 220}
SETTINGS = from_options(size=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
QUICK = Schedule(epochs=12, batch_size=8, learning_rate=0.03, weight_decay=0.0)


def png(pixels: Any) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(encoded, "PNG")
    return encoded.getvalue()


def write(path: Path, examples: list[Any]) -> str:
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for example in examples:
            writer.write(example.SerializeToString())
    return str(path)


def grey(text: str, seed: int) -> bytes:
    pixels = np.random.default_rng(seed).normal(LEVELS[text], 12, (10, 12, 3))
    return png(np.clip(pixels, 0, 255))


@pytest.fixture(scope="module")
def greys(tmp_path_factory: pytest.TempPathFactory) -> str:
    names = [LABELS[number % 3] for number in range(24)]
    examples = [
        to_example(grey(text, number), label=LABELS.index(text), text=text, filename=str(number))
        for number, text in enumerate(names)
    ]
    return write(tmp_path_factory.mktemp("greys") / "data.gz", examples)


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Dark left of a border, light right of it, and a column in between that counts for nothing."""
    examples = []
    for number in range(24):
        border = 2 + number % 9
        pixels = np.random.default_rng(number).normal(40, 10, (12, 12, 3))
        pixels[:, border:] += 160
        ids = np.zeros((12, 12), int)
        ids[:, border:] = 1
        ids[:, border] = 255
        mask = read_mask(png(ids), size=(12, 12), classes=2)
        example = to_example(png(np.clip(pixels, 0, 255)), filename=str(number), mask=mask, labels=("dark", "light"))
        examples.append(example)
    return write(tmp_path_factory.mktemp("halves") / "data.gz", examples)


def classifier(keras: Any, classes: int, *, softmax: bool = True) -> Any:
    inputs = keras.Input((8, 8, 3))
    outputs = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, activation="relu")(inputs))
    outputs = keras.layers.Dense(classes, activation="softmax" if softmax else None, name="scores")(outputs)
    return keras.Model(inputs, outputs)


def made_by_code() -> Any:
    import keras

    keras.utils.set_random_seed(3)
    return classifier(keras, 5, softmax=False)


def segmenter_by_code() -> Any:
    import keras

    keras.utils.set_random_seed(3)
    inputs = keras.Input((12, 12, 3))
    return keras.Model(inputs, keras.layers.Conv2D(2, 1)(keras.layers.Conv2D(6, 3, padding="same")(inputs)))


def answers(model: Any, folder: Path, images: list[bytes], *, verify: bool = False) -> Any:
    import tensorflow as tf

    from signatures import export

    card = export.write(model, folder, verify=verify)
    assert card.parity.get("holds", not verify)
    served = tf.saved_model.load(str(folder)).signatures["serving_default"]
    return {name: value.numpy() for name, value in served(image_bytes=tf.constant(images)).items()}


def train(model: str, files: str, out: Path, *, task: str = CLASSIFY, labels: Any = LABELS, **arguments: Any) -> Any:
    from pipelines.training import fine_tune

    settings = {"schedule": QUICK, "preprocessing": SETTINGS, **arguments}
    return fine_tune(model, files=[files], labels=labels, out=out, task=task, **settings)


@pytest.mark.parametrize("generation", ["keras", "tf_keras"])
def test_a_keras_file_with_other_classes_gets_a_new_head_and_is_served(
    generation: str, greys: str, tmp_path: Path
) -> None:
    keras = pytest.importorskip(generation)
    keras.utils.set_random_seed(1)
    classifier(keras, 5).save(tmp_path / "five.keras")
    trained = train(str(tmp_path / "five.keras"), greys, tmp_path / "out", schedule=QUICK)
    assert trained.new_head
    assert trained.history["accuracy"][-1] > 0.9
    found = answers(
        trainable.restore(trained.checkpoint, task=CLASSIFY), tmp_path / "served", [grey(n, 99) for n in LABELS]
    )
    assert [names[0].decode() for names in found["labels"]] == list(LABELS)
    assert trainable.preprocessing(trained.checkpoint) == SETTINGS
    # A warm start goes on from there, with the same labels in another order.
    again = trainable.load(str(trained.checkpoint), ("mid", "light", "dark"), task=CLASSIFY)
    assert (again.labels, again.new_head) == (LABELS, False)
    assert trainable.load(str(trained.checkpoint), ("a", "b"), task=CLASSIFY).new_head


def test_a_function_of_ones_own_early_stopping_and_its_best_weights_after_a_kill(greys: str, tmp_path: Path) -> None:
    name = f"python:{__name__}:made_by_code"
    schedule = Schedule(
        epochs=40, batch_size=8, learning_rate=0.05, warmup=0.0, early_stopping=2, validation_share=0.3, balance=True,
        brightness=0.02, contrast=0.02, zoom=0.1, flip=True,
    )  # fmt: skip
    told: list[str] = []

    def killed(line: str) -> None:
        if line.startswith("epoch 2/"):
            raise KeyboardInterrupt

    arguments = {"schedule": schedule, "resume": tmp_path / "resume"}
    with pytest.raises(KeyboardInterrupt):
        train(name, greys, tmp_path / "out", report=killed, **arguments)
    assert any((tmp_path / "resume").rglob("best.npz"))
    trained = train(name, greys, tmp_path / "out", report=told.append, **arguments)
    assert told[0].startswith("going on")
    assert told[1].startswith("epoch 3/40")
    losses = trained.history["val_loss"]
    assert f"the weights of epoch {int(np.argmin(losses)) + 1} are kept" in told[-1]
    assert len(losses) == min(int(np.argmin(losses)) + 3, 40)
    restored = trainable.restore(trained.checkpoint, task=CLASSIFY)
    assert restored.labels == LABELS
    scores = restored.call({"pixel_values": np.zeros((1, 8, 8, 3), np.float32)})
    assert [value.shape for value in scores.values()] == [(1, 3)]


def test_a_keras_segmenter_learns_masks_and_is_served(halves: str, tmp_path: Path) -> None:
    from pipelines.judged_masks import mean_iou, pixel_confusion

    trained = train(
        f"python:{__name__}:segmenter_by_code",
        halves,
        tmp_path / "out",
        task=SEGMENT,
        labels=("dark", "light"),
        preprocessing=from_options(size=12, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        schedule=Schedule(epochs=10, batch_size=8, learning_rate=0.03, shift=0.1, rotate=0.02, balance=True, flip=True),
    )
    assert trained.history["mean_iou"][-1] > 0.8
    ids = np.zeros((24, 30), int)
    ids[:, 15:] = 1
    picture = png(np.repeat((40 + 160 * ids)[..., None], 3, axis=2))
    restored = trainable.restore(trained.checkpoint, task=SEGMENT)
    found = answers(restored, tmp_path / "served", [picture], verify=True)
    labels = ("dark", "light")
    assert mean_iou(pixel_confusion(png(ids), labels, found["mask_bytes"][0], labels, labels)) > 0.9


def test_mixed_precision_on_several_devices(tmp_path: Path, greys: str) -> None:
    """In a process of its own: devices are fixed when TensorFlow starts."""
    import subprocess
    import sys

    import keras

    keras.utils.set_random_seed(1)
    classifier(keras, 3).save(tmp_path / "three.keras")
    program = f"""
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from pathlib import Path
from pipelines.settings import Schedule
from pipelines.training import fine_tune
from signatures.preprocessing import from_options
trained = fine_tune(
    {str(tmp_path / "three.keras")!r}, files=[{greys!r}], labels={LABELS!r}, out=Path({str(tmp_path / "out")!r}),
    preprocessing=from_options(size=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    schedule=Schedule(epochs=12, batch_size=8, learning_rate=0.03, devices="all", precision="mixed_bfloat16"),
    report=print,
)
print("devices", trained.devices, "accuracy", trained.history["accuracy"][-1])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "training on 2 devices" in done.stdout
    last = done.stdout.strip().splitlines()[-1].split()
    assert last[:2] == ["devices", "2"]
    assert float(last[3]) > 0.9
    config = json.loads((tmp_path / "out" / "trained.json").read_text())
    assert config["labels"] == list(LABELS)
    saved = keras.models.load_model(tmp_path / "out" / "model.keras", compile=False)
    assert {layer.compute_dtype for layer in saved.layers} == {"float32"}, "it is served as it always was"


def test_a_preset_of_keras_hub_with_other_classes(greys: str, tmp_path: Path) -> None:
    hub = pytest.importorskip("keras_hub")
    backbone = hub.models.ResNetBackbone(
        input_conv_filters=[64], input_conv_kernel_sizes=[3], stackwise_num_filters=[64], stackwise_num_blocks=[1],
        stackwise_num_strides=[1], block_type="basic_block", image_shape=(16, 16, 3),
    )  # fmt: skip
    converter = hub.layers.ResNetImageConverter(image_size=(16, 16), scale=1 / 255)
    model = hub.models.ResNetImageClassifier(
        backbone=backbone, num_classes=7, preprocessor=hub.models.ResNetImageClassifierPreprocessor(converter)
    )
    model.save_to_preset(str(tmp_path / "preset"))
    trained = train(
        f"keras_hub:{tmp_path / 'preset'}",
        greys,
        tmp_path / "out",
        preprocessing=None,
        schedule=Schedule(epochs=1, batch_size=24),
    )
    assert trained.new_head
    restored = trainable.restore(trained.checkpoint, task=CLASSIFY)
    assert restored.labels == LABELS
    assert not trainable.load(str(trained.checkpoint), LABELS, task=CLASSIFY).new_head
    scores = restored.call({"pixel_values": np.zeros((1, 16, 16, 3), np.float32)})
    assert [value.shape for value in scores.values()] == [(1, 3)]


def no_model() -> Any:
    import tensorflow as tf

    class Doubles(tf.Module):
        def __call__(self, pixel_values: Any) -> Any:
            return 2 * pixel_values

    return Doubles()


@pytest.mark.parametrize(
    ("model", "task", "told"),
    [
        ("nowhere.keras", CLASSIFY, "There is no file"),
        (f"python:{__name__}:no_model", CLASSIFY, "tf.Module, which has no layers to train"),
        ("keras_hub:resnet", SEGMENT, "image classifiers are trained here"),
        ("keras_hib:resnet", CLASSIFY, "No model source named"),
    ],
)
def test_what_cannot_be_trained(model: str, task: str, told: str) -> None:
    with pytest.raises((UsageError, VitrinaError), match=told):
        trainable.load(model, ("a", "b"), task=task, preprocessing=SETTINGS)
