from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from signatures.errors import UsageError
from signatures.tasks import zero_shot_image_classification as task
from tests.signatures import checkpoints

LABELS = ["a cat", "the sea, at night", "Photo of 2 cats!", "x", "naïve déjà vu"]
PROMPT = "a photo of {}"

MAKERS = {"clip": checkpoints.save_clip}


@pytest.fixture(scope="module", params=MAKERS)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    maker: Callable[[Path], Path] = MAKERS[request.param]
    return maker(tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def pipeline(checkpoint: Path) -> Any:
    import transformers

    cls = getattr(transformers, "TF" + transformers.AutoConfig.from_pretrained(checkpoint).architectures[0])
    return transformers.ZeroShotImageClassificationPipeline(
        model=cls.from_pretrained(checkpoint),
        image_processor=transformers.AutoImageProcessor.from_pretrained(checkpoint, use_fast=False),
        tokenizer=transformers.AutoTokenizer.from_pretrained(checkpoint),
        framework="tf",
    )


def same(answer: dict[str, Any], index: int, wanted: list[dict[str, Any]]) -> None:
    """The servable's answer for one image beside the pipeline's."""
    labels = [label.decode() for label in answer["labels"][index]]
    got = dict(zip(labels, answer["scores"][index], strict=True))
    assert {*got} == {each["label"] for each in wanted}
    for each in wanted:
        assert got[each["label"]] == pytest.approx(each["score"], abs=1e-4)
    assert list(got.values()) == sorted(got.values(), reverse=True)
    assert labels[0] == wanted[0]["label"]
    assert wanted[0]["score"] - wanted[-1]["score"] > 0.01  # the model does tell them apart


def test_labels_frozen_at_export(checkpoint: Path, pipeline: Any, tmp_path: Path) -> None:
    listed = tmp_path / "labels.txt"
    listed.write_text("\n".join(LABELS) + "\n")
    version, loaded = checkpoints.export(checkpoint, tmp_path / "base", labels=str(listed), prompt=PROMPT)
    encoded, images = checkpoints.pictures(3)
    answer = checkpoints.ask(loaded, image_bytes=encoded)
    for index, image in enumerate(images):
        same(answer, index, pipeline(image, candidate_labels=LABELS, hypothesis_template=PROMPT))
    assert set(loaded.signatures["serving_default"].structured_input_signature[1]) == {"image_bytes"}

    from signatures.spec import Card

    card = Card.read(version)
    assert card.options == {"labels": LABELS, "prompt": PROMPT}
    assert card.signatures["serving_default"].outputs["labels"].shape == (None, len(LABELS))


def test_labels_of_the_request(checkpoint: Path, pipeline: Any, tmp_path: Path) -> None:
    _, loaded = checkpoints.export(checkpoint, tmp_path)
    encoded, images = checkpoints.pictures(3)
    candidates = [LABELS[:3], ["x", "a cat", "y"], ["naïve déjà vu", "a cat", ""]]
    answer = checkpoints.ask(loaded, image_bytes=encoded, candidate_labels=candidates)
    same(answer, 0, pipeline(images[0], candidate_labels=candidates[0]))
    same(answer, 1, pipeline(images[1], candidate_labels=candidates[1]))
    # An empty label only fills up the batch.
    assert (answer["labels"][2, 2], answer["scores"][2, 2]) == (b"", 0.0)
    answer = {name: value[:, :2] for name, value in answer.items() if name != "error"}
    same(answer, 2, pipeline(images[2], candidate_labels=candidates[2][:2]))


def test_a_bad_image_leaves_its_neighbours_alone(checkpoint: Path, tmp_path: Path) -> None:
    _, loaded = checkpoints.export(checkpoint, tmp_path, labels=LABELS)
    encoded, _ = checkpoints.pictures(1)
    alone = checkpoints.ask(loaded, image_bytes=encoded)
    both = checkpoints.ask(loaded, image_bytes=[b"junk", *encoded])
    assert both["error"][0]
    assert not any(both["labels"][0])
    assert both["labels"][1].tolist() == alone["labels"][0].tolist()
    np.testing.assert_allclose(both["scores"][1], alone["scores"][0], atol=1e-6)


def test_a_prompt_needs_a_place_for_the_label(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="for the label"):
        checkpoints.export(checkpoint, tmp_path, labels=["a"], prompt="a photo")


def test_one_label_is_a_list_too() -> None:
    assert task.read("a,b") == ("a", "b")
    assert task.read("a, b\n") == ("a, b",)


def test_no_labels_at_all_is_no_score() -> None:
    import tensorflow as tf

    answer = task.ranked(tf.constant([["", ""]]), tf.constant([[1.0, 2.0]]))
    assert answer["scores"].numpy().tolist() == [[0.0, 0.0]]
