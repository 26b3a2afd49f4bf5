"""Writes a small ViT checkpoint and two photographs, so that the tour in README.md runs without a network.

    python examples/checkpoint.py FOLDER

The weights are random: what it answers means nothing, how it answers is what any ViT's servable does.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

LABELS = ("tabby cat", "sunflower", "pagoda", "teapot", "lighthouse", "bicycle")


def main(folder: Path) -> None:
    import sklearn.datasets
    import tf_keras
    from transformers import TFViTForImageClassification, ViTConfig, ViTImageProcessor

    tf_keras.utils.set_random_seed(7)
    config = ViTConfig(
        image_size=64,
        patch_size=8,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
    )
    model = TFViTForImageClassification(config)
    model(model.dummy_inputs)  # weights exist once it has been called
    model.save_pretrained(folder / "checkpoint")
    ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder / "checkpoint")
    photographs = Path(sklearn.datasets.__file__).parent / "images"
    for name in ("china.jpg", "flower.jpg"):
        shutil.copyfile(photographs / name, folder / name)
    print(f"{folder}: checkpoint/ china.jpg flower.jpg")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/checkpoint.py FOLDER")
    main(Path(sys.argv[1]))
