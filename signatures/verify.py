"""`vitrina verify`: the checkpoint's own processor and pipeline beside the servable, picture by picture.

Three differences per picture: grey levels of 255 before rescaling, the features that the model sees, and the task's
outputs. They hold where the first is 0, the second at most 1e-6 and the third at most 1e-4, of the largest value where
that is above 1. A servable that computes in bfloat16 is held to 5e-2, and where it answers in words, which are the same
or are not, to the same words for half of the pictures; the certificate says for how many it was.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from signatures import base_path, pictures, side_by_side
from signatures.checkpoint import Checkpoint, restore
from signatures.errors import CheckFailed, UsageError
from signatures.quiet import quiet_transformers
from signatures.spec import Card
from signatures.tasks import TASKS, Task

__all__ = ["FEATURES_TOLERANCE", "OUTPUT_TOLERANCE", "Report", "Row", "difference", "verify"]

GREY_TOLERANCE = 0
FEATURES_TOLERANCE = 1e-6
OUTPUT_TOLERANCE: Mapping[str, float] = {"float32": 1e-4, "bfloat16": 5e-2}
WORDS_AGREEMENT = 0.5
"""The least share of pictures for which a servable in bfloat16 answers in the same words."""
PIPELINES = "transformers"
"""The kind of source whose pipelines answer beside the servable; others give raw model outputs."""
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One picture's differences.

    Args:
        image: Its file name, or what was drawn.
        size: Width x height of the upright picture.
        grey_max: Largest difference before rescaling, in grey levels of 255.
        grey_mean: Mean difference before rescaling, in grey levels of 255.
        features_max: Largest difference in what the model sees.
        output_max: Largest difference in the task's outputs.
        agrees: Whether the best answer is the same.
        error: Why the servable could not read it, or "".
    """

    image: str
    size: str
    grey_max: float
    grey_mean: float
    features_max: float
    output_max: float
    agrees: bool
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What `verify` measured.

    Args:
        task: The servable's task.
        reference: The class that answered beside it.
        rows: One per picture.
        output_tolerance: The largest difference in the task's outputs that holds.
        agreement_needed: The least share of pictures with the same best answer that holds, in place of
            `output_tolerance`; None where that decides.
    """

    task: str
    reference: str
    rows: tuple[Row, ...]
    output_tolerance: float
    agreement_needed: float | None = None

    @property
    def holds(self) -> bool:
        """Whether every picture is within the tolerances."""
        return not self.breach

    @property
    def breach(self) -> str:
        """The first picture that is not, in words; "" where all are."""
        needed = self.agreement_needed
        if needed is not None and self.agreement < needed:
            return f"the best answer is the same for {self.agreement:.0%} of the images, less than {needed:.0%}"
        for row in self.rows:
            fault = self._fault(row)
            if fault:
                return f"{row.image}: {fault}"
        return ""

    @property
    def worst(self) -> Row:
        """The picture that differs most: unread, else by grey levels, features and outputs."""

        def severity(row: Row) -> tuple[float, ...]:
            figures = (row.grey_max, row.features_max, row.output_max)
            return (float(bool(row.error)), *(float("inf") if np.isnan(value) else value for value in figures))

        return max(self.rows, key=severity)

    @property
    def agreement(self) -> float:
        """The share of pictures whose best answer is the same."""
        return sum(row.agrees for row in self.rows) / len(self.rows)

    def to_json(self) -> dict[str, Any]:
        """The certificate: the worst figures, the tolerances and every row."""
        return {
            "holds": self.holds,
            "breach": self.breach,
            "reference": self.reference,
            "images": len(self.rows),
            "grey_levels_max": max(row.grey_max for row in self.rows),
            "grey_levels_mean": float(np.mean([row.grey_mean for row in self.rows])),
            "features_max": max(row.features_max for row in self.rows),
            "output_max": max(row.output_max for row in self.rows),
            "agreement": self.agreement,
            "tolerances": {
                "grey_levels_max": GREY_TOLERANCE,
                "features_max": FEATURES_TOLERANCE,
                **(
                    {"output_max": self.output_tolerance}
                    if self.agreement_needed is None
                    else {"agreement": self.agreement_needed}
                ),
            },
            "rows": [dataclasses.asdict(row) for row in self.rows],
        }

    def table(self) -> str:
        """The rows as aligned text, and a last line with the result."""
        head = ("image", "size", "grey max", "grey mean", "features max", "output max", "same best", "")
        body = [
            (
                row.image,
                row.size,
                f"{row.grey_max:g}",
                f"{row.grey_mean:.4f}",
                f"{row.features_max:.1e}",
                f"{row.output_max:.1e}",
                "yes" if row.agrees else "no",
                row.error or ("differs" if self._fault(row) else ""),
            )
            for row in self.rows
        ]
        widths = [max(len(line[column]) for line in [head, *body]) for column in range(len(head))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in [head, *body]
        ]
        result = f"{len(self.rows)} images beside {self.reference}: "
        result += "parity holds" if self.holds else f"parity does not hold ({self.breach})"
        return "\n".join([*(line.rstrip() for line in lines), result])

    def _fault(self, row: Row) -> str:
        if row.error:
            return f"the servable could not read it ({row.error})"
        if row.grey_max > GREY_TOLERANCE:
            return f"differs by {row.grey_max:g} grey levels before rescaling"
        # Written so that NaN is a fault too.
        if not row.features_max <= FEATURES_TOLERANCE:
            return f"differs by {row.features_max:.1e} after preprocessing, more than {FEATURES_TOLERANCE:g}"
        if self.agreement_needed is None and not row.output_max <= self.output_tolerance:
            return f"differs by {row.output_max:.1e} in its outputs, more than {self.output_tolerance:g}"
        return ""


def verify(
    base_or_version: str | Path,
    *,
    images: Sequence[str | Path] | None = None,
    plot: str | Path | None = None,
) -> Report:
    """Measures a servable against the checkpoint that it was exported from.

    Args:
        base_or_version: A servable's base path (its latest version) or one version's folder.
        images: Files, or folders of files, to ask about; None draws pictures in every supported format.
        plot: A file for a picture of the worst case: reference, servable and difference side by side.

    Returns:
        The differences per picture.

    Raises:
        UsageError: There is no servable, it carries no checkpoint, or an image cannot be read.
        CheckFailed: The servable fails on a batch of images.
        VitrinaError: The picture cannot be written.
    """
    import tensorflow as tf

    if plot is not None:
        side_by_side.check(Path(plot))
    version = base_path.resolve(Path(base_or_version))
    card = Card.read(version)
    chosen = pictures.many() if images is None else _read(images)
    loaded = tf.saved_model.load(str(version))
    task = TASKS[card.task]
    with quiet_transformers():
        checkpoint = restore(version, card, loaded)
        answers = _answers(list(chosen.values()), loaded.signatures["serving_default"], card, task)
        pairs = zip(chosen.items(), answers, strict=True)
        rows = [_row(name, data, answer, loaded.signatures, checkpoint, task) for (name, data), answer in pairs]
        dtype = str(card.extra.get("dtype", "float32"))
        report = Report(
            task=card.task,
            reference=card.source.cls,
            rows=tuple(rows),
            output_tolerance=OUTPUT_TOLERANCE[dtype],
            agreement_needed=WORDS_AGREEMENT if task.worded and dtype != "float32" else None,
        )
        if plot is not None:
            name = report.worst.image
            pair = _levels(_open(name, chosen[name]), chosen[name], loaded.signatures["preprocess"], checkpoint)
            side_by_side.save(Path(plot), *pair, title=f"{Path(name).name}, beside {card.source.cls}")
    return report


def _read(images: Iterable[str | Path]) -> dict[str, bytes]:
    """Files by path; folders give the images in them."""
    files: list[Path] = []
    for image in map(Path, images):
        if image.is_dir():
            files += sorted(path for path in image.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        else:
            files.append(image)
    if not files:
        raise UsageError(f"{', '.join(map(str, images))} holds no images. Give image files or folders of them.")
    try:
        return {str(path): path.read_bytes() for path in files}
    except OSError as error:
        raise UsageError(f"{error.filename} cannot be read ({error.strerror}). Give image files.") from error


def _open(name: str, data: bytes) -> Any:
    """The picture as transformers' own loader gives it: upright RGB."""
    from PIL import Image, UnidentifiedImageError
    from transformers.image_utils import load_image

    try:
        return load_image(Image.open(io.BytesIO(data)))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UsageError(f"{name} cannot be read by Pillow ({error}). Give image files that it reads.") from error


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """What a servable said of one picture, and the further inputs that it was asked with, without batch axis."""

    outputs: Mapping[str, Any]
    further: Mapping[str, Any]


def _answers(encoded: Sequence[bytes], ask: Any, card: Card, task: Task) -> list[_Answer]:
    """The answers of `serving_default`, asked alone and in batches, whose items must not know of each other.

    Raises:
        CheckFailed: A batch fails; the message tells TensorFlow's reason.
    """
    import tensorflow as tf

    wanted = card.signatures["serving_default"].inputs
    several = None not in card.signatures["preprocess"].outputs["pixel_values"].shape[1:]
    answers: list[_Answer] = []
    while len(answers) < len(encoded):
        # Pictures of different sizes cannot be batched where the processor leaves them so.
        count = next((size for size in (1, 3) if len(answers) < size), 4) if several else 1
        batch = encoded[len(answers) : len(answers) + count]
        further = {key: value for key, value in task.samples(len(batch)).items() if key in wanted}
        try:
            outputs = ask(image_bytes=tf.constant(batch), **{key: tf.constant(value) for key, value in further.items()})
        except tf.errors.OpError as error:
            told = " ".join(error.message.split())[:300]
            raise CheckFailed(
                f"The servable fails on a batch of {len(batch)} images: {told} Report its class, {card.source.cls}."
            ) from error
        arrays = {key: value.numpy() for key, value in outputs.items()}
        answers += [
            _Answer(
                outputs={key: value[index] for key, value in arrays.items()},
                further={key: value[index] for key, value in further.items()},
            )
            for index in range(len(batch))
        ]
    return answers


def _row(
    name: str, data: bytes, answer: _Answer, signatures: Mapping[str, Any], checkpoint: Checkpoint, task: Task
) -> Row:
    import tensorflow as tf

    image = _open(name, data)
    encoded = tf.constant([data])
    got = answer.outputs
    features = {key: value.numpy()[0] for key, value in signatures["preprocess"](image_bytes=encoded).items()}
    wanted = checkpoint.features(image)
    grey_max, grey_mean = _grey(features["pixel_values"], wanted["pixel_values"], image, checkpoint)
    if task.reference is not None and checkpoint.card.source.kind == PIPELINES:
        want = task.reference(checkpoint, image, answer.further)
        output_max, agrees = (task.difference or difference)(got, want)
    else:
        output_max, agrees = _raw_difference(signatures["model"], checkpoint, features, wanted)
    return Row(
        image=name,
        size=f"{image.width}x{image.height}",
        grey_max=grey_max,
        grey_mean=grey_mean,
        features_max=max(_distance(features[key], wanted[key]) for key in features),
        output_max=output_max,
        agrees=agrees,
        error=got["error"].decode(),
    )


def _grey(got: NDArray[Any], want: NDArray[Any], image: Any, checkpoint: Checkpoint) -> tuple[float, float]:
    """Largest and mean difference before rescaling, in grey levels; infinite where the shapes differ.

    The servable gives features only after rescaling, so they are taken back. Padding that was added after
    normalising has no grey level; there the features themselves are compared by the caller.
    """
    grey = np.asarray(checkpoint.grey_levels(image), np.float64)
    if got.shape != want.shape or grey.shape != got.shape:
        return float("inf"), float("inf")
    inside = np.abs(_ungrey(want, checkpoint) - grey) < 0.25
    distances = np.abs(np.rint(_ungrey(got, checkpoint)) - grey)[inside]
    return (float(distances.max()), float(distances.mean())) if distances.size else (0.0, 0.0)


def _levels(
    image: Any, data: bytes, preprocess: Any, checkpoint: Checkpoint
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What the model sees of one picture, in grey levels, [h, w, 3]: from the checkpoint, and from the servable."""
    import tensorflow as tf

    got = preprocess(image_bytes=tf.constant([data]))["pixel_values"].numpy()[0]
    pair = [_ungrey(values, checkpoint) for values in (checkpoint.features(image)["pixel_values"], got)]
    if checkpoint.card.preprocessing.get("data_format") != "channels_last":
        pair = [np.transpose(values, (1, 2, 0)) for values in pair]
    return pair[0], pair[1]


def _ungrey(features: NDArray[Any], checkpoint: Checkpoint) -> NDArray[np.float64]:
    """Features of one picture back to grey levels, by the processor's own settings."""
    processor = checkpoint.image_processor
    channel = (1, 1, -1) if checkpoint.card.preprocessing.get("data_format") == "channels_last" else (-1, 1, 1)
    levels = features.astype(np.float64)
    if getattr(processor, "do_normalize", False):
        levels = levels * np.reshape(processor.image_std, channel) + np.reshape(processor.image_mean, channel)
    if getattr(processor, "do_rescale", False):
        levels = levels / processor.rescale_factor
    return levels


def _distance(got: NDArray[Any], want: NDArray[Any]) -> float:
    if got.shape != np.shape(want):
        return float("inf")
    return float(np.max(np.abs(got.astype(np.float64) - np.asarray(want, np.float64)), initial=0.0))


def _relative(got: NDArray[Any], want: Any) -> float:
    """The largest difference, as a share of the largest value where that is above 1."""
    return _distance(got, want) / max(1.0, float(np.max(np.abs(np.asarray(want, np.float64)), initial=0.0)))


def _raw_difference(
    model: Any, checkpoint: Checkpoint, features: Mapping[str, Any], wanted: Mapping[str, Any]
) -> tuple[float, bool]:
    """For models without a pipeline: their raw outputs, each side on its own features."""
    import tensorflow as tf

    got = model(**{key: tf.constant(value[None]) for key, value in features.items()})
    want = checkpoint.raw(wanted)
    distance = max(_relative(value.numpy()[0], want[key]) for key, value in got.items())
    return distance, distance <= OUTPUT_TOLERANCE[checkpoint.card.extra.get("dtype", "float32")]


def difference(got: Mapping[str, Any], want: Mapping[str, Any]) -> tuple[float, bool]:
    """The largest difference between an answer and its reference, and whether the best label is the same.

    Labels are compared by their scores: where two scores are closer than rounding, either order is right.

    Args:
        got: The servable's outputs of one image; may hold more than the reference.
        want: The reference's outputs.

    Returns:
        The difference (infinite where the answer differs in kind), and the agreement.
    """
    worst = 0.0
    if "labels" in want:
        worst = _label_difference(got, want)
    for name, value in want.items():
        if np.asarray(value).dtype.kind in "fiu":
            worst = max(worst, _relative(np.asarray(got[name]), value))
        elif name != "labels" and _texts(got[name]) != _texts(value):
            worst = float("inf")
    best = "labels" not in want or _texts(got["labels"])[:1] == _texts(want["labels"])[:1]
    return worst, best and worst != float("inf")


def _label_difference(got: Mapping[str, Any], want: Mapping[str, Any]) -> float:
    names, expected = _told_apart(_texts(got["labels"])), _told_apart(_texts(want["labels"]))
    if len(names) != len(expected) or not expected:
        return 0.0 if names == expected else float("inf")
    scores = dict(zip(expected, map(float, want["scores"]), strict=True))
    # A label that the reference ranks below its last one scores at most that one's score.
    return max(
        abs(float(score) - scores.get(name, float(want["scores"][-1])))
        for name, score in zip(names, got["scores"], strict=True)
    )


def _told_apart(names: list[str]) -> list[tuple[str, int]]:
    """Names with how often each was there before: ImageNet has two cranes."""
    return [(name, names[:index].count(name)) for index, name in enumerate(names)]


def _texts(value: Any) -> list[str]:
    return [item.decode() if isinstance(item, bytes) else str(item) for item in np.ravel(value)]
