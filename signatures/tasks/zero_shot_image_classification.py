"""`zero-shot-image-classification`: which of some labels in free words fits an image best.

As in transformers' `ZeroShotImageClassificationPipeline`: every label is put into a sentence, and the scores are the
softmax over the similarities of the image to the sentences (`logits_per_image`). With `--labels` the sentences are
read at export, and only the vision tower is left in the graph; without, `candidate_labels` come with the request and
the tokenizer and the text tower live in the graph too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from signatures.errors import UsageError
from signatures.model import Model, Tensors
from signatures.spec import Tensor
from signatures.tasks import Head, Option, Request, Task
from signatures.text import accepted, encode_within, most_tokens, text_inputs, tokenizer_of

if TYPE_CHECKING:
    from signatures.checkpoint import Checkpoint

__all__ = ["TASK"]

PROMPT = "This is a photo of {}."
"""The pipeline's own."""

CANDIDATE_LABELS = Tensor(
    dtype="string",
    shape=(None, None),
    meaning='labels to choose from, per image; "" fills up a batch and is not scored',
)


def fit(model: Model, options: Mapping[str, Any]) -> Head:
    """Binds the task to a model with a vision and a text tower.

    Raises:
        UsageError: The model does not compare images with texts, or the prompt has no place for a label.
    """
    if not hasattr(model.native, "get_image_features") or _logit_scale(model) is None:
        raise UsageError(
            f"{model.source.model} is a {model.source.cls}, but zero-shot-image-classification wants a model that "
            "compares images with texts, such as TFCLIPModel. Export one of these, or choose another --task."
        )
    prompt = options["prompt"]
    if prompt.count("{}") != 1:
        raise UsageError(f"Got --prompt {prompt!r}, but it wants {{}} once, for the label. Try 'a photo of {{}}'.")
    if options["labels"] is None:
        return _open_head(model, prompt)
    return _frozen_head(model, prompt, read(options["labels"]))


def read(labels: str) -> tuple[str, ...]:
    """The labels of the option: a label a line, or separated by commas on one line."""
    return tuple(label.strip() for label in labels.split("\n" if "\n" in labels else ",") if label.strip())


def _logit_scale(model: Model) -> Any:
    """The variable that scales similarities; None where there is none."""
    named = [weight for weight in model.native.weights if weight.name.split("/")[-1].startswith("logit_scale")]
    return named[0] if named else None


def _frozen_head(model: Model, prompt: str, labels: tuple[str, ...]) -> Head:
    """Labels fixed at export: their embeddings are constants of the graph."""
    import tensorflow as tf

    if not labels:
        raise UsageError("Got --labels without a label, but an image must fit something. Give --labels a,b,c.")
    encoded = tokenizer_of(model)([prompt.format(label) for label in labels], padding=True, return_tensors="tf")
    embeddings = _normalized(model.native.get_text_features(**accepted(model, encoded))).numpy()
    logit_scale = _logit_scale(model)

    def forward(features: Tensors) -> Tensors:
        image_embeds = _normalized(model.native.get_image_features(pixel_values=features["pixel_values"]))
        similarities = tf.matmul(image_embeds, tf.constant(embeddings), transpose_b=True)
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
    )


def _open_head(model: Model, prompt: str) -> Head:
    """Labels that come with the request. Each different sentence of a batch goes through the text tower once."""
    import tensorflow as tf

    from signatures.tokenizers import compile_tokenizer

    tokenizer = tokenizer_of(model)
    in_graph = compile_tokenizer(tokenizer)
    most = most_tokens(model.config["text_config"])
    before, after = prompt.split("{}")

    def features(images: Tensors, request: Request) -> Tensors:
        different, places = _different(request.inputs["candidate_labels"])
        encoded, too_long = encode_within(in_graph, tf.strings.join([before, different, after]), most)
        refused = tf.reduce_any(tf.gather(too_long, places), axis=1)
        reason = f"a candidate label has more than the {most} tokens that the model reads; send shorter labels"
        return {
            "pixel_values": images["pixel_values"],
            **accepted(model, encoded),
            "error": tf.where(refused, reason, ""),
        }

    def postprocess(raw: Tensors, request: Request) -> Tensors:
        candidates = request.inputs["candidate_labels"]
        _, places = _different(candidates)
        logits = tf.gather(raw["logits_per_image"], places, batch_dims=1)
        return ranked(candidates, logits)

    return Head(
        outputs=_outputs(None),
        inputs=TASK.inputs,
        features=features,
        postprocess=postprocess,
        options={"prompt": prompt},
        state=in_graph,
        model_inputs={"pixel_values": model.inputs["pixel_values"], **text_inputs(model, tokenizer)},
    )


def _different(candidates: Any) -> tuple[Any, Any]:
    """The different labels of a batch, string [u], and where each candidate is among them, int32 [b, n]."""
    import tensorflow as tf

    # A first label that is always there keeps the text tower's batch from being empty.
    different, places = tf.unique(tf.concat([[""], tf.reshape(candidates, [-1])], axis=0))
    return different, tf.reshape(places[1:], tf.shape(candidates))


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


def _normalized(embeddings: Any) -> Any:
    import tensorflow as tf

    embeddings = tf.cast(embeddings, tf.float32)
    return embeddings / tf.norm(embeddings, axis=-1, keepdims=True)


def _outputs(count: int | None) -> dict[str, Tensor]:
    return {
        name: Tensor(dtype=tensor.dtype, shape=(None, count), meaning=tensor.meaning)
        for name, tensor in TASK.outputs.items()
    }


def samples(count: int) -> dict[str, Any]:
    """The same three labels for every image."""
    import numpy as np

    return {"candidate_labels": np.array([["a disc", "a cat", "a photograph of the sea"]] * count, object)}


def reference(checkpoint: Checkpoint, image: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of transformers' own pipeline."""
    import tensorflow as tf
    from transformers import AutoTokenizer, ZeroShotImageClassificationPipeline

    options = checkpoint.card.options
    given = options.get("labels") or [tf.compat.as_text(label) for label in inputs["candidate_labels"]]
    pipeline = checkpoint.pipeline(
        ZeroShotImageClassificationPipeline, tokenizer=AutoTokenizer.from_pretrained(checkpoint.folder)
    )
    answers = pipeline(image, candidate_labels=given, hypothesis_template=options["prompt"])
    return {"labels": [a["label"] for a in answers], "scores": [a["score"] for a in answers]}


TASK = Task(
    name="zero-shot-image-classification",
    summary="Which of some labels in free words fits an image best.",
    heads=("CLIPModel", "BlipModel", "GroupViTModel", "VisionTextDualEncoderModel"),
    outputs={
        "labels": Tensor(dtype="string", shape=(None, None), meaning="the labels to choose from, best first"),
        "scores": Tensor(dtype="float32", shape=(None, None), meaning="softmax over the labels, best first"),
    },
    inputs={"candidate_labels": CANDIDATE_LABELS},
    fit=fit,
    options={
        "labels": Option(
            kind=str,
            default=None,
            meaning="labels fixed at export: a,b,c or a file with a label a line (default: per request)",
        ),
        "prompt": Option(kind=str, default=PROMPT, meaning="the sentence that a label is put into, at {}"),
    },
    samples=samples,
    reference=reference,
)
