# ruff: noqa: E402 (what is skipped over is not imported)
from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

beam = pytest.importorskip("apache_beam", reason="the tfx extra is not installed in this lane")

from pipelines import digits
from pipelines.data import find
from pipelines.ingest import check, ingest
from pipelines.runners import beam_args
from signatures.errors import CheckFailed

LIMIT = 5


def run(
    data: Path, out: Path, *, args: tuple[str, ...] = (), **options: Any
) -> tuple[dict[str, Any], dict[str, list[bytes]]]:
    """The report, and the serialized Examples of each split."""
    import tensorflow as tf

    folders = {split: str(out / split) for split in ("train", "eval")}
    for folder in (*folders.values(), out / "scratch"):
        Path(folder).mkdir(parents=True)
    report = ingest(
        find(str(data)),
        make_pipeline=functools.partial(beam.Pipeline, argv=beam_args(args)),
        split_folders=folders,
        scratch=out / "scratch",
        **{"eval_share": 0.2, **options},
    )
    files = {split: sorted(map(str, Path(folder).iterdir())) for split, folder in folders.items()}
    return report, {
        split: [record.numpy() for record in tf.data.TFRecordDataset(names, compression_type="GZIP")]
        for split, names in files.items()
    }


def test_given_splits_keep_their_images_and_their_order(tmp_path: Path) -> None:
    import tensorflow as tf

    data = tmp_path / "data"
    digits.write_images(data, limit=LIMIT)
    report, splits = run(data, tmp_path / "one")
    assert report == {
        "task": "image-classification",
        "labels": list(digits.CLASSES),
        "counts": {"train": 40, "eval": 10},
        "classes": {"train": dict.fromkeys(digits.CLASSES, 4), "eval": dict.fromkeys(digits.CLASSES, 1)},
        "bad": [],
        "leaks": [],
        "leaked": 0,
        "conflicts": [],
    }
    examples = [tf.train.Example.FromString(record).features.feature for record in splits["eval"]]
    assert {example["image/filename"].bytes_list.value[0].decode() for example in examples} == {
        path.relative_to(data).as_posix() for path in (data / "eval").rglob("*.png")
    }
    for example in examples:
        name = example["image/filename"].bytes_list.value[0].decode()
        assert example["image/encoded"].bytes_list.value[0] == (data / name).read_bytes()
        assert example["image/class/text"].bytes_list.value[0].decode() == name.split("/")[1]
    assert run(data, tmp_path / "two")[1] == splits, "the same images come in another order"


@pytest.mark.parametrize(
    "args",
    [
        ("--direct_num_workers=2", "--direct_running_mode=multi_processing"),
        ("--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK"),
    ],
    ids=["several processes", "portable runner"],
)
def test_other_workers_do_the_same(tmp_path: Path, args: tuple[str, ...]) -> None:
    data = tmp_path / "data"
    digits.write_images(data, limit=LIMIT)
    (data / "train" / "3" / "spoiled.png").write_bytes(b"no image")
    report, splits = run(data, tmp_path / "out", args=args)
    assert report["counts"] == {"train": 40, "eval": 10}
    assert [item["filename"] for item in report["bad"]] == ["train/3/spoiled.png"]
    assert {split: len(set(records)) for split, records in splits.items()} == {"train": 40, "eval": 10}


def test_content_decides_where_no_split_is_given(tmp_path: Path) -> None:
    data = tmp_path / "data"
    digits.write_images(data, limit=LIMIT)
    report, _ = run(data / "train", tmp_path / "one", eval_share=0.5)
    assert report["counts"]["train"] + report["counts"]["eval"] == 40
    assert min(report["counts"].values()) > 8
    # Under another name and class an image stays on its side.
    moved = data / "train" / "3" / "renamed.png"
    next((data / "train" / "3").iterdir()).rename(moved)
    assert run(data / "train", tmp_path / "two", eval_share=0.5)[0]["counts"] == report["counts"]


def test_unreadable_files_are_set_aside_and_too_many_are_an_error(tmp_path: Path) -> None:
    data = tmp_path / "data"
    digits.write_images(data, limit=LIMIT)
    (data / "train" / "3" / "spoiled.png").write_bytes(b"no image")
    report, _ = run(data, tmp_path / "out")
    assert report["counts"] == {"train": 40, "eval": 10}
    assert [item["filename"] for item in report["bad"]] == ["train/3/spoiled.png"]
    check(report, "data", max_bad_share=0.05)
    with pytest.raises(CheckFailed, match=r"1 of 51 .*train/3/spoiled\.png: .*no image.*--max-bad-share"):
        check(report, "data", max_bad_share=0.001)


def feature(**values: Any) -> Any:
    import tensorflow as tf

    lists = {
        bytes: lambda value: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])),
        int: lambda value: tf.train.Feature(int64_list=tf.train.Int64List(value=[value])),
    }
    named = {name.replace("__", "/"): lists[type(value)](value) for name, value in values.items()}
    return tf.train.Example(features=tf.train.Features(feature=named)).SerializeToString()


def test_records_with_numbers_for_labels(tmp_path: Path) -> None:
    import tensorflow as tf

    digits.write_images(tmp_path / "images", limit=LIMIT)
    (tmp_path / "records" / "eval").mkdir(parents=True)
    for split, name in (("train", "train-00000-of-00001.tfrecord"), ("eval", "eval/part-0.tfrecord")):
        with tf.io.TFRecordWriter(str(tmp_path / "records" / name)) as writer:
            for path in sorted((tmp_path / "images" / split).rglob("*.png")):
                # As ids in the order of numbers: 2, 10, 11, ...
                number = int(path.parent.name) + 8 if path.parent.name >= "2" else 2
                writer.write(feature(image__encoded=path.read_bytes(), image__class__label=number))
            if split == "train":
                writer.write(feature(image__encoded=b"no image", image__class__label=12))
    report, splits = run(tmp_path / "records", tmp_path / "out")
    assert report["labels"] == ["2", "10", "11", "12", "13", "14", "15", "16", "17"]
    assert report["counts"] == {"train": 40, "eval": 10}
    assert len(report["bad"]) == 1
    example = tf.train.Example.FromString(splits["eval"][-1]).features.feature
    assert example["image/class/label"].int64_list.value == [8]
    assert example["image/class/text"].bytes_list.value == [b"17"]


def test_a_manifest_with_missing_files(tmp_path: Path) -> None:
    digits.write_images(tmp_path / "images", limit=LIMIT)
    files = sorted((tmp_path / "images").rglob("*.png"))
    lines = [f"images/{path.relative_to(tmp_path / 'images')},digit {path.parent.name}" for path in files]
    manifest = tmp_path / "list.csv"
    manifest.write_text("\n".join(["path,label", *lines, "images/nowhere.png,digit 3"]))
    report, _ = run(manifest, tmp_path / "out", eval_share=0.4)
    assert sum(report["counts"].values()) == 50
    assert report["bad"] == [{"filename": "images/nowhere.png", "reason": "No such file or directory"}]
    assert report["labels"][0] == "digit 0"


def test_an_empty_split_is_an_error() -> None:
    report = {
        "labels": ["a", "b"],
        "counts": {"train": 3, "eval": 0},
        "classes": {"train": {"a": 1, "b": 2}, "eval": {"a": 0, "b": 0}},
        "bad": [],
    }
    with pytest.raises(CheckFailed, match="eval split of data is empty"):
        check(report, "data", max_bad_share=0.0)


def test_a_class_that_is_never_trained_on_is_an_error_and_one_that_is_never_held_out_is_not() -> None:
    report = {
        "labels": ["a", "b", "c"],
        "counts": {"train": 4, "eval": 2},
        "classes": {"train": {"a": 1, "b": 0, "c": 3}, "eval": {"a": 1, "b": 1, "c": 0}},
        "bad": [],
    }
    with pytest.raises(CheckFailed, match="none to train on of: b"):
        check(report, "data", max_bad_share=0.0)


def test_an_image_on_both_sides_is_named(tmp_path: Path) -> None:
    data = tmp_path / "data"
    digits.write_images(data, limit=LIMIT)
    held_out = next((data / "eval" / "4").iterdir())
    (data / "train" / "5" / "copy.png").write_bytes(held_out.read_bytes())
    report, _ = run(data, tmp_path / "out")
    assert report["leaks"] == [[f"eval/4/{held_out.name}", "train/5/copy.png"]]
