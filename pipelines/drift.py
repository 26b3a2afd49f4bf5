"""How far data is from what came before it, and from what is served: TFDV's distances, feature by feature.

Of features with names (formats, classes) the distance is L-infinity, the largest change of one value's share; of
numbers it is the Jensen-Shannon divergence of their histograms. Both are 0 for the same distribution and 1 for wholly
different ones. Few images differ by chance, so that what chance explains is allowed on top of the limit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.examples import FORMAT, IMAGE_MEASURES, PRESENT, TEXT, features_of, measure
from signatures.errors import VitrinaError

__all__ = ["Distance", "Summary", "distances", "served_statistics", "summary"]

NAMED = (FORMAT, TEXT, PRESENT)
#: Of ten bins, as TFDV's histograms have them: three times what chance makes of the divergence on average.
CHANCE_NUMBERS = 3 * 9 / (8 * math.log(2))
#: Three standard deviations of a share, at most.
CHANCE_NAMES = 1.5


@dataclass(frozen=True, kw_only=True)
class Distance:
    """How far one feature is from the same feature elsewhere.

    Args:
        feature: Its name.
        value: 0 to 1.
        limit: What is allowed.
        before: Its distribution elsewhere, in words.
        now: Its distribution here, in words.
    """

    feature: str
    value: float
    limit: float
    before: str = ""
    now: str = ""

    @property
    def ok(self) -> bool:
        """Whether it is as near as is allowed."""
        return self.value <= self.limit

    def told(self, what: str) -> str:
        """In one line."""
        far = f"{self.value:.2f} away from {what}, more than {self.limit:.2f}"
        return f"{self.feature}: {far} ({self.before} -> {self.now})"


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One feature's distribution.

    Args:
        count: How many values.
        told: In words: the most frequent names, or mean and range.
    """

    count: int
    told: str


def distances(now: Any, before: Any, *, features: Sequence[str], most: float) -> list[Distance]:
    """Compares two sets of statistics.

    Args:
        now: A `DatasetFeatureStatisticsList`.
        before: The other.
        features: Names of those to compare; what either lacks is left out.
        most: The largest distance that is allowed, 0 to 1, for many images.

    Returns:
        One per feature that both have.
    """
    import tensorflow_data_validation as tfdv
    from tensorflow_metadata.proto.v0 import schema_pb2

    here, there = summary(now), summary(before)
    shared = [name for name in features if name in here and name in there]
    schema = schema_pb2.Schema()
    for name in shared:
        feature = schema.feature.add(name=name, type=schema_pb2.BYTES if name in NAMED else schema_pb2.FLOAT)
        comparator = feature.drift_comparator
        if name in NAMED:
            comparator.infinity_norm.threshold = 1.0
        else:
            comparator.jensen_shannon_divergence.threshold = 1.0
    found = {}
    for info in tfdv.validate_statistics(now, schema, previous_statistics=before).drift_skew_info:
        values = [measured.value for measured in info.drift_measurements]
        found[info.path.step[0]] = max(values, default=0.0)
    return [
        Distance(
            feature=name,
            value=found[name],
            limit=min(1.0, most + _chance(name, here[name].count, there[name].count)),
            before=there[name].told,
            now=here[name].told,
        )
        for name in shared
        if name in found and not math.isnan(found[name])
    ]


def summary(statistics: Any) -> dict[str, Summary]:
    """Each feature's distribution, by name."""
    found = {}
    for feature in statistics.datasets[0].features if statistics.datasets else ():
        name = feature.path.step[0] if feature.path.step else feature.name
        kind = feature.WhichOneof("stats")
        if kind == "num_stats":
            stats = feature.num_stats
            told = f"mean {stats.mean:.4g}, {stats.min:.4g} to {stats.max:.4g}"
        elif kind == "string_stats":
            stats = feature.string_stats
            count = max(stats.common_stats.tot_num_values, 1)
            top = sorted(stats.top_values, key=lambda each: -each.frequency)[:3]
            told = ", ".join(f"{each.value} {each.frequency / count:.0%}" for each in top)
        else:
            continue
        number = int(stats.common_stats.tot_num_values or stats.common_stats.num_non_missing)
        if number:
            found[name] = Summary(count=number, told=told)
    return found


def served_statistics(encoded: Iterable[bytes]) -> tuple[Any, int, int]:
    """Statistics of what clients sent.

    Args:
        encoded: Their images.

    Returns:
        A `DatasetFeatureStatisticsList` of the measures that an image has without its label, how many images it is of,
        and how many more could not be read.
    """
    import pandas as pd  # type: ignore[import-untyped]
    import tensorflow_data_validation as tfdv

    rows, bad = [], 0
    for each in encoded:
        try:
            features = features_of(each, measure(each))
        except VitrinaError:
            bad += 1
            continue
        rows.append(
            {name: value.decode() if isinstance(value, bytes) else value for name, (value,) in features.items()}
        )
    if not rows:
        return None, 0, bad
    frame = pd.DataFrame(rows, columns=list(IMAGE_MEASURES))
    return tfdv.generate_statistics_from_dataframe(frame, n_jobs=1), len(rows), bad


def _chance(name: str, one: int, other: int) -> float:
    """How large a distance is by chance between two samples of one distribution."""
    rare = 1 / max(one, 1) + 1 / max(other, 1)
    return CHANCE_NAMES * math.sqrt(rare) if name in NAMED else CHANCE_NUMBERS * rare
