"""Fine-tunes a model on Examples, through the preprocessing that will be served.

What is particular to a kind of model is in `pipelines.trainable`, how Examples become batches in `pipelines.inputs`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tensorflow as tf

from pipelines import trainable
from pipelines.callbacks import Best, Progress, history_so_far, keep_history
from pipelines.data import CLASSIFICATION, SEGMENTATION
from pipelines.inputs import FIT, PIXELS, VALIDATE, count, dataset, fixed
from pipelines.settings import Schedule
from pipelines.trainable import Trainable
from signatures.errors import MissingExtra, VitrinaError
from signatures.preprocessing import Preprocessing

__all__ = ["Trained", "class_weights", "fine_tune", "strategy"]

Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What training left.

    Args:
        checkpoint: The folder that holds the model, for `trainable.load` and `trainable.restore`.
        labels: Class names in id order.
        history: Per metric (`loss`, `accuracy`, ...) its value after each epoch.
        images: How many images it saw per epoch.
        new_head: Whether the checkpoint's labels were others, so that its head began anew.
        devices: On how many devices it was trained.
    """

    checkpoint: Path
    labels: tuple[str, ...]
    history: Mapping[str, Sequence[float]] = field(default_factory=dict)
    images: int = 0
    new_head: bool = False
    devices: int = 1


def fine_tune(
    model: str,
    *,
    files: Sequence[str],
    labels: Sequence[str],
    out: Path,
    schedule: Schedule,
    task: str = CLASSIFICATION,
    preprocessing: Preprocessing | None = None,
    resume: Path | None = None,
    logs: Path | None = None,
    report: Report | None = None,
) -> Trained:
    """Trains a model and saves it.

    Args:
        model: As `trainable.load` takes it.
        files: TFRecords (gzip) of Examples.
        labels: Class names of the data in id order.
        out: The folder to save to.
        schedule: How to train.
        task: One of `data.TASKS`.
        preprocessing: Settings that replace the model's own, or stand in where it has none.
        resume: A folder for the state after each epoch. Where it holds one, because a training with the very same
            arguments was killed, this one goes on from there. It stays, for the caller to remove when all is safe.
        logs: A folder for TensorBoard; None writes none.
        report: Called with a line per epoch.

    Returns:
        Where it is and how it went.

    Raises:
        UsageError: The model cannot be trained for the task, or logs are wanted and TensorBoard is not installed.
        VitrinaError: There are no images, or the loss is not a number any more.
    """
    if logs is not None and importlib.util.find_spec("tensorboard") is None:
        raise MissingExtra("tensorboard", "tfx")
    told = report or (lambda _: None)
    over = strategy(schedule)
    with over.scope(), _precision(schedule.precision):
        # Both generations draw from these.
        _seed(schedule.seed)
        loaded = trainable.load(model, labels, task=task, preprocessing=preprocessing)
        trainable.compute_in(loaded, schedule.precision)
        net = _net(loaded)
    if over.num_replicas_in_sync > 1:
        told(f"training on {over.num_replicas_in_sync} devices")
    share = schedule.validation_share if schedule.early_stopping else 0.0
    counts = count(files, labels, task=task, part=FIT if share else None, share=share)
    images = counts.pop()
    if not images:
        raise VitrinaError("The train split holds no images. Look at the report of ImageGen.")
    plan = _Plan(
        loaded=loaded, net=net, task=task, schedule=schedule, over=over, images=images,
        weights=_in_order(class_weights(counts), labels, loaded.labels) if schedule.balance else None,
        resume=resume, logs=logs, report=told,
    )  # fmt: skip
    batches, validation = _batches(plan, files, labels, share)
    history: dict[str, list[float]] = {}
    for phase in _phases(schedule):
        for name, values in _fit(plan, phase, batches, validation).items():
            history.setdefault(name, []).extend(map(float, values))
    trainable.compute_in(loaded, "float32")
    trainable.save(loaded, model, out, task=task)
    return Trained(
        checkpoint=out,
        labels=loaded.labels,
        history=history,
        images=images,
        new_head=loaded.new_head,
        devices=over.num_replicas_in_sync,
    )


def strategy(schedule: Schedule) -> Any:
    """How training is spread over devices.

    Args:
        schedule: `devices` says it.

    Returns:
        A `tf.distribute.MirroredStrategy` where there are several to use, else TensorFlow's default.
    """
    found = tf.config.list_logical_devices("GPU")
    if schedule.devices == "all":
        found = found or tf.config.list_logical_devices("CPU")
    if schedule.devices == "one" or len(found) < 2:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([device.name for device in found])


def class_weights(counts: Sequence[int]) -> list[float]:
    """So that every class weighs the same in all, and an image (or pixel) 1 on average; 0 for a class without any."""
    present = [count for count in counts if count]
    return [sum(counts) / (len(present) * count) if count else 0.0 for count in counts]


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """All that every phase of a training shares."""

    loaded: Trainable
    net: Any
    task: str
    schedule: Schedule
    over: Any
    images: int
    weights: list[float] | None
    resume: Path | None
    logs: Path | None
    report: Report


@dataclass(frozen=True, kw_only=True)
class _Phase:
    """Some epochs with the same layers in training."""

    name: str
    epochs: int
    head_only: bool


def _phases(schedule: Schedule) -> list[_Phase]:
    head = _Phase(name="head", epochs=schedule.head_epochs, head_only=True)
    return [phase for phase in (head, _Phase(name="all", epochs=schedule.epochs, head_only=False)) if phase.epochs]


def _batches(plan: _Plan, files: Sequence[str], labels: Sequence[str], share: float) -> tuple[Any, Any]:
    """What is trained on, and what early stopping looks at (None without)."""

    def part(name: str | None, schedule: Schedule | None) -> Any:
        return dataset(
            files,
            preprocessing=plan.loaded.preprocessing,
            # A mask's numbers are the data's; the model may have the same names in another order.
            labels=plan.loaded.labels,
            order=[plan.loaded.labels.index(label) for label in labels] if plan.task == SEGMENTATION else None,
            batch_size=plan.schedule.batch_size,
            task=plan.task,
            schedule=schedule,
            part=name,
            share=share,
            weights=plan.weights if plan.task == SEGMENTATION else None,
        )

    if not plan.schedule.early_stopping:
        return part(None, plan.schedule), None
    validation = part(VALIDATE, None)
    if not any(True for _ in validation.take(1)):
        raise VitrinaError(
            f"A share of {share:g} of the train split holds no image for early stopping to look at. Raise "
            "--validation-share, or leave --early-stopping out."
        )
    return part(FIT, plan.schedule), validation


def _fit(plan: _Plan, phase: _Phase, batches: Any, validation: Any) -> Mapping[str, Sequence[float]]:
    keras, schedule = plan.loaded.keras, plan.schedule
    for layer in plan.loaded.body:
        layer.trainable = not phase.head_only
    steps = math.ceil(plan.images / schedule.batch_size)
    with plan.over.scope():
        _compile(plan, _optimizer(keras, schedule, steps * phase.epochs))
    state = None if plan.resume is None else plan.resume / phase.name
    callbacks = [keras.callbacks.TerminateOnNaN()]
    if plan.logs is not None:
        callbacks.append(keras.callbacks.TensorBoard(str(plan.logs / phase.name), write_graph=False, profile_batch=0))
    if schedule.early_stopping:
        best = Best(plan.net, patience=schedule.early_stopping, state=state, report=plan.report)
        callbacks.append(keras.callbacks.LambdaCallback(on_epoch_end=best.epoch_ended, on_train_end=best.train_ended))
    if state is not None:
        if history_so_far(state):
            plan.report(f"going on with the training that was interrupted, from {state}")
        callbacks.append(keras.callbacks.LambdaCallback(on_epoch_end=keep_history(state)))
        callbacks.append(keras.callbacks.BackupAndRestore(str(state / "model"), delete_checkpoint=False))
    # Last, so that a kill that a listener sees finds the epoch saved.
    callbacks.append(
        keras.callbacks.LambdaCallback(on_epoch_end=Progress(phase.epochs, plan.report, head=phase.head_only))
    )
    weights = None if plan.task == SEGMENTATION or plan.weights is None else dict(enumerate(plan.weights))
    found = plan.net.fit(
        batches,
        epochs=phase.epochs,
        verbose=0,
        class_weight=weights,
        validation_data=validation,
        callbacks=callbacks,
    ).history
    history = history_so_far(state) or {name: list(map(float, values)) for name, values in found.items()}
    losses = history.get("loss", [])
    if not all(math.isfinite(value) for value in losses):
        raise VitrinaError(
            f"The loss is not a number after {len(losses)} epochs at learning rate {schedule.learning_rate:g}. "
            "Train with a lower --learning-rate."
        )
    return history


def _net(loaded: Trainable) -> Any:
    """The model as a Keras model from features to float32 scores: [b, classes], or [b, h, w, classes] as the image."""

    class Net(loaded.keras.Model):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.native = loaded.native

        def call(self, features: Any, training: bool = False) -> Any:
            pixels = features[PIXELS]
            scores = tf.cast(loaded.scores(pixels, training), tf.float32)
            if len(scores.shape) != 4:
                return scores
            first = loaded.preprocessing.data_format == "channels_first"
            size = tf.shape(pixels)[2:] if first else tf.shape(pixels)[1:3]
            return tf.image.resize(scores, size, method="bilinear")

    net = Net()
    # Once, so that its variables and the shapes of its scores are known.
    shape = fixed(loaded.preprocessing).spec()[PIXELS].shape
    net({PIXELS: tf.zeros([1, *(int(side or 0) for side in shape[1:])])})
    return net


def _compile(plan: _Plan, optimizer: Any) -> None:
    keras, schedule, logits = plan.loaded.keras, plan.schedule, plan.loaded.logits
    if plan.task == CLASSIFICATION:
        plan.net.compile(
            optimizer=optimizer,
            loss=keras.losses.CategoricalCrossentropy(from_logits=logits, label_smoothing=schedule.label_smoothing),
            metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
            jit_compile=False if keras.__name__ == "keras" else None,
        )
        return
    classes = len(plan.loaded.labels)

    def loss(ids: Any, scores: Any) -> Any:
        """Cross-entropy per pixel."""
        logs = tf.nn.log_softmax(scores) if logits else tf.math.log(tf.maximum(scores, 1e-7))
        smooth = schedule.label_smoothing
        target = tf.one_hot(tf.cast(ids, tf.int32), classes) * (1 - smooth) + smooth / classes
        return -tf.reduce_sum(target * logs, axis=-1)

    class MeanIoU(keras.metrics.MeanIoU):  # type: ignore[misc, name-defined]
        """Over pixels that count, each the same."""

        def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            counts = None if sample_weight is None else tf.cast(sample_weight > 0, tf.float32)
            return super().update_state(y_true, tf.argmax(y_pred, axis=-1), counts)

    plan.net.compile(
        optimizer=optimizer,
        loss=loss,
        weighted_metrics=[MeanIoU(num_classes=classes, name="mean_iou")],
        jit_compile=False if keras.__name__ == "keras" else None,
    )


def _optimizer(keras: Any, schedule: Schedule, steps: int) -> Any:
    warmup = max(1, round(schedule.warmup * steps))
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, decay_steps=max(1, steps - warmup), warmup_target=schedule.learning_rate, warmup_steps=warmup
    )
    optimizer = keras.optimizers.AdamW(learning_rate=rate, weight_decay=schedule.weight_decay, clipnorm=1.0)
    optimizer.exclude_from_weight_decay(var_names=["bias", "layernorm", "layer_norm", "gamma", "beta"])
    # Either Keras wraps it in loss scaling by itself where the model computes in mixed_float16.
    return optimizer


@contextlib.contextmanager
def _precision(precision: str) -> Iterator[None]:
    """What layers of either Keras that are made meanwhile compute in."""
    import keras
    import tf_keras

    old, new = tf_keras.mixed_precision.global_policy(), keras.config.dtype_policy()
    tf_keras.mixed_precision.set_global_policy(precision)
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        tf_keras.mixed_precision.set_global_policy(old)
        keras.config.set_dtype_policy(new)


def _seed(seed: int) -> None:
    import keras
    import tf_keras

    keras.utils.set_random_seed(seed)
    tf_keras.utils.set_random_seed(seed)


def _in_order(values: Sequence[float], names: Sequence[str], wanted: Sequence[str]) -> list[float]:
    """Values of names, in the order of the same names elsewhere."""
    by_name = dict(zip(names, values, strict=True))
    return [by_name[name] for name in wanted]
