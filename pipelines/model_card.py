"""A model's card for people: what it is, what it was trained and judged on, where it errs. Markdown and HTML.

The HTML stands alone: plots are drawn as SVG and pictures are embedded, so that it can be mailed or archived.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.calibration import Bin, calibration_error
from pipelines.judged import Judged

__all__ = ["Facts", "to_html", "to_markdown"]

SHOWN_CLASSES = 40


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that a card says.

    Args:
        title: The model's name.
        created: When, ISO 8601.
        task: The task name.
        source: The checkpoint that training started from.
        model_class: The class that runs it.
        labels: Class names in id order.
        trained: Images per class that it was trained on.
        held_out: Images per class that it was judged on.
        set_aside: How many files could not be read.
        accuracy: On what is held out, through the bytes signature, 0 to 1.
        baseline_accuracy: The latest blessed model's on the same images; None where there was none.
        per_class: Class name -> accuracy, 0 to 1.
        confusion: Counts [actual][answered], in label order; the last column is "no answer".
        history: Metric name -> value after each epoch.
        latency_ms: Door -> `p50` and `p95`.
        server: What it was served by for that.
        parity: The certificate in the servable.
        schedule: How it was trained.
        packages: Versions by name.
        mistakes: Wrong answers, surest first.
        top_k_accuracy: The share of images whose class is among the first `top_k` answers; None where it was not
            measured.
        top_k: How many those are.
        calibration: How often answers of a score are right.
    """

    title: str
    created: str
    task: str
    source: str
    model_class: str
    labels: Sequence[str]
    trained: Mapping[str, int]
    held_out: Mapping[str, int]
    set_aside: int
    accuracy: float
    baseline_accuracy: float | None
    per_class: Mapping[str, float]
    confusion: Sequence[Sequence[int]]
    history: Mapping[str, Sequence[float]] = field(default_factory=dict)
    latency_ms: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    server: str = ""
    parity: Mapping[str, Any] = field(default_factory=dict)
    schedule: Mapping[str, Any] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)
    mistakes: Sequence[Judged] = ()
    top_k_accuracy: float | None = None
    top_k: int = 0
    calibration: Sequence[Bin] = ()


def to_markdown(facts: Facts) -> str:
    """The card as Markdown."""
    lines = [f"# {facts.title}", "", *(f"- **{name}**: {_md(value)}" for name, value in _summary(facts)), ""]
    lines += ["## Per class", "", "| class | trained on | held out | accuracy |", "|---|---:|---:|---:|"]
    lines += [f"| {' | '.join(_md(cell) for cell in row)} |" for row in _class_rows(facts)]
    confused = _confused(facts)
    if confused:
        lines += ["", "## Most often confused", ""]
        lines += [f"- {count} of class {_md(one)} answered as {_md(other)}" for count, one, other in confused]
    lines += ["", "## Training", "", *(f"- {name}: {value}" for name, value in facts.schedule.items())]
    lines += ["", "## Made with", "", *(f"- {name} {version}" for name, version in facts.packages.items()), ""]
    return "\n".join(lines)


def to_html(facts: Facts) -> str:
    """The card as one HTML file, with plots and the wrong answers."""
    sections = [
        _table(("", ""), _summary(facts)),
        "<h2>Per class</h2>",
        _table(("class", "trained on", "held out", "accuracy"), _class_rows(facts)),
        "<h2>Confusion matrix</h2><p>Rows are what an image is, columns what was answered.</p>",
        _matrix(facts),
        "<h2>Calibration</h2><p>How often answers of a score are right; on the line, as often as they say.</p>",
        _reliability(facts.calibration),
        "<h2>Training</h2>",
        "".join(_curve(name, values) for name, values in facts.history.items() if len(values) > 1),
        _table(("setting", "value"), [(name, str(value)) for name, value in facts.schedule.items()]),
        "<h2>Wrong answers, surest first</h2>",
        _gallery(facts.mistakes),
        "<h2>Made with</h2>",
        _table(("package", "version"), list(facts.packages.items())),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_e(facts.title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{_e(facts.title)}</h1>\n" + "\n".join(sections) + "\n</body></html>\n"
    )


_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:.5rem 0 1.5rem}td,th{padding:.15rem .7rem .15rem 0;text-align:left;"
    "vertical-align:top}th{border-bottom:1px solid #999}td+td{font-variant-numeric:tabular-nums}"
    ".m td,.m th{padding:.2rem .4rem;text-align:center;border:1px solid #ddd;min-width:1.6rem}"
    "figure{display:inline-block;margin:.4rem;text-align:center;font-size:.85rem}"
    "figure img{width:96px;height:96px;object-fit:contain;image-rendering:pixelated;background:#eee}"
    "svg{background:#fafafa;margin-right:1rem}"
)


def _summary(facts: Facts) -> list[tuple[str, str]]:
    images = sum(facts.held_out.values())
    rows = [
        ("task", facts.task),
        ("made", facts.created),
        ("started from", f"{facts.source} ({facts.model_class})"),
        ("accuracy", f"{facts.accuracy:.4f} on {images} held-out images, asked as encoded files"),
    ]
    if facts.top_k_accuracy is not None and facts.top_k < len(facts.labels):
        rows.append((f"among the first {facts.top_k}", f"{facts.top_k_accuracy:.4f}"))
    if facts.calibration:
        error = calibration_error(facts.calibration)
        rows.append(("calibration error", f"{error:.4f}: how far scores are from the share that is right, on average"))
    if facts.baseline_accuracy is not None:
        rows.append(("the model before it", f"{facts.baseline_accuracy:.4f} on the same images"))
    rows.append(("trained on", f"{sum(facts.trained.values())} images of {len(facts.labels)} classes"))
    if facts.set_aside:
        rows.append(("set aside", f"{facts.set_aside} files that cannot be read"))
    for door, latency in facts.latency_ms.items():
        rows.append((f"latency over {door}", f"p50 {latency['p50']} ms, p95 {latency['p95']} ms ({facts.server})"))
    holds = "holds" if facts.parity.get("holds") else "was not measured, or does not hold"
    return [*rows, ("parity with its checkpoint", holds)]


def _class_rows(facts: Facts) -> list[tuple[str, ...]]:
    """The worst classes first."""
    worst = sorted(facts.labels, key=lambda name: facts.per_class.get(name, 2.0))
    rows: list[tuple[str, ...]] = [
        (
            name,
            str(facts.trained.get(name, 0)),
            str(facts.held_out.get(name, 0)),
            f"{facts.per_class[name]:.4f}" if name in facts.per_class else "",
        )
        for name in worst[:SHOWN_CLASSES]
    ]
    left = len(worst) - len(rows)
    return [*rows, (f"and {left} better ones", "", "", "")] if left > 0 else rows


def _confused(facts: Facts, most: int = 10) -> list[tuple[int, str, str]]:
    """How many, what they are, what they were taken for."""
    names = [*facts.labels, "nothing"]
    pairs = [
        (count, facts.labels[row], names[column])
        for row, counts in enumerate(facts.confusion)
        for column, count in enumerate(counts)
        if count and row != column
    ]
    return sorted(pairs, key=lambda pair: (-pair[0], pair[1:]))[:most]


def _matrix(facts: Facts) -> str:
    """The matrix of few classes; of many, the pairs that are confused most."""
    if len(facts.labels) > SHOWN_CLASSES:
        return _table(("images", "are", "answered"), [tuple(map(str, pair)) for pair in _confused(facts, 40)])
    columns = [*facts.labels, "none"] if any(row[-1] for row in facts.confusion) else list(facts.labels)
    head = "".join(f"<th>{_e(name)}</th>" for name in ("", *columns))
    rows = []
    for number, (name, counts) in enumerate(zip(facts.labels, facts.confusion, strict=True)):
        total = max(sum(counts), 1)
        cells = [
            f'<td style="background:{_shade(count / total, right=number == column)}">{count or ""}</td>'
            for column, count in enumerate(counts[: len(columns)])
        ]
        rows.append(f"<tr><th>{_e(name)}</th>{''.join(cells)}</tr>")
    return f'<table class="m"><tr>{head}</tr>{"".join(rows)}</table>'


def _shade(share: float, *, right: bool) -> str:
    colour = "46,125,50" if right else "198,40,40"
    return f"rgba({colour},{min(0.15 + share, 0.85):.2f})" if share else "transparent"


def _curve(name: str, values: Sequence[float], width: int = 320, height: int = 140) -> str:
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    points = " ".join(
        f"{30 + index * (width - 40) / (len(values) - 1):.1f},{height - 20 - (value - low) / span * (height - 40):.1f}"
        for index, value in enumerate(values)
    )
    told = f"{name}: {values[0]:.3f} to {values[-1]:.3f} in {len(values)} epochs"
    return (
        f'<svg role="img" aria-label="{_e(name)} per epoch" width="{width}" height="{height}">'
        f'<text x="30" y="14" font-size="12">{_e(told)}</text>'
        f'<polyline points="{points}" fill="none" stroke="#1565c0" stroke-width="1.5"/></svg>'
    )


def _reliability(bins: Sequence[Bin], side: int = 220) -> str:
    """Bars of accuracy over score, with the line on which both are the same."""
    if not bins:
        return "<p>Not measured.</p>"
    low, size = 30.0, side - 50.0
    bars = "".join(
        f'<rect x="{low + each.score * size - 6:.1f}" y="{low + (1 - each.accuracy) * size:.1f}" width="12" '
        f'height="{each.accuracy * size:.1f}" fill="#1565c0" fill-opacity="0.6"><title>{each.images} images, score '
        f"{each.score:.2f}, right {each.accuracy:.2f}</title></rect>"
        for each in bins
    )
    end = low + size
    return (
        f'<svg role="img" aria-label="accuracy by score" width="{side}" height="{side}">{bars}'
        f'<line x1="{low}" y1="{end}" x2="{end}" y2="{low}" stroke="#c62828"/>'
        f'<line x1="{low}" y1="{end}" x2="{end}" y2="{end}" stroke="#999"/>'
        f'<line x1="{low}" y1="{low}" x2="{low}" y2="{end}" stroke="#999"/>'
        f'<text x="{low}" y="{end + 15}" font-size="11">0</text>'
        f'<text x="{end - 6}" y="{end + 15}" font-size="11">1</text>'
        f'<text x="{low + size / 2 - 14}" y="{end + 15}" font-size="11">score</text>'
        f'<text x="16" y="{low + 6}" font-size="11">1</text></svg>'
    )


def _gallery(mistakes: Sequence[Judged]) -> str:
    if not mistakes:
        return "<p>None.</p>"
    return "".join(
        f'<figure><img alt="{_e(item.filename)}" title="{_e(item.filename)}" src="data:image/'
        f'{item.format.lower()};base64,{base64.b64encode(item.encoded).decode()}"><figcaption>'
        f"is {_e(item.actual)}<br>answered {_e(item.answered or 'nothing')} ({item.score:.2f})</figcaption></figure>"
        for item in mistakes
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    header = f"<tr>{''.join(f'<th>{_e(name)}</th>' for name in head)}</tr>" if any(head) else ""
    body = "".join(f"<tr>{''.join(f'<td>{_e(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table>{header}{body}</table>"


def _e(text: str) -> str:
    return html.escape(str(text))


def _md(text: str) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")
