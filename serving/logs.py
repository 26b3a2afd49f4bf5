"""Structured logs on stderr: what happened, and with what, as `key=value` pairs or one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone
from typing import Any

__all__ = ["set_up"]

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def set_up(log_format: str) -> None:
    """Sends the server's logs to stderr.

    Args:
        log_format: `text` or `json`.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if log_format == "json" else _Text())
    for name, level in (("vitrina", logging.INFO), ("uvicorn", logging.ERROR), ("grpc", logging.ERROR)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False


def _details(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if key not in _PLAIN}


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        details = "".join(
            f" {key}={value!r}" if (isinstance(value, str) and not value.isprintable()) or " " in str(value)
            else f" {key}={value}"
            for key, value in _details(record).items()
        )  # fmt: skip
        text = f"{_time(record)} {record.levelname} {record.getMessage()}{details}"
        return text + "\n" + self.formatException(record.exc_info) if record.exc_info else text


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {"time": _time(record), "level": record.levelname, "message": record.getMessage(), **_details(record)}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str, ensure_ascii=False)
