"""The client against a servable in this process, over gRPC and over REST: the same questions, the same answers."""

from __future__ import annotations

import io
import shutil
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from serving.async_client import connect_async
from serving.client import TargetError, connect
from serving.flags import parse
from serving.results import Result
from serving.results.classification import Classification
from serving.server import Server, free_port
from signatures.errors import UsageError
from signatures.spec import Signature
from tests.signatures.pictures import claims, encode, noise, rle_bmp

KINDS = ["path", "grpc", "http"]
BAD = b"this is no image"


@pytest.fixture(scope="module")
def clients(served):
    opened = {kind: connect(target, timeout=120) for kind, target in served.items()}
    yield opened
    for client in opened.values():
        client.close()


@pytest.fixture(params=KINDS)
def client(request, clients):
    return clients[request.param]


@pytest.fixture(scope="module")
def truth(clients, photos):
    """What the servable answers to the photos in this process."""
    return clients["path"].predict(photos)


def test_answers_are_typed_and_the_same_everywhere(client, truth, photos, tiny_labels):
    answers = client.predict(photos)
    assert answers == truth
    assert all(isinstance(answer, Classification) for answer in answers)
    assert all(set(answer.labels) <= set(tiny_labels) for answer in answers)
    assert len({answer.scores for answer in answers}) == len(photos)
    assert answers[0].label == answers[0].labels[0]
    assert answers[0].scores == tuple(sorted(answers[0].scores, reverse=True))


def test_one_image_gives_one_answer_and_a_list_gives_a_list(client, truth, photos):
    single = client.predict(photos[0])
    assert single == client.predict([photos[0]])[0]
    _alike(single, truth[0])


def test_every_form_of_an_image_is_the_same_image(client, photos, tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(photos[2])
    opened = Image.open(io.BytesIO(photos[2]))
    forms = [photos[2], path, str(path), bytearray(photos[2]), opened, np.asarray(opened)]
    answers = client.predict(forms)
    pixels = np.asarray(opened)
    answers += client.predict(np.stack([pixels, pixels]))
    assert len(answers) == 8
    for answer in answers:
        _alike(answer, answers[0])


def test_grayscale_arrays(client, photos):
    gray = np.asarray(Image.open(io.BytesIO(photos[3])))
    assert gray.ndim == 2
    assert client.predict(gray) == client.predict(photos[3])


def test_one_bad_image_does_not_spoil_the_others(client, truth, photos):
    answers = client.predict([photos[0], BAD, *photos[1:]])
    assert "no image" in answers[1].error
    assert answers[1] == Classification(error=answers[1].error)
    assert [answer.labels for answer in (answers[0], *answers[2:])] == [answer.labels for answer in truth]
    assert not any(answer.error for answer in (answers[0], *answers[2:]))


def spoilt(photo: bytes) -> dict[str, bytes]:
    """Images that cannot be read, by a word of the reason."""
    png = bytearray(encode(noise(9, 9), "PNG"))
    png[png.index(b"IEND") - 5] ^= 1
    return {
        "empty": b"",
        "no image that is read here": BAD,
        "JPEG data is truncated": photo[: len(photo) // 2],
        "PNG data is truncated or corrupt": bytes(png),
        "more than the 64,000,000": claims(60_000, 60_000),
        "only plain ones": rle_bmp(9, 9),
        "bytes are no image": encode(noise(9, 9), "TIFF"),
    }


@pytest.fixture(scope="module", params=["vitrina serve", "tensorflow_model_server"])
def merging(request, tiny_servable, tmp_path_factory):
    """The target of a server that waits a minute for eight images, and then runs them together."""
    grpc, rest = free_port(), free_port()
    parameters = tmp_path_factory.mktemp("batching") / "parameters"
    parameters.write_text("max_batch_size { value: 8 } batch_timeout_micros { value: 60000000 }")
    flags = [f"--port={grpc}", f"--rest_api_port={rest}", "--model_name=tiny", f"--model_base_path={tiny_servable}"]
    flags += ["--enable_batching", f"--batching_parameters_file={parameters}"]
    if request.param == "vitrina serve":
        server = Server(parse([*flags, "--enable_model_warmup=false"]))
        server.start(timeout=300)
        yield f"grpc://localhost:{grpc}/tiny"
        server.stop(0)
        return
    stock = shutil.which("tensorflow_model_server")
    if stock is None:
        pytest.skip("tensorflow_model_server is not on PATH")
    process = subprocess.Popen([stock, *flags])
    yield f"grpc://localhost:{grpc}/tiny"
    process.terminate()
    process.wait(60)


def test_bad_images_of_others_in_the_same_batch_change_no_answer(merging, truth, photos):
    bad = spoilt(photos[0])
    everything = [photos[0], *bad.values()]
    with connect(merging, timeout=120) as client, ThreadPoolExecutor(len(everything)) as pool:
        begun = time.monotonic()
        good, *others = pool.map(client.predict, everything)
    assert time.monotonic() - begun < 50, "they did not run together"
    assert good == truth[0]
    for reason, answer in zip(bad, others, strict=True):
        assert reason in answer.error
        assert answer == Classification(error=answer.error)


@pytest.mark.parametrize("signature", ["classify", "pixels"])
def test_other_signatures_take_the_same_images(client, truth, photos, signature):
    answers = client.predict(photos[:2], signature=signature)
    assert [answer.labels for answer in answers] == [answer.labels for answer in truth[:2]]
    assert all(isinstance(answer, Classification) for answer in answers)


def test_preprocess_then_model_is_the_whole(clients, client, photos):
    prepared = client.predict(photos[0], signature="preprocess")
    assert type(prepared) is Result
    assert prepared == clients["path"].predict(photos[0], signature="preprocess")
    values = prepared.outputs["pixel_values"]
    assert values.dtype == np.float32
    logits = client.call({"pixel_values": values[None]}, signature="model")["logits"]
    scores = np.exp(logits[0]) / np.exp(logits[0]).sum()
    np.testing.assert_allclose(np.sort(scores)[::-1][:5], client.predict(photos[0]).scores, rtol=1e-4)


def test_signatures_are_told(client, clients):
    told = client.signatures()
    assert set(told) == {"serving_default", "preprocess", "pixels", "model", "from_examples", "classify"}
    assert _bare(told) == _bare(clients["path"].signatures())
    assert told["pixels"].inputs["pixels"].shape == (None, None, None, 3)
    assert told["classify"].method_name == "tensorflow/serving/classify"


def test_pixels_of_different_sizes_do_not_fit_one_request(client, photos):
    with pytest.raises(UsageError, match="one size per request, got 171x256, 640x427"):
        client.predict([photos[0], photos[2]], signature="pixels")


def test_the_model_signature_wants_tensors(client, photos):
    with pytest.raises(UsageError, match=r"Client\.call"):
        client.predict(photos[0], signature="model")


def test_an_unknown_signature(client, photos):
    with pytest.raises(
        UsageError, match=r"no signature 'serving_defalt', only .* Did you mean 'serving_default'"
    ) as caught:
        client.predict(photos[0], signature="serving_defalt")
    assert isinstance(caught.value, TargetError)
    assert caught.value.code in ("FAILED_PRECONDITION", "INVALID_ARGUMENT")
    assert "\n" not in str(caught.value)


def test_an_unknown_task_input(client, photos):
    with pytest.raises(UsageError, match="no input 'question', only image_bytes"):
        client.predict(photos[0], question="How many?")


def test_a_wrong_input_of_call(client):
    with pytest.raises(TargetError) as caught:
        client.call({"image_byte": np.array([b"x"], dtype=object)})
    assert caught.value.code == "INVALID_ARGUMENT"


def test_nothing_to_ask(client):
    with pytest.raises(UsageError, match="Got nothing to ask"):
        client.predict()
    with pytest.raises(UsageError, match="Got no images"):
        client.predict([])


def test_shrinking_sends_less_and_answers_alike(client, photos):
    small = client.predict(photos[0], max_side=128)
    assert small.scores != client.predict(photos[0]).scores
    np.testing.assert_allclose(sorted(small.scores), sorted(client.predict(photos[0]).scores), atol=0.1)


def test_a_stream_keeps_order_and_goes_on_after_bad_files(client, photos, tmp_path):
    answers = list(client.stream([*photos, BAD, tmp_path / "missing.png", photos[0]], batch_size=2, concurrency=3))
    assert [bool(answer.error) for answer in answers] == [False] * 4 + [True, True, False]
    assert "no image" in answers[4].error
    assert "There is no file" in answers[5].error
    assert answers[6].labels == answers[0].labels


def test_a_stream_reads_no_further_than_it_needs(clients, photos):
    read = []

    def source():
        for index in range(1000):
            read.append(index)
            yield photos[3]

    stream = clients["grpc"].stream(source(), batch_size=2, concurrency=3)
    for _ in range(3):
        next(stream)
    stream.close()
    assert len(read) <= 2 * (2 * 3 + 2)


def test_a_stream_of_nothing_and_of_nonsense(client):
    assert list(client.stream([])) == []
    with pytest.raises(UsageError, match="at least 1"):
        next(client.stream([b"x"], concurrency=0))


def test_threads_share_a_client(client, truth, photos):
    answers = [None] * 8

    def ask(index):
        answers[index] = client.predict(photos)

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [truth] * 8


@pytest.mark.parametrize("kind", KINDS)
async def test_the_asyncio_client_answers_the_same(served, clients, truth, photos, kind, monkeypatch):
    async with connect_async(served[kind], timeout=120) as client:
        if kind == "path":  # the same model, loaded once
            monkeypatch.setattr(client._transport._sync, "_loaded", clients[kind]._transport._loaded)
        assert await client.predict(photos) == truth
        assert (await client.predict(photos[0])).labels == truth[0].labels
        assert set(await client.signatures()) >= {"serving_default", "model"}
        streamed = [answer async for answer in client.stream([*photos, BAD, "missing.png"], concurrency=2)]
        assert [answer.labels for answer in streamed[:4]] == [answer.labels for answer in truth]
        assert all(answer.error for answer in streamed[4:])
        with pytest.raises(UsageError, match="no input 'question'"):
            await client.predict(photos[0], question="How many?")
        with pytest.raises(TargetError):
            await client.predict(photos[0], signature="nix")


# Targets that fail


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_an_unknown_model_or_version(served, photos, scheme):
    for name in ("nobody", "tiny@99"):
        with (
            connect(served[scheme].removesuffix("tiny") + name) as client,
            pytest.raises(TargetError, match=f"has no model '{name}'") as caught,
        ):
            client.predict(photos[0])
        assert caught.value.code == "NOT_FOUND"
        assert caught.value.exit_code == 1


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_version_may_be_named(served, truth, photos, scheme):
    with connect(served[scheme] + "@1", timeout=120) as client:
        assert client.predict(photos) == truth


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_nobody_listens(photos, scheme):
    started = time.monotonic()
    target = f"{scheme}://localhost:{free_port()}/m"
    with (
        connect(target, retries=2, backoff=0.05) as client,
        pytest.raises(TargetError, match="Nothing serves at") as caught,
    ):
        client.predict(photos[0])
    assert caught.value.code == "UNAVAILABLE"
    assert 0.15 < time.monotonic() - started < 20  # two pauses, 0.05 s and 0.1 s


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_server_that_comes_later_is_waited_for(served, photos, scheme):
    """UNAVAILABLE is tried again: a door opens while the client pauses."""
    port = free_port()
    inner = int(served[scheme].rpartition(":")[2].partition("/")[0])
    with _Relay(port, inner, delay=0.5), connect(f"{scheme}://localhost:{port}/tiny", retries=8, timeout=60) as client:
        assert client.predict(photos[0]).label


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_other_errors_are_not_tried_again(served, photos, scheme, monkeypatch):
    tries = []
    with connect(served[scheme].replace("tiny", "nobody")) as client:
        call = client._transport.call
        monkeypatch.setattr(client._transport, "call", lambda asked: tries.append(asked) or call(asked))
        with pytest.raises(TargetError):
            client.predict(photos[0])
    assert len(tries) == 1


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_deadline_is_kept(photos, scheme):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        started = time.monotonic()
        target = f"{scheme}://127.0.0.1:{port}/m"
        with connect(target, timeout=0.5) as client, pytest.raises(TargetError) as caught:
            client.predict(photos[0])
        assert caught.value.code in ("DEADLINE_EXCEEDED", "UNAVAILABLE")
        assert time.monotonic() - started < 5


async def test_a_deadline_is_kept_in_asyncio(photos):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with connect_async(f"http://127.0.0.1:{silent.getsockname()[1]}/m", timeout=0.5) as client:
            with pytest.raises(TargetError, match=r"did not answer within 0\.\d+ s|did not answer within 0 s"):
                await client.predict(photos[0])


def test_the_wrong_door(served, photos):
    grpc_at_http = served["grpc"].replace("grpc://", "http://")
    http_at_grpc = served["http"].replace("http://", "grpc://")
    for target in (grpc_at_http, http_at_grpc):
        with connect(target, retries=0, timeout=10) as client, pytest.raises(TargetError) as caught:
            client.predict(photos[0])
        assert "\n" not in str(caught.value)
        assert caught.value.code in ("UNIMPLEMENTED", "UNAVAILABLE")


def test_no_servable_at_the_path(tmp_path):
    with pytest.raises(UsageError, match="There is no folder"):
        connect(str(tmp_path / "nix"))
    with pytest.raises(UsageError, match="holds no version folders"):
        connect(str(tmp_path))
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"rubbish")
    with connect(str(tmp_path)) as client, pytest.raises(UsageError, match="is not a SavedModel"):
        client.signatures()


def _alike(mine: Classification, theirs: Classification):
    """Equal up to the order of summation, which depends on the batch and on the place in it."""
    assert mine.labels == theirs.labels
    np.testing.assert_allclose(mine.scores, theirs.scores, rtol=1e-4)


def _bare(told: dict[str, Signature]):
    return {
        name: (
            signature.method_name,
            {key: (tensor.dtype, tensor.shape) for key, tensor in signature.inputs.items()},
            {key: (tensor.dtype, tensor.shape) for key, tensor in signature.outputs.items()},
        )
        for name, signature in told.items()
    }


class _Relay:
    """Opens a port after a while and relays one connection after the other to another port."""

    def __init__(self, port: int, inner: int, *, delay: float) -> None:
        self._port, self._inner, self._delay = port, inner, delay
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._open: list[socket.socket] = []

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        for opened in self._open:
            opened.close()

    def _run(self):
        time.sleep(self._delay)
        listener = socket.create_server(("127.0.0.1", self._port))
        self._open.append(listener)
        while True:
            try:
                outside, _ = listener.accept()
            except OSError:
                return
            inside = socket.create_connection(("127.0.0.1", self._inner))
            self._open += [outside, inside]
            for pair in ((outside, inside), (inside, outside)):
                threading.Thread(target=_pump, args=pair, daemon=True).start()


def _pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
