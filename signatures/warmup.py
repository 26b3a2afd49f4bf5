"""Warmup requests: what TF Serving replays when it loads a version, so that the first client does not wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from signatures.spec import WARMUP_PATH

__all__ = ["BATCH_SIZES", "write"]

BATCH_SIZES = (1, 4)
SIGNATURE = "serving_default"


def write(folder: Path, requests: Sequence[Mapping[str, Any]], *, signature: str = SIGNATURE) -> Path:
    """Writes predict requests where TF Serving looks for warmup data.

    Args:
        folder: A version's folder.
        requests: Inputs by name (NumPy), one mapping per request.
        signature: The signature that they ask.

    Returns:
        The TFRecord of PredictionLog.
    """
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    path = folder / WARMUP_PATH
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for inputs in requests:
            log = prediction_log_pb2.PredictionLog()
            request = log.predict_log.request
            # The name is not checked on replay; TF Serving asks the model that it is loading.
            request.model_spec.name = "vitrina"
            request.model_spec.signature_name = signature
            for name, value in inputs.items():
                request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
            writer.write(log.SerializeToString())
    return path
