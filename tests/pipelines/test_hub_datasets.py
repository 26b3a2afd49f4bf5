# ruff: noqa: E402 (what is skipped over is not imported)
"""`datasets:` data, as `save_to_disk` writes it and as repositories hold it, without the `datasets` package."""

from __future__ import annotations

import functools
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

pa = pytest.importorskip("pyarrow", reason="pyarrow, of the tfx extra, is not installed in this lane")
beam = pytest.importorskip("apache_beam", reason="the tfx extra is not installed in this lane")

from PIL import Image

from pipelines.data import absolute, find
from pipelines.ingest import ingest
from pipelines.runners import beam_args
from signatures.errors import UsageError

FEATURES = {
    "image": {"_type": "Image"},
    "label": {"names": ["rose", "lily"], "_type": "ClassLabel"},
}


def png(level: int) -> bytes:
    encoded = io.BytesIO()
    Image.new("L", (4, 4), level).save(encoded, "PNG")
    return encoded.getvalue()


def table(levels: range, *, metadata: bool = True) -> Any:
    images = [{"bytes": png(level), "path": f"{level}.png"} for level in levels]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", kind), ("label", pa.int64())])
    if metadata:
        schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": FEATURES}})})
    return pa.table([pa.array(images, kind), pa.array([level % 2 for level in levels])], schema=schema)


def save(path: Path, rows: Any) -> None:
    """As `datasets` does it: Arrow's streaming format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, rows.schema) as stream:
        stream.write_table(rows)


def run(data: str, out: Path) -> Any:
    folders = {split: str(out / split) for split in ("train", "eval")}
    for folder in (*folders.values(), str(out / "scratch")):
        Path(folder).mkdir(parents=True)
    return ingest(
        find(data),
        make_pipeline=functools.partial(beam.Pipeline, argv=beam_args()),
        eval_share=0.5,
        split_folders=folders,
        scratch=out / "scratch",
    )


def test_what_save_to_disk_wrote(tmp_path: Path) -> None:
    saved = tmp_path / "flowers"
    save(saved / "train" / "data-00000-of-00001.arrow", table(range(6)))
    save(saved / "train" / "cache-1234.arrow", table(range(100, 106)))
    save(saved / "test" / "data-00000-of-00001.arrow", table(range(6, 8)))
    report = run(f"datasets:{saved}", tmp_path / "out")
    assert report["labels"] == ["rose", "lily"], "in the order of their ids"
    assert report["classes"] == {"train": {"rose": 3, "lily": 3}, "eval": {"rose": 1, "lily": 1}}
    assert report["bad"] == []


def test_parquet_files_with_bare_numbers_and_images_beside_them(tmp_path: Path) -> None:
    from pyarrow import parquet

    rows = pa.table(
        {
            "img": [{"bytes": None, "path": f"pictures/{level}.png"} for level in range(8)],
            "fine_label": [7 + level % 2 for level in range(8)],
        }
    )
    (tmp_path / "data" / "pictures").mkdir(parents=True)
    for level in range(7):
        (tmp_path / "data" / "pictures" / f"{level}.png").write_bytes(png(level))
    parquet.write_table(rows, tmp_path / "data" / "train-00000-of-00001.parquet")
    report = run(f"datasets:{tmp_path / 'data'}", tmp_path / "out")
    assert report["labels"] == ["7", "8"]
    assert sum(report["counts"].values()) == 7, "split by content, for there is no eval file"
    assert [item["filename"] for item in report["bad"]] == ["train-00000-of-00001/000007-7.png"]


def test_class_names_beside_the_file(tmp_path: Path) -> None:
    save(tmp_path / "one" / "data.arrow", table(range(4), metadata=False))
    assert find(f"datasets:{tmp_path / 'one'}").labels is None
    (tmp_path / "one" / "dataset_info.json").write_text(json.dumps({"features": FEATURES}))
    found = find(f"datasets:{tmp_path / 'one'}")
    assert found.labels == ("rose", "lily")
    save(tmp_path / "one" / "data.arrow", table(range(5), metadata=False))
    assert find(f"datasets:{tmp_path / 'one'}").fingerprint != found.fingerprint


@pytest.mark.parametrize(("columns", "told"), [({"image": [b""]}, "no label"), ({"label": ["x"]}, "no image")])
def test_columns_that_are_missing(tmp_path: Path, columns: Any, told: str) -> None:
    save(tmp_path / "data.arrow", pa.table(columns))
    with pytest.raises(UsageError, match=told):
        find(f"datasets:{tmp_path}")


def test_a_name_needs_the_package_and_a_folder_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match="pip install datasets"):
        find("datasets:beans")
    with pytest.raises(UsageError, match=r"no \*\.arrow"):
        find(f"datasets:{tmp_path}")
    (tmp_path / "data.arrow").write_bytes(b"no arrow")
    with pytest.raises(UsageError, match="cannot be read as arrow"):
        find(f"datasets:{tmp_path}")
    assert absolute("datasets:beans") == "datasets:beans"
    monkeypatch.chdir(tmp_path)
    assert absolute("datasets:.") == f"datasets:{tmp_path}"
    assert absolute("images") == str(tmp_path / "images")


def test_the_package_itself_writes_what_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the package `datasets` is not installed")
    rows = {"image": [{"bytes": png(level), "path": None} for level in range(4)], "label": [0, 1, 0, 1]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["rose", "lily"])})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "saved"))
    report = run(f"datasets:{tmp_path / 'saved'}", tmp_path / "out")
    assert report["labels"] == ["rose", "lily"]
    assert sum(report["counts"].values()) == 4
