"""Small random presets of KerasHub, saved as KerasHub saves real ones; all of it needs no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def keras_hub() -> Any:
    """KerasHub, or a skip that says that it is absent."""
    return pytest.importorskip("keras_hub", reason="keras-hub is not installed: pip install 'vitrina[hub]'")


def save_classifier(folder: Path, *, activation: str | None = None, **converter: Any) -> Any:
    """A ViT of 24 x 20 pixels and three classes with its image converter; the model that was saved."""
    hub = keras_hub()
    import keras

    keras.utils.set_random_seed(0)
    settings = {"image_size": (24, 20), "scale": [0.017, 0.0175, 0.0174], "offset": [-2.1, -2.0, -1.8], **converter}
    backbone = hub.models.ViTBackbone(
        image_shape=(24, 20, 3), patch_size=4, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=32
    )
    preprocessor = hub.models.ViTImageClassifierPreprocessor(image_converter=hub.layers.ViTImageConverter(**settings))
    model = hub.models.ViTImageClassifier(
        backbone=backbone, num_classes=3, preprocessor=preprocessor, activation=activation
    )
    model.save_to_preset(folder)
    return model


def save_backbone(folder: Path, **converter: Any) -> Any:
    """A VGG of any size with its image converter, and no classifier; the model that was saved."""
    hub = keras_hub()
    import keras

    keras.utils.set_random_seed(0)
    model = hub.models.VGGBackbone(stackwise_num_repeats=[1, 1], stackwise_num_filters=[4, 6])
    model.save_to_preset(folder)
    if converter:
        hub.layers.VGGImageConverter(**converter).save_to_preset(folder)
    return model
