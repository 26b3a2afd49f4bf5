"""The core below both doors: a model's name and tensors in, tensors out.

Nothing here knows of HTTP, JSON or gRPC. The doors translate what they read into `ModelSpec` and arrays, and the
`ServingError` that comes back into their own status.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from serving import tensors
from serving.errors import Code, ServingError, invalid_argument
from serving.metrics import Registry
from serving.repository import Repository
from serving.servable import Servable

__all__ = ["DEFAULT_SIGNATURE", "Answer", "Core", "ModelSpec", "Output"]

Array = npt.NDArray[Any]
DEFAULT_SIGNATURE = "serving_default"
_METHODS = ("tensorflow/serving/predict", "tensorflow/serving/classify", "tensorflow/serving/regress")


@dataclass(frozen=True)
class ModelSpec:
    """Which model a request means.

    Args:
        name: The model's name.
        version: A version, or None.
        label: A version label, or None.
        signature: The signature's name; "" is the default one.
    """

    name: str
    version: int | None = None
    label: str | None = None
    signature: str = ""


class Runner(Protocol):
    """What runs a servable: the session itself, or the batching in front of it."""

    def __call__(
        self, servable: Servable, feeds: Mapping[str, Array], fetches: Sequence[str], timeout_ms: int
    ) -> list[Array]: ...


@dataclass(frozen=True)
class Output:
    """One output of a signature.

    Args:
        dtype: Its DataType number in the signature.
        values: Its values.
    """

    dtype: int
    values: Array


@dataclass(frozen=True)
class Answer:
    """What a prediction gave.

    Args:
        name: The model's name.
        version: The version that answered.
        signature: The signature's resolved name.
        outputs: By alias.
    """

    name: str
    version: int
    signature: str
    outputs: Mapping[str, Output]


def run_directly(
    servable: Servable, feeds: Mapping[str, Array], fetches: Sequence[str], timeout_ms: int
) -> list[Array]:
    """Runs the session with nothing in between."""
    return servable.run(feeds, fetches, timeout_ms)


class Core:
    """Answers requests from a repository's models.

    Args:
        repository: Where the models are.
        metrics: Where latencies are counted.
        check_method_names: Whether a signature's method name has to fit the call.
        run: What runs a servable.
    """

    def __init__(
        self,
        repository: Repository,
        metrics: Registry,
        check_method_names: bool = False,
        run: Runner = run_directly,
    ) -> None:
        self.repository = repository
        self.metrics = metrics
        self.check_method_names = check_method_names
        self._run = run

    def find(self, spec: ModelSpec) -> Servable:
        """The servable that a spec means; see `Repository.find`."""
        return self.repository.find(spec.name, spec.version, spec.label)

    def using(self, spec: ModelSpec) -> AbstractContextManager[Servable]:
        """The servable that a spec means, kept loaded meanwhile; see `Repository.using`."""
        return self.repository.using(spec.name, spec.version, spec.label)

    def run(
        self,
        servable: Servable,
        feeds: Mapping[str, Array],
        fetches: Sequence[str],
        timeout_ms: int,
        api: str,
        signature: str,
    ) -> list[Array]:
        """Runs a servable and records how long it took; MultiInference does not count, as in TF Serving."""
        started = time.perf_counter_ns()
        labels = (servable.name, str(servable.version), signature)
        try:
            outputs = self._run(servable, feeds, fetches, timeout_ms)
        except ServingError as error:
            self.metrics.signature_count.add(*labels, error.code.name)
            raise
        micros = (time.perf_counter_ns() - started) / 1000
        self.metrics.signature_count.add(*labels, "OK")
        self.metrics.signature_latency.observe(micros, *labels)
        if api != "MultiInference":
            self.metrics.runtime_latency.observe(micros, servable.name, api, "TF1")
        return outputs

    def predict(
        self,
        spec: ModelSpec,
        inputs: Mapping[str, Any],
        output_filter: Sequence[str] = (),
        timeout_ms: int = 0,
    ) -> Answer:
        """Asks a signature.

        Args:
            spec: Which model and signature.
            inputs: Arrays or TensorProtos by alias.
            output_filter: The outputs to compute; none is all.
            timeout_ms: After how many milliseconds to give up; 0 is never.

        Raises:
            ServingError: With TF Serving's code and words.
        """
        with self.using(spec) as servable:
            return self.predict_on(servable, spec.signature, inputs, output_filter, timeout_ms)

    def predict_on(
        self,
        servable: Servable,
        signature: str,
        inputs: Mapping[str, Any],
        output_filter: Sequence[str],
        timeout_ms: int,
    ) -> Answer:
        """`predict`, on a servable that was found before."""
        name = signature or DEFAULT_SIGNATURE
        definition = servable.signatures.get(name)
        if definition is None:
            raise ServingError(Code.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
        self._check_method(definition)
        _check_count(definition, inputs)
        feeds = _feeds(definition, inputs)
        aliases = _aliases(definition, output_filter)
        fetches = [definition.outputs[alias].name for alias in aliases]
        values = self.run(servable, feeds, fetches, timeout_ms, "Predict", name)
        outputs = {
            alias: Output(definition.outputs[alias].dtype, value) for alias, value in zip(aliases, values, strict=True)
        }
        return Answer(servable.name, servable.version, name, outputs)

    def _check_method(self, definition: Any) -> None:
        if self.check_method_names and definition.method_name not in _METHODS:
            raise ServingError(
                Code.INTERNAL,
                "Expected prediction signature method_name to be one of "
                f"{{{', '.join(_METHODS)}}}. Was: {definition.method_name}",
            )


def _names(names: Any) -> str:
    return ",".join(sorted(names))


def _check_count(definition: Any, inputs: Mapping[str, Any]) -> None:
    sent, known = len(inputs), len(definition.inputs)
    if sent > known or (sent < known and not _defaults(definition)):
        extra, missing = set(inputs) - set(definition.inputs), set(definition.inputs) - set(inputs)
        raise invalid_argument(
            f"input size does not match signature: {sent}!={known} len({{{_names(inputs)}}}) != "
            f"len({{{_names(definition.inputs)}}}). Sent extra: {{{_names(extra)}}}. "
            f"Missing but required: {{{_names(missing)}}}."
        )


def _defaults(definition: Any) -> Mapping[str, Any]:
    return getattr(definition, "defaults", {})


def _feeds(definition: Any, inputs: Mapping[str, Any]) -> dict[str, Array]:
    feeds, seen = {}, set()
    defaults = _defaults(definition)
    for alias in sorted(definition.inputs):
        feed = definition.inputs[alias].name
        value = inputs.get(alias)
        if value is not None:
            seen.add(alias)
        elif alias in defaults:
            value = defaults[alias]
        else:
            raise invalid_argument(
                f"Signature input alias: {alias}(feed name: {feed}) not found in request and no default value "
                f"provided. Inputs expected to be in the request {{{_names(inputs)}}}, or default input alias set: "
                f"{_names(defaults)}"
            )
        feeds[feed] = _array(alias, value)
    if inputs and len(seen) != len(inputs):
        raise invalid_argument(
            f"Inputs contains invalid name. Used request inputs: {_names(seen)}, request input: {_names(inputs)}"
        )
    return feeds


def _array(alias: str, value: Any) -> Array:
    if not hasattr(value, "tensor_shape"):
        return value  # type: ignore[no-any-return]
    try:
        return tensors.parse(value)
    except tensors.ParseError as error:
        raise invalid_argument(f"tensor parsing error: {alias}") from error


def _aliases(definition: Any, output_filter: Sequence[str]) -> list[str]:
    seen: set[str] = set()
    for alias in output_filter:
        if alias not in definition.outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the set "
                f"{{{_names(definition.outputs)}}}."
            )
        if alias in seen:
            raise invalid_argument(f"duplicate output tensor alias: {alias}")
        seen.add(alias)
    return list(output_filter) or sorted(definition.outputs)
