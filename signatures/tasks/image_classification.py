"""`image-classification`: the labels of an image with their scores, best first."""

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

DEFAULT_TOP_K = 5
FUNCTIONS = ("softmax", "sigmoid", "none")


def fit(model: Model, options: Mapping[str, Any]) -> Head:
    """Binds the task to a classifier.

    Raises:
        UsageError: The model has no labels, or an option is out of range.
    """
    if not model.labels:
        raise UsageError(
            f"{model.source.model} names no labels, but image-classification answers with them. "
            "Give config.json an id2label, or pass --labels a,b,c."
        )
    top_k = DEFAULT_TOP_K if options["top_k"] is None else options["top_k"]
    if top_k < 1:
        raise UsageError(f"Got --top-k {top_k}, but it wants a positive number. Leave it out for {DEFAULT_TOP_K}.")
    top_k = min(top_k, len(model.labels))
    function = options["function_to_apply"] or _pipeline_function(model)
    if function not in FUNCTIONS:
        raise UsageError(f"Got --function-to-apply {function!r}, but it is one of {', '.join(FUNCTIONS)}. Choose one.")

    def postprocess(raw: Tensors, request: Request) -> Tensors:  # noqa: ARG001
        return best(one_per_label(logits(raw), model, function), model.labels, top_k, function)

    return Head(
        outputs={
            "labels": Tensor(dtype="string", shape=(None, top_k), meaning=TASK.outputs["labels"].meaning),
            "scores": Tensor(dtype="float32", shape=(None, top_k), meaning=f"{function} over all labels, best first"),
        },
        postprocess=postprocess,
        options={"top_k": top_k, "function_to_apply": function},
    )


def logits(raw: Tensors) -> Any:
    """The scores among a model's raw outputs: `logits`, or the only output of a model that calls it otherwise."""
    if "logits" in raw:
        return raw["logits"]
    if len(raw) > 1:
        raise UsageError(
            f"The model's outputs are {', '.join(sorted(raw))}, and which of them are the scores is not known. "
            "Call that one `logits`."
        )
    return next(iter(raw.values()))


def one_per_label(scores: Any, model: Model, function: str) -> Any:
    """Scores [b, n] of a model's n labels.

    A binary classifier of Keras has one score for its two labels: of the second, and the first is what is left.

    Raises:
        UsageError: There are not as many scores as labels.
    """
    import tensorflow as tf

    if scores.shape.rank != 2:
        raise UsageError(
            f"{model.source.model} gives scores of {scores.shape.rank} axes, but image-classification wants 2: a score "
            "per image and label. Choose another --task."
        )
    count, wanted = scores.shape[1], len(model.labels)
    if count == 1 and wanted == 2 and function != "softmax":
        # sigmoid(-x) is 1 - sigmoid(x).
        return tf.concat([-scores if function == "sigmoid" else 1 - scores, scores], axis=1)
    if count not in (None, wanted):
        raise UsageError(
            f"{model.source.model} gives {count} scores, but there are {wanted} labels. Give a label per score: "
            "--labels a,b,c or a file with a label a line."
        )
    return scores


def _pipeline_function(model: Model) -> str:
    """The function that transformers' pipeline chooses for a configuration; a Keras source says it itself."""
    if "function_to_apply" in model.config and "model_type" not in model.config:
        return str(model.config["function_to_apply"])
    if model.config.get("problem_type") == "multi_label_classification" or len(model.labels) == 1:
        return "sigmoid"
    return "softmax"


def best(logits: Any, labels: tuple[str, ...], top_k: int, function: str) -> Tensors:
    """The `top_k` labels by score. Equal scores keep the order of their ids, as the pipeline's stable sort does.

    Args:
        logits: float [b, n].
        labels: n names in id order.
        top_k: At most n.
        function: `softmax`, `sigmoid` or `none`.

    Returns:
        `labels` string [b, top_k] and `scores` float32 [b, top_k].
    """
    import tensorflow as tf

    logits = tf.cast(logits, tf.float32)
    apply = {"softmax": tf.nn.softmax, "sigmoid": tf.math.sigmoid, "none": tf.identity}[function]
    scores, ids = tf.math.top_k(apply(logits), k=top_k, sorted=True)
    return {"labels": tf.gather(tf.constant(labels, tf.string), ids), "scores": scores}


def reference(checkpoint: Checkpoint, image: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """The answer of transformers' own pipeline."""
    from transformers import ImageClassificationPipeline

    answers = checkpoint.pipeline(ImageClassificationPipeline)(image, **checkpoint.card.options)
    return {"labels": [a["label"] for a in answers], "scores": [a["score"] for a in answers]}


TASK = Task(
    name="image-classification",
    summary="Which of the model's classes an image shows.",
    heads=("ForImageClassification", "ForImageClassificationWithTeacher"),
    outputs={
        "labels": Tensor(dtype="string", shape=(None, None), meaning="class names, best first"),
        "scores": Tensor(dtype="float32", shape=(None, None), meaning="the scores of `labels`"),
    },
    fit=fit,
    options={
        "top_k": Option(kind=int, default=None, meaning="how many labels to answer, at most all (default 5)"),
        "function_to_apply": Option(
            kind=str, default=None, meaning="softmax, sigmoid or none (default: as the transformers pipeline decides)"
        ),
    },
    classifies=True,
    reference=reference,
)
