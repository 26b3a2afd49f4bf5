"""Fine-tunes a TF image classifier of transformers on Examples, through the preprocessing that will be served.

An image's way to the model while training is the processor that `signatures.build` puts into the servable, called
once per image; random augmentation comes after it and only in training. There is no second preprocessing to
drift away from the first.
"""

from __future__ import annotations

import functools
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tensorflow as tf

from pipelines.examples import ENCODED, TEXT
from pipelines.settings import Schedule
from signatures.errors import UsageError, VitrinaError
from signatures.preprocessing import Preprocessing
from signatures.processor import compile_processor

__all__ = ["Trained", "class_weights", "dataset", "fine_tune", "load_trainable"]

#: Preprocessed images up to this many bytes stay in memory between epochs.
CACHE_BYTES = 2 << 30
PIXELS = "pixel_values"

Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What training left.

    Args:
        checkpoint: The folder that `save_pretrained` wrote, with its image processor.
        labels: Class names in id order.
        history: Per metric (`loss`, `accuracy`) its value after each epoch.
        images: How many images it saw per epoch.
        new_head: Whether the checkpoint's labels were others, so that its head began anew.
    """

    checkpoint: Path
    labels: tuple[str, ...]
    history: Mapping[str, Sequence[float]] = field(default_factory=dict)
    images: int = 0
    new_head: bool = False


def fine_tune(
    model: str,
    *,
    files: Sequence[str],
    labels: Sequence[str],
    out: Path,
    schedule: Schedule,
    resume: Path | None = None,
    report: Report | None = None,
) -> Trained:
    """Trains a checkpoint and saves it as one.

    Args:
        model: A folder or Hub id with a TF image classifier and its image processor.
        files: TFRecords (gzip) of Examples with `image/encoded` and `image/class/text`.
        labels: Class names of the data in id order.
        out: The folder to save to.
        schedule: How to train.
        resume: A folder for the state after each epoch. Where it holds one, because a training with the very same
            arguments was killed, this one goes on from there. It is removed at the end.
        report: Called with a line per epoch.

    Returns:
        Where it is and how it went.

    Raises:
        UsageError: The checkpoint is no image classifier with a processor.
        VitrinaError: There are no images, or the loss is not a number any more.
    """
    import tf_keras

    told = report or (lambda _: None)
    tf_keras.utils.set_random_seed(schedule.seed)
    native, preprocessing, new_head = load_trainable(model, labels)
    names = _labels(native)
    counts = _counts(files, names)
    images = sum(counts)
    if not images:
        raise VitrinaError("The train split holds no images. Look at the report of ImageGen.")
    batches = dataset(
        files, preprocessing=preprocessing, labels=names, batch_size=schedule.batch_size, schedule=schedule
    )
    weights = class_weights(counts) if schedule.balance else None
    history: dict[str, list[float]] = {}
    for phase in _phases(schedule):
        found = _fit(native, batches, phase, schedule, images=images, weights=weights, resume=resume, report=told)
        for name, values in found.items():
            history.setdefault(name, []).extend(map(float, values))
    _save(native, model, out)
    if resume is not None:
        shutil.rmtree(resume, ignore_errors=True)
    return Trained(checkpoint=out, labels=names, history=history, images=images, new_head=new_head)


@dataclass(frozen=True, kw_only=True)
class _Phase:
    """Some epochs with the same layers in training."""

    name: str
    epochs: int
    head_only: bool


def _phases(schedule: Schedule) -> list[_Phase]:
    head = _Phase(name="head", epochs=schedule.head_epochs, head_only=True)
    return [phase for phase in (head, _Phase(name="all", epochs=schedule.epochs, head_only=False)) if phase.epochs]


def _fit(
    native: Any,
    batches: Any,
    phase: _Phase,
    schedule: Schedule,
    *,
    images: int,
    weights: dict[int, float] | None,
    resume: Path | None,
    report: Report,
) -> Mapping[str, Sequence[float]]:
    import tf_keras

    _freeze(native, phase.head_only)
    steps = math.ceil(images / schedule.batch_size)
    native.compile(
        optimizer=_optimizer(schedule, steps * phase.epochs),
        loss=tf_keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=schedule.label_smoothing),
        metrics=[tf_keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    callbacks = [
        tf_keras.callbacks.LambdaCallback(on_epoch_end=_Progress(phase, report)),
        tf_keras.callbacks.TerminateOnNaN(),
    ]
    if resume is not None:
        state = resume / phase.name
        if any(state.glob("**/*.index")):
            report(f"going on with the training that was interrupted, from {state}")
        callbacks.append(tf_keras.callbacks.BackupAndRestore(str(state), delete_checkpoint=False))
    history = native.fit(batches, epochs=phase.epochs, verbose=0, class_weight=weights, callbacks=callbacks).history
    if not all(math.isfinite(value) for value in history.get("loss", ())):
        raise VitrinaError(
            f"The loss is not a number after {len(history['loss'])} epochs at learning rate "
            f"{schedule.learning_rate:g}. Train with a lower --learning-rate."
        )
    return dict(history)


def _freeze(native: Any, head_only: bool) -> None:
    """Trains the head alone, or everything."""
    backbone = getattr(native, native.base_model_prefix, None)
    if backbone is not None:
        backbone.trainable = not head_only


def load_trainable(model: str, labels: Sequence[str]) -> tuple[Any, Preprocessing, bool]:
    """The checkpoint as a TF model with a head for these labels.

    Its own head is kept where its labels are the same names, in whatever order; else it gets a new, random one.

    Args:
        model: A folder or Hub id.
        labels: Class names of the data.

    Returns:
        The model, its processor's settings, and whether the head is new.

    Raises:
        UsageError: There is no such checkpoint, or it has no processor or no TF image classifier.
    """
    from transformers import AutoConfig, TFAutoModelForImageClassification

    preprocessing = _preprocessing(model)
    try:
        config = AutoConfig.from_pretrained(model)
        id2label = {int(key): str(value) for key, value in config.id2label.items()}
        fits = sorted(id2label.values()) == sorted(labels)
        if not fits:
            config.id2label = dict(enumerate(labels))
            config.label2id = {label: number for number, label in enumerate(labels)}
        native = TFAutoModelForImageClassification.from_pretrained(
            model, config=config, ignore_mismatched_sizes=not fits
        )
    except (OSError, ValueError) as error:
        line = " ".join(str(error).split())
        raise UsageError(
            f"{model} cannot be trained as a TensorFlow image classifier: {line} Give the folder or Hub id of one "
            "(ViT, Swin, ConvNext, ...)."
        ) from error
    return native, preprocessing, not fits


def dataset(
    files: Sequence[str],
    *,
    preprocessing: Preprocessing,
    labels: Sequence[str],
    batch_size: int,
    schedule: Schedule | None = None,
) -> Any:
    """Batches of `({"pixel_values": float32 [b, c, h, w]}, one-hot float32 [b, classes])`.

    Args:
        files: TFRecords (gzip) of Examples.
        preprocessing: The settings that the servable will freeze.
        labels: Class names in the model's id order.
        batch_size: Images per batch.
        schedule: Shuffles and augments with its seed; None does neither.

    Returns:
        A `tf.data.Dataset` of one epoch.
    """
    processor = compile_processor(preprocessing)
    ids = _id_table(labels)

    # Traced as it stands, as `signatures.build` does it: the processor is written in ops already.
    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def read(serialized: Any) -> tuple[Any, Any]:
        parsed = tf.io.parse_single_example(
            serialized, {ENCODED: tf.io.FixedLenFeature([], tf.string), TEXT: tf.io.FixedLenFeature([], tf.string)}
        )
        return processor.training_map(parsed[ENCODED]), tf.one_hot(ids.lookup(parsed[TEXT]), len(labels))

    records = tf.data.TFRecordDataset(list(files), compression_type="GZIP")
    items = records.map(read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    items = _cached(items, files)
    if schedule is None:
        return items.batch(batch_size).prefetch(tf.data.AUTOTUNE)
    batches = items.shuffle(10_000, seed=schedule.seed).batch(batch_size)
    augment = _augmentation(schedule)
    if augment is not None:
        batches = batches.map(functools.partial(_augmented, augment))
    return batches.prefetch(tf.data.AUTOTUNE)


@tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
def _augmented(augment: Callable[[Any], Any], features: dict[str, Any], target: Any) -> tuple[dict[str, Any], Any]:
    return {**features, PIXELS: augment(features[PIXELS])}, target


class _Progress:
    """A line per epoch."""

    def __init__(self, phase: _Phase, report: Report) -> None:
        self._phase = phase
        self._report = report

    def __call__(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        shown = ", ".join(f"{name} {value:.4f}" for name, value in (logs or {}).items())
        which = " of the head alone" if self._phase.head_only else ""
        self._report(f"epoch {epoch + 1}/{self._phase.epochs}{which}: {shown}")


def _preprocessing(model: str) -> Preprocessing:
    from signatures.sources import transformers as checkpoints

    return checkpoints.preprocessing(model)


def _labels(native: Any) -> tuple[str, ...]:
    id2label = {int(key): str(value) for key, value in native.config.id2label.items()}
    return tuple(id2label[number] for number in sorted(id2label))


def _id_table(labels: Sequence[str]) -> Any:
    """Class name to the model's id; an unknown name gets -1, whose one-hot row is all zeros."""
    return tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(list(labels), tf.range(len(labels), dtype=tf.int64)), default_value=-1
    )


def _cached(items: Any, files: Sequence[str]) -> Any:
    features, _ = items.element_spec
    bytes_each = sum(
        spec.dtype.size * math.prod(size or 512 for size in spec.shape.as_list()) for spec in features.values()
    )
    # Compressed images are rarely smaller than this, so the count is not needed to stay on the safe side.
    least_compressed = 200
    most_images = sum(Path(file).stat().st_size for file in files) / least_compressed
    return items.cache() if bytes_each * most_images < CACHE_BYTES else items


def _augmentation(schedule: Schedule) -> Callable[[Any], Any] | None:
    """Random shifts and rotations of `pixel_values` [b, c, h, w], edges repeated."""
    import tf_keras

    layers = []
    if schedule.shift:
        layers.append(
            tf_keras.layers.RandomTranslation(
                schedule.shift, schedule.shift, fill_mode="nearest", seed=schedule.seed + 1
            )
        )
    if schedule.rotate:
        layers.append(tf_keras.layers.RandomRotation(schedule.rotate, fill_mode="nearest", seed=schedule.seed + 2))
    if not layers:
        return None

    def augment(pixel_values: Any) -> Any:
        images = tf.transpose(pixel_values, [0, 2, 3, 1])
        for layer in layers:
            images = layer(images, training=True)
        return tf.transpose(images, [0, 3, 1, 2])

    return augment


def _optimizer(schedule: Schedule, steps: int) -> Any:
    import tf_keras

    warmup = max(1, round(schedule.warmup * steps))
    rate = tf_keras.optimizers.schedules.CosineDecay(
        0.0, decay_steps=max(1, steps - warmup), warmup_target=schedule.learning_rate, warmup_steps=warmup
    )
    optimizer = tf_keras.optimizers.AdamW(learning_rate=rate, weight_decay=schedule.weight_decay, clipnorm=1.0)
    optimizer.exclude_from_weight_decay(var_names=["bias", "layernorm", "layer_norm", "gamma", "beta"])
    return optimizer


def _counts(files: Sequence[str], labels: Sequence[str]) -> list[int]:
    """How many images each class has."""
    counts = dict.fromkeys(labels, 0)
    for record in tf.data.TFRecordDataset(list(files), compression_type="GZIP"):
        text = tf.train.Example.FromString(record.numpy()).features.feature[TEXT].bytes_list.value[0].decode()
        counts[text] += 1
    return list(counts.values())


def class_weights(counts: Sequence[int]) -> dict[int, float]:
    """So that every class weighs the same in all, and an image 1 on average."""
    present = [count for count in counts if count]
    return {number: sum(counts) / (len(present) * count) if count else 0.0 for number, count in enumerate(counts)}


def _save(native: Any, model: str, out: Path) -> None:
    from transformers import AutoImageProcessor

    out.mkdir(parents=True, exist_ok=True)
    native.save_pretrained(out)
    AutoImageProcessor.from_pretrained(model, use_fast=False).save_pretrained(out)
