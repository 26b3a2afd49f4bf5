"""What every answer offers; the base of the typed results beside this file."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Item", "Result", "decoded", "enlarged", "floats", "plain", "texts"]

Item = Mapping[str, NDArray[Any]]
"""One image's outputs by name, without the batch axis; strings are object arrays of bytes."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Result:
    """The answer for one image, and the base of the answers of a known task.

    Args:
        error: "" or why this image could not be answered; the other fields are then empty.
        outputs: The outputs of a signature that no typed result reads, by name; empty in the typed ones.
    """

    COLUMNS: ClassVar[tuple[str, ...]] = ("output", "value")

    error: str = ""
    outputs: Mapping[str, Any] = field(default_factory=dict)

    def rows(self) -> list[tuple[str, ...]]:
        """The answer as lines of a table under `COLUMNS`."""
        return [(name, _short(value)) for name, value in self.outputs.items()]

    def scaled(self, x: float, y: float) -> Result:
        """The same answer in pixels of an image `x` times as wide and `y` times as high; see `Client.predict`."""
        del x, y
        return self

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values: floats with the digits that float32 has, bytes as `{"b64": ...}`."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in ("error", "outputs")}
        return {name: plain(value) for name, value in {**fields, **self.outputs, "error": self.error}.items()}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Result) or type(self) is not type(other):
            return NotImplemented
        return all(_equal(getattr(self, f.name), getattr(other, f.name)) for f in dataclasses.fields(self))

    def __repr__(self) -> str:
        fields = [(f.name, getattr(self, f.name)) for f in dataclasses.fields(self)]
        told = [(name, value) for name, value in fields if name not in ("error", "outputs") or value]
        return f"{type(self).__name__}({', '.join(f'{name}={_brief(value)}' for name, value in told)})"

    def __hash__(self) -> int:
        return hash((type(self), self.error))


def enlarged(png: bytes, x: float, y: float, *, smooth: bool = False) -> bytes:
    """A mask's or a depth map's PNG, `x` times as wide and `y` times as high.

    Args:
        png: 8 or 16 bit, one channel; empty bytes stay empty.
        x: Factor of the width.
        y: Factor of the height.
        smooth: Interpolate (for depths) in place of repeating pixels (for ids).
    """
    if not png or x == y == 1:
        return png
    from PIL import Image

    with Image.open(io.BytesIO(png)) as opened:
        size = max(round(opened.width * x), 1), max(round(opened.height * y), 1)
        kind = np.dtype(np.uint16 if opened.mode.startswith("I") else np.uint8)
        values = np.asarray(opened, dtype=np.float32)
    sampling = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    resized = np.asarray(Image.fromarray(values).resize(size, sampling))
    packed = io.BytesIO()
    Image.fromarray(np.rint(resized).astype(kind)).save(packed, "PNG", compress_level=1)
    return packed.getvalue()


def texts(values: NDArray[Any]) -> tuple[str, ...]:
    """Strings of an object array of UTF-8 bytes."""
    return tuple(decoded(value) for value in values.reshape(-1).tolist())


def decoded(value: Any) -> str:
    """One string of UTF-8 bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def floats(values: NDArray[Any]) -> tuple[float, ...]:
    """Python floats of the same value as the float32s."""
    return tuple(float(value) for value in values.reshape(-1))


def plain(value: Any) -> Any:
    """A JSON value."""
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode("ascii")}
    if isinstance(value, float):
        return float(str(np.float32(value))) if float(np.float32(value)) == value else value
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, Result) or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _brief(value: Any) -> str:
    if isinstance(value, bytes) and len(value) > 32:
        return f"<{len(value)} bytes>"
    if isinstance(value, np.ndarray):
        return f"<{value.dtype} {list(value.shape)}>"
    return repr(value)


def _short(value: Any) -> str:
    array = np.asarray(value)
    if array.size == 1:
        item = array.reshape(-1)[0]
        return (f"{len(item)} bytes" if len(item) > 60 else decoded(item)) if isinstance(item, bytes) else str(item)
    return f"{array.dtype if array.dtype != object else 'string'} {list(array.shape)}"


def _equal(mine: Any, theirs: Any) -> bool:
    if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
        return mine.keys() == theirs.keys() and all(_equal(mine[key], theirs[key]) for key in mine)
    if isinstance(mine, np.ndarray) or isinstance(theirs, np.ndarray):
        return bool(np.array_equal(mine, theirs))
    return bool(mine == theirs)
