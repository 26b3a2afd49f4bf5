from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.data import EVAL, KINDS, TRAIN, find, manifests, records
from signatures.errors import UsageError


def test_every_kind_is_asked() -> None:
    import pipelines.data

    modules = {path.stem for path in Path(pipelines.data.__file__).parent.glob("*.py")} - {
        "__init__",
        "spans",
        "spread",
        "storage",
    }
    assert modules == set(KINDS)


@pytest.mark.parametrize("name", ["a.csv", "a.TSV", "a.jsonl", "a.ndjson"])
def test_manifests_are_known_by_their_ending(name: str) -> None:
    assert manifests.accepts(name)
    assert not manifests.accepts("folder")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train.tfrecord", True),
        ("train.tfrecords.gz", True),
        ("data/train-*.tfrecord-00000-of-00010", True),
        ("train-00000-of-00010.gz", True),
        ("flowers", False),
        ("a.png", False),
    ],
)
def test_records_are_known_by_their_names(name: str, expected: bool) -> None:
    assert records.accepts(name) is expected


def items(manifest: Path) -> list[tuple[str, str, str | None, str | None]]:
    found = find(str(manifest))
    return [(item.filename, item.text, item.split, item.uri) for item in found.read.keywords["items"]]


def test_csv(tmp_path: Path) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text("Path,Label,split\na.png,cat,train\n/abs/b.png,dog,TEST\ngs://bucket/c.png,cat,\n")
    assert find(str(manifest)).labels == ("cat", "dog")
    assert items(manifest) == [
        ("a.png", "cat", TRAIN, str(tmp_path / "a.png")),
        ("/abs/b.png", "dog", EVAL, "/abs/b.png"),
        ("gs://bucket/c.png", "cat", None, "gs://bucket/c.png"),
    ]


def test_json_lines(tmp_path: Path) -> None:
    manifest = tmp_path / "list.jsonl"
    rows = [{"image_uri": "a.png", "class": "cat"}, {"image_uri": "b.png", "class": 7, "ml_use": "validation"}]
    manifest.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    assert [row[:3] for row in items(manifest)] == [("a.png", "cat", None), ("b.png", "7", EVAL)]


def test_a_changed_image_changes_the_fingerprint(tmp_path: Path) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text("path,label\na.png,cat\nb.png,dog\n")
    before = find(str(manifest)).fingerprint
    (tmp_path / "a.png").write_bytes(b"x")
    assert find(str(manifest)).fingerprint != before


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", "path,label\na.png,\n", r"a\.csv:2 has no label"),
        ("a.csv", "photo,label\na.png,cat\n", r"a\.csv:2 has no image; its columns are photo, label"),
        ("a.csv", "path,label\na.png,cat\n", "1 classes"),
        ("a.csv", "path,label,split\na.png,cat,later\n", "the split 'later'"),
        ("a.jsonl", "{", r"a\.jsonl:1 is not JSON"),
        ("a.jsonl", "[1]", "no JSON object"),
    ],
)
def test_a_manifest_that_cannot_be_used(tmp_path: Path, name: str, content: str, told: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=told):
        find(str(tmp_path / name))


@pytest.mark.parametrize("name", ["nowhere.csv", "nowhere.tfrecord", "nowhere"])
def test_what_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"no file|No TFRecords|no folder"):
        find(str(tmp_path / name))
