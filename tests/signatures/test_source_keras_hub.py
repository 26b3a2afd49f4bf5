from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from signatures import sources
from signatures.errors import UsageError
from signatures.preprocessing import Preprocessing, from_options
from tests.signatures import presets

SIZES = [(1, 1), (1, 50), (50, 1), (31, 47), (47, 31), (24, 20), (200, 130), (9, 300)]


def picture(height: int, width: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3)).astype(np.uint8)


def prepared(settings: Preprocessing, image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """By the graph, from settings that went through the card."""
    import json

    import tensorflow as tf

    from signatures.processor import compile_processor

    frozen = Preprocessing.from_json(json.loads(json.dumps(settings.to_json())))
    values = tf.function(compile_processor(frozen), autograph=False)(tf.constant(image))["pixel_values"]
    return np.asarray(values)


@pytest.mark.parametrize(
    "converter",
    [
        {"image_size": (24, 20)},
        {"image_size": (24, 20), "crop_to_aspect_ratio": False, "scale": 1 / 255, "antialias": True},
        {"image_size": (16, 33), "crop_to_aspect_ratio": False, "pad_to_aspect_ratio": True, "offset": -1.0},
        {"image_size": (24, 20), "interpolation": "bicubic", "antialias": True, "scale": [0.1, 0.2, 0.3]},
        {"image_size": (24, 20), "interpolation": "bicubic", "scale": 0.0039, "offset": [-1.5, 2.0, 0.3]},
        {"image_size": (24, 20), "interpolation": "lanczos3", "antialias": True},
        {"image_size": (24, 20), "interpolation": "nearest", "scale": 1 / 127.5, "offset": -1},
        {"image_size": None, "scale": 1 / 255},
    ],
)
def test_converters_are_frozen_exactly(converter: dict[str, Any]) -> None:
    layer = presets.keras_hub().layers.ImageConverter(**converter)
    from signatures.sources._keras_layers import from_converter

    settings = from_converter(layer, "a preset")
    for size in SIZES:
        image = picture(*size)
        want = np.asarray(layer(image[None].astype(np.float32)))[0]
        np.testing.assert_array_equal(prepared(settings, image), want, err_msg=f"{size}")


def test_converters_that_cannot_be_are_refused_by_the_setting() -> None:
    layers = presets.keras_hub().layers
    from signatures.sources._keras_layers import from_converter

    class Inverted(layers.ImageConverter):  # type: ignore[misc, name-defined]
        def call(self, inputs: Any) -> Any:
            return 255 - super().call(inputs)

    for layer, says in [
        (Inverted(image_size=(8, 8)), "Inverted with a `call` of its own"),
        (layers.ImageConverter(image_size=(8, 8), data_format="channels_first"), "data_format channels_first"),
        (layers.ImageConverter(image_size=(8, 8), dtype="float16"), "dtype float16"),
        (layers.ImageConverter(image_size=(8, 8), scale=[1.0, 2.0]), r"scale \[1.0, 2.0\]"),
    ]:
        with pytest.raises(UsageError, match=f"a preset has a .*{says}.*--size"):
            from_converter(layer, "a preset")


def test_a_preset_answers_as_predict_does(tmp_path: Path) -> None:
    native = presets.save_classifier(tmp_path / "preset", antialias=True, activation="softmax")
    model = sources.load(f"keras_hub:{tmp_path / 'preset'}")
    assert (model.task, model.source.kind) == ("image-classification", "keras_hub")
    assert model.config["function_to_apply"] == "none"
    assert model.preprocessing.processor == "ViTImageConverter"
    image = picture(61, 40)
    (got,) = model.call({"pixel_values": prepared(model.preprocessing, image)[None]}).values()
    np.testing.assert_allclose(got, native.predict(image[None], verbose=0), atol=1e-6)

    with pytest.raises(UsageError, match=r"takes images of 24x20 .*gives 32x32.*--size 24"):
        sources.load(f"keras_hub:{tmp_path / 'preset'}", preprocessing=from_options(size=32))
    given = sources.load(f"keras_hub:{tmp_path / 'preset'}", preprocessing=from_options(size=(24, 20)))
    assert given.preprocessing.processor == "options"

    (tmp_path / "preset" / "task.weights.h5").unlink()
    with pytest.raises(UsageError, match="its head would be random"):
        sources.load(f"keras_hub:{tmp_path / 'preset'}")


def test_a_backbone_gives_features_and_no_classes(tmp_path: Path) -> None:
    import tensorflow as tf

    from signatures.tasks import TASKS, Request, settle

    native = presets.save_backbone(tmp_path / "preset", image_size=(32, 40), scale=1 / 255)
    name = f"keras_hub:{tmp_path / 'preset'}"
    model = sources.load(name)
    assert model.task == "image-feature-extraction"
    head = TASKS[model.task].fit(model, settle(TASKS[model.task], {}))
    pixels = prepared(model.preprocessing, picture(70, 60))[None]
    raw = model.call({"pixel_values": tf.constant(pixels)})
    embedding = head.postprocess(raw, Request(inputs={}, sizes=tf.constant([[70, 60]])))["embedding"]
    np.testing.assert_allclose(embedding, np.asarray(native(pixels)).mean((1, 2)), atol=1e-6)

    with pytest.raises(UsageError, match=r"whose head would be random.*--task image-feature-extraction"):
        sources.load(name, task="image-classification")
    (tmp_path / "preset" / "image_converter.json").unlink()
    with pytest.raises(UsageError, match="never guessed"):
        sources.load(name)


def test_presets_that_are_not_are_said(tmp_path: Path) -> None:
    presets.keras_hub()
    with pytest.raises(UsageError, match="There is no folder"):
        sources.load(f"keras_hub:{tmp_path / 'nowhere'}")
    with pytest.raises(UsageError, match="KerasHub cannot load"):
        sources.load(f"keras_hub:{tmp_path}")
    with pytest.raises(UsageError, match="versions within the handle"):
        sources.load(f"keras_hub:{tmp_path}", revision="2")
