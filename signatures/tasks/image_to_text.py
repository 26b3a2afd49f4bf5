"""`image-to-text`: what an image shows, in words.

As transformers' `ImageToTextPipeline`: the checkpoint's generation settings, greedy decoding, special tokens left out.
The decoding loop and the detokeniser are in the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from signatures import decoders
from signatures.errors import UsageError
from signatures.generation import Settings, Step, greedy, read_settings
from signatures.model import Model, Tensors
from signatures.spec import Tensor
from signatures.tasks import Head, Option, Request, Task
from signatures.text import tokenizer_of

if TYPE_CHECKING:
    from signatures.checkpoint import Checkpoint

__all__ = ["TASK"]


def fit(model: Model, options: Mapping[str, Any]) -> Head:
    """Binds the task to a model that sees and writes.

    Raises:
        UsageError: The model writes no text, its generation settings are not greedy, or its tokenizer cannot live in
            the graph.
    """
    import tensorflow as tf

    from signatures.tokenizers import compile_tokenizer

    kind = model.config.get("model_type")
    if kind not in _KINDS or not hasattr(model.native, "generate"):
        raise UsageError(
            f"{model.source.model} is a {model.source.cls}, but image-to-text wants a model that writes: "
            "TFBlipForConditionalGeneration or TFVisionEncoderDecoderModel. Export one of these."
        )
    tokenizer = tokenizer_of(model)
    in_graph = compile_tokenizer(tokenizer)
    settings, decoder = _KINDS[kind](model, tokenizer, options["max_new_tokens"])

    def forward(features: Tensors) -> Tensors:
        step = decoder(features["pixel_values"])
        return {"sequences": greedy(step, tf.shape(features["pixel_values"])[0], settings).sequences}

    def postprocess(raw: Tensors, request: Request) -> Tensors:  # noqa: ARG001
        return {"text": decoders.texts(in_graph, raw["sequences"], settings)}

    return Head(
        outputs=TASK.outputs,
        forward=forward,
        postprocess=postprocess,
        options={"max_new_tokens": options["max_new_tokens"], "generation": settings.to_json()},
        state=in_graph,
        model_inputs={"pixel_values": model.inputs["pixel_values"]},
    )


_Decoder = Callable[[Any], Step]
"""Pixel values to the step that writes about them."""


def _blip(model: Model, tokenizer: Any, max_new_tokens: int | None) -> tuple[Settings, _Decoder]:  # noqa: ARG001
    native = model.native

    def decoder(pixel_values: Any) -> Step:
        return decoders.blip_step(
            native.text_decoder, native.vision_model(pixel_values=pixel_values, training=False)[0]
        )

    return decoders.blip_settings(model, max_new_tokens), decoder


def _encoder_decoder(model: Model, tokenizer: Any, max_new_tokens: int | None) -> tuple[Settings, _Decoder]:
    native = model.native
    pad = native.generation_config.pad_token_id
    settings = read_settings(
        native.generation_config,
        model.source.model,
        pad=tokenizer.pad_token_id if pad is None else pad,
        max_new_tokens=max_new_tokens,
    )

    def decoder(pixel_values: Any) -> Step:
        return decoders.encoder_decoder_step(native, native.encoder(pixel_values=pixel_values, training=False)[0])

    return settings, decoder


_KINDS = {"blip": _blip, "vision-encoder-decoder": _encoder_decoder}
"""By `model_type`: the settings and the decoder of a model."""


def reference(checkpoint: Checkpoint, image: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """The answer of transformers' own pipeline."""
    from transformers import AutoTokenizer, ImageToTextPipeline

    pipeline = checkpoint.pipeline(ImageToTextPipeline, tokenizer=AutoTokenizer.from_pretrained(checkpoint.folder))
    answers = pipeline(image, max_new_tokens=checkpoint.card.options["max_new_tokens"])
    return {"text": answers[0]["generated_text"]}


def difference(answer: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[float, bool]:
    """0 where the texts are the same, else 1."""
    same = answer["text"].decode() == wanted["text"]
    return (0.0 if same else 1.0), same


TASK = Task(
    name="image-to-text",
    summary="What an image shows, in words.",
    heads=("BlipForConditionalGeneration", "VisionEncoderDecoderModel"),
    outputs={"text": Tensor(dtype="string", shape=(None,), meaning="what the image shows, without special tokens")},
    fit=fit,
    options={
        "max_new_tokens": Option(
            kind=int, default=None, meaning="how long a text may be, in tokens (default: the checkpoint's own limit)"
        ),
    },
    reference=reference,
    difference=difference,
    worded=True,
)
