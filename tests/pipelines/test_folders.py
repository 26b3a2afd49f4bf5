from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data import EVAL, TRAIN, split_by_content
from pipelines.data.folders import find, items
from signatures.errors import UsageError


def touch(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_classes_are_sorted_folder_names(tmp_path: Path) -> None:
    for name in ("tulip/1.png", "rose/2.JPG", "rose/deep/3.jpeg", "rose/notes.txt", ".hidden/4.png", "rose/.5.png"):
        touch(tmp_path / name)
    assert find(str(tmp_path)).labels == ("rose", "tulip")
    assert [(item.filename, item.text, item.split) for item in items(tmp_path)] == [
        ("rose/2.JPG", "rose", None),
        ("rose/deep/3.jpeg", "rose", None),
        ("tulip/1.png", "tulip", None),
    ]


@pytest.mark.parametrize("held_out", ["eval", "test", "val", "validation"])
def test_split_folders_are_used(tmp_path: Path, held_out: str) -> None:
    for name in ("train/a/1.png", "train/b/2.png", f"{held_out}/a/3.png", f"{held_out}/c/4.png"):
        touch(tmp_path / name)
    assert find(str(tmp_path)).labels == ("a", "b", "c")
    assert {item.filename: item.split for item in items(tmp_path)} == {
        "train/a/1.png": TRAIN,
        "train/b/2.png": TRAIN,
        f"{held_out}/a/3.png": EVAL,
        f"{held_out}/c/4.png": EVAL,
    }


def test_classes_that_are_called_like_splits_stay_classes(tmp_path: Path) -> None:
    # Pictures of trains and of tests: no class folders below them.
    touch(tmp_path / "train" / "1.png")
    touch(tmp_path / "test" / "2.png")
    assert find(str(tmp_path)).labels == ("test", "train")
    assert {item.split for item in items(tmp_path)} == {None}


def test_a_rewritten_added_or_removed_file_changes_the_fingerprint(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "1.png")
    extra = touch(tmp_path / "b" / "2.png")
    touch(tmp_path / "b" / "4.png")
    before = find(str(tmp_path)).fingerprint
    assert find(str(tmp_path)).fingerprint == before
    added = touch(tmp_path / "a" / "3.png")
    assert find(str(tmp_path)).fingerprint != before
    added.unlink()
    assert find(str(tmp_path)).fingerprint == before
    touch(extra, b"longer")
    assert find(str(tmp_path)).fingerprint != before


@pytest.mark.parametrize("files", [[], ["a/1.png"], ["a/1.txt", "b/2.txt"]])
def test_fewer_than_two_classes_is_a_usage_error(tmp_path: Path, files: list[str]) -> None:
    for name in files:
        touch(tmp_path / name)
    with pytest.raises(UsageError, match="at least 2"):
        find(str(tmp_path))


def test_a_missing_folder_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        find(str(tmp_path / "nowhere"))


@given(st.binary(), st.floats(0.01, 0.98), st.floats(0, 0.01))
def test_an_image_never_goes_back_to_train_when_more_is_held_out(content: bytes, share: float, more: float) -> None:
    digest = hashlib.sha256(content).hexdigest()
    if split_by_content(digest, share) == EVAL:
        assert split_by_content(digest, share + more) == EVAL


def test_the_held_out_share_is_about_what_was_asked_for() -> None:
    digests = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(5000)]
    held_out = sum(split_by_content(digest, 0.2) == EVAL for digest in digests)
    assert 900 < held_out < 1100
