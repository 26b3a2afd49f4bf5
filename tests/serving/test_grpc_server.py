"""The gRPC door beyond the recordings: tensors, names, MultiInference, limits, deadlines, health, reflection."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import descriptor_pb2
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    inference_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from serving import protos, tensors
from tests.serving import conversation
from tests.serving.conversation import MODEL, PREDICTION, Conversation


@pytest.fixture(scope="module")
def stub(golden_server: Conversation) -> Any:
    return prediction_service_pb2_grpc.PredictionServiceStub(golden_server.channel)


def request(model: str, signature: str = "", **inputs: tensor_pb2.TensorProto) -> predict_pb2.PredictRequest:
    found = predict_pb2.PredictRequest()
    found.model_spec.name = model
    found.model_spec.signature_name = signature
    for name, tensor in inputs.items():
        found.inputs[name].CopyFrom(tensor)
    return found


def tensor(dtype: int, shape: tuple[int, ...], **fields: Any) -> tensor_pb2.TensorProto:
    proto = tensor_pb2.TensorProto(dtype=dtype, **fields)
    proto.tensor_shape.SetInParent()
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


def floats(*values: float) -> tensor_pb2.TensorProto:
    return tensor(types_pb2.DT_FLOAT, (len(values),), float_val=values)


def refused(call: Any, message: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(message, timeout=30)
    return caught.value.code().name, caught.value.details()


def test_missing_model_spec(stub: Any) -> None:
    empty = {
        stub.Predict: predict_pb2.PredictRequest(),
        stub.Classify: classification_pb2.ClassificationRequest(),
        stub.Regress: regression_pb2.RegressionRequest(),
        stub.GetModelMetadata: get_model_metadata_pb2.GetModelMetadataRequest(),
    }
    for call, message in empty.items():
        assert refused(call, message) == ("INVALID_ARGUMENT", "Missing ModelSpec")
    assert refused(stub.MultiInference, inference_pb2.MultiInferenceRequest()) == (
        "INVALID_ARGUMENT",
        "ModelSpec has no name specified.",
    )


@pytest.mark.parametrize(
    ("given", "code", "details"),
    [
        (request("tide"), "INVALID_ARGUMENT", ("input size does not match signature: 0!=1 len({}) != "
         "len({hours}). Sent extra: {}. Missing but required: {hours}.")),
        (request("tide", minutes=floats(1)), "INVALID_ARGUMENT", None),
        (request("tide", hours=tensor(types_pb2.DT_FLOAT, (-1,))), "INVALID_ARGUMENT", "tensor parsing error: hours"),
        (request("tide", hours=tensor(types_pb2.DT_FLOAT, (1,) * 255)), "INVALID_ARGUMENT",
         "tensor parsing error: hours"),
        (request("tide", hours=tensor(types_pb2.DT_INVALID, (1,))), "INVALID_ARGUMENT", "tensor parsing error: hours"),
        (request("tide", "__saved_model_init_op"), "OUT_OF_RANGE",
         "Node 'NoOp' (type: 'NoOp', num of outputs: 0) does not have output 0"),
        (request("gauge", "invert", flag=tensor(types_pb2.DT_BOOL, (2,), tensor_content=b"\x01\x02")),
         "INVALID_ARGUMENT", "tensor parsing error: flag"),
        (request("tide", hours=tensor(types_pb2.DT_FLOAT, (1,), tensor_content=b"12345")), "INVALID_ARGUMENT",
         "tensor parsing error: hours"),
        (request("tide", hours=tensor(types_pb2.DT_STRING, (1,), string_val=[b"x"])), "INVALID_ARGUMENT",
         "Expects arg[0] to be float but string is provided"),
        (request("tide", "__saved_model_init_op"), None, None),
    ],
)  # fmt: skip
def test_refused_inputs(stub: Any, given: Any, code: str | None, details: str | None) -> None:
    got_code, got_details = refused(stub.Predict, given)
    if code is not None:
        assert got_code == code
    if details is not None:
        assert got_details == details
    if "minutes" in given.inputs:
        assert got_details.startswith("Signature input alias: hours(feed name: serving_default_hours:0) not found in ")
        assert got_details.endswith("expected to be in the request {minutes}, or default input alias set: ")


def test_output_filter(stub: Any) -> None:
    ask = request("gauge", reading=tensor(types_pb2.DT_DOUBLE, (1,), double_val=[1]))
    ask.output_filter.extend(["level", "exact"])
    assert set(stub.Predict(ask).outputs) == {"level", "exact"}
    ask.output_filter.append("level")
    assert refused(stub.Predict, ask) == ("INVALID_ARGUMENT", "duplicate output tensor alias: level")


@pytest.mark.parametrize(
    ("signature", "sent", "wanted"),
    [
        ("single", tensor(types_pb2.DT_FLOAT, (3,), float_val=[1, 2]), [1, 2, 2]),
        ("single", tensor(types_pb2.DT_FLOAT, (2,)), [0, 0]),
        ("single", tensor(types_pb2.DT_FLOAT, (2,), float_val=[1, 2, 3]), [1, 2]),
        ("single", tensor(types_pb2.DT_FLOAT, (0,), tensor_content=b"123"), []),
        ("double", tensor(types_pb2.DT_DOUBLE, (2,), tensor_content=struct.pack("<2d", 0.1, -1)), [0.1, -1]),
        ("whole", tensor(types_pb2.DT_INT32, (2,), int_val=[5]), [5, 5]),
        ("octet", tensor(types_pb2.DT_UINT8, (3,), int_val=[256, -1, 7]), [0, 255, 7]),
        ("octet", tensor(types_pb2.DT_UINT8, (2,), tensor_content=b"\x01\xff"), [1, 255]),
    ],
)
def test_tensors_of_every_wording(stub: Any, signature: str, sent: Any, wanted: list[float]) -> None:
    answer = stub.Predict(request("gauge", signature, value=sent))
    output = next(iter(answer.outputs.values()))
    assert output.tensor_content == b""
    values = [*output.float_val, *output.double_val, *output.int_val]
    assert values == pytest.approx(wanted)
    assert [dim.size for dim in output.tensor_shape.dim] == [len(wanted)]


def test_a_string_alone_and_strings_in_tensor_content(stub: Any) -> None:
    sent = tensor(types_pb2.DT_STRING, (), string_val=[b"\xff alone"])
    assert stub.Predict(request("parrot", "plain", phrase=sent), timeout=30).outputs["phrase"] == sent
    sent = tensor(types_pb2.DT_STRING, (2,), tensor_content=b"\x02\x03abxyz")
    answer = stub.Predict(request("parrot", "plain", phrase=sent))
    assert list(answer.outputs["phrase"].string_val) == [b"ab", b"xyz"]
    sent.tensor_content = b"\x02\x03abxy"
    assert refused(stub.Predict, request("parrot", "plain", phrase=sent))[1] == "tensor parsing error: phrase"


def test_answers_in_tensor_content() -> None:
    strings = np.array([[b"ab", b""], [b"x" * 200, b"\xff"]], dtype=object)
    proto = tensors.encode_content(strings, types_pb2.DT_STRING, tensor_pb2.TensorProto())
    assert proto.tensor_content == b"\x02\x00\xc8\x01\x01ab" + b"x" * 200 + b"\xff"
    assert not proto.string_val
    assert tensors.parse(proto).tolist() == strings.tolist()


def test_quantized_values_keep_their_sign() -> None:
    for dtype, value, wanted in [(types_pb2.DT_QUINT8, 255, 255), (types_pb2.DT_QINT8, 255, -1)]:
        sent = tensor(dtype, (1,), int_val=[value])
        assert tensors.encode(tensors.parse(sent), dtype).int_val == [wanted]


def test_model_spec_echo(stub: Any) -> None:
    ask = request("tide", hours=floats(1))
    ask.model_spec.version_label = "ebb"
    spec = stub.Predict(ask).model_spec
    assert (spec.name, spec.version.value, spec.version_label, spec.signature_name) == (
        "tide",
        1,
        "",
        "serving_default",
    )


def multi(*tasks: tuple[str, str, str]) -> inference_pb2.MultiInferenceRequest:
    found = inference_pb2.MultiInferenceRequest()
    for model, signature, method in tasks:
        task = found.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name, task.model_spec.signature_name = model, signature
    return found


@pytest.mark.parametrize(
    ("given", "code", "details"),
    [
        (multi(("slope", "climb", "regress"), ("slope", "climb", "regress")), "INVALID_ARGUMENT",
         "Duplicate evaluation of signature: climb"),
        (multi(("slope", "climb", "regress"), ("", "terrain", "classify")), "INVALID_ARGUMENT",
         "Found ModelSpec with an empty model name."),
        (multi(("slope", "nowhere", "regress")), "INVALID_ARGUMENT",
         "Requested signature not found in model graph: nowhere"),
        (multi(("slope", "climb", "regress")), "INVALID_ARGUMENT", "Input is empty."),
        (multi(("slope", "terrain", "regress")), "INVALID_ARGUMENT", "Expected one output Tensor."),
        (multi(("compass", "climb", "regress")), "NOT_FOUND", "Servable not found for request: Latest(compass)"),
    ],
)  # fmt: skip
def test_refused_multi_inference(stub: Any, given: Any, code: str, details: str) -> None:
    assert refused(stub.MultiInference, given) == (code, details)


def test_long_messages_are_cut(stub: Any) -> None:
    _, details = refused(stub.Predict, request("x" * 2000, hours=floats(1)))
    assert details == ("Servable not found for request: Latest(" + "x" * 2000)[:1024] + "...TRUNCATED"


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x02\x0a\xff", b"\x0a\x04\x0a\x02\xff\xfe"])
def test_what_is_no_message(golden_server: Conversation, data: bytes) -> None:
    call = golden_server.channel.unary_unary(f"/{PREDICTION}/Predict")
    assert refused(call, data) == ("INTERNAL", "")


def test_messages_that_quote_bytes(stub: Any) -> None:
    sent = tensor(types_pb2.DT_STRING, (1,), string_val=[b"\x80\xff"])
    code, details = refused(stub.Predict, request("slope", examples=sent))
    assert code == "INVALID_ARGUMENT"
    assert details.startswith("Could not parse example input, value: '")


def test_services_that_are_not_there(golden_server: Conversation) -> None:
    for method in ("/tensorflow.serving.SessionService/SessionRun", f"/{PREDICTION}/PredictStream", "/x/y"):
        call = golden_server.channel.unary_unary(method)
        assert refused(call, b"") == ("UNIMPLEMENTED", "")


def test_reflection(golden_server: Conversation) -> None:
    ask = golden_server.channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=protos.ReflectionResponse.FromString,
    )
    questions = [
        protos.ReflectionRequest(list_services="*"),
        protos.ReflectionRequest(file_containing_symbol=f"{PREDICTION}"),
        protos.ReflectionRequest(file_by_filename="tensorflow_serving/apis/model.proto"),
        protos.ReflectionRequest(file_containing_symbol="no.such.Thing"),
    ]
    services, symbol, file, missing = list(ask(iter(questions), timeout=30))
    names = {service.name for service in services.list_services_response.service}
    assert names == {PREDICTION, MODEL, "grpc.reflection.v1alpha.ServerReflection"}
    first = descriptor_pb2.FileDescriptorProto.FromString(symbol.file_descriptor_response.file_descriptor_proto[0])
    assert first.name == "tensorflow_serving/apis/prediction_service.proto"
    assert file.file_descriptor_response.file_descriptor_proto
    assert missing.error_response.error_code == 5


SLOW_SECONDS = 1.0


@pytest.fixture(scope="module")
def slow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Conversation]:
    """A model that takes about a second, behind doors with little room."""
    import tensorflow as tf

    class Slow(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def serve(self, x: Any) -> Any:
            # A loop of many short ops can be cancelled between any two of them.
            start = tf.timestamp()
            _, total = tf.while_loop(
                lambda now, _: now - start < SLOW_SECONDS,
                lambda _, total: (tf.timestamp(), total + 1.0),
                (start, tf.constant(0.0)),
                parallel_iterations=1,
            )
            return {"y": x + 0.0 * total}

    folder = tmp_path_factory.mktemp("slow")
    module = Slow()
    tf.saved_model.save(module, str(folder / "slow" / "1"), signatures=module.serve)
    setup = {
        "flags": ["--model_name=slow", "--model_base_path=$MODELS/slow", "--rest_api_timeout_in_ms=200",
                  "--enable_grpc_healthcheck_service"],
        "files": {},
        "wait_for": ["slow"],
    }  # fmt: skip
    with conversation.talk(setup, folder, tmp_path_factory.mktemp("config"), max_threads=2) as server:
        yield server


def test_deadlines_cancel_the_run(slow_server: Conversation) -> None:
    status, body = slow_server.post("slow:predict", {"instances": [1]})
    assert (status, body) == (504, b'{\n    "error": "Timed out waiting for notification"\n}')
    slow = prediction_service_pb2_grpc.PredictionServiceStub(slow_server.channel)
    started = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        slow.Predict(request("slow", x=floats(1)), timeout=0.3)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - started < SLOW_SECONDS
    assert slow.Predict(request("slow", x=floats(1)), timeout=30).outputs["y"].float_val == [1.0]


def test_calls_beyond_the_limit_are_refused_and_health_still_answers(slow_server: Conversation) -> None:
    slow = prediction_service_pb2_grpc.PredictionServiceStub(slow_server.channel)
    futures = [slow.Predict.future(request("slow", x=floats(1)), timeout=30) for _ in range(6)]
    time.sleep(SLOW_SECONDS / 3)
    health = slow_server.rpc(
        {"service": conversation.HEALTH, "method": "Check", "request_textproto": 'service: "ModelService"'}
    )
    assert health["code"] == "OK"
    ended = [(future.code().name, future.details()) for future in futures if future.exception() is not None]
    assert ended == [("RESOURCE_EXHAUSTED", "Server Threadpool Exhausted")] * 4
    assert sum(future.exception() is None for future in futures) == 2


def test_health_watch_ends_with_the_call(slow_server: Conversation) -> None:
    watch = slow_server.channel.unary_stream(
        f"/{conversation.HEALTH}/Watch",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=protos.HealthCheckResponse.FromString,
    )
    call = watch(protos.HealthCheckRequest(service="nobody"), timeout=30)
    assert next(call).status == 3
    call.cancel()


def test_stopping_waits_no_longer_than_it_may(slow_server: Conversation) -> None:
    """The last of the tests with this server."""
    slow = prediction_service_pb2_grpc.PredictionServiceStub(slow_server.channel)
    future = slow.Predict.future(request("slow", x=floats(1)), timeout=30)
    time.sleep(SLOW_SECONDS / 5)
    started = time.monotonic()
    assert slow_server.stop(grace=SLOW_SECONDS / 5) is False
    assert time.monotonic() - started < SLOW_SECONDS * 0.8
    assert future.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


def test_big_tensors_both_ways(golden_server: Conversation) -> None:
    values = np.random.default_rng(0).normal(size=2_000_000)
    sent = tensor(types_pb2.DT_DOUBLE, (len(values),), tensor_content=values.tobytes())
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{golden_server.grpc_port}", options=options) as channel:
        big = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        answer = big.Predict(request("gauge", "double", value=sent), timeout=60)
    np.testing.assert_array_equal(np.array(answer.outputs["value"].double_val), values)
