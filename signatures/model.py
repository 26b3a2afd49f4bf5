"""A loaded model, whatever it came from: what `sources.load` returns and `build` takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from signatures.preprocessing import Preprocessing
from signatures.spec import Source, Tensor

__all__ = ["MEANINGS", "Model", "Tensors"]

Tensors = dict[str, Any]
"""Named `tf.Tensor`s."""

MEANINGS: Mapping[str, str] = {
    "pixel_values": "the image after resize, crop, rescale and normalise; channels first",
    "pixel_mask": "1 where a pixel is of the image, 0 where it is padding",
    "logits": "raw scores before softmax or sigmoid",
    "cls_logits": "raw scores of the classification token's head",
    "distillation_logits": "raw scores of the distillation token's head",
    "last_hidden_state": "the last layer's output",
    "pooler_output": "the pooled last layer's output",
    "image_embeds": "one projected vector per image",
    "text_embeds": "one projected vector per text",
    "logits_per_image": "similarity of every image to every text, scaled",
    "logits_per_text": "similarity of every text to every image, scaled",
    "input_ids": "token ids of the text",
    "attention_mask": "1 for a token, 0 for padding",
    "pred_masks": "raw mask scores, a low-resolution picture per mask",
    "iou_scores": "how well the model thinks each mask fits",
    "reconstruction": "the reconstructed pixels",
}
"""What usual model inputs and outputs mean, for the card."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model with everything that an export needs to know of it.

    Args:
        source: Where the weights came from.
        task: The task that its architecture is for, such as `image-classification`.
        labels: Class names in id order; empty where it has no classes.
        preprocessing: The frozen settings of the checkpoint's image processor.
        module: A trackable TensorFlow object that owns every variable `call` uses.
        call: Features (`pixel_values` [b, 3, h, w]...) to the model's raw outputs under their own names.
        inputs: The inputs of the `model` signature, by name.
        config: The checkpoint's own configuration, `config.json` as a mapping; empty where it has none.
        files: Small text files of the checkpoint, by name, kept with the servable so that it can be verified later.
        dtype: What it computes in; inputs and outputs are float32 either way.
        native: The framework's own model object, such as a `TFViTForImageClassification`.
    """

    source: Source
    task: str
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    module: Any
    call: Callable[[Tensors], Tensors]
    inputs: Mapping[str, Tensor]
    config: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    dtype: str = "float32"
    native: Any = None
