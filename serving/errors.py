"""The serving domain's errors: a canonical code and a message, as TF Serving words them.

They know nothing of HTTP or gRPC. `grpc_server` and `rest_server` map a `Code` once each, at their door.
"""

from __future__ import annotations

import enum

__all__ = ["Code", "ServingError", "from_tensorflow", "invalid_argument", "not_found"]


class Code(enum.IntEnum):
    """The canonical status codes, numbered as in `google.rpc.Code` (which gRPC and TensorFlow share)."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class ServingError(Exception):
    """A request or a model could not be served.

    Args:
        code: What kind of failure it is.
        message: What the caller is told.
    """

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        """As TensorFlow prints a status: `INVALID_ARGUMENT: message`."""
        return f"{self.code.name}: {self.message}"


def invalid_argument(message: str) -> ServingError:
    """The commonest error, for short."""
    return ServingError(Code.INVALID_ARGUMENT, message)


def not_found(message: str) -> ServingError:
    """A model, a version or a file does not exist."""
    return ServingError(Code.NOT_FOUND, message)


def from_tensorflow(error: BaseException) -> ServingError:
    """What TensorFlow raised, as a `ServingError` with its own code and message.

    Args:
        error: A `tf.errors.OpError`, or anything else that Python raised on the way (then UNKNOWN).
    """
    code = getattr(error, "error_code", None)
    message = getattr(error, "message", None)
    if isinstance(code, int) and isinstance(message, str):
        return ServingError(Code(code) if code in Code._value2member_map_ else Code.UNKNOWN, message)
    return ServingError(Code.UNKNOWN, str(error) or type(error).__name__)
