"""docs/images.md tells what its script measures, of the files and processors that there are now."""

from __future__ import annotations

from scripts import image_docs

TEXT = image_docs.DOCUMENT.read_text(encoding="utf-8")


def table(name: str) -> list[list[str]]:
    """The cells of a measured table, without its head."""
    part = TEXT.partition(f"<!-- measured: {name} -->")[2].partition(f"<!-- end: {name} -->")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in part.strip().splitlines()[2:]]


def test_every_group_of_files_has_its_row_and_is_exact() -> None:
    groups = image_docs.groups()
    rows = {name: (count, worst) for name, count, worst in table("files") if not name.startswith("WebP")}
    assert rows == {name: (str(len(files)), "0") for name, files in groups.items()}


def test_every_file_that_is_answered_otherwise_is_listed() -> None:
    assert [row[0] for row in table("others")] == list(image_docs.others())


def test_every_processor_has_its_row_within_the_tolerances() -> None:
    from signatures.processor_classes import MODEL_TYPES

    rows = {name: figures for name, *figures in table("processors")}
    assert list(rows) == list(image_docs.SETTINGS)
    assert set(MODEL_TYPES.values()) <= set(rows)
    for name, (settings, _, grey, after) in rows.items():
        assert int(settings) == len(image_docs.SETTINGS[name])
        assert float(grey) == 0
        assert float(after) <= 1e-6


def test_what_is_said_of_memory_is_what_the_code_does() -> None:
    from signatures.processor import _PARALLEL_ITEMS, MAX_PIXELS

    assert f"at most {_PARALLEL_ITEMS}" in TEXT
    assert "| at 64 million pixels |" in TEXT
    assert MAX_PIXELS == 64_000_000
    assert [row[0] for row in table("memory")] == list(image_docs.large())
