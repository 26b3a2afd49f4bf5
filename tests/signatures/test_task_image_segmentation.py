"""What `test_architectures.py` leaves open: labels in free words, Keras models, and options."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from signatures.errors import UsageError
from signatures.tasks import Request, settle
from signatures.tasks.image_segmentation import TASK, segments
from tests.signatures import checkpoints

LABELS = ["a cat", "the sea, at night", "Photo of 2 cats!", "x", "na\u00efve d\u00e9j\u00e0 vu"]


@pytest.fixture(scope="module")
def groupvit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.save_groupvit(tmp_path_factory.mktemp("groupvit"))


def classes(groupvit: Path, image: Image.Image, labels: list[str], prompt: str) -> np.ndarray[Any, Any]:
    """What transformers' own `segmentation_logits` say of every pixel."""
    import tensorflow as tf
    from transformers import AutoImageProcessor, AutoTokenizer, TFGroupViTModel

    asked = AutoTokenizer.from_pretrained(groupvit)(
        [prompt.format(label) for label in labels], padding=True, return_tensors="tf"
    )
    seen = AutoImageProcessor.from_pretrained(groupvit, use_fast=False)(image, return_tensors="tf")
    scores = TFGroupViTModel.from_pretrained(groupvit)(**asked, **seen, output_segmentation=True).segmentation_logits
    resized = tf.image.resize(tf.transpose(scores, [0, 2, 3, 1]), (image.height, image.width))
    return np.asarray(tf.argmax(resized[0], -1))


def mask(answer: dict[str, Any], index: int) -> np.ndarray[Any, Any]:
    """One image's mask, after the other outputs were held to it."""
    ids = np.asarray(Image.open(io.BytesIO(answer["mask_bytes"][index])))
    listed = [id for id in answer["segment_ids"][index] if id >= 0]
    assert listed == np.unique(ids).tolist()
    shares = [(ids == id).mean() for id in listed]
    np.testing.assert_allclose(answer["segment_areas"][index, : len(listed)], shares, atol=1e-6)
    assert answer["segment_scores"][index, : len(listed)].tolist() == [1.0] * len(listed)
    return ids


def test_labels_in_free_words_fixed_at_export(groupvit: Path) -> None:
    _, images = checkpoints.pictures(3)
    ask = checkpoints.bound(groupvit, "image-segmentation", labels="\n".join(LABELS), prompt="a {} here")
    answer = ask(images)
    seen = set()
    for index, image in enumerate(images):
        found = mask(answer, index)
        assert (found == classes(groupvit, image, LABELS, "a {} here")).mean() > 0.9999
        ids = [id for id in answer["segment_ids"][index] if id >= 0]
        assert [name.decode() for name in answer["segment_labels"][index][: len(ids)]] == [LABELS[id] for id in ids]
        seen |= set(ids)
    assert len(seen) > 1, "the model sees one label alone"


def test_labels_in_free_words_with_the_request(groupvit: Path) -> None:
    """Each image with its own; an empty one only fills up the batch."""
    _, images = checkpoints.pictures(3)
    asked = [LABELS, ["a dog", LABELS[2], "a tree", LABELS[1], LABELS[0]], [LABELS[1], LABELS[0], "", "", ""]]
    answer = checkpoints.bound(groupvit, "image-segmentation")(images, candidate_labels=asked)
    for index, image in enumerate(images):
        labels = [label for label in asked[index] if label]
        want = classes(groupvit, image, labels, "This is a photo of {}.")
        assert (mask(answer, index) == want).mean() > 0.9999
        assert all(name.decode() in [*labels, ""] for name in answer["segment_labels"][index])


def fitted(names: tuple[str, ...], data_format: str = "channels_last", **options: Any) -> Any:
    """The task bound to a model of Keras."""
    model: Any = SimpleNamespace(
        labels=names,
        config={},
        source=SimpleNamespace(model="a model", cls="keras.Model"),
        preprocessing=SimpleNamespace(data_format=data_format),
    )
    return TASK.fit(model, settle(TASK, options))


@pytest.mark.parametrize("count", [2, 300])
def test_a_model_of_keras(count: int) -> None:
    """Its scores have their channels last; a mask with more than 256 ids has 16 bits."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    wanted = rng.integers(0, count, (1, 12, 9))
    wanted[0, 0, 0] = count - 1
    scores = np.eye(count, dtype=np.float32)[wanted]
    head = fitted((), labels=",".join(f"l{index}" for index in range(count)))
    assert head.labels == tuple(f"l{index}" for index in range(count))
    request = Request(inputs={}, sizes=tf.constant([[12, 9]]))
    answer = {key: value.numpy() for key, value in head.postprocess({"output": tf.constant(scores)}, request).items()}
    np.testing.assert_array_equal(mask(answer, 0), wanted[0])
    assert answer["mask_bytes"][0][24] == (8 if count <= 256 else 16), "the PNG's bit depth"
    with pytest.raises(UsageError, match=rf"has {count} classes, but 1 labels"):
        fitted(("a",)).postprocess({"logits": tf.constant(scores)}, request)
    with pytest.raises(UsageError, match="scores of 2 axes"):
        fitted(("a",)).postprocess({"logits": tf.constant(scores[0, 0])}, request)


def test_what_another_kind_of_segmentation_wants_is_checked() -> None:
    fitted(("a",), subtask="semantic", threshold=0.9, mask_threshold=0.5, overlap_mask_area_threshold=0.5)
    with pytest.raises(UsageError, match="--subtask panoptic"):
        fitted(("a",), subtask="panoptic")
    with pytest.raises(UsageError, match=r"--mask-threshold 2\.0, but it is a share"):
        fitted(("a",), mask_threshold=2.0)
    with pytest.raises(UsageError, match="has classes of its own"):
        fitted(("a",), prompt="a {}")
    with pytest.raises(UsageError, match=r"one per class\. Pass --labels"):
        fitted(())


def test_ids_that_batches_fill_up() -> None:
    import tensorflow as tf

    scores = tf.constant([[[[1.0, 0.0]], [[0.0, 1.0]]], [[[0.0, 0.0]], [[1.0, 1.0]]]])
    answer = segments(scores, tf.constant([[1, 2], [1, 2]]), tf.constant(["a", "b"]))
    assert answer["segment_ids"].numpy().tolist() == [[0, 1], [1, -1]]
    assert answer["segment_labels"].numpy().tolist() == [[b"a", b"b"], [b"b", b""]]
    assert answer["segment_areas"].numpy().tolist() == [[0.5, 0.5], [1.0, 0.0]]
