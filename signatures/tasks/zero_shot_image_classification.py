"""`zero-shot-image-classification`: which of some labels in free words fits an image best.

As in transformers' `ZeroShotImageClassificationPipeline`: every label is put into a sentence, and the scores are the
softmax over the similarities of the image to the sentences (`logits_per_image`). Labels are fixed at export, or come
with the request: see `signatures.zero_shot`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from signatures import zero_shot
from signatures.errors import UsageError
from signatures.model import Model, Tensors
from signatures.spec import Tensor
from signatures.tasks import Head, Request, Task

if TYPE_CHECKING:
    from signatures.checkpoint import Checkpoint

__all__ = ["TASK"]


def fit(model: Model, options: Mapping[str, Any]) -> Head:
    """Binds the task to a model with a vision and a text tower.

    Raises:
        UsageError: The model does not compare images with texts, or the prompt has no place for a label.
    """
    if not hasattr(model.native, "get_image_features") or zero_shot.logit_scale(model) is None:
        raise UsageError(
            f"{model.source.model} is a {model.source.cls}, but zero-shot-image-classification wants a model that "
            "compares images with texts, such as TFCLIPModel. Export one of these, or choose another --task."
        )
    if options["labels"] is None:
        return _open_head(model, options["prompt"])
    return _frozen_head(model, options["prompt"], zero_shot.read(options["labels"]))


def _frozen_head(model: Model, prompt: str, labels: tuple[str, ...]) -> Head:
    """Labels fixed at export: their vectors are constants of the graph."""
    import tensorflow as tf

    vectors = zero_shot.vectors(model, prompt, labels)
    logit_scale = zero_shot.logit_scale(model)

    def forward(features: Tensors) -> Tensors:
        image_embeds = zero_shot.normalized(model.native.get_image_features(pixel_values=features["pixel_values"]))
        similarities = tf.matmul(image_embeds, tf.constant(vectors), transpose_b=True)
        return {"logits_per_image": similarities * tf.exp(logit_scale), "image_embeds": image_embeds}

    def postprocess(raw: Tensors, request: Request) -> Tensors:  # noqa: ARG001
        scores, order = tf.math.top_k(tf.nn.softmax(raw["logits_per_image"]), k=len(labels))
        return {"labels": tf.gather(tf.constant(labels, tf.string), order), "scores": scores}

    return Head(
        outputs=_outputs(len(labels)),
        forward=forward,
        postprocess=postprocess,
        options={"labels": list(labels), "prompt": prompt},
        model_inputs={"pixel_values": model.inputs["pixel_values"]},
        labels=labels,
    )


def _open_head(model: Model, prompt: str) -> Head:
    """Labels that come with the request."""
    import tensorflow as tf

    sentences = zero_shot.Sentences(model, prompt)

    def postprocess(raw: Tensors, request: Request) -> Tensors:
        candidates = request.inputs["candidate_labels"]
        logits = tf.gather(raw["logits_per_image"], zero_shot.places_of(candidates), batch_dims=1)
        return ranked(candidates, logits)

    return Head(
        outputs=_outputs(None),
        inputs=TASK.inputs,
        features=sentences.features,
        postprocess=postprocess,
        options={"prompt": prompt},
        state=sentences.tokenizer,
        model_inputs={"pixel_values": model.inputs["pixel_values"], **sentences.inputs},
        labels=(),
    )


def ranked(candidates: Any, logits: Any) -> Tensors:
    """Candidates by score, best first; equal scores keep their order, as the pipeline's stable sort does.

    Args:
        candidates: string [b, n]; "" stands for no label and takes no part.
        logits: float32 [b, n].

    Returns:
        `labels` string [b, n] and `scores` float32 [b, n], the softmax over the labels of each image.
    """
    import tensorflow as tf

    present = tf.not_equal(candidates, "")
    scores = tf.where(present, tf.nn.softmax(tf.where(present, logits, logits.dtype.min)), -1.0)
    scores, order = tf.math.top_k(scores, k=tf.shape(scores)[1])
    return {"labels": tf.gather(candidates, order, batch_dims=1), "scores": tf.maximum(scores, 0.0)}


def _outputs(count: int | None) -> dict[str, Tensor]:
    return {
        name: Tensor(dtype=tensor.dtype, shape=(None, count), meaning=tensor.meaning)
        for name, tensor in TASK.outputs.items()
    }


def reference(checkpoint: Checkpoint, image: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of transformers' own pipeline."""
    from transformers import AutoTokenizer, ZeroShotImageClassificationPipeline

    pipeline = checkpoint.pipeline(
        ZeroShotImageClassificationPipeline, tokenizer=AutoTokenizer.from_pretrained(checkpoint.folder)
    )
    given = zero_shot.asked_labels(checkpoint, inputs)
    prompt = checkpoint.card.options["prompt"]
    answers = pipeline(image, candidate_labels=given, hypothesis_template=prompt)
    return {"labels": [a["label"] for a in answers], "scores": [a["score"] for a in answers]}


TASK = Task(
    name="zero-shot-image-classification",
    summary="Which of some labels in free words fits an image best.",
    heads=("CLIPModel", "BlipModel", "GroupViTModel", "VisionTextDualEncoderModel"),
    outputs={
        "labels": Tensor(dtype="string", shape=(None, None), meaning="the labels to choose from, best first"),
        "scores": Tensor(dtype="float32", shape=(None, None), meaning="softmax over the labels, best first"),
    },
    inputs={"candidate_labels": zero_shot.CANDIDATE_LABELS},
    fit=fit,
    options=zero_shot.OPTIONS,
    samples=zero_shot.samples,
    reference=reference,
)
