"""One loaded SavedModel: a TF1 session, as TF Serving runs it, with its signatures.

Through `session._call_tf_sessionrun` a run releases the GIL, takes a timeout and answers with TensorFlow's own
messages; `session.run` would cast dtypes and refuse shapes in words of its own.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2, saved_model_pb2
from tensorflow.python.client import pywrap_tf_session

from serving.errors import Code, ServingError, from_tensorflow, invalid_argument, not_found

__all__ = ["Loader", "Servable", "quiet"]

Array = npt.NDArray[Any]
_LOG = logging.getLogger("vitrina.serving")
_NO_TIMEOUT = 0


@dataclass(frozen=True)
class Loader:
    """How SavedModels are loaded.

    Args:
        tags: The meta graph to load, such as `("serve",)`.
        session_config: A serialized ConfigProto.
    """

    tags: tuple[str, ...] = ("serve",)
    session_config: bytes = b""

    def load(self, name: str, version: int, path: str) -> Servable:
        """Loads one version of a model.

        Raises:
            ServingError: It cannot be loaded; the code and message say why.
        """
        _check_readable(path, self.tags)
        config = tf.compat.v1.ConfigProto.FromString(self.session_config)
        graph = tf.Graph()
        session = tf.compat.v1.Session(graph=graph, config=config)
        try:
            with graph.as_default():
                meta_graph = _load(session, list(self.tags), path)
            graph.finalize()
            session._extend_graph()
            return Servable(name, version, path, session, meta_graph)
        except BaseException as error:
            session.close()
            if isinstance(error, Exception):
                raise _load_error(error) from error
            raise


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No warnings that TF1's functions are old: they serve TF1 and TF2 models alike."""
    level = tf.get_logger().level
    tf.get_logger().setLevel(logging.ERROR)
    try:
        yield
    finally:
        tf.get_logger().setLevel(level)


def _load(session: Any, tags: list[str], path: str) -> meta_graph_pb2.MetaGraphDef:
    with quiet():
        return tf.compat.v1.saved_model.load(session, tags, path)


def _check_readable(path: str, tags: Sequence[str]) -> None:
    """Says in TF Serving's words what is wrong with the file itself."""
    binary, text = os.path.join(path, "saved_model.pb"), os.path.join(path, "saved_model.pbtxt")
    if not tf.io.gfile.exists(binary):
        if tf.io.gfile.exists(text):
            return
        raise not_found(
            f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {path}. "
            "Check that the directory exists and that you have the right permissions for accessing it."
        )
    saved_model = saved_model_pb2.SavedModel()
    try:
        with tf.io.gfile.GFile(binary, "rb") as file:
            saved_model.ParseFromString(file.read())
    except tf.errors.OpError as error:
        raise from_tensorflow(error) from error
    except Exception as error:
        raise ServingError(Code.DATA_LOSS, f"Can't parse {binary} as binary proto") from error
    if not any(set(tags) == set(graph.meta_info_def.tags) for graph in saved_model.meta_graphs):
        raise not_found(
            f"Could not find meta graph def matching supplied tags: {{ {' '.join(tags)} }}. To inspect available "
            "tag-sets in the SavedModel, please use the SavedModel CLI: `saved_model_cli`"
        )


def _load_error(error: Exception) -> ServingError:
    if isinstance(error, ServingError):
        return error
    found = from_tensorflow(error)
    # The text after the first line names Python frames of the loader.
    return ServingError(found.code, found.message.split("\n\nOriginal stack trace")[0])


class Servable:
    """A loaded version of a model. Runs may happen on any number of threads at once.

    Args:
        name: The model's name.
        version: Its version.
        path: The version's folder.
        session: The session that holds the graph and its variables.
        meta_graph: The meta graph with the signatures.
    """

    def __init__(
        self, name: str, version: int, path: str, session: Any, meta_graph: meta_graph_pb2.MetaGraphDef
    ) -> None:
        self.name = name
        self.version = version
        self.path = path
        self.signatures: Mapping[str, meta_graph_pb2.SignatureDef] = dict(meta_graph.signature_def)
        self._session = session
        self._tensors: dict[str, Any] = {}
        self._users = 0
        self._idle = threading.Condition()
        self._retired = False

    def acquire(self) -> bool:
        """Keeps it loaded until `release`; False where it has been retired."""
        with self._idle:
            if not self._retired:
                self._users += 1
            return not self._retired

    def release(self) -> None:
        """One user less."""
        with self._idle:
            self._users -= 1
            if not self._users:
                self._idle.notify_all()

    def run(self, feeds: Mapping[str, Array], fetches: Sequence[str], timeout_ms: int = _NO_TIMEOUT) -> list[Array]:
        """Runs the graph.

        Args:
            feeds: Tensor names (`x:0`) and their values; strings as object arrays of bytes.
            fetches: Names of the tensors to compute.
            timeout_ms: After how many milliseconds to give up; 0 is never.

        Returns:
            One array per fetch; strings as object arrays of bytes.

        Raises:
            ServingError: TensorFlow's own code and message.
        """
        options = None
        try:
            feed = {self._tensor(name): value for name, value in feeds.items()}
            fetch = [self._tensor(name) for name in fetches]
            if timeout_ms:
                message = config_pb2.RunOptions(timeout_in_ms=timeout_ms).SerializeToString()
                options = pywrap_tf_session.TF_NewBufferFromString(message)
            return [_array(value) for value in self._session._call_tf_sessionrun(options, feed, fetch, [], None)]
        except tf.errors.OpError as error:
            raise from_tensorflow(error) from None
        except UnicodeDecodeError as error:
            # An op quoted input that is not UTF-8. Python cannot raise that message, nor tell its code; ops that quote
            # what they were given do so because they refuse it.
            raise invalid_argument(error.object.decode("utf-8", "surrogateescape")) from None
        finally:
            if options is not None:
                pywrap_tf_session.TF_DeleteBuffer(options)

    def _tensor(self, name: str) -> Any:
        found = self._tensors.get(name)
        if found is None:
            # Not by way of the graph's tensors: TensorFlow itself is to refuse the outputs that an op does not have.
            operation, _, index = name.partition(":")
            try:
                handle = self._session.graph.get_operation_by_name(operation)._c_op
                found = pywrap_tf_session.TF_Output()
                found.oper, found.index = handle, int(index or 0)
            except (KeyError, ValueError) as error:
                raise invalid_argument(
                    f"Tensor {name}, specified in either feed_devices or fetch_devices was not found in the Graph"
                ) from error
            self._tensors[name] = found
        return found

    def unload(self) -> None:
        """Waits until nobody uses it any more, then frees it."""
        with self._idle:
            self._retired = True
            self._idle.wait_for(lambda: not self._users)
        self._session.close()
        self._tensors.clear()
        self._session = None
        _LOG.info("unloaded", extra={"model": self.name, "version": self.version, "path": str(PurePath(self.path))})


def _array(value: Any) -> Array:
    """What a session gives, which is bytes for a string without axes."""
    if isinstance(value, bytes):
        array = np.empty((), dtype=object)
        array[()] = value
        return array
    return np.asarray(value)
