"""From images and a task's own inputs to the tensors of one request. Pure, shared by the sync and async clients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving import images
from serving.messages import DTYPES, example
from serving.results import Result
from signatures.errors import UsageError, VitrinaError, did_you_mean
from signatures.spec import Signature, Tensor

__all__ = ["Request", "build", "no_signature", "readable", "reason", "tensors"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """Tensors ready to be sent.

    Args:
        inputs: By name, batch axis first.
        count: The batch size.
        single: One thing was asked and one answer is wanted, not a list of one.
        scales: For each image, its width and height over those that are sent; None where nothing shrinks.
    """

    inputs: Mapping[str, NDArray[Any]]
    count: int
    single: bool
    scales: list[tuple[float, float]] | None = None


def build(
    pictures: Any,
    signature: str,
    task_inputs: Mapping[str, Any],
    describe: Callable[[], Mapping[str, Signature]],
    *,
    max_side: int | None = None,
) -> Request:
    """Builds a request.

    Args:
        pictures: An image, several (a list, or a uint8 array [b, h, w, 3]), or None for a task without an image.
        signature: The signature to be asked.
        task_inputs: A task's further inputs by name, per image (a list as long as the images) or one for all.
        describe: Gives the model's signatures; called only where `task_inputs` need their shapes.
        max_side: Shrink larger images first.

    Raises:
        UsageError: Something is no image, or an input does not exist or fit.
    """
    task_inputs = {name: value for name, value in task_inputs.items() if value is not None}
    if pictures is None:
        return _without_images(signature, task_inputs, describe, max_side)
    single = not images.is_batch(pictures)
    batch = [pictures] if single else list(pictures)
    if not batch:
        raise UsageError("Got no images. Give at least one.")
    scales = None
    if max_side is not None:
        shrunk = [images.shrink(picture, max_side) for picture in batch]
        batch, scales = [data for data, _ in shrunk], [scale for _, scale in shrunk]
    name, values = _pictures(batch, signature)
    inputs = {name: values}
    if task_inputs:
        told = _told(signature, describe)
        inputs |= {key: _spread(key, value, told, len(batch), max_side) for key, value in task_inputs.items()}
    if scales is not None and "points" in inputs:  # [b, p, 2], x and y
        inputs["points"] = inputs["points"] / np.array(scales, dtype=np.float32)[:, None, :]
    return Request(inputs=inputs, count=len(batch), single=single, scales=scales)


def _pictures(batch: list[Any], signature: str) -> tuple[str, NDArray[Any]]:
    if signature == "model":
        raise UsageError(
            "The signature 'model' takes preprocessed values, not images. "
            "Send them with Client.call({'pixel_values': array}, signature='model'), or ask 'serving_default'."
        )
    if signature == "pixels":
        arrays = [images.pixels(picture) for picture in batch]
        shapes = {array.shape for array in arrays}
        if len(shapes) > 1:
            sizes = sorted(f"{w}x{h}" for h, w, _ in shapes)
            raise UsageError(
                f"The signature 'pixels' takes images of one size per request, got {', '.join(sizes)}. "
                "Send them one by one, or ask 'serving_default'."
            )
        return "pixels", np.stack(arrays)
    encoded = [images.encode(picture) for picture in batch]
    if signature in ("from_examples", "classify"):
        name = "examples" if signature == "from_examples" else "inputs"
        return name, _strings([example({"image/encoded": data}) for data in encoded])
    return "image_bytes", _strings(encoded)


def _strings(values: list[bytes]) -> NDArray[Any]:
    array: NDArray[Any] = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _without_images(
    signature: str,
    task_inputs: Mapping[str, Any],
    describe: Callable[[], Mapping[str, Signature]],
    max_side: int | None,
) -> Request:
    if not task_inputs:
        raise UsageError("Got nothing to ask. Give an image, or the task's inputs by name.")
    told = _told(signature, describe)
    values = {name: _values(name, value, told, max_side) for name, value in task_inputs.items()}
    arrays = {name: (array, len(told[name].shape)) for name, array in values.items()}
    batched = [array.shape[0] for array, rank in arrays.values() if array.ndim == rank]
    count = batched[0] if batched else 1
    inputs = {name: _batched(name, array, rank, count) for name, (array, rank) in arrays.items()}
    return Request(inputs=inputs, count=count, single=not batched)


def _told(signature: str, describe: Callable[[], Mapping[str, Signature]]) -> Mapping[str, Tensor]:
    known = describe()
    if signature not in known:
        raise UsageError(no_signature(signature, known))
    return known[signature].inputs


def no_signature(signature: str, known: Mapping[str, Signature]) -> str:
    """The line for a person who asked for a signature that the model has not."""
    return f"The model has no signature '{signature}', only {', '.join(known)}.{did_you_mean(signature, known)}"


def tensors(inputs: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Inputs as arrays that a request can carry.

    Args:
        inputs: Arrays, or what makes one, by name.

    Raises:
        UsageError: One has a dtype that TensorFlow does not know, or an object array holds other things than strings.
    """
    arrays = {name: np.asarray(value) for name, value in inputs.items()}
    for name, array in arrays.items():
        if array.dtype == object:
            strange = {type(value).__name__ for value in array.reshape(-1) if not isinstance(value, str | bytes)}
            if strange:
                raise UsageError(f"The input '{name}' holds a {min(strange)}, wanted strings, or numbers of one shape.")
        elif array.dtype.kind not in "SU" and array.dtype.name not in DTYPES:
            raise UsageError(f"The input '{name}' has dtype {array.dtype}, which no signature takes. Convert it first.")
    return arrays


def reason(signature: str, inputs: Iterable[str], known: Mapping[str, Signature]) -> str | None:
    """Why a model refused a request, where its signatures tell that better than its own words; else None."""
    if signature not in known:
        return no_signature(signature, known)
    sent, wanted = set(inputs), known[signature].inputs
    missing = [name for name in wanted if name not in sent]
    extra = sorted(sent - set(wanted))
    if extra and any(name in ("image_bytes", "pixels") for name in extra):
        return (
            f"The signature '{signature}' takes no images in '{extra[0]}', but {', '.join(wanted) or 'nothing'}. Name "
            "another signature, or send tensors with Client.call."
        )
    if missing:
        return (
            f"The signature '{signature}' also wants {', '.join(missing)}. Give what is missing by name: "
            f"predict(..., {missing[0]}=...), or --input {missing[0]}=... on the command line."
        )
    return None


def _spread(name: str, value: Any, told: Mapping[str, Tensor], count: int, max_side: int | None) -> NDArray[Any]:
    array = _values(name, value, told, max_side)
    return _batched(name, array, len(told[name].shape), count)


def _values(name: str, value: Any, told: Mapping[str, Tensor], max_side: int | None) -> NDArray[Any]:
    if name not in told:
        raise UsageError(f"The model has no input '{name}', only {', '.join(told)}.{did_you_mean(name, told)}")
    dtype = told[name].dtype
    try:
        if dtype == "string":
            return _text_array(name, value, max_side)
        return np.asarray(value, dtype=np.dtype("float32" if dtype == "bfloat16" else dtype))
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"The input '{name}' wants {dtype} values of one shape, got {value!r:.80}: {error}."
        ) from error


def _text_array(name: str, value: Any, max_side: int | None) -> NDArray[Any]:
    """Nested lists of strings (of images, for an input of encoded images) as an object array of bytes."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "OSU":
        value = value.tolist()
    if isinstance(value, list | tuple):
        parts = [_text_array(name, item, max_side) for item in value]
        if len({part.shape for part in parts}) > 1:
            raise ValueError("the lists differ in length")
        return np.stack(parts) if parts else np.empty(0, dtype=object)
    scalar: NDArray[Any] = np.empty((), dtype=object)
    if name.endswith("_bytes"):
        scalar[()] = images.encode(value) if max_side is None else images.shrink(value, max_side)[0]
    elif isinstance(value, str | bytes):
        scalar[()] = value.encode() if isinstance(value, str) else value
    else:
        raise TypeError(f"{type(value).__name__} is no text")
    return scalar


def _batched(name: str, array: NDArray[Any], rank: int, count: int) -> NDArray[Any]:
    if array.ndim == rank - 1:
        return np.ascontiguousarray(np.broadcast_to(array, (count, *array.shape)))
    if array.ndim == rank and array.shape[0] == count:
        return array
    raise UsageError(
        f"The input '{name}' has shape {list(array.shape)}, wanted {rank - 1} axes (the same for every "
        f"image) or {rank} with {count} first (one for each image)."
    )


def readable(batch: list[Any]) -> tuple[list[Any], Callable[[list[Result]], list[Result]]]:
    """What of a batch can be read, so that one file that cannot does not spoil the rest.

    Returns:
        The images, and a function that puts their answers back in order beside the errors of the others.
    """
    found: list[Any] = []
    errors: dict[int, Result] = {}
    for index, picture in enumerate(batch):
        try:
            found.append(images.readable(picture))
        except VitrinaError as error:
            errors[index] = Result(error=str(error))

    def merge(answers: list[Result]) -> list[Result]:
        rest = iter(answers)
        return [errors[index] if index in errors else next(rest) for index in range(len(batch))]

    return found, merge
