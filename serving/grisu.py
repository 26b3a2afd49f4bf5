"""Doubles as decimal digits by Grisu2, which quotes numbers in TF Serving's messages.

Grisu2 (Loitsch, "Printing Floating-Point Numbers Quickly and Accurately with Integers", 2010) finds digits that read
back as the same double, which are nearly always, but not always, the shortest and nearest ones that Python prints.
"""

from __future__ import annotations

import functools
import math

__all__ = ["digits"]

_WORD = (1 << 64) - 1
_LARGEST_POWER = 9


def digits(value: float) -> tuple[str, int]:
    """The digits of a double.

    Args:
        value: Positive, finite and not denormal.

    Returns:
        Digits without zeros at either end, but for few rounded ones, and the power of ten that scales them as a whole
        number.
    """
    fraction, exponent = math.frexp(value)
    significand = int(fraction * (1 << 53))
    # The double and the middles to its neighbours, in 64 bits; below a power of two the neighbour is twice as near.
    middle = significand << 11
    upper = (2 * significand + 1) << 10
    lower = (4 * significand - 1) << 9 if significand == 1 << 52 else (2 * significand - 1) << 10
    power = _decimal_power(exponent - 64)
    factor, factor_exponent = _power_of_ten(-power)
    middle, upper, lower = (_rounded(bound * factor, 64) for bound in (middle, upper, lower))
    shift = -(exponent - 64 + factor_exponent + 64)
    return _generate(middle, upper - 1, upper - lower - 2, shift, power)


def _decimal_power(exponent: int) -> int:
    """The power of ten, of every eighth, that brings a 64-bit number with this exponent to a few whole digits."""
    steps = math.ceil((-61 - exponent) * 0.30102999566398114 + 347)
    return 348 - 8 * ((steps >> 3) + 1)


@functools.lru_cache(maxsize=128)
def _power_of_ten(power: int) -> tuple[int, int]:
    """10^power as 64 bits and a binary exponent."""
    if power >= 0:
        exact, scale = 10**power, 0
    else:
        scale = -64 - (10**-power).bit_length()
        exact = (1 << -scale) // 10**-power
    excess = exact.bit_length() - 64
    return (_rounded(exact, excess) if excess > 0 else exact << -excess), scale + excess


def _rounded(number: int, bits: int) -> int:
    return (number + (1 << (bits - 1))) >> bits


def _generate(middle: int, upper: int, width: int, shift: int, power: int) -> tuple[str, int]:
    """Digits of `upper` until what is left of it fits into the width, then down towards the middle."""
    whole, rest = upper >> shift, upper & ((1 << shift) - 1)
    text = str(whole)
    for taken in range(1, len(text) + 1):
        left = len(text) - taken
        over = ((whole % 10**left) << shift) + rest
        if over <= width:
            return _nearer(text[:taken], width, over, 10**left << shift, upper - middle), power + left
    found, left = text if whole else "", 0
    while True:
        rest, width, left = rest * 10, width * 10, left - 1
        digit = rest >> shift
        if digit or found:
            found += str(digit)
        rest &= (1 << shift) - 1
        if rest < width:
            distance = (upper - middle) * 10**-left & _WORD if -left < _LARGEST_POWER else 0
            return _nearer(found, width, rest, 1 << shift, distance), power + left


def _nearer(text: str, width: int, over: int, unit: int, distance: int) -> str:
    """Counts the last digit down while that comes closer to the double."""
    last = int(text[-1])
    while over < distance and width - over >= unit and (
        over + unit < distance or distance - over > over + unit - distance
    ):  # fmt: skip
        last -= 1
        over += unit
    return text[:-1] + str(last)
