"""Examples as training sees them: through the preprocessing that will be served, augmented after it.

An image's way to the model is the processor that `signatures.build` puts into the servable, called once per image;
random augmentation comes after it and only in training. There is no second preprocessing to drift away from the first.
A mask goes the same way as its image (resized by nearest pixel, cropped, padded), so that they stay on each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from pipelines.data import CLASSIFICATION
from pipelines.examples import DIGEST, ENCODED, MASK, TEXT
from pipelines.settings import Schedule
from signatures.errors import UsageError
from signatures.image import center_window, pad_to
from signatures.preprocessing import TENSORFLOW, Preprocessing
from signatures.processor import Processor, compile_processor

__all__ = ["FIT", "PIXELS", "VALIDATE", "count", "dataset", "features", "fixed"]

#: Preprocessed images up to this many bytes stay in memory between epochs.
CACHE_BYTES = 2 << 30
PIXELS = "pixel_values"
SHUFFLED = 10_000
#: The parts of a train split where early stopping looks at one of them.
FIT, VALIDATE = "fit", "validate"
BUCKETS = 10_000


def dataset(
    files: Sequence[str],
    *,
    preprocessing: Preprocessing,
    labels: Sequence[str],
    batch_size: int,
    task: str = CLASSIFICATION,
    schedule: Schedule | None = None,
    part: str | None = None,
    share: float = 0.0,
    weights: Sequence[float] | None = None,
    order: Sequence[int] | None = None,
) -> Any:
    """Batches of features and targets, and for segmentation what each pixel counts.

    Args:
        files: TFRecords (gzip) of Examples.
        preprocessing: The settings that the servable will freeze.
        labels: Class names in the model's id order.
        batch_size: Images per batch.
        task: One of `data.TASKS`.
        schedule: Shuffles and augments with its seed; None does neither.
        part: `fit` or `validate`: which part of the images, divided by their content; None is all.
        share: The share of `validate`, 0 to 1.
        weights: What a pixel of each class counts, for segmentation; None is 1 for each.
        order: The model's id of each id in a mask; None where they are the same.

    Returns:
        A `tf.data.Dataset` of one epoch. Classification: `({"pixel_values": float32 [b, c, h, w] or [b, h, w, c]},
        one-hot float32 [b, classes])`. Segmentation: `(features, class ids int32 [b, h, w], float32 [b, h, w])`, 0
        where a pixel counts for nothing.

    Raises:
        UsageError: The preprocessing leaves images at different sizes, which cannot be batched.
    """
    processor = fixed(preprocessing)
    read = _labelled(processor, labels) if task == CLASSIFICATION else _masked(processor, len(labels), weights, order)
    records = tf.data.TFRecordDataset(list(files), compression_type="GZIP")
    if part is not None:
        records = records.filter(_in_part(part, share))
    items = _cached(records.map(read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True), files)
    if schedule is None:
        return items.batch(batch_size).prefetch(tf.data.AUTOTUNE)
    batches = items.shuffle(SHUFFLED, seed=schedule.seed).batch(batch_size)
    augment = _augmentation(schedule, preprocessing)
    if augment is not None:
        batches = batches.map(augment)
    return batches.prefetch(tf.data.AUTOTUNE)


def fixed(preprocessing: Preprocessing) -> Processor:
    """The processor of settings under which every image comes out with the same size.

    Raises:
        UsageError: They do not.
    """
    processor = compile_processor(preprocessing)
    if not processor.fixed_size:
        raise UsageError(
            f"{preprocessing.processor} leaves images at different sizes, and training takes batches of one size. "
            "Give one by --size (with --mean and --std as the model wants them)."
        )
    return processor


def features(images: Sequence[bytes], preprocessing: Preprocessing) -> list[Any]:
    """Encoded images as training sees them before any augmentation, by the very map that `dataset` runs.

    Args:
        images: Encoded images.
        preprocessing: The settings that the servable will freeze.

    Returns:
        `pixel_values` of each, float32 [c, h, w] or [h, w, c].
    """
    processor = compile_processor(preprocessing)
    read = _as_written(lambda encoded: _features(processor, encoded)[PIXELS])
    return list(tf.data.Dataset.from_tensor_slices(list(images)).map(read, num_parallel_calls=tf.data.AUTOTUNE))


def count(files: Sequence[str], labels: Sequence[str], *, task: str, part: str | None, share: float) -> list[int]:
    """How many images (segmentation: pixels) each class has, and in the last place how many images there are."""
    counts = dict.fromkeys(labels, 0)
    images = 0
    records = tf.data.TFRecordDataset(list(files), compression_type="GZIP")
    if part is not None:
        records = records.filter(_in_part(part, share))
    if task == CLASSIFICATION:
        for record in records:
            feature = tf.train.Example.FromString(record.numpy()).features.feature
            counts[feature[TEXT].bytes_list.value[0].decode()] += 1
            images += 1
        return [*counts.values(), images]
    ids = records.map(lambda record: _ids(_parse(record, MASK)[MASK]), num_parallel_calls=tf.data.AUTOTUNE)
    found = [0] * len(labels)
    for mask in ids:
        seen = tf.math.bincount(mask, minlength=len(labels), maxlength=len(labels)).numpy()
        found = [before + int(more) for before, more in zip(found, seen, strict=True)]
        images += 1
    return [*found, images]


# Traced as they stand, as `signatures.build` does it: the processor is written in ops already.
def _as_written(function: Callable[..., Any]) -> Callable[..., Any]:
    made: Callable[..., Any] = tf.autograph.experimental.do_not_convert(function)
    return made


def _labelled(processor: Processor, labels: Sequence[str]) -> Callable[[Any], Any]:
    # An unknown name gets -1, whose one-hot row is all zeros.
    ids = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(list(labels), tf.range(len(labels), dtype=tf.int64)), default_value=-1
    )

    @_as_written
    def read(serialized: Any) -> tuple[Any, Any]:
        parsed = _parse(serialized, ENCODED, TEXT)
        return _features(processor, parsed[ENCODED]), tf.one_hot(ids.lookup(parsed[TEXT]), len(labels))

    return read


def _masked(
    processor: Processor, classes: int, weights: Sequence[float] | None, order: Sequence[int] | None
) -> Callable[[Any], Any]:
    each = tf.constant([*(weights or [1.0] * classes)], tf.float32)
    own = tf.constant([*(order or range(classes))], tf.int32)

    @_as_written
    def read(serialized: Any) -> tuple[Any, Any, Any]:
        parsed = _parse(serialized, ENCODED, MASK)
        ids = _like_image(processor, _ids(parsed[MASK]), outside=classes)
        counts = ids < classes
        ids = tf.gather(own, tf.where(counts, ids, 0))
        return _features(processor, parsed[ENCODED]), ids, tf.where(counts, tf.gather(each, ids), 0.0)

    return read


def _parse(serialized: Any, *names: str) -> Any:
    return tf.io.parse_single_example(serialized, {name: tf.io.FixedLenFeature([], tf.string) for name in names})


def _features(processor: Processor, encoded: Any) -> Any:
    # The sizes that some processors tell besides are for postprocessing.
    return {PIXELS: processor.training_map(encoded)[PIXELS]}


def _ids(encoded: Any) -> Any:
    """The class ids of a mask as it lies in an Example: int32 [h, w]."""
    wide = tf.cast(tf.io.decode_png(encoded, 1, tf.uint16)[..., 0], tf.int32)
    # Eight bits are widened to sixteen by repeating them.
    deep = tf.strings.substr(encoded, 24, 1) == b"\x10"
    return tf.where(deep, wide, wide // 257)


def _like_image(processor: Processor, ids: Any, *, outside: int) -> Any:
    """Ids [h, w] on the grid of the preprocessed image, `outside` where there is no image."""
    settings = processor.settings
    values = ids[..., None]
    source = tf.shape(ids)
    size = tf.cast(processor.target_size(tf.cast(source, tf.int64)), tf.int32)
    if settings.resize is not None and settings.resize.order == TENSORFLOW and settings.resize.aspect != "stretch":
        raise UsageError(
            f"{settings.processor} keeps the aspect ratio by {settings.resize.aspect}, which masks do not follow here. "
            "Give --size instead."
        )
    if settings.resize is not None:
        # By the middle of each pixel, as Pillow does it.
        values = tf.image.resize(values, size, method="nearest")
    if settings.crop is not None:
        part, corner = center_window(size, settings.crop)
        (top, left), (height, width) = tf.unstack(part[0]), tf.unstack(part[1])
        values = _padded(values[top : top + height, left : left + width], settings.crop, corner, outside)
    if settings.pad is not None:
        values = _padded(values, settings.pad, None, outside)
    return tf.ensure_shape(values[..., 0], processor.output_size)


def _padded(values: Any, size: tuple[int, int], corner: Any, outside: int) -> Any:
    """`pad_to` with another filling than 0."""
    return pad_to(values - outside, size, corner) + outside


def _in_part(part: str, share: float) -> Callable[[Any], Any]:
    @_as_written
    def belongs(serialized: Any) -> Any:
        bucket = tf.strings.to_hash_bucket_fast(_parse(serialized, DIGEST)[DIGEST], BUCKETS)
        return (bucket < round(share * BUCKETS)) == (part == VALIDATE)

    return belongs


def _cached(items: Any, files: Sequence[str]) -> Any:
    bytes_each = sum(
        spec.dtype.size * math.prod(size or 512 for size in spec.shape.as_list())
        for spec in tf.nest.flatten(items.element_spec)
    )
    # Compressed images are rarely smaller than this, so the count is not needed to stay on the safe side.
    least_compressed = 200
    most_images = sum(Path(file).stat().st_size for file in files) / least_compressed
    return items.cache() if bytes_each * most_images < CACHE_BYTES else items


def _augmentation(schedule: Schedule, preprocessing: Preprocessing) -> Callable[..., Any] | None:
    """Keras's random layers over a batch: images and, moved by the same chance, their masks."""
    layers = _layers(schedule, _value_range(preprocessing))
    if not layers:
        return None
    first = preprocessing.data_format == "channels_first"

    @_as_written
    def augmented(features: Any, target: Any, weight: Any = None) -> Any:
        images = features[PIXELS]
        shape = images.shape
        images = tf.transpose(images, [0, 2, 3, 1]) if first else images
        # Where a mask is moved away from, nothing counts: its weight moves with it.
        masks = None if weight is None else tf.stack([tf.cast(target, tf.float32), weight], axis=-1)
        for layer, for_masks in layers:
            chance = layer.get_random_transformation(images, training=True)
            images = layer.transform_images(images, chance)
            masks = masks if masks is None or for_masks is None else for_masks.transform_images(masks, chance)
        images = tf.ensure_shape(tf.transpose(images, [0, 3, 1, 2]) if first else images, shape)
        if masks is None:
            return {**features, PIXELS: images}, target
        ids = tf.cast(tf.round(masks[..., 0]), target.dtype)
        return {**features, PIXELS: images}, tf.ensure_shape(ids, target.shape), masks[..., 1]

    return augmented


def _layers(schedule: Schedule, value_range: tuple[float, float]) -> list[tuple[Any, Any]]:
    """Each layer with the one that moves masks alike, or None where masks stay."""
    import keras

    image = keras.layers
    found: list[tuple[Any, Any]] = []

    def moving(cls: Any, *factors: Any) -> None:
        # Ids are not mixed: a mask's pixels are taken as they are.
        pair = [
            cls(*factors, fill_mode="nearest", interpolation=kind, seed=schedule.seed + len(found) + 1)
            for kind in ("bilinear", "nearest")
        ]
        found.append((pair[0], pair[1]))

    if schedule.flip:
        layer = image.RandomFlip("horizontal", seed=schedule.seed + len(found) + 1)
        found.append((layer, layer))
    if schedule.shift:
        moving(image.RandomTranslation, schedule.shift, schedule.shift)
    if schedule.rotate:
        moving(image.RandomRotation, schedule.rotate)
    if schedule.zoom:
        moving(image.RandomZoom, schedule.zoom)
    if schedule.brightness:
        seed = schedule.seed + len(found) + 1
        found.append((image.RandomBrightness(schedule.brightness, value_range=value_range, seed=seed), None))
    if schedule.contrast:
        seed = schedule.seed + len(found) + 1
        found.append((image.RandomContrast(schedule.contrast, value_range=value_range, seed=seed), None))
    return found


def _value_range(settings: Preprocessing) -> tuple[float, float]:
    """The least and the most that a preprocessed pixel can be, over all channels."""
    ends = []
    for channel in range(3):
        for level in (0.0, 255.0):
            value = level if settings.rescale is None else level * settings.rescale + settings.offset
            value = value * settings.scale[channel] if settings.scale else value
            value = value + settings.shift[channel] if settings.shift else value
            if settings.mean is not None and settings.std is not None:
                value = (value - settings.mean[channel]) / settings.std[channel]
            ends.append(value / settings.divisor[channel] if settings.divisor else value)
    return min(ends), max(ends)
