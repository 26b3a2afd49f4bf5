"""Files wherever they are: on this machine, or where a URI of Beam's or TensorFlow's file systems says."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from signatures.errors import UsageError, VitrinaError

__all__ = ["local", "read", "reason"]


def local(uri: str) -> Path | None:
    """The path of a file on this machine, also as `file://...`; None for another URI.

    >>> local("file:///a/b%20c.png")
    PosixPath('/a/b c.png')
    """
    if "://" not in uri:
        return Path(uri)
    parts = urlsplit(uri)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path))
    return None


def read(uri: str) -> bytes:
    """A file's bytes.

    Args:
        uri: A path, or a URI that Beam's file systems read (`gs://`, `s3://`, `hdfs://`, with the packages that they
            need), or else TensorFlow's.

    Raises:
        OSError: It cannot be read.
        VitrinaError: The same, told by a remote file system, or nothing here knows such URIs.
    """
    path = local(uri)
    if path is not None:
        return path.read_bytes()
    try:
        from apache_beam.io.filesystem import BeamIOError
        from apache_beam.io.filesystems import FileSystems
    except ImportError:
        return _read_by_tensorflow(uri)
    try:
        FileSystems.get_filesystem(uri)
    except ValueError:
        return _read_by_tensorflow(uri)
    try:
        with FileSystems.open(uri) as stream:
            return bytes(stream.read())
    except BeamIOError as error:
        raise VitrinaError(reason(error)) from error


def _read_by_tensorflow(uri: str) -> bytes:
    import tensorflow as tf

    try:
        with tf.io.gfile.GFile(uri, "rb") as stream:
            return bytes(stream.read())
    except tf.errors.UnimplementedError as error:
        raise UsageError(
            f"nothing here reads {uri.partition('://')[0]}:// URIs; give paths, or install the file system for Beam "
            "(for gs://, pip install 'apache-beam[gcp]')"
        ) from error
    except (tf.errors.OpError, ValueError) as error:
        raise VitrinaError(reason(error)) from error


def reason(error: BaseException) -> str:
    """An error in one line, without the path, which stands beside it."""
    return (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split())[:300]
