"""Small random checkpoints of every TensorFlow vision class of transformers, saved as transformers saves real ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.signatures.checkpoints import save, seed, spread

LABELS = {index: f"kind {chr(ord('a') + index)}" for index in range(12)}
NAMED: dict[str, Any] = {"id2label": LABELS, "label2id": {label: index for index, label in LABELS.items()}}
TOWER: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
SQUARE = {"height": 32, "width": 32}


def _vit_processor() -> Any:
    from transformers import ViTImageProcessor

    return ViTImageProcessor(size=SQUARE)


def _convnext_processor() -> Any:
    from transformers import ConvNextImageProcessor

    return ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=0.875)


def _deit_processor() -> Any:
    from transformers import DeiTImageProcessor

    return DeiTImageProcessor(size={"height": 40, "width": 40}, crop_size=SQUARE)


def _beit_processor() -> Any:
    from transformers import BeitImageProcessor

    return BeitImageProcessor(size=SQUARE, do_center_crop=False)


def _mobilevit_processor() -> Any:
    from transformers import MobileViTImageProcessor

    return MobileViTImageProcessor(size={"shortest_edge": 104}, crop_size={"height": 96, "width": 96})


def _segformer_processor() -> Any:
    from transformers import SegformerImageProcessor

    return SegformerImageProcessor(size={"height": 64, "width": 64})


def _clip_processor() -> Any:
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SQUARE)


def _efficientformer_processor() -> Any:
    from transformers import EfficientFormerImageProcessor

    return EfficientFormerImageProcessor(size={"height": 72, "width": 72}, crop_size={"height": 64, "width": 64})


def _sam_processor() -> Any:
    from transformers import ViTImageProcessor

    return ViTImageProcessor(size={"height": 64, "width": 64})


def _configs() -> dict[str, tuple[str, dict[str, Any], Callable[[], Any]]]:
    """Name -> configuration class, its arguments, image processor."""
    stages = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32]}
    segformer = {
        "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4],
        "decoder_hidden_size": 16,
    }  # fmt: skip
    mobilevit = {
        "image_size": 32, "hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 24, 32, 32, 48],
        "num_attention_heads": 2, "aspp_out_channels": 16,
    }  # fmt: skip
    data2vec = {**TOWER, "use_mean_pooling": True, "out_indices": [0, 0, 1, 1]}
    swin = {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
    efficient = {
        "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 2], "dim": 32, "key_dim": 8, "num_attention_heads": 2,
        "resolution": 2, "mlp_expansion_ratio": 2,
    }  # fmt: skip
    group = {
        **TOWER, "depths": [1, 1, 1], "num_hidden_layers": 3, "num_group_tokens": [8, 4, 0],
        "num_output_groups": [8, 4, 4],
    }  # fmt: skip
    sam = {
        **TOWER, "image_size": 64, "output_channels": 16, "window_size": 3, "global_attn_indexes": [1], "mlp_dim": 64,
        "num_pos_feats": 8,
    }  # fmt: skip
    return {
        "ViT": ("ViTConfig", TOWER, _vit_processor),
        "DeiT": ("DeiTConfig", TOWER, _deit_processor),
        "ConvNext": ("ConvNextConfig", stages, _convnext_processor),
        "ConvNextV2": ("ConvNextV2Config", stages, _convnext_processor),
        "ResNet": ("ResNetConfig", {"embedding_size": 8, **stages}, _convnext_processor),
        "RegNet": ("RegNetConfig", {"embedding_size": 8, "groups_width": 4, **stages}, _convnext_processor),
        "Cvt": (
            "CvtConfig",
            {"embed_dim": [8, 16, 32], "num_heads": [1, 2, 2], "depth": [1, 2, 3], "image_size": 32},
            _convnext_processor,
        ),
        "Swin": ("SwinConfig", swin, _vit_processor),
        "SwiftFormer": (
            "SwiftFormerConfig",
            {"image_size": 32, "depths": [1, 1, 1, 1], "embed_dims": [8, 16, 24, 32]},
            _vit_processor,
        ),
        "MobileViT": ("MobileViTConfig", mobilevit, _mobilevit_processor),
        "Segformer": ("SegformerConfig", segformer, _segformer_processor),
        "Data2VecVision": ("Data2VecVisionConfig", data2vec, _beit_processor),
        "EfficientFormer": ("EfficientFormerConfig", efficient, _efficientformer_processor),
        # A masked autoencoder's features are of the whole image, as `sources.transformers` sets it.
        "ViTMAE": ("ViTMAEConfig", {**TOWER, "mask_ratio": 0.0}, _vit_processor),
        "CLIPVision": ("CLIPVisionConfig", TOWER, _clip_processor),
        "BlipVision": ("BlipVisionConfig", {**TOWER, "num_channels": 3, "initializer_range": 0.05}, _clip_processor),
        "GroupViTVision": ("GroupViTVisionConfig", group, _clip_processor),
        "SamVision": ("SamVisionConfig", sam, _sam_processor),
    }


CLASSIFIERS = (
    "ViT", "DeiT", "ConvNext", "ConvNextV2", "ResNet", "RegNet", "Cvt", "Swin", "SwiftFormer", "MobileViT", "Segformer",
    "Data2VecVision", "EfficientFormer",
)  # fmt: skip
GAINS = {
    "ViT": 3.0,
    "DeiT": 3.0,
    "Cvt": 3.0,
    "Swin": 3.0,
    "Data2VecVision": 2.0,
    "Segformer": 2.0,
    "ConvNext": 3.0,
    "CLIPVision": 3.0,
}
"""How much larger than usual the matrices are, so that answers differ clearly from image to image."""
SEGMENTERS = ("Segformer", "MobileViT", "Data2VecVision")


BODIES = (*CLASSIFIERS, "ViTMAE", "CLIPVision", "BlipVision", "GroupViTVision", "SamVision")


def make_architecture(family: str, head: str) -> tuple[Any, Any]:
    """A model and its image processor, such as `make_architecture("Swin", "ForImageClassification")`."""
    import transformers

    name, arguments, processor = _configs()[family]
    config = getattr(transformers, name)(**arguments, **NAMED)
    if hasattr(config, "use_auxiliary_head"):
        # Only training uses it; `sources.transformers` leaves it out too.
        config.use_auxiliary_head = False
    if head == "ForMaskedImageModeling":
        config.encoder_stride = 8 if family == "DeiT" else 4
    if family == "Data2VecVision" and head == "ForSemanticSegmentation":
        config.num_hidden_layers, config.out_indices = 4, [0, 1, 2, 3]
    seed()
    return spread(getattr(transformers, f"TF{family}{head}")(config), GAINS.get(family, 1.0)), processor()


def save_architecture(family: str, head: str, folder: Path) -> Path:
    """Writes a checkpoint of `make_architecture`."""
    model, processor = make_architecture(family, head)
    processor.save_pretrained(folder)
    return save(model, folder)
