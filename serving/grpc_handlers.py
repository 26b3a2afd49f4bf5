"""What each gRPC method does: a parsed request in, a response message out, `ServingError` raised in between."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import any_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

from serving import inference, model_config, tensors
from serving.errors import invalid_argument
from serving.inference import CLASSIFY, REGRESS, Result, Task
from serving.messages_in import input_examples, model_spec
from serving.predict import Answer, Core, ModelSpec

__all__ = ["Handlers", "fill_model_spec", "predict_response", "signature_map"]


def _required_spec(request: Any) -> ModelSpec:
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")
    return model_spec(request.model_spec)


def fill_model_spec(proto: Any, name: str, version: int, signature: str | None = None) -> None:
    """Echoes which model answered."""
    proto.name = name
    proto.version.value = version
    if signature is not None:
        proto.signature_name = signature


def predict_response(answer: Answer, as_content: bool = False) -> predict_pb2.PredictResponse:
    """An answer as its message.

    Args:
        answer: What the core gave.
        as_content: Whether tensors go into `tensor_content` in place of the `*_val` fields.
    """
    response = predict_pb2.PredictResponse()
    fill_model_spec(response.model_spec, answer.name, answer.version, answer.signature)
    for alias, output in answer.outputs.items():
        encode = tensors.encode_content if as_content else tensors.encode
        encode(output.values, output.dtype, response.outputs[alias])
    return response


def signature_map(signatures: Mapping[str, Any]) -> get_model_metadata_pb2.SignatureDefMap:
    """A servable's signatures as the message that metadata holds."""
    found = get_model_metadata_pb2.SignatureDefMap()
    for name, definition in signatures.items():
        found.signature_def[name].CopyFrom(definition)
    return found


class Handlers:
    """The methods of PredictionService and ModelService.

    Args:
        core: The core below.
        as_content: Whether predictions are answered in `tensor_content`.
    """

    def __init__(self, core: Core, as_content: bool = False) -> None:
        self._core = core
        self._as_content = as_content

    def predict(self, request: Any, timeout_ms: int) -> Any:
        """PredictionService.Predict."""
        spec = _required_spec(request)
        answer = self._core.predict(spec, request.inputs, request.output_filter, timeout_ms)
        return predict_response(answer, self._as_content)

    def classify(self, request: Any, timeout_ms: int) -> Any:
        """PredictionService.Classify."""
        spec = _required_spec(request)
        result = inference.ask(self._core, spec, CLASSIFY, input_examples(request.input), timeout_ms)
        response = classification_pb2.ClassificationResponse()
        fill_model_spec(response.model_spec, result.name, result.version, result.signature)
        _fill_classes(response.result, result)
        return response

    def regress(self, request: Any, timeout_ms: int) -> Any:
        """PredictionService.Regress."""
        spec = _required_spec(request)
        result = inference.ask(self._core, spec, REGRESS, input_examples(request.input), timeout_ms)
        response = regression_pb2.RegressionResponse()
        fill_model_spec(response.model_spec, result.name, result.version, result.signature)
        _fill_values(response.result, result)
        return response

    def multi_inference(self, request: Any, timeout_ms: int) -> Any:
        """PredictionService.MultiInference."""
        tasks = [Task(model_spec(task.model_spec), task.method_name) for task in request.tasks]
        results = inference.ask_many(self._core, tasks, input_examples(request.input), timeout_ms)
        response = inference_pb2.MultiInferenceResponse()
        for result in results:
            entry = response.results.add()
            fill_model_spec(entry.model_spec, result.name, result.version, result.signature)
            if result.classes is not None:
                entry.classification_result.SetInParent()
                _fill_classes(entry.classification_result, result)
            else:
                entry.regression_result.SetInParent()
                _fill_values(entry.regression_result, result)
        return response

    def get_model_metadata(self, request: Any, _: int) -> Any:
        """PredictionService.GetModelMetadata."""
        spec = _required_spec(request)
        if not request.metadata_field:
            raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
        for name in request.metadata_field:
            if name != "signature_def":
                raise invalid_argument(f"Metadata field {name} is not supported")
        servable = self._core.find(spec)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        fill_model_spec(response.model_spec, servable.name, servable.version)
        value = any_pb2.Any()
        value.Pack(signature_map(servable.signatures))
        response.metadata["signature_def"].CopyFrom(value)
        return response

    def get_model_status(self, request: Any, _: int) -> Any:
        """ModelService.GetModelStatus."""
        spec = _required_spec(request)
        response = get_model_status_pb2.GetModelStatusResponse()
        for status in self._core.repository.status(spec.name, spec.version):
            entry = response.model_version_status.add(version=status.version, state=int(status.state))
            entry.status.SetInParent()
            if status.error is not None:
                entry.status.error_code = int(status.error.code)
                entry.status.error_message = status.error.message
        return response

    def reload_config(self, request: Any, timeout_ms: int) -> Any:
        """ModelService.HandleReloadConfigRequest."""
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid_argument(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently "
                "supported"
            )
        metrics = self._core.metrics
        before = {name: metrics.value(name) for name in request.metric_names}
        timeout = timeout_ms / 1000 if timeout_ms else None
        self._core.repository.reload(model_config.from_proto(request.config), timeout=timeout)
        response = model_management_pb2.ReloadConfigResponse()
        response.status.SetInParent()
        for name, value in before.items():
            response.metric.add(name=name, int64_value_increase=metrics.value(name) - value)
        return response


def _fill_classes(proto: Any, result: Result) -> None:
    assert result.classes is not None
    for row in result.classes.rows():
        entry = proto.classifications.add()
        for label, score in row:
            entry.classes.add(label=label.decode("utf-8", "replace"), score=score)


def _fill_values(proto: Any, result: Result) -> None:
    assert result.values is not None
    for value in result.values.tolist():
        proto.regressions.add(value=value)
