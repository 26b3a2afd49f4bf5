from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pipelines.examples import to_example
from signatures.errors import VitrinaError


def split_of(photos: list[bytes], folder: Path) -> Path:
    import tensorflow as tf

    folder.mkdir()
    with tf.io.TFRecordWriter(str(folder / "data.gz"), "GZIP") as writer:
        for number, photo in enumerate(photos):
            writer.write(to_example(photo, label=0, text="any", filename=str(number)).SerializeToString())
    return folder


def test_training_and_serving_see_the_same_pixels_and_a_change_is_seen(
    tiny_vit: Path, tiny_servable: Path, photos: list[bytes], tmp_path: Path
) -> None:
    from pipelines.skew import measure_skew

    split = split_of(photos, tmp_path / "split")
    skew = measure_skew(tiny_servable / "1", tiny_vit, split, limit=10)
    assert (skew.images, skew.pixels) == (len(photos), 0.0)
    assert skew.values < 1e-6
    assert skew.ok

    # A processor that was changed after the export, as a person might.
    changed = tmp_path / "changed"
    shutil.copytree(tiny_vit, changed)
    settings = json.loads((changed / "preprocessor_config.json").read_text())
    settings["image_mean"] = [0.5, 0.5, 0.5]
    (changed / "preprocessor_config.json").write_text(json.dumps(settings))
    skewed = measure_skew(tiny_servable / "1", changed, split, limit=10)
    assert skewed.pixels > 5
    assert not skewed.ok


def test_no_images(tiny_vit: Path, tiny_servable: Path, tmp_path: Path) -> None:
    from pipelines.skew import measure_skew

    with pytest.raises(VitrinaError, match="no images"):
        measure_skew(tiny_servable / "1", tiny_vit, split_of([], tmp_path / "split"), limit=10)
