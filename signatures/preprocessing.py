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

from signatures.errors import UsageError

__all__ = [
    "RESAMPLE_NAMES",
    "Preprocessing",
    "Resize",
    "from_options",
    "from_processor_config",
    "pass_order",
]

RESAMPLE_NAMES: tuple[str, ...] = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""`PIL.Image.Resampling` by number."""


@dataclass(frozen=True, kw_only=True)
class Resize:
    """How a picture gets its new size.

    Args:
        rule: `exact` (to height x width), `shortest_edge` (the shorter edge becomes `edge`, the longer follows,
            truncated to whole pixels) or `longest_edge` (the longer edge becomes `edge`, both rounded half up).
        height: Pixels, for `exact`.
        width: Pixels, for `exact`.
        edge: Pixels, for the other two.
        resample: One of `RESAMPLE_NAMES`.
        order: Which pass comes first, `pillow-12` or `pillow-13`; see `signatures.resize`.
    """

    rule: str
    height: int | None = None
    width: int | None = None
    edge: int | None = None
    resample: str = "bilinear"
    order: str = "pillow-12"


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What happens to an upright RGB picture of 8 bits, in the order of the fields.

    Args:
        processor: The processor class that these settings come from, or `options`.
        resize: None where the picture keeps its size.
        crop: Height and width of a centre crop, filled up with zeros where the picture is smaller.
        rescale: Factor on the 8-bit values, in double precision, or None.
        mean: Per channel, subtracted; None without normalising.
        std: Per channel, divided by.
        pad: Height and width of a canvas of zeros with the picture in its upper left corner, after normalising.
        flip_channels: RGB to BGR at the end.
        data_format: `channels_first` or `channels_last`.
        outputs: The names of what is returned, in order; `pixel_values` first.
        pillow: The Pillow that these settings are exact to, such as `12.3.0`.
    """

    processor: str
    resize: Resize | None = None
    crop: tuple[int, int] | None = None
    rescale: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    pad: tuple[int, int] | None = None
    flip_channels: bool = False
    data_format: str = "channels_first"
    outputs: tuple[str, ...] = ("pixel_values",)
    pillow: str = ""

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


def from_processor_config(config: Mapping[str, Any]) -> Preprocessing:
    """Reads a `preprocessor_config.json`.

    Args:
        config: The document, with `image_processor_type` (or the older `feature_extractor_type`).

    Raises:
        UsageError: The class, or one of its settings, is not known here; the message names it.
    """
    name = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    name = name.replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast")
    if name != "ViTImageProcessor":
        raise UsageError(f"The image processor {name!r} is not known.")
    size = config.get("size") or 224
    height, width = (size, size) if isinstance(size, int) else (size["height"], size["width"])
    resize = Resize(
        rule="exact",
        height=height,
        width=width,
        resample=RESAMPLE_NAMES[config.get("resample", 2)],
        order=pass_order(),
    )
    normalize = config.get("do_normalize", True)
    return Preprocessing(
        processor=name,
        resize=resize if config.get("do_resize", True) else None,
        rescale=config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else None,
        mean=tuple(config.get("image_mean") or (0.5, 0.5, 0.5)) if normalize else None,
        std=tuple(config.get("image_std") or (0.5, 0.5, 0.5)) if normalize else None,
        pillow=_pillow_version(),
    )
