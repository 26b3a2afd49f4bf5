"""Functions that stay whole in a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

__all__ = ["apart", "guarded"]


def apart(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of tensors that TensorFlow prepares on its own, at its first call, once for all its callers.

    What is called is otherwise copied into every caller, and prepared there whether it ever runs or not: seconds for a
    servable whose decoders know five formats. A call costs some 20 microseconds.
    """
    called: Callable[..., Any] = tf.function(function, autograph=False, experimental_attributes={"_noinline": True})
    return called


def guarded(decoder: Callable[[tf.Tensor], tf.Tensor], data: tf.Tensor) -> tf.Tensor:
    """What a decoder op makes of some bytes, or an empty answer where it fails.

    An op that meets corrupt data fails the whole request it is part of. Here it is the only thing in a dataset of one
    element that ignores errors. The dataset holds nothing else, because TensorFlow prepares a dataset's function anew
    at every call, which takes as long as the function is large.
    """
    tried = tf.data.Dataset.from_tensors(data).map(tf.autograph.experimental.do_not_convert(decoder)).ignore_errors()
    spec = tried.element_spec
    blank: tf.Tensor = tf.zeros([side or 0 for side in spec.shape], spec.dtype)
    return tried.concatenate(tf.data.Dataset.from_tensors(blank)).take(1).get_single_element()
