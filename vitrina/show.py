"""Tables for people, by rich."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from serving.bench import QUANTILES, Load
from serving.inspection import Inspection
from serving.results import Result
from signatures.spec import Card, Tensor

_WHOLE = ("signature", "name", "dtype", "shape", "score")  # columns that stay on one line

__all__ = ["answers", "anything", "inspection", "loads"]


def anything(renderable: Any) -> None:
    """Prints text as it is, or a rich table."""
    if isinstance(renderable, str):
        print(renderable)
    else:
        _console().print(renderable, markup=False)


def answers(pairs: Iterable[tuple[Path, Result]]) -> None:
    """A table of answers; images with an error say so in red."""
    found = list(pairs)
    columns = next((answer.COLUMNS for _, answer in found if not answer.error), ("", ""))
    table = _table("image", *columns)
    for path, answer in found:
        rows = answer.rows() if not answer.error else []
        for index, row in enumerate(rows):
            table.add_row(str(path) if index == 0 else "", *row, end_section=index == len(rows) - 1)
        if answer.error:
            table.add_row(str(path), Text(answer.error, style="red"), end_section=True)
        elif not rows:
            table.add_row(str(path), "(nothing found)", end_section=True)
    anything(table)


def loads(measured: Sequence[Load]) -> None:
    """Latencies and throughput of each load."""
    table = _table("load", "images/s", "requests", *(f"p{q} ms" if q < 100 else "max ms" for q in QUANTILES), "failed")
    for load in measured:
        failed = ", ".join(f"{count} {code}" for code, count in load.errors.items())
        if load.bad_images:
            failed = ", ".join(filter(None, [failed, f"{load.bad_images} images unreadable"]))
        figures = (f"{1000 * load.quantile(q):.2f}" for q in QUANTILES)
        table.add_row(load.name, f"{load.images_per_second:.1f}", str(len(load.latencies)), *figures, failed or "none")
    anything(table)


def inspection(read: Inspection) -> None:
    """What a servable says of itself."""
    anything(_facts(read))
    table = _table("signature", "", "name", "dtype", "shape", "meaning")
    for name, signature in read.signatures.items():
        lines = [("in", key, tensor) for key, tensor in signature.inputs.items()]
        lines += [("out", key, tensor) for key, tensor in signature.outputs.items()]
        for index, (kind, key, tensor) in enumerate(lines):
            table.add_row(
                name if index == 0 else "", kind, key, tensor.dtype, _shape(tensor), tensor.meaning,
                end_section=index == len(lines) - 1,
            )  # fmt: skip
    anything(table)


def _facts(read: Inspection) -> Table:
    facts = Table.grid(padding=(0, 2))
    beside = ", ".join(map(str, read.versions))
    facts.add_row("servable", str(read.path))
    facts.add_row("version", f"{read.version} of {beside}" if read.version is not None else "none")
    if read.card is not None:
        for name, value in _card_facts(read.card).items():
            facts.add_row(name, value)
    else:
        facts.add_row("card", "none: Vitrina did not write this SavedModel")
    sizes = read.sizes
    parts = ", ".join(f"{name} {_bytes(sizes[name])}" for name in ("graph", "variables", "assets", "warmup"))
    facts.add_row("size", f"{_bytes(sizes['total'])} ({parts})")
    return facts


def _card_facts(card: Card) -> Mapping[str, str]:
    shown = ", ".join(card.labels[:6]) + (", ..." if len(card.labels) > 6 else "")
    revision = f" at {card.source.revision}" if card.source.revision else ""
    facts = {"task": card.task, "source": f"{card.source.model}{revision} ({card.source.cls})"}
    if card.labels:
        facts["labels"] = f"{len(card.labels)}: {shown}"
    if card.options:
        facts["options"] = ", ".join(f"{name} {value}" for name, value in card.options.items())
    facts["parity"] = _parity(card.parity)
    facts["packages"] = ", ".join(f"{name} {version}" for name, version in card.packages.items())
    return facts


def _parity(parity: Mapping[str, Any]) -> str:
    if "holds" not in parity:
        return "not measured; do it with: vitrina verify"
    figures = {"grey levels": "grey_levels_max", "features": "features_max", "outputs": "output_max"}
    worst = ", ".join(f"{name} {parity[key]:.1e}" for name, key in figures.items() if key in parity)
    verdict = "holds" if parity["holds"] else f"does not hold ({parity.get('breach', '')})"
    return f"{verdict}; largest differences on {parity.get('images', '?')} images: {worst}"


def _shape(tensor: Tensor) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in tensor.shape) + "]"


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(Text(column), overflow="fold", no_wrap=column in _WHOLE)
    return table


def _console() -> Console:
    console = Console(highlight=False)
    # A file or a pipe has no width of its own, and 80 columns would fold what a program is to find in one line.
    return console if console.is_terminal else Console(highlight=False, width=160)
