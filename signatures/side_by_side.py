"""The worst case of `vitrina verify` as a picture: reference, servable and difference side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from signatures.errors import UsageError, VitrinaError

__all__ = ["check", "save"]

_SIDE = 256
_MARGIN = 12
_LINE = 16


def check(path: Path) -> None:
    """Raises UsageError where Pillow writes no such files, before anything is measured."""
    from PIL import Image

    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.SAVE}
    if path.suffix.lower() not in known:
        raise UsageError(f"Got the picture file {path}, whose ending names no format. Give a name such as worst.png.")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"There is no folder {path.absolute().parent} to write {path.name} into. Create it first.")


def save(path: Path, reference: NDArray[Any], servable: NDArray[Any], *, title: str) -> None:
    """Writes the three panels.

    Args:
        path: A file whose ending names the format, as `check` wants it.
        reference: What the checkpoint's own processor makes of an image, [h, w, 3] in 0..255; any real dtype.
        servable: What the servable makes of it; where the shape is another one there is no difference to show.
        title: A line above the panels.

    Raises:
        VitrinaError: The file cannot be written.
    """
    from PIL import Image, ImageDraw

    panels = [("reference", _levels(reference)), ("servable", _levels(servable)), _difference(reference, servable)]
    drawn = [(text, _enlarged(Image.fromarray(levels))) for text, levels in panels]
    width = max(_MARGIN + sum(panel.width + _MARGIN for _, panel in drawn), 8 * len(title))
    height = 2 * _MARGIN + 2 * _LINE + max(panel.height for _, panel in drawn)
    canvas = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(canvas)
    # The font that Pillow has built in knows no more letters.
    pen.text((_MARGIN, _MARGIN // 2), title.encode("latin-1", "replace").decode("latin-1"), fill="black")
    left = _MARGIN
    for text, panel in drawn:
        pen.text((left, _MARGIN + _LINE), text, fill="black")
        canvas.paste(panel, (left, _MARGIN + 2 * _LINE))
        left += panel.width + _MARGIN
    try:
        canvas.save(path)
    except OSError as error:
        raise VitrinaError(f"{path} cannot be written ({error.strerror or error}). Choose another file.") from error


def _levels(values: NDArray[Any]) -> NDArray[np.uint8]:
    levels: NDArray[np.uint8] = np.clip(np.rint(np.nan_to_num(values)), 0, 255).astype(np.uint8)
    return levels


def _difference(reference: NDArray[Any], servable: NDArray[Any]) -> tuple[str, NDArray[np.uint8]]:
    """What the third panel says and shows: distances, made as bright as they can be."""
    if reference.shape != servable.shape:
        sizes = [f"{shape[1]}x{shape[0]}" for shape in (reference.shape, servable.shape)]
        return f"sizes differ: {sizes[0]} and {sizes[1]}", np.zeros((1, 1, 3), np.uint8)
    distance = np.abs(_levels(reference).astype(np.int32) - _levels(servable))
    worst = int(distance.max(initial=0))
    if worst == 0:
        return "no difference in grey levels", _levels(distance)
    gain = 255 // worst
    return f"difference: {worst} grey levels at most (shown x {gain})", _levels(distance * gain)


def _enlarged(picture: Any) -> Any:
    """Small pictures with each pixel as a square, large ones reduced, so that all fit beside each other."""
    from PIL import Image

    longer = max(picture.size)
    if longer <= _SIDE:
        factor = _SIDE // longer
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    return picture.reduce(-(-longer // (2 * _SIDE))) if longer > 2 * _SIDE else picture
