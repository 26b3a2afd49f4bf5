"""A card's pictures: SVG and HTML by hand, so that a page stands alone and can be mailed or archived."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Mapping, Sequence

from pipelines.calibration import Bin
from pipelines.judged import Judged

__all__ = ["bars", "curve", "escape", "gallery", "interval", "matrix", "reliability", "table"]

BLUE, RED, GREEN, GREY = "#1f6feb", "#cf222e", "#1a7f37", "#8c959f"
LABEL_LETTERS = 24


def escape(text: object) -> str:
    """As HTML text or attribute."""
    return html.escape(str(text))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table; a head of empty strings is left out."""
    header = f"<tr>{''.join(f'<th>{escape(name)}</th>' for name in head)}</tr>" if any(head) else ""
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table>{header}{body}</table>"


def interval(share: float, images: float) -> tuple[float, float]:
    """The 95 % interval of a share that was measured on so many images.

    Source: E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference, 1927.
    """
    if not images:
        return 0.0, 1.0
    z = 1.96
    middle = (share + z * z / (2 * images)) / (1 + z * z / images)
    half = z / (1 + z * z / images) * math.sqrt(share * (1 - share) / images + z * z / (4 * images * images))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def bars(figures: Mapping[str, Mapping[str, float]], *, told: str, width: int = 440) -> str:
    """Horizontal bars of accuracy with their intervals, and a tick where the model before stood.

    Args:
        figures: Name -> `accuracy`, `images`, perhaps `baseline_accuracy`; drawn in this order.
        told: What it is, for those who do not see it.
        width: In pixels.
    """
    left, row, right = 150, 22, 96
    size = width - left - right
    drawn = []
    for number, (name, each) in enumerate(figures.items()):
        y = number * row
        share, images = each["accuracy"], each["images"]
        low, high = interval(share, images)
        drawn.append(
            f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{escape(_short(name))}'
            f"<title>{escape(name)}</title></text>"
            f'<rect x="{left}" y="{y + 4}" width="{size}" height="14" fill="#eaeef2"/>'
            f'<rect x="{left}" y="{y + 4}" width="{share * size:.1f}" height="14" fill="{BLUE}" fill-opacity="0.75"/>'
            f'<path d="M{left + low * size:.1f} {y + 11}H{left + high * size:.1f}" stroke="#24292f"/>'
            f'<text x="{left + size + 8}" y="{y + 15}">{share:.3f}</text>'
            f'<text x="{width}" y="{y + 15}" text-anchor="end" fill="{GREY}">{images:.0f}</text>'
        )
        if "baseline_accuracy" in each:
            x = left + each["baseline_accuracy"] * size
            drawn.append(
                f'<path d="M{x:.1f} {y + 2}V{y + 20}" stroke="{RED}" stroke-width="2">'
                f"<title>the model before: {each['baseline_accuracy']:.3f}</title></path>"
            )
    return _svg(told, width, max(len(figures), 1) * row, "".join(drawn))


def curve(name: str, values: Sequence[float], *, width: int = 340, height: int = 170) -> str:
    """A metric after each epoch."""
    left, top, bottom = 46, 26, 24
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    across, down = width - left - 14, height - top - bottom

    def place(index: int, value: float) -> str:
        x = left + index * across / max(len(values) - 1, 1)
        return f"{x:.1f},{top + (1 - (value - low) / span) * down:.1f}"

    points = " ".join(place(index, value) for index, value in enumerate(values))
    drawn = (
        f'<text x="{left}" y="15" font-weight="600">{escape(name)}: {values[0]:.3f} to {values[-1]:.3f}</text>'
        f'<path d="M{left} {top}V{top + down}H{left + across}" fill="none" stroke="{GREY}"/>'
        f'<text x="{left - 6}" y="{top + 8}" text-anchor="end">{high:.2f}</text>'
        f'<text x="{left - 6}" y="{top + down}" text-anchor="end">{low:.2f}</text>'
        f'<text x="{left}" y="{height - 8}">1</text>'
        f'<text x="{left + across}" y="{height - 8}" text-anchor="end">epoch {len(values)}</text>'
        f'<polyline points="{points}" fill="none" stroke="{BLUE}" stroke-width="2"/>'
    )
    return _svg(f"{name} per epoch", width, height, drawn)


def reliability(bins: Sequence[Bin], *, side: int = 280) -> str:
    """Bars of accuracy over score, as wide as a tenth, with the line on which both are the same."""
    if not bins:
        return "<p>Not measured.</p>"
    left, top = 40.0, 12.0
    size = side - left - 40.0
    width = size / 10
    bars_drawn = "".join(
        f'<rect x="{left + min(int(each.score * 10), 9) * width + 1:.1f}" y="{top + (1 - each.accuracy) * size:.1f}" '
        f'width="{width - 2:.1f}" height="{each.accuracy * size:.1f}" fill="{BLUE}" fill-opacity="0.75">'
        f"<title>{each.images} images, score {each.score:.2f}, right {each.accuracy:.2f}</title></rect>"
        f'<text x="{left + (min(int(each.score * 10), 9) + 0.5) * width:.1f}" y="{top + size - 4:.1f}" '
        f'text-anchor="middle" font-size="9" fill="#24292f">{each.images}</text>'
        for each in bins
    )
    end, floor = left + size, top + size
    drawn = (
        f'{bars_drawn}<path d="M{left} {floor}L{end} {top}" stroke="{RED}" stroke-dasharray="4 3"/>'
        f'<path d="M{left} {top}V{floor}H{end}" fill="none" stroke="{GREY}"/>'
        f'<text x="{left - 6}" y="{top + 8}" text-anchor="end">1</text>'
        f'<text x="{left - 6}" y="{floor}" text-anchor="end">0</text>'
        f'<text x="{left}" y="{floor + 16}" text-anchor="middle">0</text>'
        f'<text x="{end}" y="{floor + 16}" text-anchor="middle">1</text>'
        f'<text x="{left + size / 2}" y="{floor + 30}" text-anchor="middle">score</text>'
        f'<text transform="translate(14 {top + size / 2}) rotate(-90)" text-anchor="middle">share that is right</text>'
    )
    return _svg("accuracy by score", side, side, drawn)


def matrix(labels: Sequence[str], confusion: Sequence[Sequence[int]]) -> str:
    """Counts of what images are (rows) and what was answered (columns); shaded by the share of the row.

    Args:
        labels: In id order.
        confusion: Counts [actual][answered]; the last column, for no answer, is left out where it is empty.
    """
    columns = [*labels, "no answer"] if any(row[-1] for row in confusion) else list(labels)
    upright = "" if max(map(len, columns)) <= 3 else ' class="up"'
    head = "".join(f'<th{upright} title="{escape(name)}"><span>{escape(_short(name))}</span></th>' for name in columns)
    rows = []
    for number, (name, counts) in enumerate(zip(labels, confusion, strict=True)):
        total = max(sum(counts), 1)
        cells = "".join(
            f'<td style="background:{_shade(count / total, right=number == column)}"'
            f"{_light(count / total)}>{count or ''}</td>"
            for column, count in enumerate(counts[: len(columns)])
        )
        rows.append(f'<tr><th title="{escape(name)}">{escape(_short(name))}</th>{cells}</tr>')
    return f'<table class="m"><tr><th></th>{head}</tr>{"".join(rows)}</table>'


def gallery(mistakes: Sequence[Judged]) -> str:
    """Images with what they are and what was answered."""
    if not mistakes:
        return "<p>None.</p>"
    figures = "".join(
        f'<figure><img alt="{escape(item.filename)}" title="{escape(item.filename)}" src="data:image/'
        f'{item.format.lower()};base64,{base64.b64encode(item.encoded).decode()}"><figcaption>'
        f"<b>{escape(item.answered or 'no answer')}</b> {item.score:.2f}<br>is {escape(item.actual)}"
        f"</figcaption></figure>"
        for item in mistakes
    )
    return f'<div class="g">{figures}</div>'


def _short(name: str) -> str:
    return name if len(name) <= LABEL_LETTERS else f"{name[: LABEL_LETTERS - 1]}…"


def _shade(share: float, *, right: bool) -> str:
    colour = "26,127,55" if right else "207,34,46"
    return f"rgba({colour},{min(0.12 + share, 0.9):.2f})" if share else "transparent"


def _light(share: float) -> str:
    return ' class="l"' if share > 0.5 else ""


def _svg(told: str, width: int, height: int, drawn: str) -> str:
    return (
        f'<svg role="img" aria-label="{escape(told)}" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">{drawn}</svg>'
    )
