"""What a run is told: plain data, no TFX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pipelines.data import TASKS
from pipelines.masks import IGNORE
from serving import stock
from signatures.errors import UsageError
from signatures.preprocessing import Preprocessing

__all__ = ["DEVICES", "PRECISIONS", "Bar", "Schedule", "Settings"]

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
DEVICES = ("auto", "one", "all")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How a model is trained.

    Args:
        epochs: Passes over the train split with every layer in training.
        head_epochs: Passes before them that train the head alone, for a checkpoint that gets a new one.
        batch_size: Images per step.
        learning_rate: The peak of AdamW's, reached after `warmup` and then decayed along a cosine to 0.
        weight_decay: AdamW's.
        warmup: The share of all steps over which the learning rate rises from 0, 0 to 1.
        shift: Random shifts up to this share of the image's side, 0 for none.
        rotate: Random rotations up to this share of a full turn, 0 for none.
        zoom: Random zooms in and out up to this share, 0 for none.
        flip: Flip images from left to right by chance.
        brightness: Random brightness, up to this share of the whole range more or less, 0 for none.
        contrast: Random contrast, up to this share more or less, 0 for none.
        label_smoothing: How much of the target is spread over all classes, 0 to 1.
        balance: Weigh images (segmentation: pixels) so that every class counts the same.
        early_stopping: Stop after so many epochs without a better loss on `validation_share`, with the weights of the
            best one; 0 trains all epochs.
        validation_share: The share of the train split, by content, that early stopping looks at and that is not
            trained on then. What is held out for the evaluation is never looked at.
        precision: What is computed in: `float32`, `mixed_bfloat16` or `mixed_float16`; weights are float32.
        devices: `auto` trains on all GPUs where there are several, `one` on one device, `all` on all devices of the
            best kind, CPUs too.
        seed: Of the head's weights, the shuffle and the augmentation.
    """

    epochs: int = 10
    head_epochs: int = 0
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.1
    shift: float = 0.0
    rotate: float = 0.0
    zoom: float = 0.0
    flip: bool = False
    brightness: float = 0.0
    contrast: float = 0.0
    label_smoothing: float = 0.0
    balance: bool = False
    early_stopping: int = 0
    validation_share: float = 0.1
    precision: str = "float32"
    devices: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"Got {name} {getattr(self, name)}, but it is a positive integer.")
        for name in ("head_epochs", "early_stopping"):
            if getattr(self, name) < 0:
                raise UsageError(f"Got {name} {getattr(self, name)}, but it is 0 or more.")
        for name, known in (("precision", PRECISIONS), ("devices", DEVICES)):
            if getattr(self, name) not in known:
                raise UsageError(
                    f"Got {name} {getattr(self, name)!r}, but it is one of {', '.join(known)}. Choose one."
                )
        for name in (
            "warmup",
            "shift",
            "rotate",
            "zoom",
            "brightness",
            "contrast",
            "label_smoothing",
            "validation_share",
        ):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"Got {name} {getattr(self, name)}, but it is a share of at least 0 and below 1.")
        if self.learning_rate <= 0:
            raise UsageError(f"Got learning_rate {self.learning_rate}, but it is a positive number, such as 1e-4.")

    def to_json(self) -> dict[str, Any]:
        """As `Schedule(**...)` takes it."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Bar:
    """What a model has to reach, on what is held out, to be blessed. Shares from 0 to 1; None asks for nothing.

    Args:
        threshold: The least accuracy.
        max_loss: How far below the latest blessed model on the same images is still blessed.
        top_k_threshold: The least share whose class is among the first five answers.
        class_threshold: The least accuracy of every single class.
        max_class_loss: How far any single class may be below the latest blessed model.
        max_calibration_error: The most that scores may be from the share that is right, on average.
    """

    threshold: float = 0.9
    max_loss: float = 0.0
    top_k_threshold: float | None = None
    class_threshold: float | None = None
    max_class_loss: float | None = None
    max_calibration_error: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not 0 <= value <= 1:
                raise UsageError(f"Got {name} {value}, but it is a share from 0 to 1.")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One pipeline.

    Args:
        data: A folder with one subfolder of images per class, images with masks, a manifest or TFRecords (see
            `pipelines.data`).
        model: What training starts from, as `pipelines.trainable.load` takes it: a checkpoint's folder or Hub id, a
            `*.keras` file, `keras_hub:NAME`, `python:module:function`.
        preprocessing: How images are prepared, in place of what the model says, or where it says nothing.
        root: Where artifacts, metadata (`metadata.sqlite`) and logs go.
        serving_dir: The TF Serving base path that blessed models are pushed to.
        name: The pipeline's name in the metadata.
        schedule: How to train.
        tune: How many schedules KerasTuner tries before the training, which then takes the best; 0 tries none.
        tune_epochs: Passes per trial; None is as many as the schedule has.
        warm_start: Train on from the latest blessed model, where there is one, instead of from `model`.
        threshold: The least accuracy on the eval split that is blessed, 0 to 1; for this and the next five see `Bar`.
        max_loss: How far below the latest blessed model on the same images is still blessed.
        top_k_threshold: The least top 5 accuracy.
        class_threshold: The least accuracy of every class.
        max_class_loss: How far any class may be below the latest blessed model.
        max_calibration_error: The largest calibration error.
        slices: Features of the Examples by whose values the figures are given too, such as `image/format`.
        task: `image-classification` or `image-segmentation`; None takes the one that `data` is for.
        labels: The classes of masks in id order, in place of what `data` says.
        ignore_index: The id of a mask's pixels that count for nothing.
        eval_share: The share held out by content hash, where `data` gives no split.
        max_bad_share: The share of unreadable files that is tolerated.
        max_leak_share: The share of what is held out that may be trained on, too.
        max_drift: How far, from 0 to 1, what is trained on may be from the data that was accepted before (see
            `pipelines.drift`).
        serving_log: What clients sent (see `pipelines.serving_log`); None for none.
        max_skew: How far what is trained on may be from that.
        accept_anomalies: Go on where the data is not what its schema says.
        server: What validates by serving: `auto` (`tensorflow_model_server` where it is on PATH, else `vitrina serve`)
            or a kind of `pipelines.servers`, such as `docker` or `kubernetes`.
        server_image: The container image, for the kinds that run one.
        server_namespace: The Kubernetes namespace; "" is the current one.
        max_latency_ms: The most that the 95th percentile of single requests may take there; None is no limit.
        max_size_mb: The most that the servable's files may take, in millions of bytes; None is no limit.
        keep: How many versions stay below `serving_dir`; None keeps all.
        push_to: Where a pushed version goes live, too, as `pipelines.pushers.find` takes it.
        cache: Take over the results of earlier runs whose inputs have not changed.
        beam_args: Passed to Beam as they are, such as `--direct_num_workers=4`.
    """

    data: str
    model: str
    root: Path
    serving_dir: Path
    name: str = "vitrina"
    preprocessing: Preprocessing | None = None
    schedule: Schedule = Schedule()
    tune: int = 0
    tune_epochs: int | None = None
    warm_start: bool = False
    threshold: float = Bar.threshold
    max_loss: float = Bar.max_loss
    top_k_threshold: float | None = None
    class_threshold: float | None = None
    max_class_loss: float | None = None
    max_calibration_error: float | None = None
    slices: tuple[str, ...] = ("image/format",)
    task: str | None = None
    labels: tuple[str, ...] | None = None
    ignore_index: int = IGNORE
    eval_share: float = 0.2
    max_bad_share: float = 0.05
    max_leak_share: float = 0.01
    max_drift: float = 0.3
    serving_log: str | None = None
    max_skew: float = 0.3
    accept_anomalies: bool = False
    server: str = "auto"
    server_image: str = stock.IMAGE
    server_namespace: str = ""
    max_latency_ms: float | None = None
    max_size_mb: float | None = None
    keep: int | None = None
    push_to: tuple[str, ...] = ()
    cache: bool = True
    beam_args: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _ = self.bar
        for name in ("max_bad_share", "max_leak_share", "max_drift", "max_skew"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"Got {name} {getattr(self, name)}, but it is a share from 0 to 1.")
        if not 0 < self.eval_share < 1:
            raise UsageError(f"Got eval_share {self.eval_share}, but it is a share between 0 and 1, such as 0.2.")
        if self.tune < 0 or (self.tune_epochs is not None and self.tune_epochs < 1):
            raise UsageError(f"Got tune {self.tune} and tune_epochs {self.tune_epochs}, but both count from 1.")
        if self.task not in (None, *TASKS):
            raise UsageError(f"Got task {self.task}, but pipelines train for {' or '.join(TASKS)}. Choose one.")
        if not 0 <= self.ignore_index <= 65535:
            raise UsageError(f"Got ignore_index {self.ignore_index}, but a mask's ids are 0 to 65535.")
        if self.keep is not None and self.keep < 1:
            raise UsageError(f"Got keep {self.keep}, but at least 1 version stays. Leave it out to keep all.")

    def to_json(self) -> dict[str, Any]:
        """As `from_json` takes it."""
        return {
            **asdict(self),
            "root": str(self.root),
            "serving_dir": str(self.serving_dir),
            "preprocessing": self.preprocessing and self.preprocessing.to_json(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Settings:
        """The settings that `to_json` gave.

        Raises:
            UsageError: A value is out of its bounds.
        """
        read: dict[str, Any] = {
            **{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()},
            **{name: Path(values[name]) for name in ("root", "serving_dir")},
            "schedule": Schedule(**values["schedule"]),
            "preprocessing": values["preprocessing"] and Preprocessing.from_json(values["preprocessing"]),
        }
        return cls(**read)

    @property
    def bar(self) -> Bar:
        """What a model has to reach."""
        return Bar(**{field.name: getattr(self, field.name) for field in fields(Bar)})

    @property
    def metadata(self) -> Path:
        """The SQLite file of ML Metadata."""
        return self.root / "metadata.sqlite"
