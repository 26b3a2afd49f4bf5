"""`python -m benchmarks.fuzz json|predict|tensor|client`: what strangers send, mangled, into what reads it.

With atheris (`pip install atheris`) the search follows coverage, and takes libFuzzer's flags after `--`:

    python -m benchmarks.fuzz tensor --seconds 600 -- -jobs=2

Without it the recorded requests are mutated at random, which finds less and needs nothing. Either way only the
refusals that callers expect may come out; anything else ends the run with the input that led there.
"""

from __future__ import annotations

import argparse
import base64
import importlib.util
import json
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["TARGETS", "mutate", "run", "seeds"]

_GOLDEN = Path(__file__).parent.parent / "tests" / "golden" / "tfserving" / "rest.jsonl"
_DTYPES = (1, 2, 3, 4, 7, 9, 10, 23)


def fuzz_json(data: bytes) -> None:
    """The JSON reader: a document or INVALID_ARGUMENT; read roughly, the same but for the digits of floats."""
    from serving.errors import Code
    from serving.json_reader import parse, parse_roughly

    exact, rough = _outcome(parse, data), _outcome(parse_roughly, data)
    if isinstance(exact, Exception):
        assert getattr(exact, "code", None) is Code.INVALID_ARGUMENT, repr(exact)
    if not isinstance(rough, ValueError):
        assert not isinstance(exact, Exception), (exact, rough)
        assert _close(exact, rough), (exact, rough)


def _outcome(act: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return act(data)
    except Exception as error:
        return error


def _close(exact: Any, rough: Any) -> bool:
    stack = [(exact, rough)]
    while stack:
        one, other = stack.pop()
        if isinstance(one, float):
            if not (one == other or one != one or abs(one - other) <= 1e-13 * abs(one) or abs(other) < 1e-300):
                return False
        elif type(one) is not type(other):
            return False
        elif isinstance(one, (list, tuple)):
            if len(one) != len(other):
                return False
            stack.extend(zip(one, other, strict=True))
        elif one != other:
            return False
    return True


def fuzz_predict(data: bytes) -> None:
    """A predict request for an input of some dtype: read quickly and exactly, the same tensors or the same words."""
    from serving import wire, wire_predict
    from serving.errors import ServingError

    vars(wire_predict)["_has_many_numbers"] = lambda _: True
    dtypes = {"x": _DTYPES[data[0] % len(_DTYPES)]} if data else {"x": 1}

    def quickly() -> Any:
        return wire_predict.PredictBody(data[1:]).inputs(dtypes)

    def exactly() -> Any:
        doc = wire.document(data[1:])
        return wire.predict_inputs(doc, dtypes, wire.signature_name(doc))

    outcomes = []
    for read in (quickly, exactly):
        try:
            request = read()
            outcomes.append((request.row, [(v.dtype, v.shape, repr(v.tolist())) for v in request.inputs.values()]))
        except ServingError as error:
            outcomes.append((None, [(error.code, (), error.message)]))
    assert outcomes[0] == outcomes[1], outcomes


def fuzz_tensor(data: bytes) -> None:
    """A TensorProto as the server reads it: a tensor or `ParseError`, and what it writes reads back equal."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.framework import tensor_pb2

    from serving import tensors

    try:
        proto = tensor_pb2.TensorProto.FromString(data)
        array = tensors.parse(proto)
    except (DecodeError, tensors.ParseError):
        return
    assert array.shape == tuple(dim.size for dim in proto.tensor_shape.dim)
    if array.size < 10_000:
        again = tensors.parse(tensors.encode(array, proto.dtype))
        assert again.dtype == array.dtype
        assert repr(again.tolist()) == repr(array.tolist())


def fuzz_client(data: bytes) -> None:
    """An answer as the client reads it: arrays or `ValueError`."""
    from google.protobuf.message import DecodeError

    from serving.messages import message, tensor_to_array

    try:
        answer = type(message("PredictResponse")).FromString(data)
    except DecodeError:
        return
    for tensor in answer.outputs.values():
        try:
            tensor_to_array(tensor)
        except ValueError:
            continue


TARGETS: dict[str, Callable[[bytes], None]] = {
    "json": fuzz_json,
    "predict": fuzz_predict,
    "tensor": fuzz_tensor,
    "client": fuzz_client,
}


def seeds(target: str) -> list[bytes]:
    """Inputs to start from: recorded requests, and tensors of every dtype."""
    if target in ("json", "predict"):
        lines = [json.loads(line)["request"] for line in _GOLDEN.read_text().splitlines()]
        bodies = [base64.b64decode(line["body_b64"]) for line in lines if "body_b64" in line]
        bodies += [line["body"].encode() for line in lines if line.get("body")]
        return [body for body in bodies if len(body) < 1000]
    import numpy as np

    from serving.messages import DTYPES, array_to_tensor, message

    arrays = [np.zeros((2, 1), name) for name in DTYPES if name not in ("string", "bfloat16")]
    found = [array_to_tensor(array) for array in [*arrays, np.array([b"a", b""], dtype=object)]]
    found.append(message("TensorProto", dtype=1, tensor_shape=found[0].tensor_shape, float_val=[1.5]))
    if target == "tensor":
        return [tensor.SerializeToString() for tensor in found]
    return [message("PredictResponse", outputs={"y": tensor}).SerializeToString() for tensor in found]


def mutate(data: bytes, source: random.Random, others: Sequence[bytes]) -> bytes:
    """The input with some bytes changed, taken away, doubled, or replaced by a piece of another input."""
    made = bytearray(data)
    for _ in range(source.randint(1, 4)):
        start = source.randint(0, len(made))
        end = min(len(made), start + source.choice((1, 1, 2, 8)))
        kind = source.randrange(4)
        if kind == 0:
            made[start:end] = bytes(source.randrange(256) for _ in range(end - start))
        elif kind == 1:
            del made[start:end]
        elif kind == 2:
            made[start:start] = made[start:end] * source.choice((1, 2, 50))
        else:
            other = source.choice(others)
            cut = source.randint(0, len(other))
            made[start:end] = other[cut : cut + source.choice((1, 4, 16))]
    return bytes(made)


def run(target: str, seconds: float, seed: int = 0, most: int | None = None) -> int:
    """Mutates at random until the time is up, or so many inputs were tried; how many those were.

    Raises:
        AssertionError: A reader did what it may not; the input is in the message.
    """
    source, corpus, act = random.Random(seed), seeds(target), TARGETS[target]
    act(corpus[0])  # which imports what it needs
    end = time.monotonic() + seconds
    count = 0
    while time.monotonic() < end and (most is None or count < most):
        data = mutate(source.choice(corpus), source, corpus)
        try:
            act(data)
        except Exception as error:
            raise AssertionError(f"{target} on {data!r}: {error!r}") from error
        count += 1
    return count


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="of the random mutations (default: 0)")
    parser.add_argument("rest", nargs="*", help="libFuzzer's flags and corpora, after --")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed, so coverage does not guide the search; mutating at random.")
        tried = run(arguments.target, arguments.seconds, arguments.seed)
        print(f"{arguments.target}: {tried} inputs in {arguments.seconds:.0f} s, nothing found")
        return 0
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["serving"]):
        importlib.import_module("serving.wire_predict")
        importlib.import_module("serving.messages")
    corpus = Path(__file__).parent / "out" / f"fuzz-{arguments.target}"  # what is found stays for the next run
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds(arguments.target)):
        (corpus / f"seed-{number}").write_bytes(data)
    flags = [sys.argv[0], f"-max_total_time={arguments.seconds:.0f}", *arguments.rest, str(corpus)]
    atheris.Setup(flags, TARGETS[arguments.target])
    atheris.Fuzz()  # which ends the process
    return 0


if __name__ == "__main__":
    sys.exit(main())
