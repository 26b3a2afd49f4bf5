from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from signatures import zero_shot
from signatures.errors import UsageError, VitrinaError
from signatures.spec import Card
from signatures.tasks import zero_shot_image_classification as task
from tests.signatures import checkpoints

LABELS = ["a cat", "the sea, at night", "Photo of 2 cats!", "x", "naïve déjà vu"]
PROMPT = "a photo of {}"

MAKERS = {
    "clip": checkpoints.save_clip,
    "blip": checkpoints.save_zero_shot_blip,
    "groupvit": checkpoints.save_groupvit,
    "dual": checkpoints.save_dual_encoder,
}


@pytest.fixture(scope="module", params=MAKERS)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    maker: Callable[[Path], Path] = MAKERS[request.param]
    return maker(tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.save_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def frozen(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """CLIP with labels from a file."""
    folder = tmp_path_factory.mktemp("frozen")
    (folder / "labels.txt").write_text("\n".join(LABELS) + "\n")
    return checkpoints.export(clip, folder / "base", labels=str(folder / "labels.txt"), prompt=PROMPT)


def pipeline(checkpoint: Path) -> Any:
    import transformers

    cls = getattr(transformers, "TF" + transformers.AutoConfig.from_pretrained(checkpoint).architectures[0])
    return transformers.ZeroShotImageClassificationPipeline(
        model=cls.from_pretrained(checkpoint),
        image_processor=transformers.AutoImageProcessor.from_pretrained(checkpoint, use_fast=False),
        tokenizer=transformers.AutoTokenizer.from_pretrained(checkpoint),
        framework="tf",
        device=-1,
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
    assert wanted[0]["score"] - wanted[-1]["score"] > 0.001  # the model does tell them apart


def test_labels_of_the_request(checkpoint: Path) -> None:
    _, images = checkpoints.pictures(3)
    candidates = [LABELS[:3], ["x", "a cat", "y"], ["naïve déjà vu", "a cat", ""]]
    answer = checkpoints.bound(checkpoint)(images, candidate_labels=candidates)
    asked = pipeline(checkpoint)
    same(answer, 0, asked(images[0], candidate_labels=candidates[0]))
    same(answer, 1, asked(images[1], candidate_labels=candidates[1]))
    # An empty label only fills up the batch.
    assert (answer["labels"][2, 2], answer["scores"][2, 2]) == (b"", 0.0)
    answer = {name: value[:, :2] for name, value in answer.items() if name != "error"}
    same(answer, 2, asked(images[2], candidate_labels=candidates[2][:2]))


def test_labels_frozen_in_every_model(checkpoint: Path) -> None:
    _, images = checkpoints.pictures(1)
    answer = checkpoints.bound(checkpoint, labels="a cat,x")(images)
    same(answer, 0, pipeline(checkpoint)(images[0], candidate_labels=["a cat", "x"]))


def test_labels_frozen_at_export(clip: Path, frozen: Any) -> None:
    version, loaded = frozen
    encoded, images = checkpoints.pictures(3)
    answer = checkpoints.ask(loaded, image_bytes=[*encoded, b"junk"])
    asked = pipeline(clip)
    for index, image in enumerate(images):
        same(answer, index, asked(image, candidate_labels=LABELS, hypothesis_template=PROMPT))
    assert answer["error"][3]
    assert not any(answer["labels"][3])
    assert set(loaded.signatures["serving_default"].structured_input_signature[1]) == {"image_bytes"}
    card = Card.read(version)
    assert card.options == {"labels": LABELS, "prompt": PROMPT}
    assert card.labels == tuple(LABELS)
    assert card.signatures["serving_default"].outputs["labels"].shape == (None, len(LABELS))


def test_a_label_that_is_too_long_leaves_its_neighbours_alone(clip: Path) -> None:
    _, images = checkpoints.pictures(2)
    inputs = [["a cat", "x" * 100], ["a cat", "x"]]
    ask = checkpoints.bound(clip)
    both = ask(images, candidate_labels=inputs)
    alone = ask(images[1:], candidate_labels=inputs[1:])
    assert b"more than the 77 tokens" in both["error"][0]
    assert both["error"][1] == b""
    np.testing.assert_allclose(both["scores"][1], alone["scores"][0], atol=1e-6)


def test_a_prompt_needs_a_place_for_the_label(clip: Path) -> None:
    for prompt in ("a photo", "{} and {}", "a {kind} {}"):
        with pytest.raises(UsageError, match="for the label"):
            checkpoints.bound(clip, labels="a", prompt=prompt)


def test_a_label_that_is_too_long_cannot_be_fixed(clip: Path) -> None:
    with pytest.raises(UsageError, match=r"reads 77. Shorten the labels.*'x{100}'"):
        checkpoints.bound(clip, labels=f"a,{'x' * 100}")


def test_a_class_that_cannot_compute_in_bfloat16_says_so(clip: Path) -> None:
    """CLIP's text tower of transformers adds a mask in float32."""
    from signatures import sources
    from signatures.build import build
    from signatures.tasks import TASKS

    model = sources.load(str(clip), dtype="bfloat16")
    with pytest.raises(VitrinaError, match=r"op AddV2 of layer self_attn .* export it in float32, without --dtype"):
        build(model, TASKS[model.task], {"labels": "a,b"})


def test_one_label_is_a_list_too() -> None:
    assert zero_shot.read("a,b") == ("a", "b")
    assert zero_shot.read("a, b\n") == ("a, b",)
    for wrong, says in ((" ,", "without a label"), ("a,b,a", "'a' more than once")):
        with pytest.raises(UsageError, match=says):
            zero_shot.read(wrong)


def test_no_labels_at_all_is_no_score() -> None:
    import tensorflow as tf

    answer = task.ranked(tf.constant([["", ""]]), tf.constant([[1.0, 2.0]]))
    assert answer["scores"].numpy().tolist() == [[0.0, 0.0]]
