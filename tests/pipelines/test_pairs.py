"""Images with masks, from folders, manifests, TFRecords and `datasets`, through Beam to Examples."""

from __future__ import annotations

import functools
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.data import EVAL, TRAIN, find
from pipelines.masks import read_ids
from signatures.errors import UsageError

LABELS = ("ground", "disc", "box")


def picture(seed: int, size: tuple[int, int] = (6, 4)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    return encoded.getvalue()


def mask(seed: int, size: tuple[int, int] = (6, 4), most: int = 3) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, most, size[::-1], np.uint8)).save(encoded, "PNG")
    return encoded.getvalue()


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def deliver(folder: Path, *, images: str = "images", masks: str = "masks", count: int = 20, first: int = 0) -> Path:
    for number in range(first, first + count):
        write(folder / images / f"{number}.png", picture(number))
        write(folder / masks / f"{number}.png", mask(number))
    return folder


def listed(data: Path) -> list[Any]:
    return list(find(str(data)).read.keywords["items"])


@pytest.mark.parametrize(
    ("images", "masks"), [("images", "masks"), ("JPEGImages", "SegmentationClass"), ("images/a/b", "labels/a/b")]
)
def test_folders_of_images_and_masks(tmp_path: Path, images: str, masks: str) -> None:
    deliver(tmp_path, images=images, masks=masks, count=2)
    (tmp_path / "labels.txt").write_text("\n".join(LABELS))
    found = find(str(tmp_path))
    assert (found.task, found.labels) == ("image-segmentation", LABELS)
    assert [(item.filename, item.split, item.mask_uri) for item in listed(tmp_path)] == [
        (f"{images}/{number}.png", None, str(tmp_path / masks / f"{number}.png")) for number in (0, 1)
    ]


@pytest.mark.parametrize(("train", "held"), [("train/{}", "val/{}"), ("{}/training", "{}/validation")])
def test_splits_above_and_below(tmp_path: Path, train: str, held: str) -> None:
    for split, first in ((train, 0), (held, 2)):
        deliver(tmp_path, images=split.format("images"), masks=split.format("annotations"), count=2, first=first)
    assert sorted(item.split for item in listed(tmp_path)) == [EVAL, EVAL, TRAIN, TRAIN]
    assert all(item.mask_uri for item in listed(tmp_path))


def test_one_folder_with_masks_by_their_names(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg", picture(0))
    write(tmp_path / "a_mask.png", mask(0))
    (item,) = listed(tmp_path)
    assert (Path(item.uri).name, Path(item.mask_uri).name) == ("a.jpg", "a_mask.png")


def test_what_has_no_other_half_is_named(tmp_path: Path) -> None:
    deliver(tmp_path, count=1)
    write(tmp_path / "images" / "lonely.png", picture(1))
    write(tmp_path / "masks" / "left.png", mask(1))
    problems = {item.filename: item.problem for item in listed(tmp_path) if item.problem}
    assert set(problems) == {"images/lonely.png", "masks/left.png"}
    assert "no mask lonely.png in masks" in problems["images/lonely.png"]


def test_names_of_classes_in_json_and_names_that_cannot_be(tmp_path: Path) -> None:
    deliver(tmp_path, count=1)
    (tmp_path / "id2label.json").write_text(json.dumps({"1": "disc", "0": "ground", "2": "box"}))
    assert find(str(tmp_path)).labels == LABELS
    assert find(str(tmp_path), ("a", "b", "c")).labels == ("a", "b", "c")
    for name, text, told in (
        ("id2label.json", '{"0": "a", "2": "b"}', "not 0, 1, 2"),
        ("classes.txt", "a\n\nb\n", "2 names"),
        ("labels.txt", "a\na\n", "'a' twice"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(UsageError, match=told):
            find(str(tmp_path))


def test_a_manifest_of_masks_and_one_for_its_folder(tmp_path: Path) -> None:
    deliver(tmp_path, count=2)
    rows = [{"file_name": f"images/{number}.png", "mask": f"masks/{number}.png"} for number in (0, 1)]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "list.csv").write_text("image,mask_path,split\nimages/0.png,masks/0.png,val\n")
    assert find(str(tmp_path / "list.jsonl")).task == "image-segmentation"
    (item,) = listed(tmp_path / "list.csv")
    assert (item.split, item.mask_uri) == (EVAL, str(tmp_path / "masks" / "0.png"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "metadata.csv").write_text("file_name,label\na.png,rose\nb.png,lily\n")
    assert find(str(tmp_path / "folder")).labels == ("lily", "rose")
    with pytest.raises(UsageError, match="names its classes itself"):
        find(str(tmp_path / "folder"), ("a", "b"))


def run(data: str, out: Path, labels: tuple[str, ...] | None = None) -> tuple[Any, list[Any]]:
    import tensorflow as tf

    beam = pytest.importorskip("apache_beam", reason="the tfx extra is not installed in this lane")
    from pipelines.ingest import ingest
    from pipelines.runners import beam_args

    folders = {split: str(out / split) for split in ("train", "eval")}
    for folder in (*folders.values(), str(out / "scratch")):
        Path(folder).mkdir(parents=True)
    report = ingest(
        find(data, labels),
        make_pipeline=functools.partial(beam.Pipeline, argv=beam_args()),
        eval_share=0.3,
        split_folders=folders,
        scratch=out / "scratch",
    )
    files = [str(path) for folder in folders.values() for path in sorted(Path(folder).iterdir())]
    records = tf.data.TFRecordDataset(files, compression_type="GZIP")
    return report, [tf.train.Example.FromString(record.numpy()).features.feature for record in records]


def test_pairs_become_examples_and_what_does_not_fit_is_set_aside(tmp_path: Path) -> None:
    data = deliver(tmp_path / "data")
    write(data / "images" / "small.png", picture(50))
    write(data / "masks" / "small.png", mask(50, (3, 2)))
    write(data / "images" / "other.png", picture(51))
    write(data / "masks" / "other.png", mask(51, most=200))
    write(data / "images" / "lonely.png", picture(52))
    write(data / "images" / "copy.png", picture(0))
    write(data / "masks" / "copy.png", mask(0))
    # A JPEG whose camera was turned: its mask is upright.
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(io.BytesIO(picture(53))).convert("RGB").save(data / "images" / "turned.jpg", exif=exif)
    write(data / "masks" / "turned.png", mask(53, (4, 6)))
    report, examples = run(str(data), tmp_path / "out", LABELS)
    assert sum(report["counts"].values()) == 22
    assert min(report["counts"].values()) > 1
    assert report["task"] == "image-segmentation"
    assert {item["filename"]: item["reason"] for item in report["bad"]} == {
        "images/lonely.png": "it has no mask lonely.png in masks",
        "images/other.png": next(i["reason"] for i in report["bad"] if i["filename"] == "images/other.png"),
        "images/small.png": "the mask has 3x2 pixels, but its image 6x4 (upright)",
    }
    pixels = {name: report["pixels"]["train"][name] + report["pixels"]["eval"][name] for name in LABELS}
    masks = [read_ids(example["image/segmentation/class/encoded"].bytes_list.value[0]) for example in examples]
    assert pixels == {name: sum(int((ids == id).sum()) for ids in masks) for id, name in enumerate(LABELS)}
    one = next(e for e in examples if e["image/filename"].bytes_list.value[0] == b"images/3.png")
    assert one["image/encoded"].bytes_list.value[0] == picture(3)
    assert one["image/segmentation/class/encoded"].bytes_list.value[0] == mask(3)
    assert list(one["image/segmentation/text"].bytes_list.value) == [name.encode() for name in LABELS]
    copies = {e["image/filename"].bytes_list.value[0].decode(): e["image/copies"].int64_list.value[0] for e in examples}
    assert {name for name, count in copies.items() if count == 2} == {"images/0.png", "images/copy.png"}


def test_classes_without_names_are_numbered_and_records_and_datasets_hold_masks_too(tmp_path: Path) -> None:
    import tensorflow as tf

    data = deliver(tmp_path / "data", count=6)
    report, examples = run(str(data), tmp_path / "one")
    assert report["labels"] == ["0", "1", "2"]
    wanted = sorted(example["image/segmentation/class/encoded"].bytes_list.value[0] for example in examples)

    with tf.io.TFRecordWriter(str(tmp_path / "pairs.tfrecord")) as writer:
        for example in examples:
            kept = {name: example[name] for name in ("image/encoded", "image/segmentation/class/encoded")}
            writer.write(tf.train.Example(features=tf.train.Features(feature=kept)).SerializeToString())
    again, records = run(str(tmp_path / "pairs.tfrecord"), tmp_path / "two")
    assert again["labels"] == ["0", "1", "2"]
    assert sorted(record["image/segmentation/class/encoded"].bytes_list.value[0] for record in records) == wanted

    pa = pytest.importorskip("pyarrow", reason="pyarrow, of the tfx extra, is not installed in this lane")
    from pyarrow import parquet

    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    features = {"image": {"_type": "Image"}, "annotation": {"_type": "Image"}}
    schema = pa.schema([("image", kind), ("annotation", kind)]).with_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )
    columns = [
        pa.array([{"bytes": draw(number), "path": None} for number in range(6)], kind) for draw in (picture, mask)
    ]
    (tmp_path / "hub").mkdir()
    parquet.write_table(pa.table(columns, schema=schema), tmp_path / "hub" / "part.parquet")
    (tmp_path / "hub" / "labels.txt").write_text("\n".join(LABELS))
    third, rows = run(f"datasets:{tmp_path / 'hub'}", tmp_path / "three")
    assert third["labels"] == list(LABELS)
    assert sorted(row["image/segmentation/class/encoded"].bytes_list.value[0] for row in rows) == wanted
