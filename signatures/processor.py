"""Frozen preprocessing settings become TensorFlow ops, for one image and for a batch of encoded ones.

No item of a batch can harm another: each is read on its own, and one that cannot be read is zeros with a reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from signatures import headers
from signatures.decode import decode, unguarded
from signatures.errors import UsageError
from signatures.functions import apart
from signatures.image import center_window, normalize, pad_to, rescale
from signatures.keras_resize import resize_as_keras
from signatures.preprocessing import TENSORFLOW, Preprocessing
from signatures.resize import Window, resize
from signatures.spec import Tensor

__all__ = ["MAX_PIXELS", "Decoded", "Processor", "compile_processor", "decode_batch", "pixels_batch"]

MAX_PIXELS = 64_000_000
"""The default limit on what a file may claim, in pixels."""

# Decoded pictures are large, so that this bounds the memory of a request; cores are shared by requests.
_PARALLEL_ITEMS = 8

# Decoding has no other device, and what follows are hundreds of small steps an image, at which a GPU would be slower.
_DEVICE = "/CPU:0"


class Decoded(NamedTuple):
    """A batch after reading and preprocessing.

    Args:
        features: Name to [b, ...]; zeros for an item that could not be read.
        error: string [b], "" or why the item could not be read.
        sizes: int32 [b, 2], height and width of the upright source; zeros for an item that could not be read.
    """

    features: dict[str, tf.Tensor]
    error: tf.Tensor
    sizes: tf.Tensor


Refusals = list[tuple[tf.Tensor, Callable[[], tf.Tensor]]]
"""Pairs of a bool scalar and the reason (string scalar) where it is true; the first that is true counts."""


def _reason(refusals: Refusals) -> tf.Tensor:
    """The reason that counts, or "". Texts cost more than what they are about, so they are made only where needed."""
    holds = tf.stack([condition for condition, _ in refusals])

    def first() -> tf.Tensor:
        return tf.gather(tf.stack([text() for _, text in refusals]), tf.argmax(tf.cast(holds, tf.int32)))

    reason: tf.Tensor = tf.cond(tf.reduce_any(holds), apart(first), lambda: tf.constant(""))
    return tf.ensure_shape(reason, [])


class Processor:
    """What a checkpoint's image processor does to one upright RGB picture, as TensorFlow ops.

    Make one with `compile_processor`.
    """

    def __init__(self, settings: Preprocessing) -> None:
        self.settings = settings

    def __call__(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Preprocesses one picture.

        Args:
            image: uint8 [h, w, 3], upright RGB.

        Returns:
            Name to tensor without a batch axis, as `spec` says; `pixel_values` first.
        """
        settings = self.settings
        source = tf.shape(image)[:2]
        size = tf.cast(self.target_size(tf.cast(source, tf.int64)), tf.int32)
        if settings.resize is not None:
            image = self._resized(image, size)
        elif settings.crop is not None:
            image = self._cropped(image, source)
        reshaped = tf.shape(image)[:2]
        values = self._values(image)
        every = {
            "pixel_values": values,
            "original_sizes": tf.cast(source, tf.int64),
            "reshaped_input_sizes": tf.cast(reshaped, tf.int64),
        }
        return {name: every[name] for name in settings.outputs}

    def _values(self, image: tf.Tensor) -> tf.Tensor:
        """Rescaled and normalised, on the canvas, with the channels where they belong; float32."""
        settings = self.settings
        planes = []
        # A transpose of two axes takes a fifth of the time of one of three.
        flat = tf.unstack(tf.transpose(tf.reshape(image, [-1, 3])))
        for channel, plane in enumerate(tf.reshape(part, tf.shape(image)[:2]) for part in flat):
            value = tf.cast(plane, tf.float32)
            if settings.rescale is not None:
                value = rescale(plane, settings.rescale, settings.offset)
            if settings.scale is not None:
                value = value * tf.constant(settings.scale[channel], tf.float32)
            if settings.shift is not None:
                value = value + tf.constant(settings.shift[channel], tf.float32)
            if settings.mean is not None and settings.std is not None:
                value = normalize(value, settings.mean[channel], settings.std[channel])
            if settings.divisor is not None:
                value = normalize(value, 0.0, settings.divisor[channel])
            planes.append(value)
        if settings.flip_channels:
            planes.reverse()
        if settings.data_format == "channels_first" and settings.pad is None:
            values = tf.stack(planes)
        else:
            values = tf.stack(planes, axis=2)
            values = values if settings.pad is None else pad_to(values, settings.pad)
            values = tf.transpose(values, [2, 0, 1]) if settings.data_format == "channels_first" else values
        return tf.ensure_shape(values, self.spec()["pixel_values"].shape[1:])

    def target_size(self, source: tf.Tensor) -> tf.Tensor:
        """The size that a picture is resized to, before any crop.

        Args:
            source: int64 [2], its height and width.

        Returns:
            int64 [2]; a side is 0 where the rule rounds it down to nothing.
        """
        rule = self.settings.resize
        if rule is None:
            return source
        if rule.rule == "exact":
            return tf.constant([rule.height, rule.width], tf.int64)
        # Products of whole numbers below 2**53 are exact in double precision, as Python's are.
        sides, edge = tf.cast(source, tf.float64), tf.constant(rule.edge, tf.float64)
        if rule.rule == "longest_edge":
            return tf.cast(sides * (edge / tf.reduce_max(sides)) + 0.5, tf.int64)
        if rule.rule != "shortest_edge":
            raise UsageError(f"The frozen resize rule {rule.rule!r} is not known. Export the model again.")
        longer = edge * tf.reduce_max(sides) / tf.reduce_min(sides)
        size = tf.where(source[1] <= source[0], tf.stack([longer, edge]), tf.stack([edge, longer]))
        return tf.cast(size, tf.int64)

    def refusals(self, source: tf.Tensor, max_pixels: int) -> Refusals:
        """Why a picture of this size cannot be processed; `source` as for `target_size`."""
        target = self.target_size(source)
        crop, pad = self.settings.crop, self.settings.pad

        def told(*more: str) -> tf.Tensor:
            given, wanted = _size_text(source), _size_text(target)
            return tf.strings.join(["The image of ", given, " pixels would be resized to ", wanted, *more])

        # With a crop only the crop is made, but the positions along a side are counted in 32 bits.
        most = tf.reduce_max(target) if crop is not None else target[0] * target[1]
        too_many = f", more than the {max_pixels:,} pixels that are made. Send one less long."
        refusals: Refusals = [
            (tf.reduce_any(target < 1), lambda: told(". Send one that is less long and thin.")),
            (most > max_pixels, lambda: told(too_many)),
        ]
        if pad is not None and crop is None:
            beyond = f", beyond the {pad[1]}x{pad[0]} of the processor's canvas. Send one of another shape."
            refusals.append((tf.reduce_any(target > tf.constant(pad, tf.int64)), lambda: told(beyond)))
        return refusals

    def _resized(self, image: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        rule, crop = self.settings.resize, self.settings.crop
        assert rule is not None
        if rule.order == TENSORFLOW:
            return resize_as_keras(image, rule)
        if crop is None:
            return resize(image, size, resample=rule.resample, order=rule.order)
        part, corner = center_window(size, crop)
        (top, left), (height, width) = tf.unstack(part[0]), tf.unstack(part[1])
        window = Window(top, left, height, width)
        return pad_to(resize(image, size, resample=rule.resample, order=rule.order, window=window), crop, corner)

    def _cropped(self, image: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        crop = self.settings.crop
        assert crop is not None
        part, corner = center_window(size, crop)
        (top, left), (height, width) = tf.unstack(part[0]), tf.unstack(part[1])
        return pad_to(image[top : top + height, left : left + width], crop, corner)

    @property
    def output_size(self) -> tuple[int | None, int | None]:
        """Height and width of `pixel_values`; None where they follow the picture's."""
        settings = self.settings
        if settings.pad is not None:
            return settings.pad
        if settings.crop is not None:
            return settings.crop
        if settings.resize is not None and settings.resize.rule == "exact":
            return settings.resize.height, settings.resize.width
        return None, None

    @property
    def fixed_size(self) -> bool:
        """Whether every picture comes out with the same size, so that any batch can be stacked."""
        return None not in self.output_size

    def spec(self) -> dict[str, Tensor]:
        """What is returned for a batch, by name."""
        size = self.output_size
        first = self.settings.data_format == "channels_first"
        shape = (None, 3, *size) if first else (None, *size, 3)
        every = {
            "pixel_values": Tensor(dtype="float32", shape=shape, meaning="the preprocessed pictures"),
            "original_sizes": Tensor(dtype="int64", shape=(None, 2), meaning="height and width of the upright source"),
            "reshaped_input_sizes": Tensor(
                dtype="int64", shape=(None, 2), meaning="height and width after resizing, before padding"
            ),
        }
        return {name: every[name] for name in self.settings.outputs}

    def training_map(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """One encoded image to features, for `tf.data`: what training sees is what serving sees.

        Args:
            image_bytes: string scalar.

        Returns:
            As `__call__`.

        Raises:
            tf.errors.InvalidArgumentError: When run, where the image cannot be read.
        """
        header, octets = headers.read_header(image_bytes)
        reason = _reason(_refusals(header, tf.strings.length(image_bytes), self, MAX_PIXELS))
        with tf.control_dependencies([tf.debugging.Assert(reason == "", [reason])]):
            image_bytes = tf.identity(image_bytes)
        return self(decode(image_bytes, octets, header, unguarded))


def compile_processor(settings: Preprocessing) -> Processor:
    """The processor of frozen settings."""
    return Processor(settings)


def decode_batch(image_bytes: tf.Tensor, processor: Processor, *, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Reads and preprocesses a batch of encoded images.

    Args:
        image_bytes: string [b], each of any format, size and orientation; b may be 0.
        processor: What is done to each.
        max_pixels: A file that claims more is refused by its header, before memory is taken for it.

    Returns:
        The batch; an item that cannot be read is zeros with a reason in `error`, and leaves the others as they are.
    """

    def item(data: tf.Tensor) -> _Item:
        return _item(data, processor, max_pixels)

    return Decoded(*_each(item, image_bytes, processor))


def pixels_batch(pixels: tf.Tensor, processor: Processor) -> Decoded:
    """Preprocesses pictures that are decoded already.

    Args:
        pixels: uint8 [b, h, w, 3], upright RGB.
        processor: What is done to each.

    Returns:
        The batch; `error` is "" throughout.
    """
    size = tf.shape(pixels)[1:3]
    nothing = (tf.reduce_any(size < 1), lambda: tf.constant("The picture has no pixels."))
    reason = _reason([nothing, *processor.refusals(tf.cast(size, tf.int64), MAX_PIXELS)])

    def item(image: tf.Tensor) -> _Item:
        return _features(processor, image, reason), reason, size

    return Decoded(*_each(item, pixels, processor))


_Item = tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]


def _each(item: Callable[[tf.Tensor], _Item], batch: tf.Tensor, processor: Processor) -> _Item:
    """`item` of every element, several at a time, stacked."""
    specs = {name: tf.TensorSpec(tensor.shape[1:], tensor.dtype) for name, tensor in processor.spec().items()}
    item = apart(item)
    with tf.device(_DEVICE):
        if not processor.fixed_size:
            return _each_of_any_size(item, batch, specs)
        result: _Item = tf.map_fn(
            tf.autograph.experimental.do_not_convert(item),
            batch,
            fn_output_signature=(specs, *_REASON_AND_SIZE),
            parallel_iterations=_PARALLEL_ITEMS,
        )
    return result


_REASON_AND_SIZE = (tf.TensorSpec([], tf.string), tf.TensorSpec([2], tf.int32))


def _each_of_any_size(item: Callable[[tf.Tensor], _Item], batch: tf.Tensor, specs: dict[str, tf.TensorSpec]) -> _Item:
    """As `_each`, for a processor that leaves pictures at different sizes: those unlike the first one are refused."""

    def packed(element: tf.Tensor) -> tuple[_Item, tf.Tensor]:
        features, reason, size = item(element)
        values = features["pixel_values"]
        return ({**features, "pixel_values": tf.io.serialize_tensor(values)}, reason, size), tf.shape(values)

    def unpacked(pair: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        data, same = pair
        values = tf.cond(same, lambda: tf.io.parse_tensor(data, tf.float32), lambda: tf.zeros(wanted, tf.float32))
        return tf.ensure_shape(values, specs["pixel_values"].shape)

    kept = {**specs, "pixel_values": tf.TensorSpec([], tf.string)}
    (features, reason, size), shapes = tf.map_fn(
        tf.autograph.experimental.do_not_convert(packed),
        batch,
        fn_output_signature=((kept, *_REASON_AND_SIZE), tf.TensorSpec([3], tf.int32)),
        parallel_iterations=_PARALLEL_ITEMS,
    )
    # Where none could be read, the zeros are as small as can be.
    least = tf.constant([[side or 1 for side in specs["pixel_values"].shape]])
    good = tf.concat([tf.boolean_mask(shapes, reason == ""), least], axis=0)
    wanted = good[0]
    same = tf.reduce_all(shapes == wanted, axis=1) & (reason == "")
    values = tf.map_fn(unpacked, (features["pixel_values"], same), fn_output_signature=specs["pixel_values"])
    other = "The image comes out with another size than the first of its batch. Send such images one at a time."
    reason = tf.where(same | (reason != ""), reason, other)
    return {**features, "pixel_values": values}, reason, size


def _features(processor: Processor, image: tf.Tensor, reason: tf.Tensor) -> dict[str, tf.Tensor]:
    """The processor's answer, or zeros where there is a reason against it."""
    nothing = {n: tf.zeros([side or 1 for side in t.shape[1:]], t.dtype) for n, t in processor.spec().items()}
    features: dict[str, tf.Tensor] = tf.cond(reason == "", lambda: processor(image), lambda: nothing)
    return features


def _item(data: tf.Tensor, processor: Processor, max_pixels: int) -> _Item:
    header, octets = headers.read_header(data)
    reason = _reason(_refusals(header, tf.strings.length(data), processor, max_pixels))
    blank = tf.zeros([0, 0, 3], tf.uint8)
    image = tf.cond(reason == "", lambda: decode(data, octets, header), lambda: blank)
    size = tf.shape(image)[:2]
    reason = _reason([(reason != "", lambda: reason), (tf.reduce_any(size < 1), lambda: _corrupt(header))])
    return _features(processor, image, reason), reason, size


def _size_text(size: tf.Tensor) -> tf.Tensor:
    """Height and width, int64 [2], as `width x height`."""
    return tf.strings.join([tf.as_string(size[1]), "x", tf.as_string(size[0])])


def _corrupt(header: headers.Header) -> tf.Tensor:
    old = "The WebP data is truncated or corrupt, or this server's TensorFlow is older than 2.19, which reads no WebP."
    corrupt = tf.strings.join(["The ", tf.gather(headers.NAMES, header.kind), " data is truncated or corrupt."])
    return tf.where(header.kind == headers.WEBP, old, corrupt)


def _refusals(header: headers.Header, length: tf.Tensor, processor: Processor, max_pixels: int) -> Refusals:
    """Why an image is not even tried."""
    name = tf.gather(tf.constant(headers.NAMES), header.kind)

    def unknown() -> tf.Tensor:
        what = " bytes are no image that is read here. Send JPEG, PNG, BMP, GIF or WebP."
        return tf.strings.join(["The ", tf.as_string(length), what])

    def too_large() -> tf.Tensor:
        most = f" pixels, more than the {max_pixels:,} that are read. Send it smaller."
        return tf.strings.join(["The ", name, " claims ", _size_text(tf.stack([header.height, header.width])), most])

    # Each side first: the product of two 32-bit numbers can pass 64 bits.
    sides_fit = (header.height <= max_pixels) & (header.width <= max_pixels)
    fits = sides_fit & (tf.where(sides_fit, header.height * header.width, 0) <= max_pixels)
    stored = tf.clip_by_value(tf.stack([header.height, header.width]), 1, max_pixels)
    upright = tf.where(header.orientation >= 5, stored[::-1], stored)
    return [
        (length == 0, lambda: tf.constant("The image is empty (0 bytes).")),
        (header.kind == headers.UNKNOWN, unknown),
        (
            (header.height < 1) | (header.width < 1),
            lambda: tf.strings.join(["The ", name, " header is truncated or corrupt."]),
        ),
        (~fits, too_large),
        (header.problem != "", lambda: header.problem),
        *processor.refusals(upright, max_pixels),
    ]
