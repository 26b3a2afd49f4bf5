"""A checkpoint's image-processor settings, frozen as plain data. No TensorFlow, no transformers.

Every processor class that belongs to a TensorFlow vision model does the same few things in the same order: resize,
centre crop, rescale, normalise, pad, flip channels. `Preprocessing` says which of them, and how; `processor.py` turns
it into ops. What a processor's file says is either frozen here, or knowingly ignored, or refused by name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from signatures.errors import UsageError, did_you_mean
from signatures.processor_classes import CLASSES, IGNORED, MODEL_TYPES, ProcessorClass

__all__ = [
    "RESAMPLE_NAMES",
    "TENSORFLOW",
    "Preprocessing",
    "Resize",
    "from_options",
    "from_processor_config",
    "pass_order",
]

RESAMPLE_NAMES: tuple[str, ...] = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""`PIL.Image.Resampling` by number."""

TENSORFLOW = "tensorflow"
"""The `Resize.order` of `tf.image.resize`."""


@dataclass(frozen=True, kw_only=True)
class Resize:
    """How a picture gets its new size.

    Args:
        rule: `exact` (to height x width), `shortest_edge` (the shorter edge becomes `edge`, the longer follows,
            truncated to whole pixels) or `longest_edge` (the longer edge becomes `edge`, both rounded half up).
        height: Pixels, for `exact`.
        width: Pixels, for `exact`.
        edge: Pixels, for the other two.
        resample: One of `RESAMPLE_NAMES`, or of TensorFlow's methods where `order` is `tensorflow`.
        order: Which pass comes first, `pillow-12` or `pillow-13` (see `signatures.resize`); `tensorflow` is
            `tf.image.resize`, as Keras resizes (see `signatures.keras_resize`): in float32, without rounding to grey
            levels, and with the rule `exact` alone.
        aspect: How `tensorflow` treats another aspect ratio: `stretch`, `crop` (the largest middle part that has it) or
            `pad` (with zeros on both sides).
        antialias: Whether `tensorflow` widens its filter when it makes pictures smaller.
    """

    rule: str
    height: int | None = None
    width: int | None = None
    edge: int | None = None
    resample: str = "bilinear"
    order: str = "pillow-12"
    aspect: str = "stretch"
    antialias: bool = False


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What happens to an upright RGB picture of 8 bits, in the order of the fields.

    Args:
        processor: The processor class that these settings come from, or `options`.
        resize: None where the picture keeps its size.
        crop: Height and width of a centre crop, filled up with zeros where the picture is smaller.
        rescale: Factor on the 8-bit values, in double precision, or None.
        offset: Added after rescaling.
        scale: Per channel, multiplied by in float32 (Keras); None without.
        shift: Per channel, added after `scale`; None without.
        mean: Per channel, subtracted; None without normalising.
        std: Per channel, divided by.
        divisor: Per channel, divided by once more (EfficientNet's `include_top`), or None.
        pad: Height and width of a canvas of zeros with the picture in its upper left corner, after normalising.
        flip_channels: RGB to BGR at the end.
        data_format: `channels_first` or `channels_last`.
        outputs: The names of what is returned, in order; `pixel_values` first.
        pillow: The Pillow that these settings are exact to, such as `12.3.0`.
        ignored: Settings of the processor's file that its class does not read, or that concern no pixels.
    """

    processor: str
    resize: Resize | None = None
    crop: tuple[int, int] | None = None
    rescale: float | None = None
    offset: float = 0.0
    scale: tuple[float, ...] | None = None
    shift: tuple[float, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    divisor: tuple[float, ...] | None = None
    pad: tuple[int, int] | None = None
    flip_channels: bool = False
    data_format: str = "channels_first"
    outputs: tuple[str, ...] = ("pixel_values",)
    pillow: str = ""
    ignored: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The document that goes into `servable.json`."""
        document = dataclasses.asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in document.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Preprocessing:
        """Reads what `to_json` wrote.

        Raises:
            UsageError: There is a key that this Vitrina does not know.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(data) - known)
        if unknown:
            raise UsageError(
                f"The frozen preprocessing has settings that this Vitrina does not know ({', '.join(unknown)}). "
                "Export the model again, or install the Vitrina that wrote it."
            )
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        if values.get("resize") is not None:
            values["resize"] = Resize(**values["resize"])
        return cls(**values)


def pass_order(pillow_version: str | None = None) -> str:
    """The rule by which a Pillow chooses the first pass: `pillow-12` or `pillow-13`.

    Args:
        pillow_version: Such as `12.3.0`; the installed one where None.
    """
    version = _pillow_version() if pillow_version is None else pillow_version
    major = int(version.split(".")[0])
    return "pillow-13" if major >= 13 else "pillow-12"


def _pillow_version() -> str:
    return metadata.version("pillow")


def from_options(
    *,
    size: int | tuple[int, int],
    resample: str = "bilinear",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    rescale: float | None = 1 / 255,
    crop: int | tuple[int, int] | None = None,
    data_format: str = "channels_last",
) -> Preprocessing:
    """Settings for a model without a processor file.

    Args:
        size: Height and width in pixels, or one number for both; with `crop`, one number is the shorter edge.
        resample: A name of `RESAMPLE_NAMES`.
        mean: Per channel, of the rescaled values; None with `std` for no normalising.
        std: Per channel.
        rescale: Factor on the 8-bit values; None leaves 0 to 255.
        crop: Height and width of a centre crop after resizing, or one number for both.
        data_format: `channels_last` or `channels_first`.

    Raises:
        UsageError: A setting cannot be.
    """
    if resample not in RESAMPLE_NAMES:
        raise UsageError(f"Got resample {resample!r}. Choose one of: {', '.join(RESAMPLE_NAMES)}.")
    if data_format not in ("channels_first", "channels_last"):
        raise UsageError(f"Got data format {data_format!r}. Choose channels_first or channels_last.")
    if (mean is None) != (std is None):
        raise UsageError("Got one of mean and std. Give both to normalise, or neither.")
    order = pass_order()
    if isinstance(size, int) and crop is not None:
        resize = Resize(rule="shortest_edge", edge=size, resample=resample, order=order)
    else:
        height, width = (size, size) if isinstance(size, int) else size
        resize = Resize(rule="exact", height=height, width=width, resample=resample, order=order)
    return Preprocessing(
        processor="options",
        resize=resize,
        crop=(crop, crop) if isinstance(crop, int) else crop,
        rescale=rescale,
        mean=None if mean is None else tuple(float(value) for value in mean),
        std=None if std is None else tuple(float(value) for value in std),
        data_format=data_format,
        pillow=_pillow_version(),
    )


def from_processor_config(config: Mapping[str, Any], model_type: str | None = None) -> Preprocessing:
    """Reads a `preprocessor_config.json`.

    Args:
        config: The document, with `image_processor_type` (or the older `feature_extractor_type`).
        model_type: The `model_type` of the checkpoint's `config.json`, which decides where the document names no class.

    Returns:
        What the class does with these settings when it runs with PIL (`use_fast=False`).

    Raises:
        UsageError: The class, or one of its settings, is not known here; the message names it.
    """
    name = _class_name(config, model_type)
    known = CLASSES[name]
    ignored = _check_names(config, name, known)
    # A setting that is left out has its default; one that is null is off, or has its default where it has a value.
    given = {
        key: config[key] if key in config and not (config[key] is None and not key.startswith("do_")) else default
        for key, default in known.settings.items()
    }
    resize, crop = _sizes(given, name, known)
    rescale = given.get("rescale_factor", given.get("rescale_value"))
    normalized = bool(given.get("do_normalize"))
    std = _colors(given["image_std"], "image_std", name) if "image_std" in given else None
    return Preprocessing(
        processor=name,
        resize=resize,
        crop=crop,
        rescale=_number(rescale, "rescale_factor", name) if given["do_rescale"] else None,
        offset=-1.0 if given.get("rescale_offset") and given["do_rescale"] else 0.0,
        mean=_colors(given["image_mean"], "image_mean", name) if normalized else None,
        std=std if normalized else None,
        divisor=std if given.get("include_top") else None,
        pad=_height_width(given["pad_size"], "pad_size", name) if given.get("do_pad") else None,
        flip_channels=bool(given.get("do_flip_channel_order")),
        outputs=known.outputs,
        pillow=_pillow_version(),
        ignored=ignored,
    )


def _class_name(config: Mapping[str, Any], model_type: str | None) -> str:
    given = (
        config.get("image_processor_type") or config.get("feature_extractor_type") or MODEL_TYPES.get(model_type or "")
    )
    if not given:
        raise UsageError(
            "The processor's file names no image_processor_type. Add the class that the model was trained with, such "
            'as: "image_processor_type": "ViTImageProcessor".'
        )
    name = str(given).replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast")
    if name not in CLASSES:
        raise UsageError(
            f"The image processor {given!r} is not known here; known are {', '.join(sorted(CLASSES))}."
            f"{did_you_mean(name, CLASSES)} Give its settings by options instead: --size, --resample, --mean, --std."
        )
    return name


def _check_names(config: Mapping[str, Any], name: str, known: ProcessorClass) -> tuple[str, ...]:
    """The settings that the class does not read; raises where one is known to none of the classes."""
    vocabulary = IGNORED.union(*(each.settings for each in CLASSES.values()))
    unknown = [key for key in config if key not in vocabulary and config[key] is not None]
    if unknown:
        raise UsageError(
            f"The processor's file has settings that are not known here: {', '.join(sorted(unknown))}. "
            f"{name} of transformers reads {', '.join(sorted(known.settings))}. Remove the others if they do nothing."
        )
    return tuple(sorted(key for key in config if key not in known.settings and config[key] is not None))


def _sizes(given: Mapping[str, Any], name: str, known: ProcessorClass) -> tuple[Resize | None, tuple[int, int] | None]:
    """How the class resizes, and what it crops."""
    crop = _height_width(given["crop_size"], "crop_size", name) if given.get("do_center_crop") else None
    if not given["do_resize"]:
        return None, crop
    rule, size = _size_rule(given["size"], name, known)
    if given.get("use_square_size") and rule == "shortest_edge":
        rule, size = "exact", {"height": size[rule], "width": size[rule]}
    resample = _resample(given["resample"], name)
    if rule == "exact":
        height, width = _height_width(size, "size", name)
        return Resize(rule="exact", height=height, width=width, resample=resample, order=pass_order()), crop
    edge = _positive(size[rule], f"size[{rule!r}]", name)
    if known.size == "convnext" and edge >= 384:
        return Resize(rule="exact", height=edge, width=edge, resample=resample, order=pass_order()), crop
    if known.size == "convnext":
        larger = int(edge / _number(given["crop_pct"], "crop_pct", name))
        return Resize(rule=rule, edge=larger, resample=resample, order=pass_order()), (edge, edge)
    if known.size == "levit":
        edge = int((256 / 224) * edge)
    return Resize(rule=rule, edge=edge, resample=resample, order=pass_order()), crop


def _size_rule(size: Any, name: str, known: ProcessorClass) -> tuple[str, Mapping[str, Any]]:
    """`exact`, `shortest_edge` or `longest_edge`, and `size` as a document."""
    bare = {"exact": "exact", "exact_or_shortest_edge": "exact", "longest_edge": "longest_edge"}
    if not isinstance(size, Mapping):
        if isinstance(size, int) and bare.get(known.size) != "exact":
            edge = bare.get(known.size, "shortest_edge")
            return edge, {edge: size}
        height, width = _height_width(size, "size", name)
        return "exact", {"height": height, "width": width}
    keys = set(size)
    accepted = {
        "exact": ("exact",),
        "convnext": ("shortest_edge",),
        "longest_edge": ("longest_edge",),
    }.get(known.size, ("shortest_edge", "exact"))
    if "shortest_edge" in accepted and keys in ({"shortest_edge"}, {"shortest_edge", "longest_edge"}):
        # These classes leave the longest edge alone.
        return "shortest_edge", size
    if "longest_edge" in accepted and keys == {"longest_edge"}:
        return "longest_edge", size
    if "exact" in accepted and keys == {"height", "width"}:
        return "exact", size
    wanted = " or ".join("height and width" if key == "exact" else key for key in accepted)
    raise UsageError(f"{name} wants {wanted} in its size, but the processor's file has {dict(size)}. Correct the file.")


def _height_width(value: Any, setting: str, name: str) -> tuple[int, int]:
    if isinstance(value, Mapping) and set(value) == {"height", "width"}:
        value = (value["height"], value["width"])
    elif isinstance(value, int) and not isinstance(value, bool):
        value = (value, value)
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise UsageError(f"{name} wants height and width in {setting}, but its file has {value!r}. Correct the file.")
    return _positive(value[0], setting, name), _positive(value[1], setting, name)


def _positive(value: Any, setting: str, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(
            f"{name} wants whole positive pixels in {setting}, but its file has {value!r}. Correct the file."
        )
    return value


def _number(value: Any, setting: str, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{name} wants a number in {setting}, but its file has {value!r}. Correct the file.")
    return float(value)


def _colors(value: Any, setting: str, name: str) -> tuple[float, ...]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = [value] * 3
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise UsageError(f"{name} wants three numbers in {setting}, but its file has {value!r}. Correct the file.")
    return tuple(_number(each, setting, name) for each in value)


def _resample(value: Any, name: str) -> str:
    # transformers' own default where the file says null.
    number = RESAMPLE_NAMES.index("bilinear") if value is None else value
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(RESAMPLE_NAMES):
        names = ", ".join(f"{i} {text}" for i, text in enumerate(RESAMPLE_NAMES))
        raise UsageError(f"{name} has resample {value!r}, but Pillow's filters are {names}. Correct the file.")
    return RESAMPLE_NAMES[number]
