from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from signatures import pictures, side_by_side
from signatures.base_path import latest
from signatures.errors import CheckFailed, UsageError, VitrinaError
from signatures.verify import Report, Row, difference, verify


def test_files_and_folders_are_compared_with_the_checkpoint(
    tiny_servable: Path, photos: list[bytes], tmp_path: Path
) -> None:
    for index, photo in enumerate(photos):
        suffix = "png" if photo[1:4] == b"PNG" else "jpg"
        (tmp_path / f"{index}.{suffix}").write_bytes(photo)
    report = verify(tiny_servable, images=[tmp_path, tmp_path / "0.jpg"])
    assert report.holds
    assert len(report.rows) == len(photos)
    assert max(row.grey_max for row in report.rows) == 0
    assert max(row.output_max for row in report.rows) <= 1e-4
    assert report.agreement == 1.0
    certificate = json.loads(json.dumps(report.to_json()))
    assert certificate["holds"] is True
    assert certificate["tolerances"] == {"grey_levels_max": 0, "features_max": 1e-6, "output_max": 1e-4}
    assert "parity holds" in report.table().splitlines()[-1]
    assert len(report.table().splitlines()) == len(photos) + 2


def test_an_answer_that_differs_is_a_breach(tiny_servable: Path, tmp_path: Path, photos: list[bytes]) -> None:
    """Two labels change places in the graph alone; transformers' own pipeline knows better."""
    copy = Path(shutil.copytree(latest(tiny_servable), tmp_path / "copy"))
    graph = (copy / "saved_model.pb").read_bytes()
    swapped = graph.replace(b"kind b", b"kind ?").replace(b"kind k", b"kind b").replace(b"kind ?", b"kind k")
    assert swapped != graph
    (copy / "saved_model.pb").write_bytes(swapped)
    image = tmp_path / "a.jpg"
    image.write_bytes(photos[0])
    report = verify(copy, images=[image])
    assert not report.holds
    assert "in its outputs" in report.breach
    assert "differs" in report.table()


def test_a_servable_that_mixes_up_or_fails_on_batches_is_a_breach(
    tiny_servable: Path, tmp_path: Path, photos: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone, each picture is answered rightly."""
    import tensorflow as tf

    for index, photo in enumerate(photos):
        (tmp_path / f"{index}.png").write_bytes(photo)
    loaded = tf.saved_model.load(str(latest(tiny_servable)))
    plain, seen = loaded.signatures["serving_default"], []

    def mixed(image_bytes: Any) -> Any:
        seen.append(len(image_bytes))
        return {name: value[::-1] for name, value in plain(image_bytes=image_bytes).items()}

    def failing(image_bytes: Any) -> Any:
        if len(image_bytes) > 1:
            raise tf.errors.InvalidArgumentError(None, None, "Input to reshape\nis a tensor")
        return plain(image_bytes=image_bytes)

    def broken(answer: Any) -> Any:
        signatures = {**loaded.signatures, "serving_default": answer}
        return SimpleNamespace(signatures=signatures, model=loaded.model)

    monkeypatch.setattr(tf.saved_model, "load", lambda path: broken(mixed))
    report = verify(tiny_servable, images=[tmp_path])
    assert "in its outputs" in report.breach
    assert seen == [1, 3], "alone, and in a batch"
    monkeypatch.setattr(tf.saved_model, "load", lambda path: broken(failing))
    with pytest.raises(CheckFailed, match="fails on a batch of 3 images: Input to reshape is a tensor"):
        verify(tiny_servable, images=[tmp_path])


def test_words_in_bfloat16_agree_for_half_of_the_pictures() -> None:
    rows = [row(image=f"{index}.jpg", output_max=1.0, agrees=False) for index in range(2)]
    kept = {"task": "t", "reference": "R", "output_tolerance": 5e-2, "agreement_needed": 0.5}
    report = Report(rows=(*rows, row(), row()), **kept)  # type: ignore[arg-type]
    assert report.holds
    assert (report.to_json()["agreement"], report.to_json()["output_max"]) == (0.5, 1.0)
    assert report.to_json()["tolerances"]["agreement"] == 0.5
    report = Report(rows=(*rows, row()), **kept)  # type: ignore[arg-type]
    assert report.breach == "the best answer is the same for 33% of the images, less than 50%"


def test_a_servable_that_resizes_otherwise_is_a_breach_and_is_shown(
    tiny_servable: Path, tmp_path: Path, photos: list[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    """The graph resizes bilinearly, while the checkpoint that it says it comes from does so bicubically."""
    from PIL import Image

    from vitrina.cli import main

    copy = Path(shutil.copytree(latest(tiny_servable), tmp_path / "copy"))
    settings = copy / "assets.extra" / "checkpoint" / "preprocessor_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "resample": 3}))
    (tmp_path / "a.png").write_bytes(photos[2])
    arguments = [
        "verify",
        str(copy),
        "--images",
        str(tmp_path / "a.png"),
        "--plot",
        str(tmp_path / "worst.png"),
        "--json",
    ]
    assert main(arguments) == 1
    found = json.loads(capsys.readouterr().out)
    assert "grey levels before rescaling" in found["breach"]
    reference, servable, distance = panels(Image.open(tmp_path / "worst.png"))
    shown = np.abs(reference.astype(int) - servable)
    assert shown.max() == found["grey_levels_max"] > 0
    np.testing.assert_array_equal(distance, shown * (255 // shown.max()))


def panels(picture: Any) -> list[np.ndarray[Any, Any]]:
    """The three panels of 32 pixels a side, each pixel a square of eight."""
    pixels = np.asarray(picture)[44 : 44 + 256]
    return [pixels[4::8, left + 4 : left + 256 : 8] for left in (12, 280, 548)]


def test_pictures_of_other_sizes_and_unwritable_ones(tmp_path: Path) -> None:
    side_by_side.save(tmp_path / "a.png", np.zeros((700, 20, 3)), np.full((1, 1, 3), np.nan), title="\u2603")
    assert (tmp_path / "a.png").stat().st_size > 0
    with pytest.raises(UsageError, match="names no format"):
        side_by_side.check(tmp_path / "worst")
    with pytest.raises(UsageError, match="There is no folder"):
        side_by_side.check(tmp_path / "none" / "worst.png")
    (tmp_path / "b.png").mkdir()
    with pytest.raises(VitrinaError, match="cannot be written"):
        side_by_side.save(tmp_path / "b.png", np.zeros((2, 2, 3)), np.zeros((2, 2, 3)), title="")


def test_the_worst_picture_is_the_one_that_differs_most() -> None:
    rows = (row(), row(image="b", grey_max=1.0), row(image="c", features_max=float("nan")))
    report = Report(task="t", reference="R", rows=rows, output_tolerance=1e-4)
    assert report.worst.image == "b"
    assert Report(task="t", reference="R", rows=(rows[0], rows[2]), output_tolerance=1e-4).worst.image == "c"
    assert (
        Report(task="t", reference="R", rows=(*rows, row(image="d", error="x")), output_tolerance=1).worst.image == "d"
    )


def test_drawn_pictures_cover_what_is_promised() -> None:
    from PIL import Image

    drawn = pictures.many()
    opened = {name: Image.open(io.BytesIO(data)) for name, data in drawn.items()}
    assert {"JPEG", "PNG", "BMP", "GIF"} <= {image.format for image in opened.values()}
    assert {"RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "I;16"} <= {image.mode for image in opened.values()}
    orientations = {image.getexif().get(pictures.ORIENTATION_TAG) for image in opened.values()}
    assert orientations >= set(range(1, 9))
    sizes = {image.size for image in opened.values()}
    assert {(1, 1), (1, 500), (500, 1), (3000, 40), (40, 1500)} <= sizes
    assert pictures.many() == drawn, "they are the same on every call"


def row(**changes: object) -> Row:
    values = {"image": "a.jpg", "size": "1x1", "grey_max": 0.0, "grey_mean": 0.0, "features_max": 1e-7}
    return Row(**{**values, "output_max": 1e-6, "agrees": True, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, ""),
        ({"grey_max": 1.0}, "1 grey levels"),
        ({"features_max": 2e-6}, "after preprocessing"),
        ({"features_max": float("nan")}, "after preprocessing"),
        ({"output_max": 2e-4}, "in its outputs"),
        ({"output_max": float("inf")}, "in its outputs"),
        ({"error": "The image is empty"}, "could not read it"),
    ],
)
def test_one_row_out_of_tolerance_is_a_breach(changes: dict[str, object], says: str) -> None:
    report = Report(task="t", reference="R", rows=(row(), row(image="b.png", **changes)), output_tolerance=1e-4)
    assert report.holds is (says == "")
    assert (f"b.png: {report.breach.partition(': ')[2]}" if says else "") == report.breach
    assert says in report.breach


def test_labels_are_compared_by_their_scores() -> None:
    want = {"labels": ["a", "b", "c"], "scores": [0.5, 0.3, 0.2]}

    def got(labels: list[bytes], scores: list[float]) -> dict[str, object]:
        return {"labels": np.array(labels, object), "scores": np.array(scores, np.float32), "error": b""}

    assert difference(got([b"a", b"b", b"c"], [0.5, 0.3, 0.2]), want)[0] < 1e-6
    close = {"labels": ["a", "b"], "scores": [0.50001, 0.49999]}
    worst, agrees = difference(got([b"b", b"a"], [0.50001, 0.49999]), close)
    assert worst < 1e-4
    assert not agrees
    assert difference(got([b"b", b"a", b"c"], [0.5, 0.3, 0.2]), want) == (pytest.approx(0.2), False)
    assert difference(got([b"a", b"b", b"z"], [0.5, 0.3, 0.2]), want)[0] == pytest.approx(0, abs=1e-6)
    assert difference(got([b"a", b"b"], [0.5, 0.3]), want)[0] == float("inf")
    assert difference({"text": b"one"}, {"text": "two"}) == (float("inf"), False)
    assert difference({"text": b"one"}, {"text": "one"}) == (0.0, True)
    assert difference({"embedding": np.zeros(3, np.float32)}, {"embedding": np.full(3, 0.5)}) == (0.5, True)
    # Two classes may have one name.
    cranes = {"labels": ["crane", "owl", "crane"], "scores": [0.5, 0.3, 0.2]}
    assert difference(got([b"crane", b"owl", b"crane"], [0.5, 0.3, 0.2]), cranes)[0] < 1e-6
    assert difference(got([b"crane", b"crane", b"owl"], [0.5, 0.3, 0.2]), cranes)[0] == pytest.approx(0.1)
    # As a share of the largest value, where that is above 1.
    assert difference({"embedding": np.full(3, 49.0)}, {"embedding": np.full(3, 50.0)}) == (0.02, True)


def test_what_cannot_be_compared_is_said(tiny_servable: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no folder"):
        verify(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="cannot be read"):
        verify(tiny_servable, images=[tmp_path / "missing.jpg"])
    with pytest.raises(UsageError, match="holds no images"):
        verify(tiny_servable, images=[tmp_path])
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(UsageError, match="cannot be read by Pillow"):
        verify(tiny_servable, images=[tmp_path / "text.jpg"])
