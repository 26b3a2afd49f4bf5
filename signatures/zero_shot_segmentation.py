"""GroupViT as a segmenter of labels in free words: every pixel's likeness to each sentence.

What `TFGroupViTModel` gives as `segmentation_logits` when asked with `output_segmentation=True`, for batches in a graph
(its own code holds for batches of a known size alone): the vision tower gathers an image's pixels into groups, each
group is compared with each sentence, and a pixel likes a sentence as much as its groups do.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from signatures import zero_shot
from signatures.model import Model, Tensors
from signatures.tasks import Head, Request
from signatures.text import accepted

if TYPE_CHECKING:
    from signatures.checkpoint import Checkpoint

__all__ = ["fits", "head", "reference"]

NEVER = -1e30
"""The likeness of a pixel to a label that is not there; finite, since it is mixed with its neighbours'."""

Segments = Callable[[Any, Any, Any], Tensors]
"""Scores float32 [b, n, h, w], sizes int32 [b, 2] and labels string [n] or [b, n] to the task's outputs."""


def fits(model: Model | Any) -> bool:
    """Whether a model, or transformers' own model object, is such a one."""
    config = model.config
    kind = config.get("model_type") if isinstance(config, Mapping) else getattr(config, "model_type", None)
    return bool(kind == "groupvit")


def head(model: Model, prompt: str, labels: str | None, outputs: Any, segments: Segments) -> Head:
    """Binds image segmentation to a GroupViT.

    Args:
        model: A `TFGroupViTModel`.
        prompt: The sentence that a label is put into.
        labels: The option with the labels that are fixed at export; None lets them come with the request.
        outputs: The task's outputs.
        segments: Makes them from the scores of every label.

    Raises:
        UsageError: The labels or the prompt cannot be.
    """
    if labels is None:
        return _open_head(model, prompt, outputs, segments)
    return _frozen_head(model, prompt, zero_shot.read(labels), outputs, segments)


def _frozen_head(model: Model, prompt: str, labels: tuple[str, ...], outputs: Any, segments: Segments) -> Head:
    import tensorflow as tf

    vectors = zero_shot.vectors(model, prompt, labels)

    def forward(features: Tensors) -> Tensors:
        return {"segmentation_logits": likeness(model, features["pixel_values"], tf.constant(vectors))}

    def postprocess(raw: Tensors, request: Request) -> Tensors:
        return segments(raw["segmentation_logits"], request.sizes, tf.constant(labels))

    return Head(
        outputs=outputs,
        forward=forward,
        postprocess=postprocess,
        options={"subtask": "semantic", "labels": list(labels), "prompt": prompt},
        model_inputs={"pixel_values": model.inputs["pixel_values"]},
        labels=labels,
    )


def _open_head(model: Model, prompt: str, outputs: Any, segments: Segments) -> Head:
    import tensorflow as tf

    sentences = zero_shot.Sentences(model, prompt)

    def forward(features: Tensors) -> Tensors:
        pixel_values = features["pixel_values"]
        texts = {name: value for name, value in features.items() if name != "pixel_values"}
        vectors = zero_shot.normalized(model.native.get_text_features(**accepted(model, texts)))
        return {"segmentation_logits": likeness(model, pixel_values, vectors)}

    def postprocess(raw: Tensors, request: Request) -> Tensors:
        candidates = request.inputs["candidate_labels"]
        scores = tf.gather(raw["segmentation_logits"], zero_shot.places_of(candidates), batch_dims=1)
        present = tf.not_equal(candidates, "")[:, :, None, None]
        return segments(tf.where(present, scores, NEVER), request.sizes, candidates)

    return Head(
        outputs=outputs,
        inputs={"candidate_labels": zero_shot.CANDIDATE_LABELS},
        features=sentences.features,
        forward=forward,
        postprocess=postprocess,
        options={"subtask": "semantic", "prompt": prompt},
        state=sentences.tokenizer,
        model_inputs={"pixel_values": model.inputs["pixel_values"], **sentences.inputs},
        labels=(),
    )


def likeness(model: Model, pixel_values: Any, vectors: Any) -> Any:
    """How much each pixel is like each sentence.

    Args:
        model: A `TFGroupViTModel`.
        pixel_values: float32 [b, 3, h, w], of the size that the model is made for.
        vectors: float32 [n, d], a sentence each, of length 1.

    Returns:
        float32 [b, n, h, w].
    """
    import tensorflow as tf
    from transformers.models.groupvit.modeling_tf_groupvit import get_grouping_from_attentions

    main = model.native.groupvit
    size = model.config["vision_config"]["image_size"]
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    pixel_values = tf.ensure_shape(pixel_values, [None, None, height, width])
    seen = main.vision_model(
        pixel_values=pixel_values,
        output_attentions=True,
        output_hidden_states=False,
        return_dict=True,
        training=False,
    )
    groups = functools.reduce(
        lambda values, layer: layer(values),
        main.visual_projection,
        tf.reshape(seen.last_hidden_state, [-1, seen.last_hidden_state.shape[-1]]),
    )
    groups = tf.reshape(zero_shot.normalized(groups), [tf.shape(pixel_values)[0], -1, groups.shape[-1]])
    scale = tf.exp(tf.cast(main.logit_scale, tf.float32))
    per_group = tf.einsum("bgd,nd->bng", groups, vectors) * scale
    grouping = get_grouping_from_attentions(seen.attentions, (height, width))
    return tf.einsum("bng,bghw->bnhw", per_group, tf.cast(grouping, tf.float32)) * scale


def reference(checkpoint: Checkpoint, features: Any, labels: list[str]) -> Any:
    """What transformers itself gives for one image, NumPy float64 [n, h, w]."""
    import numpy as np
    import tensorflow as tf
    from transformers import AutoTokenizer

    prompt = checkpoint.card.options["prompt"]
    sentences = [prompt.replace("{}", label) for label in labels]
    encoded = AutoTokenizer.from_pretrained(checkpoint.folder)(sentences, padding=True, return_tensors="tf")
    answer = checkpoint.native(
        **encoded, pixel_values=tf.constant(features["pixel_values"][None]), output_segmentation=True, training=False
    )
    return answer.segmentation_logits.numpy()[0].astype(np.float64)
