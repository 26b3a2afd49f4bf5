"""A model's card for people: what it is, what it was trained and judged on, where it errs. Markdown and HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.calibration import Bin, calibration_error
from pipelines.judged import Judged
from pipelines.plots import GREEN, RED, bars, curve, escape, gallery, matrix, reliability, table

__all__ = ["Check", "Facts", "to_html", "to_markdown"]

SHOWN_CLASSES = 40

Figures = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Check:
    """Something that a model had to hold.

    Args:
        name: What.
        ok: Whether it holds.
        told: In words, with figures.
    """

    name: str
    ok: bool
    told: str


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
        per_class: Class name -> `accuracy`, `images`, perhaps `baseline_accuracy`.
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
        checks: What it had to hold, to be blessed.
        slices: Feature -> its value -> figures as in `per_class`.
        size_mb: Of the servable's files, in millions of bytes.
        lineage: What it was made from and by, from the metadata: what, and where it is.
        measure: What `accuracy` is of: `accuracy`, or `mean IoU` of a segmenter, whose counts are pixels.
        held_out_images: How many are held out, where an image may show several classes; 0 is the sum over the classes.
        trained_on_images: Likewise for what it was trained on.
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
    per_class: Mapping[str, Figures]
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
    checks: Sequence[Check] = ()
    slices: Mapping[str, Mapping[str, Figures]] = field(default_factory=dict)
    size_mb: float = 0.0
    lineage: Sequence[tuple[str, str]] = ()
    measure: str = "accuracy"
    held_out_images: int = 0
    trained_on_images: int = 0

    @property
    def images(self) -> int:
        """How many are held out."""
        return self.held_out_images or sum(self.held_out.values())

    @property
    def trained_images(self) -> int:
        """How many it was trained on."""
        return self.trained_on_images or sum(self.trained.values())

    @property
    def of_class(self) -> str:
        """The measure of a single class."""
        return self.measure.removeprefix("mean ")


def to_markdown(facts: Facts) -> str:
    """The card as Markdown."""
    lines = [f"# {facts.title}", "", *(f"- **{name}**: {_md(value)}" for name, value in _summary(facts)), ""]
    if facts.checks:
        lines += ["## What it had to hold", ""]
        lines += [
            f"- {'yes' if check.ok else '**no**'}: {_md(check.name)}: {_md(check.told)}" for check in facts.checks
        ]
        lines.append("")
    lines += ["## Per class", "", f"| class | trained on | held out | {facts.of_class} |", "|---|---:|---:|---:|"]
    lines += [f"| {' | '.join(_md(cell) for cell in row)} |" for row in _class_rows(facts)]
    confused = _confused(facts)
    if confused:
        lines += ["", "## Most often confused", ""]
        lines += [f"- {count} of class {_md(one)} answered as {_md(other)}" for count, one, other in confused]
    for name, values in facts.slices.items():
        if len(values) > 1:
            lines += ["", f"## By {_md(name)}", ""]
            lines += [
                f"- {_md(value)}: {each['accuracy']:.4f} on {each['images']:.0f} images"
                for value, each in _first(values).items()
            ]
    lines += ["", "## Training", "", *(f"- {name}: {value}" for name, value in facts.schedule.items())]
    if facts.lineage:
        lines += ["", "## Where it comes from", "", *(f"- {_md(name)}: {_md(where)}" for name, where in facts.lineage)]
    lines += ["", "## Made with", "", *(f"- {name} {version}" for name, version in facts.packages.items()), ""]
    return "\n".join(lines)


def to_html(facts: Facts) -> str:
    """The card as one HTML file, with plots and the wrong answers."""
    calibrated = "How often answers of a score are right; on the line, as often as they say."
    of_class = facts.of_class if _pixels(facts) else "Accuracy"
    interval = "" if _pixels(facts) else "black is its 95 % interval, "
    classes = f"{of_class}, the worst first; {interval}grey the number of images{_before(facts)}."
    thing = "a pixel" if _pixels(facts) else "an image"
    sections = [
        _tiles(facts),
        "<h2>What it had to hold</h2>",
        _checks(facts.checks),
        f'<div class="c"><section><h2>Per class</h2><p>{classes}</p>{_class_bars(facts)}</section>',
        f"<section><h2>Calibration</h2><p>{calibrated}</p>{reliability(facts.calibration)}</section></div>"
        if facts.calibration
        else "</div>",
        *_slices(facts),
        f"<h2>Confusion matrix</h2><p>Rows are what {thing} is, columns what was answered.</p>",
        _matrix(facts),
        "<h2>Worst answers</h2>",
        "<p>The image, its mask, the answer; the least mean IoU first.</p>"
        if _pixels(facts)
        else "<p>Wrong, the surest first.</p>",
        gallery(facts.mistakes),
        *_training(facts),
        "<h2>What it is</h2>",
        table(("", ""), _summary(facts)),
        _folded("Data per class", table(("class", "trained on", "held out", facts.of_class), _class_rows(facts))),
        _folded("Settings of the training", table(("setting", "value"), _items(facts.schedule))),
        _folded("Where it comes from", table(("what", "where"), facts.lineage)),
        _folded("Made with", table(("package", "version"), _items(facts.packages))),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(facts.title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{escape(facts.title)} {_badge(facts)}</h1>"
        f'<p class="s">{escape(facts.task)}, {escape(facts.model_class)}, made {escape(facts.created)}</p>\n'
        + "\n".join(sections)
        + "\n</body></html>\n"
    )


_STYLE = (
    "body{font:15px/1.5 system-ui,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;max-width:64rem;margin:2rem auto;"
    "padding:0 1.25rem;color:#24292f;background:#fff}"
    "h1{font-size:1.7rem;margin:0}h2{font-size:1.15rem;margin:2rem 0 .25rem}p{margin:.25rem 0 .75rem}"
    ".s,h2+p,section>p{color:#57606a}"
    ".b{font-size:.85rem;font-weight:600;padding:.15rem .6rem;border-radius:1rem;color:#fff;vertical-align:middle}"
    ".t{display:flex;flex-wrap:wrap;gap:.75rem;margin:1.25rem 0}.t div{flex:1 1 6rem;border:1px solid #d0d7de;"
    "border-radius:.5rem;padding:.5rem .75rem}.t b{display:block;font-size:1.3rem;line-height:1.3}"
    ".t span{color:#57606a;font-size:.82rem}"
    ".c{display:flex;flex-wrap:wrap;gap:0 3rem}.c section{flex:1 1 26rem;max-width:29rem}.c h2{margin-top:1.5rem}"
    "table{border-collapse:collapse;margin:.5rem 0 1rem}td,th{padding:.2rem 1rem .2rem 0;text-align:left;"
    "vertical-align:top}th{border-bottom:1px solid #d0d7de;font-weight:600}"
    "td+td{font-variant-numeric:tabular-nums;overflow-wrap:anywhere}"
    ".y{color:#1a7f37;font-weight:700}.n{color:#cf222e;font-weight:700}"
    ".m td,.m th{padding:.15rem .3rem;text-align:center;border:1px solid #eaeef2;min-width:1.5rem;font-size:.85rem}"
    ".m th{white-space:nowrap}.m tr>th:first-child{text-align:right}.m .l{color:#fff}"
    ".x{overflow-x:auto}.m tr:first-child th{vertical-align:bottom}"
    ".up span{writing-mode:vertical-rl;transform:rotate(180deg)}"
    ".g{display:flex;flex-wrap:wrap;gap:.75rem}figure{margin:0;width:8rem;font-size:.82rem;line-height:1.35}"
    "figure img{width:8rem;height:8rem;object-fit:contain;image-rendering:pixelated;background:#eaeef2;"
    "border-radius:.25rem}figcaption{overflow-wrap:anywhere}"
    "svg{font:11px system-ui,'DejaVu Sans',sans-serif;fill:#24292f;max-width:100%}"
    "details{margin:.5rem 0}summary{cursor:pointer;font-weight:600}"
    "@media print{details>*{display:block}}"
)


def _pixels(facts: Facts) -> bool:
    return facts.measure != "accuracy"


def _badge(facts: Facts) -> str:
    if not facts.checks:
        return ""
    ok = all(check.ok for check in facts.checks)
    return f'<span class="b" style="background:{GREEN if ok else RED}">{"blessed" if ok else "not blessed"}</span>'


def _tiles(facts: Facts) -> str:
    images = facts.images
    tiles = [(f"{facts.accuracy:.4f}", f"{facts.measure} on {images} images")]
    if facts.baseline_accuracy is not None:
        tiles.append((f"{facts.accuracy - facts.baseline_accuracy:+.4f}", "against the model before it"))
    if facts.top_k_accuracy is not None and facts.top_k < len(facts.labels):
        tiles.append((f"{facts.top_k_accuracy:.4f}", f"among the first {facts.top_k}"))
    if facts.calibration:
        tiles.append((f"{calibration_error(facts.calibration):.3f}", "calibration error"))
    tiles += [(f"{each['p95']:.3g} ms", f"p95 over {door}") for door, each in facts.latency_ms.items()]
    if facts.size_mb:
        tiles.append((f"{facts.size_mb:.3g} MB", "servable"))
    drawn = "".join(f"<div><b>{escape(one)}</b><span>{escape(two)}</span></div>" for one, two in tiles)
    return f'<div class="t">{drawn}</div>'


def _checks(checks: Sequence[Check]) -> str:
    rows = "".join(
        f'<tr><td class="{"y" if check.ok else "n"}">{"✓" if check.ok else "✗"}</td><td>{escape(check.name)}</td>'
        f"<td>{escape(check.told)}</td></tr>"
        for check in checks
    )
    return f"<table>{rows}</table>"


def _before(facts: Facts) -> str:
    return ", red the model before it" if facts.baseline_accuracy is not None else ""


def _class_bars(facts: Facts) -> str:
    worst = sorted(facts.per_class.items(), key=lambda item: (item[1]["accuracy"], item[0]))
    left = len(worst) - SHOWN_CLASSES
    more = f"<p>and {left} better ones</p>" if left > 0 else ""
    return bars(dict(worst[:SHOWN_CLASSES]), told=f"{facts.of_class} per class") + more


def _slices(facts: Facts) -> list[str]:
    """Those that divide the images at all."""
    shown = {name: values for name, values in facts.slices.items() if len(values) > 1}
    if not shown:
        return []
    parts = [
        f"<section><h2>By {escape(name)}</h2>{bars(_first(values), told=f'{facts.measure} by {name}')}</section>"
        for name, values in shown.items()
    ]
    return ['<div class="c">', *parts, "</div>"]


def _training(facts: Facts) -> list[str]:
    """A curve of one epoch says nothing."""
    drawn = "".join(curve(name, values) for name, values in facts.history.items() if len(values) > 1)
    return [f'<h2>Training</h2><div class="c">{drawn}</div>'] if drawn else []


def _first(values: Mapping[str, Figures]) -> Mapping[str, Figures]:
    return dict(sorted(values.items(), key=lambda item: -item[1]["images"])[:SHOWN_CLASSES])


def _folded(name: str, content: str) -> str:
    return f"<details><summary>{escape(name)}</summary>{content}</details>"


def _items(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, str(value)) for name, value in values.items()]


def _summary(facts: Facts) -> list[tuple[str, str]]:
    images = facts.images
    rows = [
        ("task", facts.task),
        ("made", facts.created),
        ("started from", f"{facts.source} ({facts.model_class})"),
        (facts.measure, f"{facts.accuracy:.4f} on {images} held-out images, asked as encoded files"),
    ]
    if facts.top_k_accuracy is not None and facts.top_k < len(facts.labels):
        rows.append((f"among the first {facts.top_k}", f"{facts.top_k_accuracy:.4f}"))
    if facts.calibration:
        error = calibration_error(facts.calibration)
        rows.append(("calibration error", f"{error:.4f}: how far scores are from the share that is right, on average"))
    if facts.baseline_accuracy is not None:
        rows.append(("the model before it", f"{facts.baseline_accuracy:.4f} on the same images"))
    rows.append(("trained on", f"{facts.trained_images} images of {len(facts.labels)} classes"))
    if facts.set_aside:
        rows.append(("set aside", f"{facts.set_aside} files that cannot be read"))
    for door, latency in facts.latency_ms.items():
        rows.append((f"latency over {door}", f"p50 {latency['p50']} ms, p95 {latency['p95']} ms ({facts.server})"))
    if facts.size_mb:
        rows.append(("size", f"{facts.size_mb:.1f} MB"))
    holds = "holds" if facts.parity.get("holds") else "was not measured, or does not hold"
    return [*rows, ("parity with its checkpoint", holds)]


def _class_rows(facts: Facts) -> list[tuple[str, ...]]:
    """The worst classes first."""
    none = {"accuracy": 2.0}
    worst = sorted(facts.labels, key=lambda name: facts.per_class.get(name, none)["accuracy"])
    rows: list[tuple[str, ...]] = [
        (
            name,
            str(facts.trained.get(name, 0)),
            str(facts.held_out.get(name, 0)),
            f"{facts.per_class[name]['accuracy']:.4f}" if name in facts.per_class else "",
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
        return table(("images", "are", "answered"), [tuple(map(str, pair)) for pair in _confused(facts, 40)])
    return f'<div class="x">{matrix(facts.labels, facts.confusion)}</div>'


def _md(text: str) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")
