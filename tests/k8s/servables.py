"""What tests have done in a process that has TensorFlow: writing models that load in no time, and reading protos."""

from __future__ import annotations

import json
from pathlib import Path


def write(base: str, version: str, kind: str) -> None:
    """Writes a SavedModel whose one signature takes `image_bytes`.

    Args:
        base: The base path.
        version: The version's number, which the answer carries as `version`.
        kind: `good`; `failing`, which refuses every request; `slow`, which takes 60 ms; or `broken`, which is no model.
    """
    folder = Path(base) / version
    if kind == "broken":
        folder.mkdir(parents=True)
        (folder / "saved_model.pb").write_bytes(b"this is no model")
        return
    import tensorflow as tf

    class Model(tf.Module):
        """Answers with the length of what it gets and its version."""

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
        def __call__(self, image_bytes):
            length = tf.strings.length(image_bytes)
            if kind == "failing":
                length += tf.io.decode_raw(tf.fill(tf.shape(length), "abc"), tf.int32)[:, 0]
            if kind == "slow":
                square = tf.random.uniform([1400, 1400])
                length += tf.cast(tf.reduce_sum(square @ square) * 0, tf.int32)
            return {"length": length, "version": tf.fill(tf.shape(length), int(version))}

    model = Model()
    tf.saved_model.save(model, str(folder), signatures={"serving_default": model.__call__})


def parse(texts: str, out: str) -> None:
    """Reads text format by TensorFlow Serving's protos.

    Args:
        texts: A JSON file with pairs of a message's name and a text.
        out: The JSON file that gets the fields of each.
    """
    from google.protobuf import json_format, text_format

    from serving import protos

    found = [text_format.Parse(text, getattr(protos, name)()) for name, text in json.loads(Path(texts).read_text())]
    told = [json_format.MessageToDict(each, preserving_proto_field_name=True) for each in found]
    Path(out).write_text(json.dumps(told))
