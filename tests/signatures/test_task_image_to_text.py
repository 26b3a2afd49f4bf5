from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from signatures.errors import UsageError
from tests.signatures import checkpoints

MAKERS = {
    "blip": lambda folder: checkpoints.save_blip(folder, "TFBlipForConditionalGeneration"),
    "gpt2": lambda folder: checkpoints.save_captioner(folder, "gpt2", max_length=12),
    "bert": lambda folder: checkpoints.save_captioner(
        folder, "bert", gain=9.0, max_length=14, repetition_penalty=1.3, min_length=4, forced_eos_token_id=3
    ),
}


@pytest.fixture(scope="module", params=MAKERS)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MAKERS[request.param](tmp_path_factory.mktemp(request.param))


def pipeline(checkpoint: Path) -> Any:
    import transformers

    cls = getattr(transformers, "TF" + transformers.AutoConfig.from_pretrained(checkpoint).architectures[0])
    return transformers.ImageToTextPipeline(
        model=cls.from_pretrained(checkpoint),
        image_processor=transformers.AutoImageProcessor.from_pretrained(checkpoint, use_fast=False),
        tokenizer=transformers.AutoTokenizer.from_pretrained(checkpoint),
        framework="tf",
        device=-1,
    )


def test_texts_are_those_of_the_pipeline(checkpoint: Path) -> None:
    task = checkpoints.bound(checkpoint)
    _, images = checkpoints.pictures(4)
    answer = task(images)
    asked = pipeline(checkpoint)
    wanted = [asked(image)[0]["generated_text"] for image in images]
    assert [text.decode() for text in answer["text"]] == wanted
    assert len(set(wanted)) > 1  # the text does depend on the image
    assert task(images[1:2])["text"][0].decode() == wanted[1]


def test_a_shorter_text_on_request(tmp_path: Path) -> None:
    checkpoint = checkpoints.save_captioner(tmp_path / "gpt2", "gpt2", max_length=12)
    version, loaded = checkpoints.export(checkpoint, tmp_path / "base", max_new_tokens=3)
    encoded, images = checkpoints.pictures(1)
    answer = checkpoints.ask(loaded, image_bytes=[*encoded, b"junk"])
    wanted = pipeline(checkpoint)(images[0], max_new_tokens=3)[0]["generated_text"]
    assert [text.decode() for text in answer["text"]] == [wanted, ""]
    assert answer["error"][1]
    raw = checkpoints.ask(loaded, "model", pixel_values=[[[[0.0] * 32] * 32] * 3])
    assert raw["sequences"].shape == (1, 4)

    from signatures.verify import verify

    (tmp_path / "a.png").write_bytes(encoded[0])
    report = verify(version, images=[tmp_path / "a.png"])
    assert report.holds, report.table()


def test_beams_are_refused(tmp_path: Path) -> None:
    checkpoint = checkpoints.save_captioner(tmp_path / "gpt2", "gpt2", num_beams=4)
    with pytest.raises(UsageError, match="num_beams=4"):
        checkpoints.bound(checkpoint)
