"""`python -m benchmarks.soak`: good, bad, huge and cut-off requests while versions and model lists change.

Versions come and go, broken ones and ones cut off by a full disk among them; clients send and never read; thousands of
connections say nothing; the server's log is on a full disk. Good requests have to be answered, and rightly, all the
time; memory has to stay flat. At the end the server is killed outright and started again. The exit code is 1 where
anything of that did not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
from tensorflow_serving.apis import model_management_pb2, predict_pb2

from benchmarks.serving import resident
from serving.server import free_port

GAINS = {1: 10.0, 2: 100.0}


def model(folder: Path, gain: float) -> Path:
    """y = gain * x + 1, whose answers tell which version gave them."""
    import tensorflow as tf

    class Line(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def serve(self, x: Any) -> Any:
            return {"y": x * gain + 1.0}

    module = Line()
    tf.saved_model.save(module, str(folder), signatures=module.serve)
    return folder


class Soak:
    """One server and everything that is done to it."""

    def __init__(self, scratch: Path) -> None:
        self.base = scratch / "line"
        self.base.mkdir()
        self.sources = {version: model(scratch / f"source{version}", gain) for version, gain in GAINS.items()}
        shutil.copytree(self.sources[1], self.base / "1")
        self.grpc, self.rest = free_port(), free_port()
        self.stop = threading.Event()
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []
        self.memory: list[float] = []
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        """The server, once it answers."""
        words = [sys.executable, "-m", "serving", f"--port={self.grpc}", f"--rest_api_port={self.rest}"]
        words += ["--model_name=line", f"--model_base_path={self.base}", "--max_num_load_retries=0"]
        with open("/dev/full", "wb") as full:
            process = subprocess.Popen(words, stderr=full)
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.rest), 1).close()
                return process
            time.sleep(0.2)
        raise SystemExit("the server did not start")

    def repeat(self, name: str, act: Callable[[], None], pause: float = 0.0) -> None:
        """Acts until the end; whatever is raised is a problem."""
        while not self.stop.wait(pause):
            try:
                act()
                self.counts[name] += 1
            except Exception as error:
                self.problems.append(f"{name}: {error!r}")
                if len(self.problems) <= 20:
                    print(f"PROBLEM {self.problems[-1][:300]}", flush=True)

    def good_rest(self) -> Callable[[], None]:
        """Right answers over one kept connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.rest, timeout=60)

        def act() -> None:
            try:
                connection.request("POST", "/v1/models/line:predict", b'{"instances": [1.0, 2.0]}')
                body = json.loads(connection.getresponse().read())
            except Exception:
                connection.close()  # which the next request opens anew, so that one problem counts once
                raise
            assert body in [{"predictions": [gain + 1, 2 * gain + 1]} for gain in GAINS.values()], body

        return act

    def good_grpc(self) -> Callable[[], None]:
        """Right answers over one channel."""
        call = self.method("PredictionService/Predict", predict_pb2.PredictResponse)
        request = self.question([1.0])

        def act() -> None:
            answer = call(request, timeout=60)
            assert answer.outputs["y"].float_val[0] in [gain + 1 for gain in GAINS.values()], answer

        return act

    def question(self, values: list[float]) -> Any:
        """A PredictRequest with these numbers."""
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "line"
        tensor = request.inputs["x"]
        tensor.dtype = 1
        tensor.tensor_shape.dim.add(size=len(values))
        tensor.float_val.extend(values)
        return request

    def channel(self) -> Any:
        """A connection of its own, without a limit to messages."""
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
        return grpc.insecure_channel(f"127.0.0.1:{self.grpc}", options=options)

    def method(self, name: str, answer: Any) -> Any:
        """A gRPC method on a channel of its own."""
        return self.channel().unary_unary(
            f"/tensorflow.serving.{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )

    def bad(self) -> None:
        """Requests that have to be refused, and are."""
        bodies = (
            b"{",
            b'{"instances": ["x"]}',
            b"[" * 100_000,
            b"[" * 50_000 + b"]" * 50_000,
            b'{"inputs": {"z": 1}}',
            b"\xff" * 1000,
            b"",
        )
        for body in bodies:
            connection = http.client.HTTPConnection("127.0.0.1", self.rest, timeout=60)
            connection.request("POST", "/v1/models/line:predict", body)
            assert connection.getresponse().status == 400
            connection.close()

    def bad_grpc(self) -> None:
        """Calls that have to be refused, and are: no message, a wrong dtype, an unknown model."""
        with self.channel() as channel:
            call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
            wrong = self.question([])
            wrong.inputs["x"].dtype = 7
            wrong.inputs["x"].string_val.append(b"x")
            unknown = self.question([1.0])
            unknown.model_spec.name = "nobody"
            for data in (b"\xff" * 100, wrong.SerializeToString(), unknown.SerializeToString()):
                code = call.future(data, timeout=60).code()  # waits
                assert code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)

    def huge_grpc(self) -> None:
        """Two million numbers there and back."""
        with self.channel() as channel:
            call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
            data = call(self.question([1.0] * 2_000_000).SerializeToString(), timeout=120)
        assert len(predict_pb2.PredictResponse.FromString(data).outputs["y"].float_val) == 2_000_000

    def cut_off_grpc(self) -> None:
        """A call that is given up at once, and one whose connection goes away."""
        with self.channel() as channel:
            call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
            data = self.question([1.0] * 100_000).SerializeToString()
            call.future(data, timeout=60).cancel()
            call.future(data, timeout=60)

    def huge(self) -> None:
        """A large body with a large answer, which is read."""
        connection = http.client.HTTPConnection("127.0.0.1", self.rest, timeout=120)
        connection.request("POST", "/v1/models/line:predict", json.dumps({"instances": [1.5] * 200_000}).encode())
        response = connection.getresponse()
        assert response.status == 200
        assert len(json.loads(response.read())["predictions"]) == 200_000
        connection.close()

    def cut_off(self) -> None:
        """Half a request, and an answer that nobody reads."""
        body = json.dumps({"instances": [1.5] * 100_000}).encode()
        head = b"POST /v1/models/line:predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        for sent in (head[:20], head + body[:1000], head + body):
            with socket.create_connection(("127.0.0.1", self.rest), 10) as connection:
                connection.sendall(sent)

    @contextlib.contextmanager
    def deaf(self) -> Iterator[None]:
        """Clients that ask for large answers as long as their questions are taken, and never read one."""
        body = json.dumps({"instances": [1.5] * 50_000}).encode()
        rest = b"POST /v1/models/line:predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        with contextlib.ExitStack() as stack:
            for _ in range(4):
                connection = stack.enter_context(socket.socket())
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                connection.connect(("127.0.0.1", self.rest))
                connection.settimeout(1)
                with contextlib.suppress(TimeoutError):
                    for _ in range(50):
                        connection.sendall(rest)
            for port in (self.grpc, self.rest):
                connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
                connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")  # and nothing more
            yield

    def versions(self) -> None:
        """A version comes, a broken one and one cut off by a full disk come, and all go."""
        self.arrive(self.sources[2], 2)
        time.sleep(3)
        broken = self.base.parent / "broken"
        broken.mkdir()
        (broken / "saved_model.pb").write_bytes(b"broken")
        self.arrive(broken, 3)
        cut = self.base.parent / "cut"
        shutil.copytree(self.sources[2], cut)
        for path in (cut / "variables").iterdir():
            path.write_bytes(path.read_bytes()[:10])
        self.arrive(cut, 4)
        time.sleep(2)
        for version in (4, 3, 2):
            shutil.rmtree(self.base / str(version))
        for folder in (broken, cut):
            shutil.rmtree(folder)
        time.sleep(3)

    def arrive(self, source: Path, version: int) -> None:
        """A version is there in one step."""
        staging = self.base / ".staging"
        shutil.copytree(source, staging)
        staging.rename(self.base / str(version))

    def reload(self) -> None:
        """The same list again, and one that is refused."""
        call = self.method("ModelService/HandleReloadConfigRequest", model_management_pb2.ReloadConfigResponse)
        request = model_management_pb2.ReloadConfigRequest()
        entry = request.config.model_config_list.config.add(name="line", base_path=str(self.base))
        entry.model_platform = "tensorflow"
        call(request, timeout=60)
        entry.base_path = "relative"
        with contextlib.suppress(grpc.RpcError):
            call(request, timeout=60)
            raise AssertionError("a relative path was accepted")

    def run(self, seconds: float, idle: int, pause: float) -> None:
        """Everything at once."""
        acts = [("good REST", self.good_rest(), pause), ("good REST", self.good_rest(), pause)]
        acts += [("good gRPC", self.good_grpc(), pause), ("good gRPC", self.good_grpc(), pause)]
        acts += [("bad", self.bad, 3.0), ("huge", self.huge, 3.0), ("cut off", self.cut_off, 0.5)]
        acts += [("bad gRPC", self.bad_grpc, 0.3), ("huge gRPC", self.huge_grpc, 3.0)]
        acts += [("cut off gRPC", self.cut_off_grpc, 0.5)]
        acts += [("versions", self.versions, 0.1), ("reload", self.reload, 1.0)]
        threads = [threading.Thread(target=self.repeat, args=act) for act in acts]
        with contextlib.ExitStack() as stack:
            for port in (self.rest, self.grpc):
                for _ in range(idle):
                    stack.enter_context(socket.create_connection(("127.0.0.1", port), 30))
            stack.enter_context(self.deaf())
            for thread in threads:
                thread.start()
            begun = time.monotonic()
            while time.monotonic() < begun + seconds:
                self.stop.wait(min(5.0, seconds / 10))
                self.memory.append(resident(self.process.pid))
                if len(self.memory) % 12 == 0:
                    told = f"{len(self.problems)} problems, RSS {self.memory[-1]:.0f} MiB"
                    print(f"{time.monotonic() - begun:4.0f} s: {sum(self.counts.values())} acts, {told}", flush=True)
            self.stop.set()
            for thread in threads:
                thread.join()

    def restart(self) -> None:
        """kill -9, and the same port again."""
        self.process.kill()
        self.process.wait()
        self.process = self.start()
        self.good_rest()()
        self.good_grpc()()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="how long (default: 600)")
    parser.add_argument(
        "--idle", type=int, default=2000, help="connections that never say anything, at each door (default: 2000)"
    )
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between good requests (default: none)")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4 * arguments.idle + 1024)), hard))
    with tempfile.TemporaryDirectory(prefix="vitrina-soak-") as scratch:
        soak = Soak(Path(scratch))
        try:
            soak.run(arguments.seconds, arguments.idle, arguments.pause)
            soak.restart()
        finally:
            soak.process.send_signal(signal.SIGTERM)
            soak.process.wait(60)
    half = len(soak.memory) // 2
    early, late = max(soak.memory[:half], default=0.0), max(soak.memory[half:], default=0.0)
    print(f"{dict(soak.counts)}; RSS at most {early:.0f} MiB in the first half, {late:.0f} MiB in the second")
    grown = late > early * 1.1
    print(f"{len(soak.problems)} problems; memory {'grew' if grown else 'stayed flat'}")
    return 1 if soak.problems or grown else 0


if __name__ == "__main__":
    sys.exit(main())
