from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from signatures import export as exporting
from signatures import sources
from signatures.base_path import latest
from signatures.errors import CheckFailed, UsageError, VitrinaError
from signatures.export import export, read_labels, write
from signatures.spec import Card


@pytest.fixture(scope="module")
def loaded(tiny_vit: Path) -> Any:
    return sources.load(str(tiny_vit))


def test_a_servable_is_laid_out_as_the_contract_says(
    tiny_servable: Path, tiny_vit: Path, tiny_labels: tuple[str, ...]
) -> None:
    version = latest(tiny_servable)
    assert [path.name for path in tiny_servable.iterdir()] == ["1"]
    assert {path.name for path in version.iterdir()} == {"saved_model.pb", "variables", "assets", "assets.extra"}
    card = json.loads((version / "assets.extra/servable.json").read_text())
    assert card["schema_version"] == 1
    assert card["task"] == "image-classification"
    assert card["labels"] == list(tiny_labels)
    assert card["source"] == {
        "model": str(tiny_vit),
        "revision": None,
        "class": "TFViTForImageClassification",
        "kind": "transformers",
    }
    assert {"tensorflow", "transformers", "pillow"} <= set(card["packages"])
    assert set(card["signatures"]) == {
        "serving_default", "preprocess", "pixels", "model", "from_examples", "classify",
    }  # fmt: skip
    assert card["signatures"]["serving_default"]["outputs"]["scores"] == {
        "dtype": "float32",
        "shape": [None, 5],
        "meaning": "softmax over all labels, best first",
    }
    assert card["options"]["top_k"] == 5
    assert card["sizes"]["graph_bytes"] == (version / "saved_model.pb").stat().st_size
    assert card["minimum_runtime"]
    assert card["parity"] == {}, "it was exported without verification"


def test_the_next_export_is_the_next_version_and_frozen_options_hold(loaded: Any, tmp_path: Path) -> None:
    import tensorflow as tf

    labels = [f"name {index}" for index in range(12)]
    card = write(loaded, tmp_path / "new", verify=False, top_k=2, labels=labels, description="two best")
    assert card == Card.read(tmp_path / "new")
    assert card.labels == tuple(labels)
    assert card.extra["description"] == "two best"
    answer = tf.saved_model.load(str(tmp_path / "new")).signatures["pixels"](pixels=tf.zeros([2, 7, 9, 3], tf.uint8))
    assert answer["labels"].shape == (2, 2)
    assert {label.decode() for label in answer["labels"].numpy().ravel()} <= set(labels)


def test_export_certifies_and_publishes(tiny_vit: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    version = export(str(tiny_vit), to=tmp_path / "deep/base", version=7, on_progress=lines.append)
    assert version == tmp_path / "deep/base/7"
    card = Card.read(version)
    assert card.parity["holds"] is True
    assert card.parity["grey_levels_max"] == 0
    assert card.parity["features_max"] <= 1e-6
    assert card.parity["output_max"] <= 1e-4
    assert card.parity["images"] >= 25
    assert lines[0].startswith("Loading")
    assert lines[-1] == f"Wrote {version}"
    with pytest.raises(UsageError, match="already has version 7"):
        export(str(tiny_vit), to=tmp_path / "deep/base", version=7)


def test_a_breach_of_parity_publishes_nothing(loaded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    skewed = dataclasses.replace(loaded.preprocessing, mean=(0.5, 0.5, 0.5))
    monkeypatch.setattr(exporting.sources, "load", lambda *_, **__: dataclasses.replace(loaded, preprocessing=skewed))
    with pytest.raises(CheckFailed, match=r"does not answer as its checkpoint does.*grey levels"):
        export("anything", to=tmp_path / "base")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ("/x/variables: No space left on device", "disk is full"),
        ("/x/saved_model.pb; Read-only file system", "may not be written"),
        ("something else\nentirely", "TensorFlow says: something else entirely"),
    ],
)
def test_a_disk_that_refuses_leaves_nothing_and_one_line(
    message: str, says: str, loaded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    def refuse(_: Any, folder: str, **__: Any) -> None:
        (Path(folder) / "half.pb").write_text("half")
        raise tf.errors.UnknownError(None, None, message)

    monkeypatch.setattr(tf.saved_model, "save", refuse)
    monkeypatch.setattr(exporting.sources, "load", lambda *_, **__: loaded)
    with pytest.raises(VitrinaError, match=says) as caught:
        export("anything", to=tmp_path / "base")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_is_said_before_anything_is_loaded(tiny_vit: Path, tmp_path: Path) -> None:
    with pytest.raises(LookupError, match=r"No task named 'image-clasification'\. Did you mean"):
        export(str(tiny_vit), to=tmp_path, task="image-clasification")
    with pytest.raises(UsageError, match="There is no folder"):
        export(str(tmp_path / "nowhere"), to=tmp_path / "base")
    with pytest.raises(UsageError, match="has no such option"):
        export(str(tiny_vit), to=tmp_path / "base", mask_size=3)
    assert list(tmp_path.iterdir()) == []


def test_labels_come_from_a_list_a_sequence_or_a_file(tmp_path: Path, loaded: Any) -> None:
    file = tmp_path / "labels.txt"
    file.write_text("a cat, sitting\nhund\n\n")
    assert read_labels(str(file)) == ("a cat, sitting", "hund")
    assert read_labels("a, b,c") == ("a", "b", "c")
    assert read_labels(["x", "y"]) == ("x", "y")
    assert read_labels("crane,owl,crane") == ("crane", "owl", "crane"), "ImageNet has two cranes"
    for wrong in ("", "a,,b"):
        with pytest.raises(UsageError):
            read_labels(wrong)
    with pytest.raises(UsageError, match=r"Got 2 labels, but .* has 12 classes"):
        write(loaded, tmp_path / "new", labels="a,b")
    assert not (tmp_path / "new").exists()


def test_a_model_of_another_size_than_its_images_is_refused_by_its_op(loaded: Any, tmp_path: Path) -> None:
    larger = dataclasses.replace(
        loaded.preprocessing, resize=dataclasses.replace(loaded.preprocessing.resize, width=48)
    )
    with pytest.raises(VitrinaError) as caught:
        write(dataclasses.replace(loaded, preprocessing=larger), tmp_path / "new", verify=False)
    told = str(caught.value)
    assert "cannot be exported: op AddV2 of layer embeddings (TFViTEmbeddings) in TFViTForImageClassification" in told
    assert "made for images of 32x32, but they are prepared as 32x48" in told
    assert "\n" not in told
    assert not (tmp_path / "new").exists()


def test_a_model_that_calls_python_is_refused_by_its_op(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would load nowhere but in the process that traced it."""
    from signatures.preprocessing import from_options

    (tmp_path / "calls_python.py").write_text(
        "import tensorflow as tf\n"
        "class Model(tf.Module):\n"
        "    def __call__(self, pixels):\n"
        "        means = tf.numpy_function(lambda x: x.mean((1, 2)), [pixels], tf.float32)\n"
        "        return tf.ensure_shape(means, [None, 3])\n"
        "def make():\n    return Model()\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"python:calls_python:make runs the op PyFunc.*calls back into Python"):
        export(
            "python:calls_python:make",
            to=tmp_path / "base",
            labels="a,b,c",
            preprocessing=from_options(size=8),
            verify=False,
        )
    assert not list((tmp_path / "base").glob("*"))
