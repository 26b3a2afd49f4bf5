"""Holds back the notes of other libraries that a user of Vitrina can do nothing about."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from signatures.errors import MissingExtra

__all__ = ["quiet_transformers"]


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Only errors of transformers come through: no notes on deprecated TensorFlow classes or chosen devices.

    Raises:
        MissingExtra: transformers is not installed.
    """
    try:
        from transformers.utils import logging
    except ImportError as error:
        raise MissingExtra("transformers", "hub") from error

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
