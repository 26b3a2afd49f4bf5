"""Classify, Regress and MultiInference: calls that send tf.Examples and get scores, on the core's runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf import text_format
from tensorflow.core.framework import types_pb2

from serving.errors import Code, ServingError, invalid_argument
from serving.predict import DEFAULT_SIGNATURE, Core, ModelSpec
from serving.servable import Servable

__all__ = ["CLASSIFY", "REGRESS", "Classes", "Result", "Task", "ask", "ask_many"]

Array = npt.NDArray[Any]
CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"
_WORDS = {CLASSIFY: "classification", REGRESS: "regression"}
_APIS = {CLASSIFY: "Classify", REGRESS: "Regress"}


@dataclass(frozen=True)
class Classes:
    """What a classification gave.

    Args:
        labels: bytes [b, n], or None where the signature has no classes.
        scores: float32 [b, n], or None where it has no scores.
    """

    labels: Array | None
    scores: Array | None

    def rows(self) -> list[list[tuple[bytes, float]]]:
        """Label and score of every class of every example; "" and 0 where there are none."""
        known = self.labels if self.labels is not None else self.scores
        assert known is not None
        labels = self.labels.tolist() if self.labels is not None else [[b""] * known.shape[1]] * known.shape[0]
        scores = self.scores.tolist() if self.scores is not None else [[0.0] * known.shape[1]] * known.shape[0]
        return [list(zip(row, values, strict=True)) for row, values in zip(labels, scores, strict=True)]


@dataclass(frozen=True)
class Result:
    """The answer to one task.

    Args:
        name: The model's name.
        version: The version that answered.
        signature: The signature's resolved name.
        classes: For classification.
        values: float32 [b], for regression.
    """

    name: str
    version: int
    signature: str
    classes: Classes | None = None
    values: Array | None = None


@dataclass(frozen=True)
class Task:
    """One question of a MultiInference request.

    Args:
        spec: The model and signature.
        method: The method name that the caller expects.
    """

    spec: ModelSpec
    method: str


def ask(core: Core, spec: ModelSpec, method: str, examples: Sequence[bytes], timeout_ms: int = 0) -> Result:
    """Classify or Regress.

    Args:
        core: The core below.
        spec: The model and signature.
        method: `CLASSIFY` or `REGRESS`.
        examples: Serialized tf.Examples.
        timeout_ms: After how many milliseconds to give up; 0 is never.

    Raises:
        ServingError: With TF Serving's code and words.
    """
    with core.using(spec) as servable:
        return ask_on(core, servable, spec, method, examples, timeout_ms)


def ask_on(
    core: Core, servable: Servable, spec: ModelSpec, method: str, examples: Sequence[bytes], timeout_ms: int
) -> Result:
    """`ask`, on a servable that was found before."""
    name = spec.signature or DEFAULT_SIGNATURE
    definition = servable.signatures.get(name)
    if definition is None:
        raise invalid_argument(f"No signature was found with the name: {name}")
    feed, fetches = _tensors(definition, method, core.check_method_names)
    batch = _batch(examples)
    values = core.run(servable, {feed: batch}, fetches, timeout_ms, _APIS[method], name)
    found = dict(zip(fetches, values, strict=True))
    return _result(servable, name, definition, method, found, len(examples))


def ask_many(core: Core, tasks: Sequence[Task], examples: Sequence[bytes], timeout_ms: int = 0) -> list[Result]:
    """MultiInference: several signatures of one model on the same examples, in one run.

    Raises:
        ServingError: With TF Serving's code and words.
    """
    first = tasks[0].spec if tasks else ModelSpec("")
    with core.using(first) as servable:
        return ask_many_on(core, servable, tasks, examples, timeout_ms)


def ask_many_on(
    core: Core, servable: Servable, tasks: Sequence[Task], examples: Sequence[bytes], timeout_ms: int
) -> list[Result]:
    """`ask_many`, on a servable that was found before."""
    feeds: set[str] = set()
    fetches: set[str] = set()
    seen: set[str] = set()
    for task in tasks:
        name = task.spec.signature or DEFAULT_SIGNATURE
        _check_task(task, tasks[0].spec.name, name, seen)
        seen.add(name)
        definition = servable.signatures.get(name)
        if definition is None:
            raise invalid_argument(f"Requested signature not found in model graph: {name}")
        if task.method not in _WORDS:
            raise ServingError(Code.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method}")
        feed, outputs = _tensors(definition, task.method, core.check_method_names)
        feeds.add(feed)
        fetches.update(outputs)
    ordered = sorted(fetches)
    batch = _batch(examples)
    values = core.run(
        servable, dict.fromkeys(feeds, batch), ordered, timeout_ms, "MultiInference", ",".join(sorted(seen))
    )
    core.metrics.count_examples(tasks[0].spec.name if tasks else "", len(examples))
    found = dict(zip(ordered, values, strict=True))
    results = []
    for task in tasks:
        name = task.spec.signature or DEFAULT_SIGNATURE
        results.append(_result(servable, name, servable.signatures[name], task.method, found, len(examples)))
    return results


def _check_task(task: Task, model: str, signature: str, seen: set[str]) -> None:
    if not task.spec.name:
        raise invalid_argument("Found ModelSpec with an empty model name.")
    if task.spec.name != model:
        raise invalid_argument("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
    if signature in seen:
        raise invalid_argument(f"Duplicate evaluation of signature: {signature}")


def _batch(examples: Sequence[bytes]) -> Array:
    if not examples:
        raise invalid_argument("Input is empty.")
    batch = np.empty(len(examples), dtype=object)
    batch[:] = examples
    return batch


def _tensors(definition: Any, method: str, check: bool) -> tuple[str, list[str]]:
    """The tensor to feed and those to fetch.

    Raises:
        ServingError: INVALID_ARGUMENT where the signature does not suit the method.
    """
    word = _WORDS[method]
    if check and definition.method_name != method:
        raise invalid_argument(f"Expected {word} signature method_name to be {method}. Was: {definition.method_name}")
    if len(definition.inputs) != 1:
        raise invalid_argument("Expected one input Tensor.")
    outputs = _classify_outputs if method == CLASSIFY else _regress_outputs
    if method == CLASSIFY and len(definition.outputs) not in (1, 2):
        raise invalid_argument(f"Expected one or two output Tensors, found {len(definition.outputs)}")
    if method == REGRESS and len(definition.outputs) != 1:
        raise invalid_argument("Expected one output Tensor.")
    if "inputs" not in definition.inputs:
        raise invalid_argument(f"No {word} inputs found in SignatureDef: {_text(definition)}")
    return definition.inputs["inputs"].name, outputs(definition)


def _classify_outputs(definition: Any) -> list[str]:
    names = [definition.outputs[alias].name for alias in ("classes", "scores") if alias in definition.outputs]
    if not names:
        raise invalid_argument(
            'Expected classification signature outputs to contain at least one of "classes" or "scores". '
            f"Signature was: {_text(definition)}"
        )
    return names


def _regress_outputs(definition: Any) -> list[str]:
    if "outputs" not in definition.outputs:
        raise invalid_argument(f"No regression outputs found in SignatureDef: {_text(definition)}")
    return [definition.outputs["outputs"].name]


def _text(definition: Any) -> str:
    return str(text_format.MessageToString(definition))


def _result(servable: Servable, name: str, definition: Any, method: str, found: dict[str, Array], count: int) -> Result:
    if method == CLASSIFY:
        tensors = [
            found[definition.outputs[alias].name] if alias in definition.outputs else None
            for alias in ("classes", "scores")
        ]
        return Result(servable.name, servable.version, name, classes=_classes(tensors[0], tensors[1], count))
    values = _regressions(found[definition.outputs["outputs"].name], count)
    return Result(servable.name, servable.version, name, values=values)


def _classes(labels: Array | None, scores: Array | None, count: int) -> Classes:
    if labels is not None:
        _check_classes(labels, "classes", types_pb2.DT_STRING, count)
    if scores is not None:
        _check_classes(scores, "scores", types_pb2.DT_FLOAT, count)
    if labels is not None and scores is not None and labels.shape[1] != scores.shape[1]:
        raise invalid_argument(
            f"Tensors class and score should match in dim_size(1). Got {labels.shape[1]} vs. {scores.shape[1]}"
        )
    return Classes(labels, scores)


def _check_classes(tensor: Array, what: str, dtype: int, count: int) -> None:
    if tensor.ndim != 2:
        raise invalid_argument(f"Expected Tensor shape: [batch_size num_classes] but got {_shape(tensor)}")
    if _dtype(tensor) != dtype:
        wanted, got = types_pb2.DataType.Name(dtype), types_pb2.DataType.Name(_dtype(tensor))
        raise invalid_argument(f"Expected {what} Tensor of {wanted}. Got: {got}")
    if tensor.shape[0] != count:
        raise invalid_argument(f"Expected {what} output batch size of {count}. Got: {tensor.shape[0]}")


def _regressions(tensor: Array, count: int) -> Array:
    if not (tensor.ndim == 1 or (tensor.ndim == 2 and tensor.shape[1] == 1)):
        raise invalid_argument(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {_shape(tensor)}"
        )
    if tensor.shape[0] != count:
        raise invalid_argument(f"Input batch size did not match output batch size: {count} vs. {tensor.shape[0]}")
    if _dtype(tensor) != types_pb2.DT_FLOAT:
        name = types_pb2.DataType.Name(_dtype(tensor))
        raise invalid_argument(f"Expected output Tensor of DT_FLOAT.  Got: {name}")
    return tensor.ravel()


def _dtype(tensor: Array) -> int:
    from tensorflow.python.framework import dtypes

    return int(dtypes.as_dtype(tensor.dtype).as_datatype_enum)


def _shape(tensor: Array) -> str:
    return "[" + ",".join(map(str, tensor.shape)) + "]"
