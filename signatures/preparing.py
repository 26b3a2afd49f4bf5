"""How images are prepared, as options of a command: for models that do not say so themselves."""

from __future__ import annotations

import argparse
import re

from signatures.errors import UsageError
from signatures.preprocessing import Preprocessing, from_options

__all__ = ["add_options", "settings"]

OPTIONS = ("size", "resample", "crop", "mean", "std", "rescale")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declares `--size`, `--resample`, `--crop`, `--mean`, `--std` and `--rescale`."""
    group = parser.add_argument_group(
        "how images are prepared", "for a model that does not say so itself, or in place of what it says"
    )
    group.add_argument(
        "--size", type=_size, metavar="N|HxW", help="pixels after resizing; with --crop, one number is the shorter edge"
    )
    group.add_argument(
        "--resample",
        metavar="FILTER",
        help="nearest, lanczos, bilinear (default), bicubic, box or hamming, as in Pillow",
    )
    group.add_argument("--crop", type=_size, metavar="N|HxW", help="the middle part that is kept after resizing")
    group.add_argument(
        "--mean", type=_numbers, metavar="R,G,B", help="subtracted after rescaling; one number is for all channels"
    )
    group.add_argument("--std", type=_numbers, metavar="R,G,B", help="divided by after that")
    group.add_argument(
        "--rescale", type=_factor, metavar="X", help="factor on the values 0..255 (default 1/255; 1 leaves them)"
    )


def _size(text: str) -> int | tuple[int, int]:
    """`224`, or height x width: `224x160`."""
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)?", text):
        raise argparse.ArgumentTypeError(f"got {text!r}, wanted pixels such as 224, or height x width: 224x160")
    sides = [int(side) for side in text.split("x")]
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def _numbers(text: str) -> list[float]:
    """One number for every channel, or one for all."""
    try:
        numbers = [float(number) for number in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 3):
        raise argparse.ArgumentTypeError(f"got {text!r}, wanted three numbers such as 0.5,0.5,0.5, or one for all")
    return numbers if len(numbers) == 3 else numbers * 3


def _factor(text: str) -> float:
    """`0.5`, or a fraction such as `1/255`."""
    above, _, below = text.partition("/")
    try:
        return float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"got {text!r}, wanted a number such as 0.5 or 1/255") from None


def settings(arguments: argparse.Namespace) -> Preprocessing | None:
    """The settings that were given; None where none were.

    Raises:
        UsageError: There is one without `--size`, or one that cannot be.
    """
    given = {name: value for name in OPTIONS if (value := getattr(arguments, name)) is not None}
    if not given:
        return None
    if "size" not in given:
        raise UsageError(f"Got --{next(iter(given))} without --size, but together they say it all. Give --size too.")
    return from_options(**given)
