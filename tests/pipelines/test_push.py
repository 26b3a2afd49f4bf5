from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipelines.push import push, rollback
from signatures import base_path
from signatures.errors import UsageError, VitrinaError


def model(folder: Path, content: str) -> Path:
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_text(content)
    (folder / "variables" / "variables.index").write_text(content)
    return folder


def content(version: Path) -> str:
    return (version / "variables" / "variables.index").read_text()


def test_versions_count_up(tmp_path: Path) -> None:
    base = tmp_path / "base"
    first = push(model(tmp_path / "one", "1"), base)
    second = push(model(tmp_path / "two", "2"), base)
    assert (first.version, second.version) == (1, 2)
    assert first.new
    assert second.new
    assert {number: content(path) for number, path in base_path.versions(base).items()} == {1: "1", 2: "2"}
    assert sorted(os.listdir(base)) == ["1", "2"]


def test_the_same_model_is_not_copied_twice(tmp_path: Path) -> None:
    base = tmp_path / "base"
    push(model(tmp_path / "one", "1"), base)
    again = push(tmp_path / "one", base)
    assert (again.version, again.new) == (1, False)
    assert list(base_path.versions(base)) == [1]


def test_an_older_version_with_the_same_content_is_pushed_anew(tmp_path: Path) -> None:
    base = tmp_path / "base"
    push(model(tmp_path / "one", "1"), base)
    push(model(tmp_path / "two", "2"), base)
    assert push(tmp_path / "one", base).version == 3


def test_keep_removes_the_lowest(tmp_path: Path) -> None:
    base = tmp_path / "base"
    for number in range(1, 5):
        done = push(model(tmp_path / str(number), str(number)), base, keep=2)
    assert list(base_path.versions(base)) == [3, 4]
    assert done.removed == (2,)
    assert sorted(os.listdir(base)) == ["3", "4"]


@pytest.mark.parametrize("keep", [0, -1])
def test_keep_must_leave_one(tmp_path: Path, keep: int) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        push(model(tmp_path / "one", "1"), tmp_path / "base", keep=keep)
    assert not (tmp_path / "base").exists()


def test_a_folder_without_a_saved_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"saved_model\.pb"):
        push(tmp_path, tmp_path / "base")


def test_a_base_that_is_a_file_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "base").write_text("a file")
    with pytest.raises(VitrinaError, match="not a folder"):
        push(model(tmp_path / "one", "1"), tmp_path / "base")


def test_saved_model_is_copied_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    copied: list[str] = []
    real = shutil.copyfile

    def note(source: Path, target: Path) -> object:
        copied.append(Path(target).name)
        assert Path(target).parents[0].name != "1", "written into the version's folder itself"
        return real(source, target)

    monkeypatch.setattr("pipelines.push.shutil.copyfile", note)
    push(model(tmp_path / "one", "1"), tmp_path / "base")
    assert copied[-1] == "saved_model.pb"
    assert len(copied) == 2


def test_a_card_for_people_is_pushed_along_and_is_no_other_model(tmp_path: Path) -> None:
    card = tmp_path / "model_card.md"
    card.write_text("# one")
    base = tmp_path / "base"
    first = push(model(tmp_path / "one", "1"), base, extra=[card])
    assert (first.path / "assets.extra" / "model_card.md").read_text() == "# one"
    card.write_text("# made a minute later")
    assert not push(tmp_path / "one", base, extra=[card]).new


def test_rollback_puts_the_previous_model_under_a_new_number(tmp_path: Path) -> None:
    base = tmp_path / "base"
    push(model(tmp_path / "one", "1"), base)
    push(model(tmp_path / "two", "2"), base)
    done = rollback(base)
    assert done.version == 3
    assert content(done.path) == "1"
    assert content(rollback(base, 2).path) == "2"
    with pytest.raises(UsageError, match="earlier versions 1, 2, 3"):
        rollback(base, 4)


def test_rollback_needs_two_versions(tmp_path: Path) -> None:
    push(model(tmp_path / "one", "1"), tmp_path / "base")
    with pytest.raises(UsageError, match="1 version"):
        rollback(tmp_path / "base")
