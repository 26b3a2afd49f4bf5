"""Writes servables: `BASE/<version>/` with the SavedModel, its card, its warmup requests and its certificate."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from signatures import base_path, checkpoint, pictures, runtime, sources, warmup
from signatures.errors import CheckFailed, UsageError, VitrinaError
from signatures.model import Model
from signatures.preprocessing import Preprocessing
from signatures.spec import PREDICT_METHOD, Card
from signatures.tasks import TASKS, Task

if TYPE_CHECKING:
    from signatures.build import Built

__all__ = ["export", "read_labels", "write"]

PACKAGES = ("vitrina", "tensorflow", "tf-keras", "keras", "transformers", "pillow", "numpy")

Progress = Callable[[str], None]


def export(
    model: str,
    *,
    to: str | Path,
    task: str | None = None,
    version: int | None = None,
    revision: str | None = None,
    dtype: str = "float32",
    labels: str | Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
    description: str = "",
    verify: bool = True,
    on_progress: Progress | None = None,
    **options: Any,
) -> Path:
    """Writes a model as a new version below a TF Serving base path.

    Args:
        model: What `sources.load` takes: a checkpoint's folder, a Hub id, a `*.keras` file, `KIND:NAME`.
        to: The base path; created where it is missing.
        task: A task name; None takes the one that the architecture is for.
        version: A positive integer; None is one more than the highest there.
        revision: A Hub branch, tag or commit.
        dtype: What the model computes in, `float32` or `bfloat16`.
        labels: Label names in id order, as a sequence, `"a,b,c"` or a file with a label a line.
        preprocessing: Settings that replace the checkpoint's own image processor.
        description: Free text for the card.
        verify: Compare with the checkpoint's own processor and pipeline before the version is published.
        on_progress: Called with a line of text as each step starts.
        **options: The task's own options, such as `top_k=3`, and `max_pixels`.

    Returns:
        The version's folder.

    Raises:
        UsageError: The model, the task or an option cannot be.
        CheckFailed: The servable does not answer as the checkpoint does; nothing is published.
        VitrinaError: It could not be written; nothing is left behind.

    Example:
        >>> export("google/vit-base-patch16-224", to="models/vit", top_k=3)  # doctest: +SKIP
        PosixPath('models/vit/1')
    """
    progress = on_progress or (lambda _: None)
    if task is not None:
        TASKS[task]  # An unknown name is answered before anything is loaded.
    with base_path.new_version(Path(to), version) as draft:
        progress(f"Loading {model}")
        loaded = sources.load(model, task=task, revision=revision, dtype=dtype, preprocessing=preprocessing)
        write(
            loaded,
            draft.staging,
            task=task,
            labels=labels,
            description=description,
            verify=verify,
            on_progress=progress,
            **options,
        )
    progress(f"Wrote {draft.final}")
    return draft.final


def write(
    model: Model,
    folder: Path,
    *,
    task: str | None = None,
    labels: str | Sequence[str] | None = None,
    description: str = "",
    verify: bool = True,
    on_progress: Progress | None = None,
    **options: Any,
) -> Card:
    """Writes one servable into a folder that nobody serves yet.

    Args:
        model: From `sources.load`.
        folder: An empty or missing folder.
        task: A task name; None is the model's own.
        labels: As for `export`.
        description: Free text for the card.
        verify: Measure parity and write the certificate; a breach raises.
        on_progress: Called with a line of text as each step starts.
        **options: The task's own options, and `max_pixels`.

    Returns:
        The card as written.

    Raises:
        UsageError: An option does not fit the task or the model.
        CheckFailed: Parity was measured and does not hold.
        VitrinaError: A file cannot be written.
    """
    from signatures.build import build

    progress = on_progress or (lambda _: None)
    chosen = TASKS[task or model.task]
    if labels is not None:
        model, options = _with_labels(model, chosen, read_labels(labels), options)
    progress(f"Tracing the signatures of {chosen.name}")
    built = build(model, chosen, options)
    progress("Writing the SavedModel")
    with _disk_errors(folder):
        _save(built, folder)
        runtime.check(folder, model.source.model)
        _write_small_files(model, folder)
        warmup.write(folder, _warmup_requests(chosen, built))
        card = _card(model, chosen, built, folder, description)
        card.write(folder)
    if verify:
        progress("Comparing with the checkpoint's own processor and pipeline")
        card = _certify(folder, card)
    return card


def read_labels(labels: str | Sequence[str]) -> tuple[str, ...]:
    """Label names from a sequence, a comma-separated list or a file with a label a line.

    Raises:
        UsageError: There are none, or one is empty.
    """
    if isinstance(labels, str):
        path = Path(labels)
        try:
            listed = path.read_text(encoding="utf-8").splitlines() if path.is_file() else labels.split(",")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path} cannot be read as a list of labels ({error}). Write a label a line.") from error
    else:
        listed = list(labels)
    names = tuple(name.strip() for name in listed)
    while names and not names[-1]:
        names = names[:-1]
    if not names or not all(names):
        raise UsageError(f"Got labels {labels!r}, of which at least one is empty. Give names: --labels a,b,c.")
    return names


def _with_labels(
    model: Model, task: Task, labels: tuple[str, ...], options: dict[str, Any]
) -> tuple[Model, dict[str, Any]]:
    """Labels name the model's classes, or are an option of tasks that take them where it has none."""
    if "labels" in task.options and not model.labels:
        return model, {**options, "labels": "\n".join([*labels, ""])}
    if model.labels and len(labels) != len(model.labels):
        raise UsageError(
            f"Got {len(labels)} labels, but {model.source.model} has {len(model.labels)} classes. "
            "Give one label per class, in id order."
        )
    return dataclasses.replace(model, labels=labels), options


def _save(built: Built, folder: Path) -> None:
    import tensorflow as tf

    try:
        tf.saved_model.save(
            built.module,
            str(folder),
            signatures=dict(built.functions),
            options=tf.saved_model.SaveOptions(experimental_custom_gradients=False),
        )
    except AssertionError as error:
        if "untracked" not in str(error):
            raise
        name = re.search(r'ResourceHandle\(name="([^"]+)"', str(error))
        raise VitrinaError(
            f"The model makes the variable {name.group(1) if name else '?'} only when it is called, so its weights "
            "were not loaded. Build the model before it is returned, or report its class."
        ) from error
    _set_method_names(built, folder)


def _set_method_names(built: Built, folder: Path) -> None:
    """`tf.saved_model.save` calls every signature a predict signature; the others are put right in its file."""
    from tensorflow.core.protobuf import saved_model_pb2

    others = {name: s.method_name for name, s in built.signatures.items() if s.method_name != PREDICT_METHOD}
    if not others:
        return
    path = folder / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for graph in saved.meta_graphs:
        for name, method in others.items():
            graph.signature_def[name].method_name = method
    path.write_bytes(saved.SerializeToString(deterministic=True))
    # The fingerprint is of the file before that change, so it would be wrong; it is optional.
    (folder / "fingerprint.pb").unlink(missing_ok=True)


def _write_small_files(model: Model, folder: Path) -> None:
    kept = folder / checkpoint.FOLDER
    kept.mkdir(parents=True, exist_ok=True)
    for name, text in model.files.items():
        (kept / name).write_text(text, encoding="utf-8")


def _warmup_requests(task: Task, built: Built) -> list[dict[str, Any]]:
    import numpy as np

    def request(size: int) -> dict[str, Any]:
        inputs = {"image_bytes": np.array(pictures.warmup(size), object), **task.samples(size)}
        # Options may have fixed an input of the task at export.
        return {name: inputs[name] for name in built.signatures[warmup.SIGNATURE].inputs}

    return [request(size) for size in warmup.BATCH_SIZES]


def _card(model: Model, task: Task, built: Built, folder: Path, description: str) -> Card:
    variables = sum(path.stat().st_size for path in (folder / "variables").iterdir())
    return Card(
        task=task.name,
        labels=model.labels if built.head.labels is None else built.head.labels,
        source=model.source,
        preprocessing=model.preprocessing.to_json(),
        signatures=built.signatures,
        packages=_packages(),
        options=built.head.options,
        extra={
            "description": description or f"{model.source.cls} of {model.source.model} for {task.name}",
            "dtype": model.dtype,
            "minimum_runtime": runtime.minimum(folder),
            "sizes": {"graph_bytes": (folder / "saved_model.pb").stat().st_size, "variables_bytes": variables},
        },
    )


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _certify(folder: Path, card: Card) -> Card:
    from signatures import verify

    report = verify.verify(folder)
    if not report.holds:
        raise CheckFailed(
            f"The servable of {card.source.model} does not answer as its checkpoint does ({report.breach}). "
            "Nothing was published. Look at it with --no-verify and vitrina verify."
        )
    card = card.replace(parity=report.to_json())
    with _disk_errors(folder):
        card.write(folder)
    return card


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """TensorFlow's own errors of writing, as one line each."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        text = " ".join(error.message.split())
        if "No space left" in text or "quota" in text.lower():
            reason = "The disk is full. Free some space and run it again"
        elif "Read-only" in text or "Permission denied" in text:
            reason = "It may not be written. Choose another --to"
        else:
            reason = f"TensorFlow says: {text[:200]}"
        raise VitrinaError(f"Writing {folder.parent} failed. {reason}. Nothing was left behind.") from error
