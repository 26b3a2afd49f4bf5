"""`visual-question-answering`: an answer in words to a question about an image.

As transformers' `VisualQuestionAnsweringPipeline` with a model that generates: the question is read with the image, and
the answer is written by greedy decoding. The pipeline gives such answers no score; here it is the probability of the
answer, the product over its tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from signatures import decoders
from signatures.errors import UsageError
from signatures.generation import greedy
from signatures.model import MEANINGS, Model, Tensors
from signatures.spec import Tensor
from signatures.tasks import Head, Option, Request, Task
from signatures.text import encode_within, most_tokens, tokenizer_of

if TYPE_CHECKING:
    from signatures.checkpoint import Checkpoint

__all__ = ["TASK"]


def fit(model: Model, options: Mapping[str, Any]) -> Head:
    """Binds the task to a model that reads questions and writes answers.

    Raises:
        UsageError: The model does not, its generation settings are not greedy, or its tokenizer cannot live in the
            graph.
    """
    import tensorflow as tf

    from signatures.tokenizers import compile_tokenizer

    native = model.native
    if model.config.get("model_type") != "blip" or not hasattr(native, "text_encoder"):
        raise UsageError(
            f"{model.source.model} is a {model.source.cls}, but visual-question-answering wants a model that reads "
            "questions and writes answers (TFBlipForQuestionAnswering). Export one of these."
        )
    tokenizer = compile_tokenizer(tokenizer_of(model))
    settings = decoders.blip_settings(model, options["max_new_tokens"])
    most = most_tokens(model.config["text_config"])

    def features(images: Tensors, request: Request) -> Tensors:
        encoded, too_long = encode_within(tokenizer, request.inputs["question"], most)
        reason = f"the question has more than the {most} tokens that the model reads; send a shorter one"
        return {
            "pixel_values": images["pixel_values"],
            "input_ids": encoded["input_ids"],
            "attention_mask": encoded["attention_mask"],
            "error": tf.where(too_long, reason, ""),
        }

    def forward(inputs: Tensors) -> Tensors:
        image = native.vision_model(pixel_values=inputs["pixel_values"], training=False)[0]
        question = native.text_encoder(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            encoder_hidden_states=image,
            encoder_attention_mask=tf.ones(tf.shape(image)[:2], tf.int32),
            return_dict=False,
            training=False,
        )[0]
        # One question alone has no padding, so padding of the batch must stay unseen too.
        step = decoders.blip_step(native.text_decoder, question, inputs["attention_mask"])
        generated = greedy(step, tf.shape(question)[0], settings)
        return {"sequences": generated.sequences, "log_probabilities": generated.log_probabilities}

    def postprocess(raw: Tensors, request: Request) -> Tensors:  # noqa: ARG001
        answers = tf.strings.strip(decoders.texts(tokenizer, raw["sequences"], settings))
        return {"answers": answers[:, None], "scores": tf.exp(raw["log_probabilities"])[:, None]}

    return Head(
        outputs={
            name: Tensor(dtype=tensor.dtype, shape=(None, 1), meaning=tensor.meaning)
            for name, tensor in TASK.outputs.items()
        },
        inputs=TASK.inputs,
        features=features,
        forward=forward,
        postprocess=postprocess,
        options={"max_new_tokens": options["max_new_tokens"], "generation": settings.to_json()},
        state=tokenizer,
        model_inputs={
            "pixel_values": model.inputs["pixel_values"],
            **{
                name: Tensor(dtype="int32", shape=(None, None), meaning=MEANINGS[name])
                for name in ("input_ids", "attention_mask")
            },
        },
    )


def samples(count: int) -> dict[str, Any]:
    """A question for every image."""
    import numpy as np

    return {"question": np.array(["What is it?", "How many?"] * count, object)[:count]}


def reference(checkpoint: Checkpoint, image: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What the pipeline does, which itself exists for PyTorch alone."""
    import tensorflow as tf
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder)
    question = tokenizer(tf.compat.as_text(inputs["question"]), return_tensors="tf")
    options = checkpoint.card.options
    limit = {} if options["max_new_tokens"] is None else {"max_new_tokens": options["max_new_tokens"]}
    sequences = checkpoint.native.generate(
        input_ids=question["input_ids"],
        attention_mask=question["attention_mask"],
        pixel_values=tf.constant(checkpoint.features(image)["pixel_values"][None]),
        generation_config=checkpoint.native.generation_config,
        **limit,
    )
    return {"answers": [tokenizer.decode(sequences[0], skip_special_tokens=True).strip()]}


def difference(answer: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[float, bool]:
    """0 where the answers are the same, else 1."""
    same = [text.decode() for text in answer["answers"]] == wanted["answers"]
    return (0.0 if same else 1.0), same


TASK = Task(
    name="visual-question-answering",
    summary="An answer in words to a question about an image.",
    heads=("BlipForQuestionAnswering",),
    outputs={
        "answers": Tensor(dtype="string", shape=(None, None), meaning="the answer in words"),
        "scores": Tensor(dtype="float32", shape=(None, None), meaning="the probability of the whole answer"),
    },
    inputs={"question": Tensor(dtype="string", shape=(None,), meaning="a question about each image")},
    fit=fit,
    options={
        "max_new_tokens": Option(
            kind=int, default=None, meaning="how long an answer may be, in tokens (default: the checkpoint's own limit)"
        ),
    },
    samples=samples,
    reference=reference,
    difference=difference,
    worded=True,
)
