"""`image-feature-extraction`: one vector per image, for search and clustering."""

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

HIDDEN, POOLED = "last_hidden_state", "pooler_output"
MASKED = "ForMaskedImageModeling"


def fit(model: Model, options: Mapping[str, Any]) -> Head:
    """Binds the task to a model's body.

    Raises:
        UsageError: The model has no such output, seen when its raw outputs are first traced.
    """
    wanted = POOLED if options["pool"] else HIDDEN
    parts = _masked(model) if _restores(model.native) else _towered(model) if _tower(model.native) is not None else {}

    def postprocess(raw: Tensors, request: Request) -> Tensors:  # noqa: ARG001
        if wanted in raw:
            return {"embedding": pooled(raw[wanted], model.preprocessing.data_format)}
        if wanted == HIDDEN and len(raw) == 1:
            return {"embedding": pooled(next(iter(raw.values())), model.preprocessing.data_format)}
        cure = "Leave --pool out" if options["pool"] else "Choose another --task"
        raise UsageError(
            f"{model.source.cls} of {model.source.model} gives {', '.join(sorted(raw))}, but not the {wanted} that an "
            f"embedding is taken from. {cure}."
        )

    how = "the pooler's output" if options["pool"] else "the mean over the tokens (or places) of the last layer"
    return Head(
        outputs={"embedding": Tensor(dtype="float32", shape=(None, _width(model)), meaning=how)},
        postprocess=postprocess,
        options={"pool": options["pool"], "embedding": how},
        **parts,
    )


def _tower(native: Any) -> Any:
    """The part of a whole model that sees, where it has no class that loads it alone; None for all others."""
    if type(native).__name__.endswith("VisionModel"):
        return None
    kind = getattr(getattr(native, "config", None), "model_type", None)
    if kind == "blip":
        return getattr(native, "vision_model", None) or native.blip.vision_model
    place = {"vision-encoder-decoder": "encoder", "vision-text-dual-encoder": "vision_model"}.get(str(kind))
    return None if place is None else getattr(native, place)


def _towered(model: Model) -> dict[str, Any]:
    """What a head needs besides for a model of which one part sees."""
    return {"forward": lambda given: _seen(_tower(model.native), given["pixel_values"])}


def _seen(part: Any, pixel_values: Any) -> dict[str, Any]:
    """What a part of a model that sees gives for images."""
    outputs = part(pixel_values=pixel_values, training=False)
    return {name: outputs[name] for name in (HIDDEN, POOLED) if outputs.get(name) is not None}


def _restores(native: Any) -> bool:
    """Whether a model was trained to restore hidden patches (`TFDeiTForMaskedImageModeling`)."""
    return type(native).__name__.endswith(MASKED)


def _masked(model: Model) -> dict[str, Any]:
    """What a head needs besides for a model that restores hidden patches.

    Its vector is the body's, of the whole image; its `model` signature also takes which patches to hide, and gives the
    reconstruction.
    """
    import tensorflow as tf

    native = model.native
    patches = (int(model.config["image_size"]) // int(model.config["patch_size"])) ** 2
    hidden = Tensor(dtype="bool", shape=(None, patches), meaning="True for a patch to hide, row by row")

    def features(given: Tensors, request: Request) -> Tensors:  # noqa: ARG001
        return {**given, "bool_masked_pos": tf.zeros([tf.shape(given["pixel_values"])[0], patches], tf.bool)}

    def forward(given: Tensors) -> Tensors:
        whole = _seen(_body(native), given["pixel_values"])
        return {**whole, "reconstruction": native(**given, training=False)["reconstruction"]}

    inputs = {"pixel_values": model.inputs["pixel_values"], "bool_masked_pos": hidden}
    return {"features": features, "forward": forward, "model_inputs": inputs}


def _body(native: Any) -> Any:
    return getattr(native, native.base_model_prefix)


def _width(model: Model) -> int | None:
    """The length of the vector where the configuration says it plainly."""
    config = model.config.get("vision_config") or model.config.get("encoder") or model.config
    width = config.get("hidden_size")
    return width if isinstance(width, int) else None


def pooled(values: Any, data_format: str = "channels_first") -> Any:
    """One vector per image: [b, d] as it is, tokens [b, t, d] and places [b, d, h, w] (or [b, h, w, d]) averaged."""
    import tensorflow as tf

    rank = values.shape.rank
    axes = {2: [], 3: [1], 4: [2, 3] if data_format == "channels_first" else [1, 2]}[rank]
    return tf.reduce_mean(values, axis=axes) if axes else values


def reference(checkpoint: Checkpoint, image: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """The answer of transformers' own pipeline, averaged in NumPy where it gives tokens or places."""
    import numpy as np
    import tensorflow as tf
    from transformers import ImageFeatureExtractionPipeline

    pool = checkpoint.card.options["pool"]
    native = checkpoint.native
    part = _body(native) if _restores(native) else _tower(native)
    if part is None:
        values = checkpoint.pipeline(ImageFeatureExtractionPipeline)(image, pool=pool, return_tensors=True)[0].numpy()
    else:
        # The pipeline would answer with the reconstruction, or ask for a text.
        pixels = tf.constant(checkpoint.features(image)["pixel_values"][None])
        values = _seen(part, pixels)[POOLED if pool else HIDDEN].numpy()[0]
    return {"embedding": values.mean(axis={1: (), 2: 0, 3: (1, 2)}[values.ndim], dtype=np.float64)}


TASK = Task(
    name="image-feature-extraction",
    summary="One vector per image that says what it looks like.",
    heads=("VisionModel", "Model", MASKED),
    also=(
        "BlipModel",
        "BlipForConditionalGeneration",
        "BlipForQuestionAnswering",
        "BlipForImageTextRetrieval",
        "VisionEncoderDecoderModel",
        "VisionTextDualEncoderModel",
    ),
    outputs={"embedding": Tensor(dtype="float32", shape=(None, None), meaning="the image's vector")},
    fit=fit,
    options={
        "pool": Option(
            kind=bool, default=False, meaning="take the pooler's output, and not the mean over the last layer's tokens"
        )
    },
    reference=reference,
)
