"""`image-segmentation`: what every pixel of an image belongs to, as a PNG of the source's size.

Semantic segmentation: the scores of every class are brought to the source's size bilinearly (half-pixel centres, as
`torch.nn.functional.interpolate(align_corners=False)` in the processors' `post_process_semantic_segmentation`) and the
best class of each pixel is its id. The classes are the model's own, or with GroupViT labels in free words, whose id is
their place in the list.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from signatures import zero_shot, zero_shot_segmentation
from signatures.errors import UsageError
from signatures.model import Model, Tensors
from signatures.spec import Tensor
from signatures.tasks import Head, Option, Request, Task
from signatures.tasks.image_classification import logits

if TYPE_CHECKING:
    from signatures.checkpoint import Checkpoint

__all__ = ["TASK", "best_class"]

BAND = 8_000_000
"""Scores held at once while an image's classes are chosen; a photograph times 150 classes would be gigabytes."""

THRESHOLDS = ("threshold", "mask_threshold", "overlap_mask_area_threshold")


def fit(model: Model, options: Mapping[str, Any]) -> Head:
    """Binds the task to a semantic segmenter.

    Raises:
        UsageError: The model has no labels, or an option is for another kind of segmentation.
    """
    if options["subtask"] not in (None, "semantic"):
        raise UsageError(
            f"Got --subtask {options['subtask']}, but {model.source.cls} does semantic segmentation alone. "
            "Leave --subtask out."
        )
    for name in THRESHOLDS:
        if options[name] is not None and not 0 <= options[name] <= 1:
            raise UsageError(f"Got --{name.replace('_', '-')} {options[name]}, but it is a share. Give 0 to 1.")
    if zero_shot_segmentation.fits(model):
        prompt = zero_shot.PROMPT if options["prompt"] is None else options["prompt"]
        return zero_shot_segmentation.head(model, prompt, options["labels"], TASK.outputs, segments)
    if options["prompt"] is not None:
        raise UsageError(
            f"Got --prompt, which is for labels in free words, but {model.source.cls} has classes of its own. "
            "Leave it out."
        )
    labels = model.labels if options["labels"] is None else zero_shot.listed(options["labels"])
    if not labels:
        raise UsageError(
            f"{model.source.model} names no labels, but image-segmentation wants one per class. Pass --labels a,b,c."
        )

    def postprocess(raw: Tensors, request: Request) -> Tensors:
        import tensorflow as tf

        scores = logits(raw)
        if scores.shape.rank != 4:
            raise UsageError(
                f"{model.source.model} gives scores of {scores.shape.rank} axes, but image-segmentation wants 4: "
                "a score per image, class, row and column. Choose another --task."
            )
        if model.preprocessing.data_format == "channels_last":
            scores = tf.transpose(scores, [0, 3, 1, 2])
        if scores.shape[1] not in (None, len(labels)):
            raise UsageError(
                f"{model.source.model} has {scores.shape[1]} classes, but {len(labels)} labels. Give one per class."
            )
        return segments(scores, request.sizes, tf.constant(labels))

    return Head(outputs=TASK.outputs, postprocess=postprocess, options={"subtask": "semantic"}, labels=labels)


def segments(scores: Any, sizes: Any, labels: Any) -> Tensors:
    """The task's outputs from the scores of every class.

    Args:
        scores: float32 [b, n, h, w].
        sizes: int32 [b, 2], source height and width.
        labels: string [n] or [b, n], names in id order.

    Returns:
        As `TASK.outputs` says.
    """
    import tensorflow as tf

    scores = tf.cast(scores, tf.float32)
    batch, count = tf.unstack(tf.shape(scores)[:2])

    def one(item: tuple[Any, Any]) -> tuple[Any, Any]:
        scores, size = item
        classes = best_class(tf.transpose(scores, [1, 2, 0]), tf.maximum(size, 1))
        pixels = tf.math.bincount(classes, minlength=count, maxlength=count)
        areas = tf.cast(pixels, tf.float64) / tf.cast(tf.size(classes), tf.float64)
        return mask(classes, count), tf.cast(areas, tf.float32)

    masks, areas = tf.map_fn(
        one,
        (scores, sizes),
        fn_output_signature=(tf.TensorSpec([], tf.string), tf.TensorSpec([labels.shape[-1]], tf.float32)),
        parallel_iterations=1,
    )
    ids = tf.ragged.boolean_mask(tf.tile(tf.range(count)[None], [batch, 1]), areas > 0)
    ids = ids.to_tensor(default_value=-1)
    found = ids >= 0
    known = tf.maximum(ids, 0)
    named = tf.gather(tf.broadcast_to(labels, [batch, count]), known, batch_dims=1)
    return {
        "mask_bytes": masks,
        "segment_ids": ids,
        "segment_labels": tf.where(found, named, ""),
        "segment_scores": tf.cast(found, tf.float32),
        "segment_areas": tf.where(found, tf.gather(areas, known, batch_dims=1), 0.0),
    }


def mask(ids: Any, count: Any) -> Any:
    """A picture of ids, int32 [h, w], as PNG: of 8 bits where there are up to 256 ids, else of 16."""
    import tensorflow as tf

    pixels = ids[:, :, None]
    return tf.cond(
        count <= 256,
        lambda: tf.io.encode_png(tf.cast(pixels, tf.uint8)),
        lambda: tf.io.encode_png(tf.cast(pixels, tf.uint16)),
    )


def best_class(scores: Any, size: Any) -> Any:
    """The best class of every pixel after bringing scores to another size, in bands of rows to bound memory.

    Args:
        scores: float32 [h, w, n].
        size: int32 [2], height and width of the answer.

    Returns:
        int32 [height, width]; the lowest id where scores are equal.
    """
    import tensorflow as tf

    height, width = size[0], size[1]
    upper, lower, down = _neighbours(tf.shape(scores)[0], height)
    left, right, across = _neighbours(tf.shape(scores)[1], width)
    rows = tf.clip_by_value(BAND // (width * tf.shape(scores)[2]), 1, height)

    def band(start: Any) -> Any:
        chosen = tf.minimum(tf.range(start, start + rows), height - 1)
        weights = tf.gather(down, chosen)[:, None, None]
        mixed = tf.gather(scores, tf.gather(upper, chosen)) * (1 - weights)
        mixed += tf.gather(scores, tf.gather(lower, chosen)) * weights
        sides = across[None, :, None]
        spread = tf.gather(mixed, left, axis=1) * (1 - sides) + tf.gather(mixed, right, axis=1) * sides
        return tf.argmax(spread, axis=-1, output_type=tf.int32)

    bands = tf.map_fn(
        band,
        tf.range(0, height, rows),
        fn_output_signature=tf.TensorSpec([None, None], tf.int32),
        parallel_iterations=1,
    )
    return tf.reshape(bands, [-1, width])[:height]


def _neighbours(before: Any, after: Any) -> tuple[Any, Any, Any]:
    """Per place of the answer: the two places it lies between and the second one's weight (half-pixel centres)."""
    import tensorflow as tf

    scale = tf.cast(before, tf.float32) / tf.cast(after, tf.float32)
    centre = tf.maximum((tf.cast(tf.range(after), tf.float32) + 0.5) * scale - 0.5, 0.0)
    first = tf.minimum(tf.cast(centre, tf.int32), before - 1)
    return first, tf.minimum(first + 1, before - 1), centre - tf.cast(first, tf.float32)


def reference(checkpoint: Checkpoint, image: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The classes by NumPy: transformers' pipeline for this task knows no TensorFlow, and its resizing needs PyTorch.

    Returns:
        `classes` int32 [height, width] at the source's size.
    """
    import numpy as np

    features = checkpoint.features(image)
    if zero_shot_segmentation.fits(checkpoint.native):
        scores = zero_shot_segmentation.reference(checkpoint, features, zero_shot.asked_labels(checkpoint, inputs))
    else:
        scores = checkpoint.raw(features)["logits"].astype(np.float64)
    for axis, after in ((1, image.height), (2, image.width)):
        before = scores.shape[axis]
        centre = np.maximum((np.arange(after) + 0.5) * before / after - 0.5, 0)
        first = np.minimum(centre.astype(int), before - 1)
        second = np.minimum(first + 1, before - 1)
        shape = [1, 1, 1]
        shape[axis] = after
        weight = (centre - first).reshape(shape)
        scores = scores.take(first, axis) * (1 - weight) + scores.take(second, axis) * weight
    return {"classes": scores.argmax(0).astype(np.int32)}


def difference(got: Mapping[str, Any], want: Mapping[str, Any]) -> tuple[float, bool]:
    """The share of pixels whose class differs, and whether the largest segment is the same."""
    import numpy as np
    from PIL import Image

    mask = np.asarray(Image.open(io.BytesIO(got["mask_bytes"])))
    classes = want["classes"]
    if mask.shape != classes.shape:
        return float("inf"), False
    found = {int(id) for id in got["segment_ids"] if id >= 0}
    listed = {int(id): float(area) for id, area in zip(got["segment_ids"], got["segment_areas"], strict=True)}
    if found != set(np.unique(mask).tolist()) or any(abs(listed[id] - (mask == id).mean()) > 1e-5 for id in found):
        return float("inf"), False
    largest = [int(np.bincount(values.ravel()).argmax()) for values in (mask.astype(int), classes)]
    return float((mask != classes).mean()), largest[0] == largest[1]


TASK = Task(
    name="image-segmentation",
    summary="What every pixel of an image belongs to.",
    heads=("ForSemanticSegmentation",),
    also=("GroupViTModel",),
    outputs={
        "mask_bytes": Tensor(
            dtype="string", shape=(None,), meaning="PNG of segment ids at the source's size (8-bit up to 256, else 16)"
        ),
        "segment_ids": Tensor(dtype="int32", shape=(None, None), meaning="ids in the mask, ascending, then -1"),
        "segment_labels": Tensor(dtype="string", shape=(None, None), meaning='their labels, then ""'),
        "segment_scores": Tensor(
            dtype="float32", shape=(None, None), meaning="their scores, then 0; 1 where the model gives none (semantic)"
        ),
        "segment_areas": Tensor(
            dtype="float32", shape=(None, None), meaning="the share of the image's pixels that is theirs, then 0"
        ),
    },
    inputs={
        "candidate_labels": dataclasses.replace(
            zero_shot.CANDIDATE_LABELS,
            meaning="labels to choose from, per image, where the model reads them (GroupViT) and none are fixed; "
            'their places are the ids; "" fills up a batch',
        )
    },
    fit=fit,
    options={
        "subtask": Option(
            kind=str, default=None, meaning="semantic, instance or panoptic (default: what the model does)"
        ),
        "threshold": Option(
            kind=float,
            default=None,
            meaning="least score of a segment (not semantic, which has none)",
        ),
        "mask_threshold": Option(
            kind=float,
            default=None,
            meaning="least score of a mask's pixel (not semantic)",
        ),
        "overlap_mask_area_threshold": Option(
            kind=float,
            default=None,
            meaning="least share of a mask that no other covers (not semantic)",
        ),
        "labels": zero_shot.OPTIONS["labels"],
        "prompt": Option(
            kind=str,
            default=None,
            meaning=f"with GroupViT: {zero_shot.OPTIONS['prompt'].meaning} (default {zero_shot.PROMPT})",
        ),
    },
    samples=zero_shot.samples,
    reference=reference,
    difference=difference,
)
