"""`vitrina batch`: every image answered once, errors kept, nothing done twice."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("apache_beam", reason="the tfx extra is not installed in this lane")

import vitrina
from pipelines import batch as module
from pipelines.batch import batch, output_names
from signatures.errors import UsageError
from vitrina.cli import main


@pytest.fixture(scope="module")
def pictures(photos: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(7):
        (folder / f"{number}.jpg").write_bytes(photos[number % len(photos)])
    (folder / "broken.png").write_bytes(b"no image")
    (folder / "empty.png").write_bytes(b"")
    (folder / "notes.txt").write_text("not an image, not asked about")
    return folder


def lines(paths: Any) -> dict[str, Any]:
    found = [json.loads(line) for path in paths for line in Path(path).read_text().splitlines()]
    assert len({line["image"] for line in found}) == len(found)
    return {Path(line["image"]).name: line for line in found}


def test_every_image_is_answered_as_predict_does_and_errors_are_kept(
    tiny_servable: Path, pictures: Path, photos: list[bytes], tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "answers-*.jsonl"
    words = [
        "batch",
        str(tiny_servable),
        "--in",
        str(pictures),
        "--out",
        str(out),
        "--per-part",
        "4",
        "--batch-size",
        "3",
    ]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {key: told[key] for key in ("images", "errors", "parts", "kept")} == {
        "images": 9, "errors": 2, "parts": 3, "kept": 0,
    }  # fmt: skip
    assert told["out"] == output_names(str(out), 3)
    found = lines(told["out"])
    assert set(found) == {f"{number}.jpg" for number in range(7)} | {"broken.png", "empty.png"}
    assert found["broken.png"]["error"]
    assert found["empty.png"]["error"] == "the file is empty"
    with vitrina.connect(str(tiny_servable)) as client:
        for number in range(7):
            expected = client.predict(photos[number % len(photos)]).to_json()
            answer = found[f"{number}.jpg"]
            assert answer["labels"] == expected["labels"]
            assert answer["scores"] == pytest.approx(expected["scores"], abs=1e-5)

    # Again, with one part gone, and one that does not hold the images that are wanted: those two alone are done.
    gone, renamed = (
        next(path for path in told["out"] if "/" + name in Path(path).read_text()) for name in ("0.jpg", "6.jpg")
    )
    before = {path: Path(path).stat().st_mtime_ns for path in told["out"]}
    Path(gone).unlink()
    assert main(words) == 0
    kept = len(told["out"]) - 1
    assert f"{kept} of them from an earlier run" in capsys.readouterr().out
    assert [path for path in before if Path(path).stat().st_mtime_ns != before[path]] == [gone]
    assert lines(told["out"]) == found
    Path(renamed).write_text(Path(renamed).read_text().replace("6.jpg", "other.jpg"))
    assert not module._is_done(module.Part(out=renamed, images=(str(pictures / "6.jpg"),)))

    # What has changed since is asked about again; more images divide anew; what a batch wrote below its own --in is no
    # image.
    later = max(path.stat().st_mtime for path in map(Path, told["out"])) + 10
    os.utime(pictures / "0.jpg", (later, later))
    assert main(words) == 0
    kept = len(told["out"]) - len({gone, renamed})
    assert f"{kept} of them from an earlier run" in capsys.readouterr().out
    more = tmp_path / "more [1]"
    more.mkdir()
    (more / "late.png").write_bytes((pictures / "1.jpg").read_bytes())
    wider = batch(tiny_servable, images=[str(pictures), f"{tmp_path}/**"], out=str(out), per_part=100, batch_size=3)
    assert (wider.images, wider.errors, wider.parts, wider.kept) == (10, 2, 1, 0)
    assert lines(wider.out).keys() == found.keys() | {"late.png"}
    assert [path.name for path in tmp_path.glob("*.jsonl")] == [Path(wider.out[0]).name], "no image is answered twice"
    assert module._matching([str(more / "late.png")], str(out)).keys() == {str(more / "late.png")}

    # Other settings are never mixed in.
    assert main([*words[:5], str(out), str(out), *words[6:]]) == 2
    assert "in quotes" in capsys.readouterr().err
    assert main([*words, "--signature", "pixels"]) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_records_give_a_file_each(tiny_servable: Path, photos: list[bytes], tmp_path: Path) -> None:
    import tensorflow as tf

    def feature(value: bytes) -> Any:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    for name in ("a", "b"):
        with tf.io.TFRecordWriter(str(tmp_path / f"{name}.tfrecord.gz"), "GZIP") as writer:
            for number, photo in enumerate(photos[:2]):
                features = {"image/encoded": feature(photo), "image/filename": feature(f"{name}{number}".encode())}
                writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
            writer.write(tf.train.Example().SerializeToString())
    done = batch(tiny_servable, images=f"{tmp_path}/*.tfrecord.gz", out=f"{tmp_path}/out.jsonl")
    assert (done.images, done.errors, done.parts) == (6, 2, 2)
    first = [json.loads(line) for line in Path(done.out[0]).read_text().splitlines()]
    assert [line["image"] for line in first] == ["a0", "a1", f"{tmp_path}/a.tfrecord.gz#2"]
    assert first[2]["error"] == "the Example has no `image/encoded`"


def test_a_call_that_fails_is_asked_again_one_by_one() -> None:
    from serving.client import TargetError

    class Answer:
        error = ""

        def to_json(self) -> dict[str, Any]:
            return {"labels": ["x"], "error": ""}

    class Client:
        def predict(self, images: list[bytes], **_: Any) -> list[Answer]:
            if b"heavy" in images:
                raise TargetError("RESOURCE_EXHAUSTED", "too much for it")
            return [Answer() for _ in images]

    asker = object.__new__(module._Asker)
    asker._asking = module.Asking(servable="x", batch_size=3, signature="s")
    asker._client = Client()  # type: ignore[assignment]
    answers = asker._ask([b"light", b"heavy", b"light"])
    assert [bool(answer["error"]) for answer in answers] == [False, True, False]
    assert "too much" in answers[1]["error"]


def test_nothing_that_fits_is_one_clear_line(tiny_servable: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Nothing fits --in"):
        batch(tiny_servable, images=f"{tmp_path}/*.jpg", out=f"{tmp_path}/out.jsonl")
    with pytest.raises(UsageError, match="at least 1"):
        batch(tiny_servable, images=str(tmp_path), out="out", batch_size=0)


def test_names() -> None:
    assert output_names("a/b.c/answers", 1) == ["a/b.c/answers-00000-of-00001"]
    assert output_names("gs://b/x-*.jsonl", 1) == ["gs://b/x-00000-of-00001.jsonl"]
