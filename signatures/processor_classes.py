"""The image-processor classes of transformers that are known here: what each reads from its file. Plain data.

To add one, add an entry to `CLASSES` with the settings that the class's `__init__` takes and their defaults, and say
how it reads `size`. A test runs every entry beside transformers' own class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["CLASSES", "IGNORED", "MODEL_TYPES", "ProcessorClass"]

_IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
_STANDARD = ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])
_CLIP = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])

_NEAREST, _BILINEAR, _BICUBIC = 0, 2, 3


@dataclass(frozen=True, kw_only=True)
class ProcessorClass:
    """One class.

    Args:
        size: How it reads `size`: `exact` wants height and width; `shortest_edge` takes a bare number for the shorter
            edge, and height and width as well; `convnext` wants the shorter edge, and below 384 resizes larger by
            `crop_pct` and crops; `levit` resizes the shorter edge larger by 256/224; `longest_edge` wants that.
        settings: Every setting that it reads, with its default. None of the others changes a pixel.
        outputs: What it returns.
    """

    size: str
    settings: Mapping[str, Any]
    outputs: tuple[str, ...] = ("pixel_values",)


def _settings(
    size: Any, resample: int, colors: tuple[list[float], list[float]] | None, crop: int | None = None, **more: Any
) -> dict[str, Any]:
    settings = {"do_resize": True, "size": size, "resample": resample, "do_rescale": True, "rescale_factor": 1 / 255}
    if colors is not None:
        settings |= {"do_normalize": True, "image_mean": colors[0], "image_std": colors[1]}
    if crop is not None:
        settings |= {"do_center_crop": True, "crop_size": {"height": crop, "width": crop}}
    return settings | more


def _square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


def _shortest(side: int) -> dict[str, int]:
    return {"shortest_edge": side}


_CLIP_LIKE = ProcessorClass(
    size="shortest_edge", settings=_settings(_shortest(224), _BICUBIC, _CLIP, 224, use_square_size=False)
)
_MOBILENET = ProcessorClass(size="shortest_edge", settings=_settings(_shortest(256), _BILINEAR, _STANDARD, 224))

CLASSES: dict[str, ProcessorClass] = {
    "BeitImageProcessor": ProcessorClass(size="exact", settings=_settings(_square(256), _BICUBIC, _STANDARD, 224)),
    "BitImageProcessor": ProcessorClass(size="shortest_edge", settings=_settings(_shortest(224), _BICUBIC, _CLIP, 224)),
    "BlipImageProcessor": ProcessorClass(size="exact", settings=_settings(_square(384), _BICUBIC, _CLIP)),
    "CLIPImageProcessor": _CLIP_LIKE,
    "ConvNextImageProcessor": ProcessorClass(
        size="convnext", settings=_settings(_shortest(384), _BILINEAR, _STANDARD, crop_pct=224 / 256)
    ),
    "DeiTImageProcessor": ProcessorClass(size="exact", settings=_settings(_square(256), _BICUBIC, _STANDARD, 224)),
    "EfficientFormerImageProcessor": ProcessorClass(
        size="exact_or_shortest_edge", settings=_settings(_square(224), _BICUBIC, _IMAGENET, 224)
    ),
    "EfficientNetImageProcessor": ProcessorClass(
        size="exact",
        settings=_settings(_square(346), _NEAREST, _STANDARD, 289, rescale_offset=False, include_top=True)
        | {"do_center_crop": False},
    ),
    # Its text recognition gives words and boxes, which a servable takes as inputs; the pixels are the same without.
    "LayoutLMv3ImageProcessor": ProcessorClass(
        size="exact",
        settings={k: v for k, v in _settings(_square(224), _BILINEAR, _STANDARD).items() if k != "rescale_factor"}
        | {"rescale_value": 1 / 255},
    ),
    "LevitImageProcessor": ProcessorClass(size="levit", settings=_settings(_shortest(224), _BICUBIC, _IMAGENET, 224)),
    "MobileNetV1ImageProcessor": _MOBILENET,
    "MobileNetV2ImageProcessor": _MOBILENET,
    "MobileViTImageProcessor": ProcessorClass(
        size="shortest_edge",
        settings=_settings(_shortest(224), _BILINEAR, None, 256, do_flip_channel_order=True),
    ),
    "PvtImageProcessor": ProcessorClass(size="exact", settings=_settings(_square(224), _BILINEAR, _IMAGENET)),
    "SamImageProcessor": ProcessorClass(
        size="longest_edge",
        settings=_settings({"longest_edge": 1024}, _BILINEAR, _IMAGENET, do_pad=True, pad_size=_square(1024)),
        outputs=("pixel_values", "original_sizes", "reshaped_input_sizes"),
    ),
    "SegformerImageProcessor": ProcessorClass(size="exact", settings=_settings(_square(512), _BILINEAR, _IMAGENET)),
    "SiglipImageProcessor": ProcessorClass(size="exact", settings=_settings(_square(224), _BICUBIC, _STANDARD)),
    "ViTImageProcessor": ProcessorClass(size="exact", settings=_settings(_square(224), _BILINEAR, _STANDARD)),
}

IGNORED: frozenset[str] = frozenset(
    {
        # Names and book-keeping.
        *("image_processor_type", "feature_extractor_type", "processor_class", "auto_map", "_valid_processor_keys"),
        *("_processor_class", "transformers_version", "name_or_path"),
        # How arrays are handed over: here they are always upright RGB, and come back channels first.
        *("do_convert_rgb", "data_format", "input_data_format", "return_tensors", "device", "disable_grouping"),
        *("default_to_square",),
        # Training labels.
        *("do_reduce_labels", "reduce_labels", "mask_size", "mask_pad_size"),
        # Text recognition.
        *("apply_ocr", "ocr_lang", "tesseract_config"),
    }
)
"""Settings that change no pixel in any of these classes."""

MODEL_TYPES: dict[str, str] = {
    "beit": "BeitImageProcessor",
    "blip": "BlipImageProcessor",
    "clip": "CLIPImageProcessor",
    "convnext": "ConvNextImageProcessor",
    "convnextv2": "ConvNextImageProcessor",
    "cvt": "ConvNextImageProcessor",
    "data2vec-vision": "BeitImageProcessor",
    "deit": "DeiTImageProcessor",
    "efficientformer": "EfficientFormerImageProcessor",
    "groupvit": "CLIPImageProcessor",
    "layoutlmv3": "LayoutLMv3ImageProcessor",
    "mobilevit": "MobileViTImageProcessor",
    "regnet": "ConvNextImageProcessor",
    "resnet": "ConvNextImageProcessor",
    "sam": "SamImageProcessor",
    "segformer": "SegformerImageProcessor",
    "swiftformer": "ViTImageProcessor",
    "swin": "ViTImageProcessor",
    "vit": "ViTImageProcessor",
    "vit_mae": "ViTImageProcessor",
}
"""The class for a checkpoint whose file names none, by the `model_type` of its `config.json`."""
