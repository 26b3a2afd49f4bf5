"""Data that arrives over time: spans, versions, the watch over them, and where a warm start begins."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines import trainer
from pipelines.data.spans import choose, named, spans
from pipelines.watch import Seen, watch
from signatures.errors import CheckFailed, UsageError


def deliver(folder: Path, *, classes: tuple[str, ...] = ("a", "b")) -> Path:
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "1.png").write_bytes(b"an image, for all that is looked at here")
    return folder


def test_the_latest_span_in_its_latest_version_counts(tmp_path: Path) -> None:
    for name in ("span-2", "span-10/version-1", "span-10/version-2", "SPAN_03", "spanish"):
        (tmp_path / name).mkdir(parents=True)
    assert [(span.number, span.version) for span in spans(tmp_path)] == [(2, 0), (3, 0), (10, 2)]
    assert choose(str(tmp_path)) == str(tmp_path / "span-10" / "version-2")
    assert choose(str(tmp_path), 3) == str(tmp_path / "SPAN_03")
    assert named(choose(str(tmp_path))) == (10, 2)
    assert named(str(tmp_path)) == (0, 0)
    with pytest.raises(UsageError, match=r"Got --span 4, .*: 2, 3, 10"):
        choose(str(tmp_path), 4)


def test_data_without_spans_stays_what_it_is(tmp_path: Path) -> None:
    assert choose(str(deliver(tmp_path))) == str(tmp_path)
    assert choose("datasets:beans") == "datasets:beans"


class Runs:
    """Stands in for the pipeline: a span named in `bad` does not pass."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.bad: set[str] = set()

    def __call__(self, *, data: Path, **settings: Any) -> str:
        self.seen.append(data.name)
        if data.name in self.bad:
            raise CheckFailed("too many\nare spoiled")
        return "blessed"


def test_each_span_is_run_once_and_again_when_it_changes(tmp_path: Path) -> None:
    runs = Runs()
    runs.bad.add("span-2")

    def look() -> list[Seen]:
        return list(watch(data=tmp_path / "data", root=tmp_path / "root", once=True, run=runs))

    deliver(tmp_path / "data" / "span-1")
    deliver(tmp_path / "data" / "span-2")
    assert look() == [
        Seen(span=1, version=0, result="blessed"),
        Seen(span=2, version=0, error="too many are spoiled"),
    ]
    assert look() == []
    deliver(tmp_path / "data" / "span-3" / "version-1")
    assert [(seen.span, seen.version) for seen in look()] == [(3, 1)]
    deliver(tmp_path / "data" / "span-3" / "version-2")
    deliver(tmp_path / "data" / "span-2", classes=("c",))
    runs.bad.clear()
    assert [(seen.span, seen.version, seen.error) for seen in look()] == [(2, 0, ""), (3, 2, "")]
    assert runs.seen == ["span-1", "span-2", "version-1", "span-2", "version-2"]


def test_a_span_that_is_still_being_copied_waits(tmp_path: Path) -> None:
    runs = Runs()
    deliver(tmp_path / "data" / "span-1")
    looks = watch(data=tmp_path / "data", root=tmp_path / "root", interval=0.01, run=runs)
    assert next(looks).span == 1

    import pipelines.watch as module

    copied: list[int] = []

    def copy_on(_: float) -> None:
        copied.append(len(runs.seen))
        if len(copied) <= 3:
            deliver(tmp_path / "data" / "span-2", classes=tuple("abc"[: len(copied) + 1]))
            (tmp_path / "data" / "span-2" / "a" / f"{len(copied)}.png").write_bytes(b"more")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.time, "sleep", copy_on)
        assert next(looks).span == 2
    assert len(copied) == 4, "as long as files came, it was left alone"
    assert copied == [1, 1, 1, 1]


def test_what_is_wrong_with_one_span_is_that_span_s_and_a_wrong_setting_everyone_s(tmp_path: Path) -> None:
    def refuse(**_: Any) -> None:
        raise UsageError("no such checkpoint, or one class only")

    deliver(tmp_path / "data" / "span-1", classes=("a",))
    (seen,) = watch(data=tmp_path / "data", root=tmp_path / "root", once=True, run=refuse)
    assert "one class only" in seen.error
    deliver(tmp_path / "data" / "span-1")
    with pytest.raises(UsageError, match="no such checkpoint"):
        list(watch(data=tmp_path / "data", root=tmp_path / "root", once=True, run=refuse))
    with pytest.raises(UsageError, match="no folder"):
        next(iter(watch(data=tmp_path / "nowhere", root=tmp_path)))


def test_a_warm_start_begins_from_the_checkpoint_beside_the_blessed_servable(tmp_path: Path) -> None:
    config = {"model": "google/vit"}
    servable = tmp_path / "model" / "7" / "Format-Serving"
    servable.mkdir(parents=True)
    assert trainer._start(SimpleNamespace(custom_config=config, base_model=None)) == "google/vit"
    assert trainer._start(SimpleNamespace(custom_config=config, base_model=str(servable))) == "google/vit"
    (servable.parent / trainer.CHECKPOINT).mkdir()
    warm = trainer._start(SimpleNamespace(custom_config=config, base_model=str(servable)))
    assert warm == str(tmp_path / "model" / "7" / "checkpoint")
