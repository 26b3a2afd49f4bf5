"""Every TensorFlow vision class of transformers, as the graph that an export would hold, beside its own pipeline.

Classes that read or write text are in the files of their tasks; the whole way through files is in `test_contract.py`.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from signatures.errors import UsageError
from tests.signatures import architectures, checkpoints
from tests.signatures.architectures import BODIES, CLASSIFIERS, SEGMENTERS

POOLED = {"ViT", "DeiT", "ConvNext", "ConvNextV2", "ResNet", "RegNet", "Swin", "MobileViT"}
POOLED |= {"CLIPVision", "BlipVision", "GroupViTVision"}
"""Families whose body has a pooler."""


def compare(family: str, end: str, task_name: str, several: list[dict[str, Any]]) -> dict[str, Any]:
    """Traces a model with the task under each of some options, and holds its answers to the pipeline's.

    Returns:
        The answers under the last options.
    """
    import tensorflow as tf

    from signatures.checkpoint import Checkpoint
    from signatures.preprocessing import Preprocessing
    from signatures.quiet import quiet_transformers
    from signatures.sources.transformers import wrap
    from signatures.spec import Source
    from signatures.tasks import TASKS, Request, settle
    from signatures.verify import difference

    native, processor = architectures.make_architecture(family, end)
    source = Source(model=family, revision=None, cls=type(native).__name__)
    model = wrap(native, task=task_name, preprocessing=Preprocessing(processor="x"), source=source, files={})
    task = TASKS[task_name]
    heads = [task.fit(model, settle(task, options)) for options in several]
    _, images = checkpoints.pictures(2)
    pixels = tf.concat([processor(image, return_tensors="tf")["pixel_values"] for image in images], 0)
    sizes = tf.constant([[image.height, image.width] for image in images])

    def run(pixel_values: Any, sizes: Any) -> list[Any]:
        features = heads[0].features({"pixel_values": pixel_values}, Request(inputs={}, sizes=sizes))
        raw = (heads[0].forward or model.call)(features)
        return [head.postprocess(raw, Request(inputs={}, sizes=sizes)) for head in heads]

    specs = [tf.TensorSpec([None, *pixels.shape[1:]]), tf.TensorSpec([None, 2], tf.int32)]
    try:
        graph = tf.function(run, autograph=False).get_concrete_function(*specs)
    except tf.errors.OperatorNotAllowedInGraphError:
        graph = tf.function(run).get_concrete_function(*specs)
    # What the graph reads and the module does not own could not be saved.
    assert {id(variable) for variable in graph.variables} <= {id(variable) for variable in model.module.weights}
    answers: list[dict[str, Any]] = graph(pixels, sizes)
    for head, answer in zip(heads, answers, strict=True):
        card = SimpleNamespace(options=head.options, source=SimpleNamespace(kind="transformers"))
        checkpoint: Any = Checkpoint(folder=Path(), native=native, image_processor=processor, card=card)  # type: ignore[arg-type]
        for index, image in enumerate(images):
            got = {key: value.numpy()[index] for key, value in answer.items()}
            assert task.reference is not None
            with quiet_transformers():
                want = task.reference(checkpoint, image, {})
            worst, agrees = (task.difference or difference)(got, want)
            assert worst <= 1e-4, (head.options, worst)
            assert agrees
    return {key: value.numpy() for key, value in answers[-1].items()}


@pytest.mark.parametrize(
    ("family", "end"),
    [
        *((family, "ForImageClassification") for family in CLASSIFIERS),
        ("DeiT", "ForImageClassificationWithTeacher"),
        ("EfficientFormer", "ForImageClassificationWithTeacher"),
    ],
)
def test_classifiers(family: str, end: str) -> None:
    answer = compare(family, end, "image-classification", [{}])
    assert answer["scores"].shape == (2, 5)
    assert np.ptp(answer["scores"]) > 1e-3, "the model does not tell classes apart"


@pytest.mark.parametrize("family", SEGMENTERS)
def test_segmenters(family: str) -> None:
    answer = compare(family, "ForSemanticSegmentation", "image-segmentation", [{}])
    if family != "MobileViT":  # One with random weights sees the same class everywhere.
        assert (answer["segment_ids"] >= 0).sum() > 2, "the model sees one class alone"


@pytest.mark.parametrize("family", BODIES)
def test_bodies(family: str) -> None:
    options = [{"pool": False}, *([{"pool": True}] if family in POOLED else [])]
    answer = compare(family, "Model", "image-feature-extraction", options)
    first, second = answer["embedding"]
    assert first.ndim == 1
    assert not np.allclose(first, second), "the model does not tell images apart"


@pytest.mark.parametrize("family", ["DeiT", "Swin"])
def test_models_that_restore_hidden_patches(family: str) -> None:
    """Their vector is the body's; the `model` signature takes the mask and gives the reconstruction."""
    import tensorflow as tf

    from signatures.preprocessing import Preprocessing
    from signatures.sources.transformers import task_of, wrap
    from signatures.spec import Source
    from signatures.tasks import TASKS, settle

    task = TASKS[task_of(f"{family}ForMaskedImageModeling", "a checkpoint")]
    assert task.name == "image-feature-extraction"
    compare(family, "ForMaskedImageModeling", task.name, [{}])
    native, _ = architectures.make_architecture(family, "ForMaskedImageModeling")
    source = Source(model=family, revision=None, cls=type(native).__name__)
    model = wrap(native, task=task.name, preprocessing=Preprocessing(processor="x"), source=source, files={})
    head = task.fit(model, settle(task, {}))
    assert head.forward is not None
    assert head.model_inputs is not None
    pixels = tf.random.stateless_uniform([2, 3, 32, 32], (0, 1))
    count = head.model_inputs["bool_masked_pos"].shape[1]
    hidden = tf.random.stateless_uniform([2, count], (0, 2)) > 0.5
    got = tf.function(head.forward)({"pixel_values": pixels, "bool_masked_pos": hidden})
    want = native(pixels, bool_masked_pos=hidden, training=False).reconstruction
    assert want.shape == (2, 3, 32, 32)
    np.testing.assert_allclose(got["reconstruction"], want, atol=1e-4)
    plain = native(pixels, training=False).reconstruction
    assert not np.allclose(plain, want, atol=1e-4), "the mask does nothing"


def test_a_body_without_pooler_says_so() -> None:
    with pytest.raises(UsageError, match=r"gives last_hidden_state, but not the pooler_output.*Leave --pool out"):
        compare("Segformer", "Model", "image-feature-extraction", [{"pool": True}])


def test_every_class_of_transformers_is_here() -> None:
    """Also says when another transformers has other classes."""
    import transformers

    names = {name for name in dir(transformers) if name.startswith("TF") and not name.startswith("TFAuto")}
    classifiers = {f"TF{family}ForImageClassification" for family in CLASSIFIERS}
    assert {name for name in names if name.endswith("ForImageClassification")} == classifiers
    segmenters = {f"TF{family}ForSemanticSegmentation" for family in SEGMENTERS}
    assert {name for name in names if name.endswith("ForSemanticSegmentation")} == segmenters
    towers = {name for name in names if name.endswith("VisionModel")} - {"TFData2VecVisionModel"}
    assert towers == {f"TF{family}Model" for family in BODIES if family.endswith("Vision")} - {"TFData2VecVisionModel"}
