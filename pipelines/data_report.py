"""What is to be said of the data before it is trained on: anomalies, drift, skew. As lines, JSON and one HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipelines.drift import Distance, Summary
from pipelines.plots import escape, table

__all__ = ["FILES", "DataReport", "describe", "read"]

HTML_FILE, JSON_FILE, TEXT_FILE = FILES = ("report.html", "report.json", "anomalies.txt")


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """All that was found.

    Args:
        data: The data's name.
        anomalies: Where it is not what its schema says, a line each.
        drift: Against the data that was accepted before; empty where there was none.
        skew: Against what clients sent; empty without a serving log.
        previous: Which data that was, in words; "" for none.
        log: The serving log, with how many images were read; "" for none.
        counts: Split -> images.
        classes: Split -> class -> images.
        bad: How many were set aside.
        leaks: How many contents are on both sides of the split.
        conflicts: How many contents are given several classes.
        features: Split -> feature -> its distribution.
    """

    data: str
    anomalies: Sequence[str] = ()
    drift: Sequence[Distance] = ()
    skew: Sequence[Distance] = ()
    previous: str = ""
    log: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    classes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    bad: int = 0
    leaks: int = 0
    conflicts: int = 0
    features: Mapping[str, Mapping[str, Summary]] = field(default_factory=dict)

    @property
    def findings(self) -> list[str]:
        """What stops a run, a line each."""
        return [
            *self.anomalies,
            *(f"drift of {each.told(self.previous)}" for each in self.drift if not each.ok),
            *(f"skew of {each.told('what is served')}" for each in self.skew if not each.ok),
        ]

    def write(self, folder: Path) -> None:
        """Writes the three files of `FILES`."""
        folder.mkdir(parents=True, exist_ok=True)
        document = {**asdict(self), "findings": self.findings}
        (folder / JSON_FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        (folder / TEXT_FILE).write_text("\n".join(self.findings or ["no anomalies"]) + "\n", encoding="utf-8")
        (folder / HTML_FILE).write_text(to_html(self), encoding="utf-8")


def read(folder: Path) -> dict[str, Any]:
    """What `DataReport.write` wrote as JSON."""
    found = json.loads((folder / JSON_FILE).read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def describe(serialized: bytes) -> list[str]:
    """One line per anomaly of a serialized `tensorflow_metadata` Anomalies.

    Args:
        serialized: What ExampleValidator wrote as `SchemaDiff.pb`.

    Returns:
        `feature: what is wrong`, by feature name.
    """
    from tensorflow_metadata.proto.v0 import anomalies_pb2

    anomalies = anomalies_pb2.Anomalies.FromString(serialized)
    lines = [f"{name}: {info.description}" for name, info in sorted(anomalies.anomaly_info.items())]
    if anomalies.HasField("dataset_anomaly_info"):
        lines.append(f"the data set: {anomalies.dataset_anomaly_info.description}")
    return lines


def to_html(report: DataReport) -> str:
    """The page."""
    findings = report.findings
    listed = "".join(f"<li>{escape(line)}</li>" for line in findings)
    found = f'<ul class="n">{listed}</ul>' if findings else '<p class="y">Nothing that stops a run.</p>'
    splits = list(report.features)
    names = list(dict.fromkeys(name for split in splits for name in report.features[split]))
    told = [
        (name, *(report.features[split][name].told if name in report.features[split] else "" for split in splits))
        for name in names
    ]
    classes = list(dict.fromkeys(name for each in report.classes.values() for name in each))
    counted = [(name, *(str(each.get(name, 0)) for each in report.classes.values())) for name in classes]
    others = (
        f"{report.bad} set aside",
        f"{report.leaks} contents on both sides of the split",
        f"{report.conflicts} contents with several classes",
    )
    sections = [
        "<h2>What was found</h2>",
        found,
        "<h2>Images</h2>",
        table(("split", "images"), [(name, str(count)) for name, count in report.counts.items()]),
        f"<p>{', '.join(others)}.</p>",
        "<h2>Classes</h2>",
        table(("class", *report.classes), counted),
        "<h2>Features</h2>",
        table(("feature", *splits), told),
        *_compared("Drift", report.previous and f"against {report.previous}", report.drift),
        *_compared("Skew", report.log and f"against what clients sent: {report.log}", report.skew),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(report.data)}</title><style>{_STYLE}</style></head>\n<body><h1>{escape(report.data)}</h1>\n"
        + "\n".join(sections)
        + "\n</body></html>\n"
    )


_STYLE = (
    "body{font:15px/1.5 system-ui,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;max-width:64rem;margin:2rem auto;"
    "padding:0 1.25rem;color:#24292f;background:#fff}h1{font-size:1.4rem;overflow-wrap:anywhere}"
    "h2{font-size:1.1rem;margin:1.75rem 0 .25rem}table{border-collapse:collapse}"
    "td,th{padding:.2rem 1.25rem .2rem 0;text-align:left;vertical-align:top}th{border-bottom:1px solid #d0d7de}"
    ".y{color:#1a7f37}.n,.n td{color:#cf222e}"
)


def _compared(title: str, against: str, found: Sequence[Distance]) -> list[str]:
    if not against:
        return [f"<h2>{title}</h2>", "<p>Nothing to compare with.</p>"]
    rows = [
        (each.feature, f"{each.value:.3f}", f"{each.limit:.3f}", each.before, each.now, "" if each.ok else "too far")
        for each in sorted(found, key=lambda each: each.limit - each.value)
    ]
    head = ("feature", "distance", "allowed", "there", "here", "")
    return [f"<h2>{title}</h2>", f"<p>{escape(against)}</p>", table(head, rows)]
