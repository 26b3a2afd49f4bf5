from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import signatures.tasks
from signatures.errors import UsageError
from signatures.tasks import TASKS, UnknownTask, settle
from signatures.tasks.image_classification import TASK, best


def test_every_file_is_a_task_of_its_own_name() -> None:
    files = {path.stem for path in Path(signatures.tasks.__file__).parent.glob("*.py") if path.stem[0] != "_"}
    assert {name.replace("-", "_") for name in TASKS} == files
    for name, task in TASKS.items():
        assert task.name == name
        assert task.summary.endswith(".")
        assert task.outputs
        assert all(tensor.meaning for tensor in [*task.inputs.values(), *task.outputs.values()])
        assert all(option.meaning for option in task.options.values())


def test_an_unknown_task_says_how_to_add_one() -> None:
    with pytest.raises(LookupError) as caught:
        TASKS["image_clasification"]
    assert str(caught.value) == (
        "No task named 'image_clasification'. Did you mean 'image-classification'? "
        "To add one, write signatures/tasks/image_clasification.py."
    )
    assert isinstance(caught.value, UsageError)
    assert caught.value.exit_code == 2
    assert "nonsense" not in TASKS
    with pytest.raises(UnknownTask):
        TASKS["../errors"]


def test_settle_fills_defaults_and_refuses_what_the_task_does_not_know() -> None:
    assert settle(TASK, {"top_k": 3, "function_to_apply": None}) == {"top_k": 3, "function_to_apply": None}
    with pytest.raises(UsageError, match=r"--mask-size, but image-classification has no such option.*--top-k"):
        settle(TASK, {"mask_size": 1})
    for wrong in ("3", 2.5, True):
        with pytest.raises(UsageError, match="wants int"):
            settle(TASK, {"top_k": wrong})


def classifier(labels: int, **config: object) -> SimpleNamespace:
    names = tuple(f"l{index}" for index in range(labels))
    return SimpleNamespace(
        labels=names, config={"model_type": "vit", **config}, source=SimpleNamespace(model="a checkpoint")
    )


@pytest.mark.parametrize(
    ("labels", "config", "function"),
    [
        (3, {}, "softmax"),
        (3, {"problem_type": "single_label_classification"}, "softmax"),
        (3, {"problem_type": "multi_label_classification"}, "sigmoid"),
        (1, {}, "sigmoid"),
    ],
)
def test_scores_follow_the_pipelines_choice(labels: int, config: dict[str, str], function: str) -> None:
    head = TASK.fit(classifier(labels, **config), settle(TASK, {}))
    assert head.options == {"top_k": min(5, labels), "function_to_apply": function}
    assert head.outputs["scores"].shape == (None, min(5, labels))


def test_options_are_checked_against_the_model() -> None:
    assert TASK.fit(classifier(3), settle(TASK, {"top_k": 99})).options["top_k"] == 3
    with pytest.raises(UsageError, match="--top-k 0"):
        TASK.fit(classifier(3), settle(TASK, {"top_k": 0}))
    with pytest.raises(UsageError, match="one of softmax, sigmoid, none"):
        TASK.fit(classifier(3), settle(TASK, {"function_to_apply": "relu"}))
    with pytest.raises(UsageError, match="names no labels"):
        TASK.fit(classifier(0), settle(TASK, {}))


def test_there_is_a_score_for_every_label() -> None:
    """But a binary classifier's only one is of its second label, and the first gets what is left."""
    import tensorflow as tf

    binary = SimpleNamespace(
        labels=("cat", "dog"), config={"function_to_apply": "none"}, source=SimpleNamespace(model="a model")
    )
    head = TASK.fit(binary, settle(TASK, {}))
    answer = head.postprocess({"output": tf.constant([[0.75], [0.25]])}, None)
    assert answer["labels"].numpy().tolist() == [[b"dog", b"cat"], [b"cat", b"dog"]]
    assert answer["scores"].numpy().tolist() == [[0.75, 0.25], [0.75, 0.25]]
    head = TASK.fit(binary, settle(TASK, {"function_to_apply": "sigmoid"}))
    scores = head.postprocess({"output": tf.constant([[2.0]])}, None)["scores"].numpy()
    np.testing.assert_allclose(scores, [[1 / (1 + np.exp(-2)), 1 / (1 + np.exp(2))]], atol=1e-6)
    for shape, says in (((1, 3), "gives 3 scores, but there are 2 labels"), ((1, 2, 2), "scores of 3 axes")):
        with pytest.raises(UsageError, match=says):
            head.postprocess({"output": tf.zeros(shape)}, None)


def test_equal_scores_keep_the_order_of_their_ids() -> None:
    import tensorflow as tf

    logits = tf.constant([[1.0, 2.0, 2.0, 0.0, 2.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    answer = best(logits, ("a", "b", "c", "d", "e"), 4, "none")
    assert answer["labels"].numpy().tolist() == [[b"b", b"c", b"e", b"a"], [b"a", b"b", b"c", b"d"]]
    assert answer["scores"].numpy()[0].tolist() == [2.0, 2.0, 2.0, 1.0]


@pytest.mark.parametrize("function", ["softmax", "sigmoid"])
def test_scores_are_numpys(function: str) -> None:
    import tensorflow as tf

    logits = np.random.default_rng(0).normal(scale=9, size=(4, 7)).astype(np.float32)
    got = best(tf.constant(logits), tuple("abcdefg"), 7, function)["scores"].numpy()
    exact = logits.astype(np.float64)
    want = 1 / (1 + np.exp(-exact))
    if function == "softmax":
        want = np.exp(exact - exact.max(-1, keepdims=True))
        want /= want.sum(-1, keepdims=True)
    np.testing.assert_allclose(got, -np.sort(-want), atol=1e-6)
