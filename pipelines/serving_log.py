"""The serving log: what clients sent. Written by servers or clients, read to see whether it is what was trained on.

Three forms, by what LOG names (a file, a folder or a pattern):

- TFRecords, plain or gzip, of `tensorflow.serving.PredictionLog`, as TensorFlow Serving's request logging has them:
  the inputs `image_bytes`, or serialized Examples with `image/encoded`, of Predict, Classify and Regress calls.
- JSON lines (`*.jsonl`), a REST request's body a line: `{"instances": [{"image_bytes": {"b64": "..."}}]}`, or its
  column form `{"inputs": {"image_bytes": [{"b64": "..."}]}}`.
- images as files.

`write` appends to the first.
"""

from __future__ import annotations

import base64
import binascii
import glob
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.data.folders import IMAGE_SUFFIXES
from pipelines.data.storage import reason
from pipelines.examples import ENCODED
from signatures.errors import UsageError

__all__ = ["IMAGE", "fingerprint", "images", "write"]

IMAGE = "image_bytes"
JSON_LINES = (".jsonl", ".ndjson")
GZIP = b"\x1f\x8b"
SIGNATURE = "serving_default"


def images(log: str, *, limit: int) -> Iterator[bytes]:
    """The encoded images of a log, those of the newest files first.

    Args:
        log: A file, a folder or a pattern.
        limit: At most so many.

    Yields:
        What was sent, whether it is an image or not.

    Raises:
        UsageError: There is no such log, or a file of it is in none of the three forms.
    """
    left = limit
    for path in _files(log):
        for encoded in _read(path):
            if left <= 0:
                return
            yield encoded
            left -= 1


def fingerprint(log: str) -> str:
    """Changes as the log grows; "" where there is none."""
    if not log:
        return ""
    total = hashlib.sha256()
    for path in _files(log):
        stat = path.stat()
        total.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return total.hexdigest()


def write(requests: Iterable[Sequence[bytes]], path: Path, *, model: str) -> int:
    """Writes requests down as a new file of PredictionLogs.

    Args:
        requests: The encoded images of each Predict call.
        path: The file; one that is there is replaced.
        model: The served model's name.

    Returns:
        How many calls there were.
    """
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    calls = 0
    with tf.io.TFRecordWriter(str(path)) as writer:
        for sent in requests:
            log = prediction_log_pb2.PredictionLog()
            request = log.predict_log.request
            request.model_spec.name, request.model_spec.signature_name = model, SIGNATURE
            request.inputs[IMAGE].CopyFrom(tf.make_tensor_proto(list(sent), tf.string))
            writer.write(log.SerializeToString())
            calls += 1
    return calls


def _files(log: str) -> list[Path]:
    path = Path(log)
    if path.is_dir():
        found = [each for each in path.rglob("*") if each.is_file() and not each.name.startswith(".")]
    else:
        found = [Path(name) for name in glob.glob(log, recursive=True) if Path(name).is_file()]
    if not found:
        raise UsageError(f"There is no serving log {log}. Give a file, a folder or a pattern, or leave it out.")
    return sorted(found, key=lambda each: (-each.stat().st_mtime_ns, str(each)))


def _read(path: Path) -> Iterator[bytes]:
    if path.suffix.lower() in IMAGE_SUFFIXES:
        yield path.read_bytes()
    elif path.suffix.lower() in JSON_LINES:
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            if line.strip():
                yield from _of_json(line, f"{path}:{number}")
    else:
        yield from _of_records(path)


def _of_json(line: str, where: str) -> Iterator[bytes]:
    try:
        body = json.loads(line)
        inputs = body["inputs"] if "inputs" in body else list(body["instances"])
        column = inputs[IMAGE] if isinstance(inputs, Mapping) and IMAGE in inputs else inputs
        for each in column if isinstance(column, list) else [column]:
            value = each.get(IMAGE, each) if isinstance(each, Mapping) else each
            yield base64.b64decode(value["b64"], validate=True)
    except (json.JSONDecodeError, binascii.Error, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f'{where} is no request with images ({error!r}). Write {{"instances": [{{"{IMAGE}": {{"b64": "..."}}}}]}}.'
        ) from error


def _of_records(path: Path) -> Iterator[bytes]:
    import tensorflow as tf
    from google.protobuf.message import DecodeError
    from tensorflow_serving.apis import prediction_log_pb2

    with path.open("rb") as stream:
        compression = "GZIP" if stream.read(2) == GZIP else ""
    try:
        for record in tf.data.TFRecordDataset(str(path), compression_type=compression):
            yield from _of_log(prediction_log_pb2.PredictionLog.FromString(record.numpy()))
    except (tf.errors.OpError, DecodeError) as error:
        raise UsageError(
            f"{path} is no serving log ({reason(error)}). Give TFRecords of PredictionLog, *.jsonl of requests, images."
        ) from error


def _of_log(log: Any) -> Iterator[bytes]:
    import tensorflow as tf

    kind = log.WhichOneof("log_type")
    if kind == "predict_log":
        inputs = log.predict_log.request.inputs
        for name in (IMAGE, "examples", "inputs"):
            if name in inputs:
                for value in tf.make_ndarray(inputs[name]).ravel():
                    yield from [bytes(value)] if name == IMAGE else _of_example(bytes(value))
    elif kind in ("classify_log", "regress_log"):
        listed = getattr(log, kind).request.input
        for example in getattr(listed, listed.WhichOneof("kind") or "example_list").examples:
            yield from example.features.feature[ENCODED].bytes_list.value


def _of_example(serialized: bytes) -> Sequence[bytes]:
    import tensorflow as tf

    found = tf.train.Example.FromString(serialized).features.feature[ENCODED].bytes_list.value
    return [bytes(value) for value in found]
