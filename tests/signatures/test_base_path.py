from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from signatures import base_path
from signatures.errors import UsageError, VitrinaError


def fill(folder: Path, text: str = "graph") -> None:
    (folder / "saved_model.pb").write_text(text)


def test_versions_are_the_folders_whose_names_are_numbers(tmp_path: Path) -> None:
    for name in ("3", "00000012", "x1", ".writing-1", "1.5", "-4", "٣"):
        (tmp_path / name).mkdir()
    (tmp_path / "7").write_text("a file")
    assert list(base_path.versions(tmp_path)) == [3, 12]
    assert base_path.latest(tmp_path).name == "00000012"


def test_the_first_version_is_one_and_the_next_one_more_than_the_highest(tmp_path: Path) -> None:
    base = tmp_path / "deep" / "models"
    for expected in ("1", "2"):
        with base_path.new_version(base) as draft:
            fill(draft.staging)
        assert draft.final == base / expected
    with base_path.new_version(base, 9) as (staging, final):
        fill(staging)
    assert final.name == "9"
    with base_path.new_version(base) as draft:
        fill(draft.staging)
    assert draft.final.name == "10"
    assert sorted(path.name for path in base.iterdir()) == ["1", "10", "2", "9"]


def test_an_error_leaves_nothing_behind(tmp_path: Path) -> None:
    base = tmp_path / "deep" / "models"
    with pytest.raises(RuntimeError, match="halfway"), base_path.new_version(base) as draft:
        fill(draft.staging)
        raise RuntimeError("halfway")
    assert list(tmp_path.iterdir()) == []


def test_an_error_keeps_what_was_there(tmp_path: Path) -> None:
    with base_path.new_version(tmp_path) as draft:
        fill(draft.staging)
    with pytest.raises(RuntimeError), base_path.new_version(tmp_path):
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_nobody_sees_a_version_before_it_is_whole(tmp_path: Path) -> None:
    with base_path.new_version(tmp_path) as draft:
        fill(draft.staging)
        assert base_path.versions(tmp_path) == {}
        assert draft.staging.parent == tmp_path
    assert (draft.final / "saved_model.pb").read_text() == "graph"
    assert draft.final.stat().st_mode & 0o777 == 0o755


def test_two_writers_get_two_versions(tmp_path: Path) -> None:
    with base_path.new_version(tmp_path) as first:
        fill(first.staging, "first")
        with base_path.new_version(tmp_path) as second:
            fill(second.staging, "second")
    assert (tmp_path / "1" / "saved_model.pb").read_text() == "second"
    assert (tmp_path / "2" / "saved_model.pb").read_text() == "first"
    assert (first.final.name, second.final.name) == ("2", "1")


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path: Path) -> None:
    old = time.time() - 2 * base_path.ABANDONED_AFTER
    with base_path.new_version(tmp_path) as slow:
        fill(slow.staging, "slow")
        os.utime(slow.staging, (old, old))
        left, young = tmp_path / ".writing-left", tmp_path / ".writing-young"
        for folder in (left, young):
            folder.mkdir()
            fill(folder)
        os.utime(left, (old, old))
        with base_path.new_version(tmp_path) as draft:
            fill(draft.staging)
        assert not left.exists()
        assert young.exists(), "its writer may be about to lock it"
    assert (slow.final / "saved_model.pb").read_text() == "slow", "its writer lives"


def test_a_version_that_exists_is_never_overwritten(tmp_path: Path) -> None:
    with base_path.new_version(tmp_path, 4) as draft:
        fill(draft.staging, "old")
    with pytest.raises(UsageError, match="already has version 4"), base_path.new_version(tmp_path, 4):
        pytest.fail("the body must not run")
    with (
        pytest.raises(UsageError, match="somebody else"),
        base_path.new_version(tmp_path, 5) as first,
        base_path.new_version(tmp_path, 6) as second,
    ):
        fill(first.staging)
        fill(second.staging)
        (tmp_path / "5").mkdir()
        fill(tmp_path / "5", "theirs")
    assert (tmp_path / "4" / "saved_model.pb").read_text() == "old"
    assert (tmp_path / "5" / "saved_model.pb").read_text() == "theirs"


@pytest.mark.parametrize("version", [0, -3])
def test_versions_are_positive(tmp_path: Path, version: int) -> None:
    with pytest.raises(UsageError, match="positive"), base_path.new_version(tmp_path, version):
        pytest.fail("the body must not run")


@pytest.mark.parametrize(
    ("code", "says"),
    [(errno.ENOSPC, "full"), (errno.EROFS, "read-only"), (errno.EACCES, "may not be written"), (errno.EIO, "failed")],
)
def test_a_disk_that_cannot_be_written_is_one_line(tmp_path: Path, code: int, says: str) -> None:
    base = tmp_path / "models"
    with pytest.raises(VitrinaError, match=says) as caught, base_path.new_version(base):
        raise OSError(code, os.strerror(code))
    assert "\n" not in str(caught.value)
    assert not base.exists()


def test_a_base_that_is_a_file_is_said(tmp_path: Path) -> None:
    base = tmp_path / "file"
    base.write_text("x")
    with pytest.raises(VitrinaError, match="not a folder"), base_path.new_version(base):
        pytest.fail("the body must not run")


def test_resolve_takes_a_base_or_a_version(tmp_path: Path) -> None:
    with base_path.new_version(tmp_path) as draft:
        fill(draft.staging)
    assert base_path.resolve(tmp_path) == base_path.resolve(tmp_path / "1") == tmp_path / "1"
    with pytest.raises(UsageError, match="There is no folder"):
        base_path.resolve(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no version folders"):
        base_path.resolve(tmp_path / "empty")
