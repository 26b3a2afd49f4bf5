"""Drawn shapes with their masks: images for a segmenter that need no download, and an untrained one to start from."""

from __future__ import annotations

import io
from pathlib import Path

from pipelines.files import write
from signatures.errors import MissingExtra

__all__ = ["CLASSES", "write_checkpoint", "write_images"]

CLASSES = ("ground", "disc", "box", "triangle")
COLOURS = ((190, 70, 60), (70, 180, 70), (70, 80, 190))
VARIETY = 40
SIDE = 48
SEED = 0
IGNORED = 255


def write_images(folder: Path, *, train: int = 160, held_out: int = 40, seed: int = SEED) -> None:
    """Writes `folder/{train,eval}/{images,masks}/*.png` and `folder/labels.txt`.

    Each image has up to three shapes of random place and size over a grey ground, with noise over all of it. A class
    has a colour of its own, but far from the same one in every image. The one-pixel rim of a shape counts for nothing.
    Every other mask is a palette PNG.

    Args:
        folder: Where to; created where it is missing. A file that is there with the same content is left alone.
        train: How many to train on.
        held_out: How many to hold out.
        seed: Other images for another seed.
    """
    import numpy as np

    random = np.random.default_rng(seed)
    for split, count in (("train", train), ("eval", held_out)):
        for number in range(count):
            image, mask = _draw(random, palette=number % 2 == 1)
            for kind, encoded in (("images", image), ("masks", mask)):
                write(folder / split / kind / f"{number:04d}.png", encoded)
    (folder / "labels.txt").write_text("\n".join(CLASSES) + "\n", encoding="utf-8")


def write_checkpoint(folder: Path, *, width: int = 16) -> None:
    """Saves an untrained SegFormer with its image processor, as a transformers checkpoint.

    Args:
        folder: Where to; nothing is done where it holds a checkpoint already.
        width: Channels of its first stage.

    Raises:
        MissingExtra: transformers is not installed.
    """
    if (folder / "preprocessor_config.json").is_file():
        return
    try:
        from transformers import SegformerConfig, SegformerImageProcessor, TFSegformerForSemanticSegmentation
    except ImportError as error:
        raise MissingExtra("transformers", "hub") from error
    import tf_keras

    tf_keras.utils.set_random_seed(SEED)
    config = SegformerConfig(
        num_encoder_blocks=3,
        depths=[1, 1, 1],
        hidden_sizes=[width, 2 * width, 4 * width],
        num_attention_heads=[1, 2, 4],
        sr_ratios=[4, 2, 1],
        patch_sizes=[3, 3, 3],
        strides=[2, 2, 2],
        mlp_ratios=[2, 2, 2],
        decoder_hidden_size=4 * width,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        classifier_dropout_prob=0.0,
        drop_path_rate=0.0,
        id2label=dict(enumerate(CLASSES)),
        label2id={name: number for number, name in enumerate(CLASSES)},
    )
    model = TFSegformerForSemanticSegmentation(config)
    model.build_in_name_scope()
    model.save_pretrained(folder)
    # Last, because it is what tells a whole checkpoint from half of one.
    SegformerImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)


def _draw(random: object, *, palette: bool) -> tuple[bytes, bytes]:
    """One image and its mask as PNGs."""
    import numpy as np
    from PIL import Image, ImageDraw

    assert isinstance(random, np.random.Generator)

    def near(colour: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(
            int(level + more) for level, more in zip(colour, random.integers(-VARIETY, VARIETY, 3), strict=True)
        )

    image = Image.new("RGB", (SIDE, SIDE), near((int(random.integers(60, 200)),) * 3))
    mask = Image.new("L", (SIDE, SIDE), 0)
    for _ in range(int(random.integers(1, 4))):
        kind = int(random.integers(1, len(CLASSES)))
        size = int(random.integers(SIDE // 5, SIDE // 2))
        left, top = (int(value) for value in random.integers(2, SIDE - size - 2, 2))
        for sheet, fill, rim in ((image, near(COLOURS[kind - 1]), None), (mask, kind, IGNORED)):
            pen = ImageDraw.Draw(sheet)
            where = [left, top, left + size, top + size]
            if kind == 1:
                pen.ellipse(where, fill=fill, outline=rim)
            elif kind == 2:
                pen.rectangle(where, fill=fill, outline=rim)
            else:
                corners = [(left, top + size), (left + size, top + size), (left + size // 2, top)]
                pen.polygon(corners, fill=fill, outline=rim)
    pixels = np.asarray(image).astype(np.int64) + random.integers(-12, 13, (SIDE, SIDE, 3))
    if palette:
        mask.putpalette([level for number in range(256) for level in (number * 67 % 256, number * 29 % 256, number)])
    return _png(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))), _png(mask)


def _png(image: object) -> bytes:
    from PIL import Image

    assert isinstance(image, Image.Image)
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    return encoded.getvalue()
