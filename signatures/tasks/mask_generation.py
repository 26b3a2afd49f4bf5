"""`mask-generation`: the masks of the thing that points on an image lie on, each with its score.

The points come with the request. Coordinates and masks travel as in transformers' `SamProcessor`: points are scaled
like the image was (`SamProcessor._normalize_coordinates`), masks lose the image's padding and are brought back to the
source's size (`SamImageProcessor._post_process_masks_tf`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from signatures.errors import UsageError
from signatures.model import Model, Tensors
from signatures.spec import Tensor
from signatures.tasks import Head, Option, Request, Task

if TYPE_CHECKING:
    from signatures.checkpoint import Checkpoint

__all__ = ["TASK"]

MASKS_PER_PROMPT = 3
PARALLEL_MASKS = 2

POINTS = Tensor(
    dtype="float32", shape=(None, None, 2), meaning="x, y of each point in pixels of the upright source image"
)
POINT_LABELS = Tensor(
    dtype="int32", shape=(None, None), meaning="1: on the thing, 0: beside it, -10: no point (fills up a batch)"
)


def fit(model: Model, options: Mapping[str, Any]) -> Head:
    """Binds the task to a promptable segmenter.

    Raises:
        UsageError: The model takes no points, or its image processor does not fit images into a square.
    """
    if model.config.get("model_type") != "sam":
        raise UsageError(
            f"{model.source.model} is a {model.source.cls}, but mask-generation wants a model that takes points "
            "(TFSamModel). Export a SAM checkpoint, or choose another --task."
        )
    longest_edge, padded = _geometry(model)
    several = not options["single_mask"]
    count = MASKS_PER_PROMPT if several else 1
    threshold = options["mask_threshold"]

    def features(images: Tensors, request: Request) -> Tensors:
        points = scale_points(request.inputs["points"], request.sizes, longest_edge)
        return {
            "pixel_values": images["pixel_values"],
            "input_points": points[:, None],
            "input_labels": request.inputs["point_labels"][:, None],
        }

    def forward(inputs: Tensors) -> Tensors:
        outputs = model.native(**inputs, multimask_output=several, training=False)
        return {"pred_masks": outputs.pred_masks, "iou_scores": outputs.iou_scores}

    def postprocess(raw: Tensors, request: Request) -> Tensors:
        # One prompt per image: the model's axis of prompts has length 1.
        masks, scores = raw["pred_masks"][:, 0], raw["iou_scores"][:, 0]
        masks.set_shape([None, count, None, None])
        return {
            "mask_bytes": source_masks(masks, request.sizes, longest_edge, padded, threshold),
            "scores": scores,
        }

    return Head(
        outputs={
            name: Tensor(dtype=tensor.dtype, shape=(None, count), meaning=tensor.meaning)
            for name, tensor in TASK.outputs.items()
        },
        inputs=TASK.inputs,
        features=features,
        forward=forward,
        postprocess=postprocess,
        options={"mask_threshold": threshold, "single_mask": not several},
        model_inputs={
            **model.inputs,
            "input_points": Tensor(
                dtype="float32",
                shape=(None, None, None, 2),
                meaning="x, y of points in pixels of the resized image, per prompt",
            ),
            "input_labels": Tensor(dtype="int32", shape=(None, None, None), meaning=POINT_LABELS.meaning),
        },
    )


def _geometry(model: Model) -> tuple[int, tuple[int, int]]:
    """The longest edge that images are resized to, and the height and width that they are padded to."""
    resize, padded = model.preprocessing.resize, model.preprocessing.pad
    if resize is None or resize.rule != "longest_edge" or resize.edge is None or padded is None:
        raise UsageError(
            f"{model.source.model} is prepared by {model.preprocessing.processor} without a longest edge and a padded "
            "size, but mask-generation needs both to find its way back to the source. Use the checkpoint's own "
            "SamImageProcessor."
        )
    return resize.edge, padded


def resized_sizes(sizes: Any, longest_edge: int) -> Any:
    """Height and width after resizing, `SamImageProcessor._get_preprocess_shape`.

    Args:
        sizes: int32 [b, 2], source height and width.
        longest_edge: What the longer of them becomes.

    Returns:
        int32 [b, 2].
    """
    import tensorflow as tf

    exact = tf.cast(tf.maximum(sizes, 1), tf.float64)
    scale = tf.constant(longest_edge, tf.float64) / tf.reduce_max(exact, axis=1, keepdims=True)
    return tf.cast(exact * scale + 0.5, tf.int32)


def scale_points(points: Any, sizes: Any, longest_edge: int) -> Any:
    """Points of the source image on the resized one, `SamProcessor._normalize_coordinates`.

    Args:
        points: float32 [b, p, 2], x and y in source pixels.
        sizes: int32 [b, 2], source height and width.
        longest_edge: What the longer of them becomes.

    Returns:
        float32 [b, p, 2], x and y in pixels of the resized image.
    """
    import tensorflow as tf

    source = tf.cast(tf.maximum(sizes, 1), tf.float64)
    factors = tf.cast(resized_sizes(sizes, longest_edge), tf.float64) / source
    return tf.cast(tf.cast(points, tf.float64) * tf.reverse(factors, axis=[1])[:, None], tf.float32)


def source_masks(masks: Any, sizes: Any, longest_edge: int, padded: tuple[int, int], threshold: float) -> Any:
    """Masks at the source's size, `SamImageProcessor._post_process_masks_tf`, one after another to bound memory.

    Args:
        masks: float32 [b, m, h, w], raw scores over the padded image.
        sizes: int32 [b, 2], source height and width.
        longest_edge: What the longer of them was resized to.
        padded: Height and width after padding.
        threshold: Scores above it are the thing.

    Returns:
        string [b, m]: PNG files of one 8-bit channel, 255 where the thing is and 0 elsewhere.
    """
    import tensorflow as tf

    count = masks.shape[1]

    def encode(item: tuple[Any, Any, Any]) -> Any:
        mask, size, kept = item
        mask = tf.image.resize(mask[:, :, None], padded, method="bilinear")[: kept[0], : kept[1]]
        mask = tf.image.resize(mask, tf.maximum(size, 1), method="bilinear")
        return tf.io.encode_png(tf.cast(mask > threshold, tf.uint8) * 255)

    def each(per_image: Any) -> Any:
        return tf.repeat(per_image, count, axis=0)

    flat = tf.reshape(masks, tf.concat([[-1], tf.shape(masks)[2:]], axis=0))
    encoded = tf.map_fn(
        encode,
        (flat, each(sizes), each(resized_sizes(sizes, longest_edge))),
        fn_output_signature=tf.TensorSpec([], tf.string),
        parallel_iterations=PARALLEL_MASKS,
    )
    return tf.reshape(encoded, [-1, count])


def samples(count: int) -> dict[str, Any]:
    """One point inside each image that is at least 128 pixels high and wide."""
    import numpy as np

    points = np.array([[[60.0 + 7 * (index % 9), 50.0 + 5 * (index % 9)]] for index in range(count)], np.float32)
    return {"points": points, "point_labels": np.ones((count, 1), np.int32)}


def reference(checkpoint: Checkpoint, image: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """`SamProcessor`, the model and `post_process_masks`; the pipeline itself asks a grid of points, not given ones."""
    from transformers import SamProcessor

    processor = SamProcessor(checkpoint.image_processor)
    encoding = processor(
        image,
        input_points=[inputs["points"].tolist()],
        input_labels=[inputs["point_labels"].tolist()],
        return_tensors="tf",
    )
    sizes, resized = encoding.pop("original_sizes"), encoding.pop("reshaped_input_sizes")
    options = checkpoint.card.options
    outputs = checkpoint.native(**encoding, multimask_output=not options["single_mask"])
    masks = processor.post_process_masks(
        outputs.pred_masks, sizes, resized, mask_threshold=options["mask_threshold"], return_tensors="tf"
    )
    return {"mask_bytes": masks[0][0].numpy(), "scores": outputs.iou_scores[0, 0].numpy()}


def difference(answer: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[float, bool]:
    """The largest difference of a score or share of a mask's pixels, and whether the best mask is the same one."""
    import io

    import numpy as np
    from PIL import Image

    masks = np.stack([np.asarray(Image.open(io.BytesIO(png))) > 0 for png in answer["mask_bytes"]])
    if masks.shape != wanted["mask_bytes"].shape:
        return float("inf"), False
    pixels = np.mean(masks != wanted["mask_bytes"], axis=(1, 2)).max()
    scores = np.abs(answer["scores"] - wanted["scores"]).max()
    return float(max(pixels, scores)), bool(np.argmax(answer["scores"]) == np.argmax(wanted["scores"]))


TASK = Task(
    name="mask-generation",
    summary="Masks of the thing that the request's points lie on.",
    heads=("SamModel",),
    outputs={
        "mask_bytes": Tensor(
            dtype="string", shape=(None, None), meaning="PNG at the source's size: 255 where the thing is, 0 elsewhere"
        ),
        "scores": Tensor(
            dtype="float32", shape=(None, None), meaning="how well the model thinks each mask fits (predicted overlap)"
        ),
    },
    inputs={"points": POINTS, "point_labels": POINT_LABELS},
    fit=fit,
    options={
        "mask_threshold": Option(kind=float, default=0.0, meaning="raw scores above it belong to the mask"),
        "single_mask": Option(
            kind=bool, default=False, meaning="answer one mask and not three of different extent (part, whole...)"
        ),
    },
    samples=samples,
    reference=reference,
    difference=difference,
)
