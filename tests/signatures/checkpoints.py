"""Small random checkpoints of models that see and read or write, saved as transformers saves real ones."""

from __future__ import annotations

import io
import json
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = 32
"""Pixels a side that most of these models see."""


def seed(value: int = 0) -> None:
    import tf_keras

    tf_keras.utils.set_random_seed(value)


def spread(model: Any, gain: float = 1.0) -> Any:
    """Builds a model; `gain` above 1 spreads its matrices, so that answers differ clearly."""
    if not model.built:
        model.build_in_name_scope()
    for weight in model.weights if gain != 1.0 else []:
        if len(weight.shape) > 1 and weight.dtype.is_floating:
            weight.assign(weight * gain)
    return model


def save(model: Any, folder: Path, *, gain: float = 1.0) -> Path:
    """Saves a model after `spread`."""
    spread(model, gain)
    # transformers cannot write a TensorFlow scalar, such as BLIP's logit_scale, as safetensors.
    model.save_pretrained(folder, safe_serialization=all(len(weight.shape) for weight in model.weights))
    return folder


def pictures(count: int = 3) -> tuple[list[bytes], list[Image.Image]]:
    """Encoded pictures of different sizes, and as transformers reads them."""
    sizes = [(90, 120), (128, 64), (31, 200), (75, 75)]
    encoded, images = [], []
    for index in range(count):
        height, width = sizes[index]
        y, x = np.mgrid[0:height, 0:width]
        disc = ((x - width / 2) ** 2 + (y - height / 2) ** 2 < (min(height, width) / 3) ** 2) * 120
        noise = np.random.default_rng(index).integers(0, 90, (height, width, 3))
        image = Image.fromarray((noise + disc[..., None] + index * 10).astype(np.uint8))
        file = io.BytesIO()
        image.save(file, "PNG")
        encoded.append(file.getvalue())
        images.append(image)
    return encoded, images


def export(checkpoint: Path, base: Path, **options: Any) -> tuple[Path, Any]:
    """Exports without verifying; the version's folder and the loaded SavedModel."""
    import tensorflow as tf

    from signatures.export import export as write

    version = write(str(checkpoint), to=base, verify=False, **options)
    return version, tf.saved_model.load(str(version))


def ask(loaded: Any, signature: str = "serving_default", **inputs: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Calls a signature with NumPy or lists."""
    import tensorflow as tf

    function = loaded.signatures[signature]
    specs = function.structured_input_signature[1]
    answer = function(**{name: tf.constant(value, specs[name].dtype) for name, value in inputs.items()})
    return {name: value.numpy() for name, value in answer.items()}


def bound(
    checkpoint: Path, task_name: str | None = None, **options: Any
) -> Callable[..., dict[str, np.ndarray[Any, Any]]]:
    """A task bound to a checkpoint, as one graph from PIL images on: quicker than an export."""
    import tensorflow as tf
    from transformers import AutoImageProcessor

    from signatures import sources
    from signatures.tasks import TASKS, Request, settle

    model = sources.load(str(checkpoint), task=task_name)
    task = TASKS[model.task]
    head = task.fit(model, settle(task, options))
    processor = AutoImageProcessor.from_pretrained(checkpoint, use_fast=False)

    @tf.function(autograph=False)
    def run(features: Any, request: Any, sizes: Any) -> dict[str, Any]:
        asked = Request(inputs=request, sizes=sizes)
        features = head.features(features, asked)
        error = features.pop("error", tf.fill(tf.shape(sizes)[:1], ""))
        raw = (head.forward or model.call)(features)
        return {**head.postprocess(raw, asked), "error": error}

    def ask(images: list[Image.Image], **inputs: Any) -> dict[str, np.ndarray[Any, Any]]:
        outputs = run(
            {"pixel_values": tf.concat([processor(image, return_tensors="tf")["pixel_values"] for image in images], 0)},
            {name: tf.constant(value, head.inputs[name].dtype) for name, value in inputs.items()},
            tf.constant([[image.height, image.width] for image in images]),
        )
        return {name: value.numpy() for name, value in outputs.items()}

    return ask


def save_sam(folder: Path) -> Path:
    from transformers import SamConfig, SamImageProcessor, TFSamModel

    seed()
    config = SamConfig(
        vision_config={
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 64, "patch_size": 8,
            "output_channels": 16, "window_size": 3, "global_attn_indexes": [1], "mlp_dim": 64, "num_pos_feats": 8,
        },
        prompt_encoder_config={
            "hidden_size": 16, "image_size": 64, "patch_size": 8, "image_embedding_size": 8, "mask_input_channels": 4,
        },
        mask_decoder_config={
            "hidden_size": 16, "num_attention_heads": 2, "mlp_dim": 32, "iou_head_hidden_dim": 16,
        },
    )  # fmt: skip
    SamImageProcessor(
        size={"longest_edge": 64},
        pad_size={"height": 64, "width": 64},
        mask_size={"longest_edge": 16},
        mask_pad_size={"height": 16, "width": 16},
    ).save_pretrained(folder)
    return save(TFSamModel(config), folder)


def save_image_processor(folder: Path) -> None:
    """The plainest processor: both edges to `SIZE`."""
    from transformers import ViTImageProcessor

    ViTImageProcessor(size={"height": SIZE, "width": SIZE}).save_pretrained(folder)


def clip_tokenizer() -> Any:
    """CLIP's BPE over all bytes with a few merges; 519 ids."""
    import tempfile

    from transformers import CLIPTokenizerFast
    from transformers.models.clip.tokenization_clip import bytes_to_unicode

    merges = [("t", "h"), ("th", "e</w>"), ("p", "h"), ("o", "f</w>"), ("c", "a")]
    signs = list(bytes_to_unicode().values())
    tokens = [*signs, *(f"{sign}</w>" for sign in signs), *("".join(pair) for pair in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as name:
        vocab, rules = Path(name) / "vocab.json", Path(name) / "merges.txt"
        vocab.write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
        rules.write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges)]) + "\n")
        return CLIPTokenizerFast(str(vocab), str(rules), model_max_length=77)


def bert_tokenizer(**settings: Any) -> Any:
    """BERT's WordPiece over single letters and a few words; 0 is `[PAD]`."""
    import tempfile

    from transformers import BertTokenizerFast

    letters = string.ascii_lowercase + string.digits + ".,?!'"
    words = ["a", "photo", "##s", "the", "##ing", "cat", "what", "is", "this", "of"]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]", *letters]
    tokens += [f"##{letter}" for letter in string.ascii_lowercase + string.digits]
    tokens += [word for word in words if word not in tokens]
    with tempfile.TemporaryDirectory() as name:
        vocab = Path(name) / "vocab.txt"
        vocab.write_text("\n".join(tokens) + "\n")
        return BertTokenizerFast(str(vocab), model_max_length=64, **settings)


def save_clip(folder: Path) -> Path:
    from transformers import CLIPConfig, TFCLIPModel

    seed()
    tokenizer = clip_tokenizer()
    tower = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    config = CLIPConfig(
        text_config={
            **tower, "vocab_size": len(tokenizer), "max_position_embeddings": 77,
            "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={**tower, "image_size": SIZE, "patch_size": 8},
        projection_dim=24,
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    save_image_processor(folder)
    return save(TFCLIPModel(config), folder, gain=3.0)


def gpt2_tokenizer() -> Any:
    """GPT-2's BPE over all bytes with a few merges; 262 ids."""
    import tempfile

    from transformers import GPT2TokenizerFast
    from transformers.models.gpt2.tokenization_gpt2 import bytes_to_unicode

    merges = [("t", "h"), ("th", "e"), ("Ġ", "a"), ("i", "n"), ("e", "r")]
    tokens = [*bytes_to_unicode().values(), *("".join(pair) for pair in merges), "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as name:
        vocab, rules = Path(name) / "vocab.json", Path(name) / "merges.txt"
        vocab.write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
        rules.write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges)]) + "\n")
        return GPT2TokenizerFast(str(vocab), str(rules), model_max_length=64)


def blip_config(tokenizer: Any) -> Any:
    from transformers import BlipConfig

    tower = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    ids = {"bos": "[DEC]", "pad": "[PAD]", "sep": "[SEP]", "eos": "[ENC]"}
    return BlipConfig(
        text_config={
            **tower, "vocab_size": len(tokenizer), "encoder_hidden_size": 32, "max_position_embeddings": 64,
            "projection_dim": 24, **{f"{name}_token_id": tokenizer.vocab[token] for name, token in ids.items()},
        },
        # BLIP's own is nearly 0, and all images would be alike.
        vision_config={**tower, "image_size": SIZE, "patch_size": 8, "num_channels": 3, "initializer_range": 0.05},
        projection_dim=24,
    )  # fmt: skip


def save_blip(folder: Path, cls: str, *, gain: float = 4.0, **generation: Any) -> Path:
    """A BLIP of the given class with BERT's tokenizer, as BLIP's are saved: without token types."""
    import transformers

    seed()
    tokenizer = bert_tokenizer(model_input_names=["input_ids", "attention_mask"])
    model = getattr(transformers, cls)(blip_config(tokenizer))
    if generation:
        model.generation_config.update(**generation)
    tokenizer.save_pretrained(folder)
    save_image_processor(folder)
    return save(model, folder, gain=gain)


def save_captioner(folder: Path, decoder: str, *, gain: float = 3.0, **generation: Any) -> Path:
    """A ViT that tells a GPT-2 or BERT decoder what to write."""
    from transformers import (
        BertConfig,
        GPT2Config,
        TFVisionEncoderDecoderModel,
        VisionEncoderDecoderConfig,
        ViTConfig,
    )

    seed()
    vit = ViTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48, image_size=SIZE, patch_size=8
    )
    if decoder == "gpt2":
        tokenizer = gpt2_tokenizer()
        end = tokenizer.eos_token_id
        text = GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=64,
            n_embd=24,
            n_layer=2,
            n_head=4,
            bos_token_id=end,
            eos_token_id=end,
        )
        ids = {"decoder_start_token_id": end, "eos_token_id": end}
    else:
        tokenizer = bert_tokenizer()
        text = BertConfig(
            vocab_size=len(tokenizer), hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
            max_position_embeddings=64,
        )  # fmt: skip
        ids = {
            "decoder_start_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }  # fmt: skip
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(vit, text, **ids)
    model = TFVisionEncoderDecoderModel(config)
    model.generation_config.update(**ids, **generation)
    tokenizer.save_pretrained(folder)
    save_image_processor(folder)
    return save(model, folder, gain=gain)


def save_layoutlmv3(folder: Path, *, most: int = 48, gain: float = 6.0) -> Path:
    """A LayoutLMv3 whose spans hold `most` tokens, so that pages of a few lines need several."""
    import tempfile

    from transformers import LayoutLMv3Config, LayoutLMv3TokenizerFast, TFLayoutLMv3ForQuestionAnswering
    from transformers.models.gpt2.tokenization_gpt2 import bytes_to_unicode

    seed()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    merges = [("o", "t"), ("ot", "a"), ("Ġ", "t"), ("e", "r"), ("u", "e")]
    tokens = [*special, *bytes_to_unicode().values(), *("".join(pair) for pair in merges)]
    with tempfile.TemporaryDirectory() as name:
        vocab, rules = Path(name) / "vocab.json", Path(name) / "merges.txt"
        vocab.write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
        rules.write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges)]) + "\n")
        tokenizer = LayoutLMv3TokenizerFast(str(vocab), str(rules), model_max_length=most)
    config = LayoutLMv3Config(
        vocab_size=len(tokens), hidden_size=36, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=most + 2, coordinate_size=6, shape_size=6, input_size=SIZE, patch_size=8,
        rel_pos_bins=8, rel_2d_pos_bins=8, max_rel_pos=16, max_rel_2d_pos=32,
        bos_token_id=0, pad_token_id=1, eos_token_id=2,
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    save_image_processor(folder)
    return save(TFLayoutLMv3ForQuestionAnswering(config), folder, gain=gain)


def save_zero_shot_blip(folder: Path) -> Path:
    return save_blip(folder, "TFBlipModel", gain=3.0)


def save_groupvit(folder: Path) -> Path:
    import tensorflow as tf
    from transformers import GroupViTConfig, TFGroupViTModel

    seed()
    tokenizer = clip_tokenizer()
    config = GroupViTConfig(
        text_config={
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
            "vocab_size": len(tokenizer), "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={
            "hidden_size": 32, "depths": [1, 1, 1], "num_hidden_layers": 3, "num_group_tokens": [8, 4, 0],
            "num_output_groups": [8, 4, 4], "num_attention_heads": 4, "intermediate_size": 48, "image_size": SIZE,
            "patch_size": 8,
        },
        projection_dim=24,
        projection_intermediate_dim=48,
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    save_image_processor(folder)
    model = spread(TFGroupViTModel(config), 3.0)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if "group_token" in weight.name:  # They begin as zeros, and all groups would be alike.
            weight.assign(rng.normal(size=weight.shape))
    # What all groups have in common hides in which of them differ, so it is taken off.
    main = model.groupvit
    pixels = rng.normal(size=(4, 3, SIZE, SIZE)).astype(np.float32)
    common = model.get_image_features(tf.constant(pixels)).numpy().mean(0)
    main.visual_projection[-1].bias.assign_sub(common)
    return save(model, folder)


def save_dual_encoder(folder: Path) -> Path:
    """A ViT beside a BERT, which has token types."""
    from transformers import BertConfig, TFVisionTextDualEncoderModel, VisionTextDualEncoderConfig, ViTConfig

    seed()
    tokenizer = bert_tokenizer()
    tower = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    config = VisionTextDualEncoderConfig.from_vision_text_configs(
        ViTConfig(**tower, image_size=SIZE, patch_size=8),
        BertConfig(**tower, vocab_size=len(tokenizer), max_position_embeddings=64),
        projection_dim=24,
    )
    tokenizer.save_pretrained(folder)
    save_image_processor(folder)
    return save(TFVisionTextDualEncoderModel(config), folder, gain=3.0)
