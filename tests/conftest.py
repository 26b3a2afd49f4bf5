"""Fixtures that several test files share: tiny checkpoints, one exported servable, real photographs."""

from __future__ import annotations

import gc
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Graphs are millions of objects, and looking through them as often as Python does takes a tenth of the run.
gc.set_threshold(100_000, 20, 20)
# The same examples in every run; `benchmarks/fuzz.py` looks for new ones.
settings.register_profile("same", derandomize=True)
settings.load_profile("same")

TINY_LABELS = tuple(f"kind {chr(ord('a') + index)}" for index in range(12))
"""Labels in id order."""


def save_tiny_vit(folder: Path, *, seed: int = 0) -> Path:
    """Writes a checkpoint of a small ViT whose answers differ clearly from image to image."""
    import tf_keras
    from transformers import TFViTForImageClassification, ViTConfig, ViTImageProcessor

    tf_keras.utils.set_random_seed(seed)
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
        id2label=dict(enumerate(TINY_LABELS)),
        label2id={label: index for index, label in enumerate(TINY_LABELS)},
    )
    model = TFViTForImageClassification(config)
    model(model.dummy_inputs)
    kernel = model.classifier.kernel
    kernel.assign(kernel * 20.0)
    model.save_pretrained(folder, safe_serialization=True)
    ViTImageProcessor(
        size={"height": 32, "width": 32}, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]
    ).save_pretrained(folder)
    # Hub checkpoints list their labels by the keys' spelling: 0, 1, 10, 11, 2...
    config_file = folder / "config.json"
    saved = json.loads(config_file.read_text())
    saved["id2label"] = dict(sorted(saved["id2label"].items()))
    config_file.write_text(json.dumps(saved, indent=2))
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, each file's tests together."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(scope="session")
def tiny_labels() -> tuple[str, ...]:
    """The labels of `tiny_vit`, in id order."""
    return TINY_LABELS


@pytest.fixture(scope="session")
def tiny_vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformers checkpoint folder: TFViTForImageClassification, 32 pixels, 12 labels, image processor."""
    return save_tiny_vit(tmp_path_factory.mktemp("checkpoints") / "tiny-vit")


@pytest.fixture(scope="session")
def tiny_servable(tiny_vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base path with version 1 of `tiny_vit`. Do not write into it; copy it first."""
    from signatures.export import export

    base = tmp_path_factory.mktemp("models") / "tiny"
    export(str(tiny_vit), to=base, verify=False)
    return base


@pytest.fixture(scope="session")
def photos() -> list[bytes]:
    """Real pictures as encoded files: two JPEG photographs of 640x427, a PNG and a grayscale PNG."""
    import skimage.data
    import sklearn.datasets
    from PIL import Image

    folder = Path(sklearn.datasets.__file__).parent / "images"
    encoded = [(folder / name).read_bytes() for name in ("china.jpg", "flower.jpg")]
    for pixels in (skimage.data.astronaut()[::2, ::3], skimage.data.camera()[::4, ::3]):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    return encoded


@pytest.fixture(scope="session")
def served(tiny_servable: Path) -> Iterator[dict[str, str]]:
    """The targets of `tiny_servable`: `path` in this process, `grpc` and `http` on the embedded server."""
    from serving.flags import parse
    from serving.server import Server, free_port

    flags = [f"--port={free_port()}", f"--rest_api_port={free_port()}"]
    server = Server(parse([*flags, "--model_name=tiny", f"--model_base_path={tiny_servable}"]))
    server.start(timeout=300)
    yield {
        "path": str(tiny_servable),
        "grpc": f"grpc://localhost:{server.ports.grpc}/tiny",
        "http": f"http://localhost:{server.ports.rest}/tiny",
    }
    server.stop()
