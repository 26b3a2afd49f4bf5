"""Tasks, one file each, found by name: `image_classification.py` is `TASKS["image-classification"]`.

A task file holds `TASK = Task(...)`. Its inputs, outputs and options are plain data, read by the command line and the
docs without TensorFlow; `fit` binds it to one model and gives the `Head`, whose functions are TensorFlow ops.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from signatures.errors import UsageError, did_you_mean
from signatures.model import Model, Tensors
from signatures.spec import Tensor

if TYPE_CHECKING:
    from signatures.checkpoint import Checkpoint

__all__ = ["TASKS", "Head", "Option", "Request", "Task", "UnknownTask", "settle"]


@dataclass(frozen=True, kw_only=True)
class Option:
    """One setting of a task, fixed at export: `top_k` is `--top-k` on the command line.

    Args:
        kind: int, float, str or bool (a bare flag).
        default: What holds where it is not given; None leaves it to the task.
        meaning: One line for the help text.
    """

    kind: type
    default: Any
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a head may use besides the model's raw outputs.

    Args:
        inputs: The task's further inputs, by name.
        sizes: int32 [b, 2], height and width of each source image after its EXIF orientation.
    """

    inputs: Mapping[str, Any]
    sizes: Any


def _no_features(features: Tensors, request: Request) -> Tensors:  # noqa: ARG001
    return features


@dataclass(frozen=True, kw_only=True)
class Head:
    """A task bound to one model.

    Args:
        outputs: The task's outputs with the shapes that this model gives them.
        postprocess: Raw model outputs and the request to the task's outputs, in TensorFlow ops.
        options: The settings that hold, for the card.
        inputs: Further inputs, besides the image.
        features: Image features and the request to everything the model is called with. An `error` among them, string
            [b], says why an item's further inputs cannot be answered ("" where they can).
        forward: Features to raw outputs; None calls the model.
        model_inputs: What the `model` signature takes; None is the model's own `inputs`.
        labels: The label names that it answers with, for the card; None is the model's own.
        state: A trackable object with what the head's functions capture, such as a vocabulary table.
    """

    outputs: Mapping[str, Tensor]
    postprocess: Callable[[Tensors, Request], Tensors]
    options: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    features: Callable[[Tensors, Request], Tensors] = _no_features
    forward: Callable[[Tensors], Tensors] | None = None
    model_inputs: Mapping[str, Tensor] | None = None
    labels: tuple[str, ...] | None = None
    state: Any = None


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a servable does with an image, as clients see it.

    Args:
        name: The name of the transformers pipeline task.
        summary: One line for docs and help.
        heads: Endings of the architecture names that are made for it, such as `ForImageClassification`.
        also: Further endings, of architectures that do it when it is asked for by name.
        outputs: The outputs of `serving_default` beside `error`; None is an axis that model or request decides.
        fit: Binds the task to a model under the given options; raises UsageError where they do not fit.
        inputs: Further inputs beside `image_bytes`.
        options: Settings at export, by name.
        classifies: Whether servables also carry the `classify` signature.
        samples: A batch size to plausible values of the further inputs (NumPy), for warmup and verification.
        reference: A checkpoint, a PIL image and further inputs (NumPy, without batch axis) to what transformers' own
            pipeline answers, in the shape of the outputs without batch axis; None compares raw model outputs instead.
        difference: Answer and reference to the largest difference and whether the best answer is the same; None
            compares numbers by value and labels by their scores.
        worded: Whether it answers in words of its own, which are the same as the reference's or are not.
    """

    name: str
    summary: str
    heads: tuple[str, ...]
    outputs: Mapping[str, Tensor]
    fit: Callable[[Model, Mapping[str, Any]], Head]
    also: tuple[str, ...] = ()
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    options: Mapping[str, Option] = field(default_factory=dict)
    classifies: bool = False
    samples: Callable[[int], dict[str, Any]] = lambda _: {}
    reference: Callable[[Checkpoint, Any, Mapping[str, Any]], dict[str, Any]] | None = None
    difference: Callable[[Mapping[str, Any], Mapping[str, Any]], tuple[float, bool]] | None = None
    worded: bool = False


class UnknownTask(UsageError, LookupError):
    """No file in `signatures/tasks` has this name."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(
            f"No task named {name!r}.{did_you_mean(name, known)} "
            f"To add one, write signatures/tasks/{name.replace('-', '_')}.py."
        )


class _Tasks(Mapping[str, Task]):
    """The files of this folder as a mapping from task name to `Task`; a file is imported when it is asked for."""

    def __getitem__(self, name: str) -> Task:
        if name not in self._names():
            raise UnknownTask(name, self._names())
        task = importlib.import_module(f"signatures.tasks.{name.replace('-', '_')}").TASK
        assert isinstance(task, Task)
        return task

    def __contains__(self, name: object) -> bool:
        return name in self._names()

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def _names(self) -> list[str]:
        files = [path for folder in __path__ for path in Path(folder).glob("*.py")]
        return sorted(path.stem.replace("_", "-") for path in files if not path.stem.startswith("_"))


TASKS: Mapping[str, Task] = _Tasks()
"""Every task by name; looking up a name that does not exist raises `UnknownTask`."""


def settle(task: Task, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a task with defaults filled in.

    Args:
        task: The task that is going to be fitted.
        options: What was given; None counts as not given.

    Raises:
        UsageError: The task has no such option, or a value is not of its kind.
    """
    given = {name: value for name, value in options.items() if value is not None}
    for name, value in given.items():
        flag = "--" + name.replace("_", "-")
        if name not in task.options:
            known = ", ".join("--" + key.replace("_", "-") for key in task.options) or "none"
            raise UsageError(f"Got {flag}, but {task.name} has no such option. Its options: {known}.")
        kind = task.options[name].kind
        if not isinstance(value, (int, float) if kind is float else kind) or (kind is int and isinstance(value, bool)):
            raise UsageError(f"Got {flag} {value!r}, but {task.name} wants {kind.__name__} there. Change the value.")
    return {name: given.get(name, option.default) for name, option in task.options.items()}
