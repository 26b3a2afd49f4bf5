"""Latencies as a picture: an SVG of cumulative curves, written by hand so that no plotting library is needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from serving.bench import Load

__all__ = ["svg"]

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 720, 400, 60, 170, 40, 50
_COLORS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")  # told apart by the colour-blind (Tol)


def svg(loads: Sequence[Load], title: str) -> str:
    """The share of requests answered within a time, one curve for each load; time is logarithmic."""
    shown = [load for load in loads if load.latencies]
    times = np.concatenate([load.latencies for load in shown]) * 1000 if shown else np.ones(1)
    low, high = math.floor(math.log10(max(times.min(), 1e-3))), math.ceil(math.log10(max(times.max(), 1e-3)))
    high = max(high, low + 1)

    def x(milliseconds: float) -> float:
        return _LEFT + (math.log10(max(milliseconds, 10.0**low)) - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def y(share: float) -> float:
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text font-size="15" x="{_LEFT}" y="24">{escape(title)}</text>',
    ]
    for power in range(low, high + 1):
        at = x(10.0**power)
        parts += _line(at, y(0), at, y(1))
        parts.append(
            f'<text font-size="12" x="{at:.1f}" y="{y(0) + 18:.1f}" text-anchor="middle">{10.0**power:g}</text>'
        )
    for percent in (0, 25, 50, 75, 100):
        parts += _line(x(10.0**low), y(percent / 100), x(10.0**high), y(percent / 100))
        parts.append(
            f'<text font-size="12" x="{_LEFT - 8}" y="{y(percent / 100) + 4:.1f}" text-anchor="end">{percent} %</text>'
        )
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(
        f'<text font-size="12" x="{middle}" y="{_HEIGHT - 10}" text-anchor="middle">answered within, ms</text>'
    )
    for index, load in enumerate(shown):
        color = _COLORS[index % len(_COLORS)]
        ordered = np.percentile(load.latencies, np.linspace(0, 100, 201)) * 1000
        points = " ".join(f"{x(time):.1f},{y(place / 200):.1f}" for place, time in enumerate(ordered))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>')
        told = f"{load.name}: {load.images_per_second:.1f} images/s"
        top = _TOP + 18 * index + 8
        parts.append(f'<text font-size="12" x="{_WIDTH - _RIGHT + 8}" y="{top}" fill="{color}">{escape(told)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _line(x1: float, y1: float, x2: float, y2: float) -> list[str]:
    return [f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#dddddd"/>']
