"""The demo's images and its untrained checkpoint: small enough for a laptop, real all the same.

scikit-learn ships 1,797 scanned digits, 8x8 pixels in 17 grey levels, that 13 people wrote (E. Alpaydin, C. Kaynak:
Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998).
"""

from __future__ import annotations

import io
from pathlib import Path

from pipelines.files import write
from signatures.errors import MissingExtra

__all__ = ["HELD_OUT", "write_checkpoint", "write_images"]

#: Every n-th image of each class is held out.
HELD_OUT = 5
CLASSES = tuple(str(number) for number in range(10))
LEVELS = 16
SEED = 0


def write_images(folder: Path, *, limit: int | None = None) -> dict[str, int]:
    """Writes the digits as `folder/train/<digit>/*.png` and `folder/eval/<digit>/*.png`.

    A file that is already there with the same content is left alone, so that its time does not change.

    Args:
        folder: Where to; created where it is missing.
        limit: At most this many images per digit, train and eval together; None is all.

    Returns:
        How many images each split has.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    import numpy as np
    from PIL import Image

    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtra("sklearn", "demo") from error

    digits = load_digits()
    pixels = np.round(digits.images * (255 / LEVELS)).astype(np.uint8)
    seen = dict.fromkeys(range(10), 0)
    counts = {"train": 0, "eval": 0}
    for number, (image, digit) in enumerate(zip(pixels, digits.target, strict=True)):
        turn = seen[int(digit)]
        if limit is not None and turn >= limit:
            continue
        seen[int(digit)] += 1
        split = "eval" if turn % HELD_OUT == HELD_OUT - 1 else "train"
        counts[split] += 1
        encoded = io.BytesIO()
        Image.fromarray(image).save(encoded, "PNG")
        write(folder / split / str(digit) / f"{number:04d}.png", encoded.getvalue())
    return counts


def write_checkpoint(folder: Path, *, image_size: int = 16, hidden_size: int = 96, layers: int = 4) -> None:
    """Saves an untrained ViT for the ten digits, with its image processor, as a transformers checkpoint.

    Args:
        folder: Where to; nothing is done where it holds a checkpoint already.
        image_size: In pixels; four patches a side.
        hidden_size: The width of a token.
        layers: How many.

    Raises:
        MissingExtra: transformers is not installed.
    """
    if (folder / "preprocessor_config.json").is_file():
        return
    try:
        from transformers import TFViTForImageClassification, ViTConfig, ViTImageProcessor
    except ImportError as error:
        raise MissingExtra("transformers", "hub") from error
    import tf_keras

    tf_keras.utils.set_random_seed(SEED)
    config = ViTConfig(
        image_size=image_size,
        patch_size=image_size // 4,
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * hidden_size,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label=dict(enumerate(CLASSES)),
        label2id={name: number for number, name in enumerate(CLASSES)},
    )
    model = TFViTForImageClassification(config)
    model(model.dummy_inputs)
    model.save_pretrained(folder)
    # Last, because it is what tells a whole checkpoint from half of one.
    ViTImageProcessor(size={"height": image_size, "width": image_size}).save_pretrained(folder)
