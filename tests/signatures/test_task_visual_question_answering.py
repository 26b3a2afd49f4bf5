from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.signatures import checkpoints

QUESTIONS = ["What is this?", "a photo of the cat", "is the photo of a cat, or what is this thing?"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.save_blip(tmp_path_factory.mktemp("vqa"), "TFBlipForQuestionAnswering", max_length=10)


@pytest.fixture(scope="module")
def served(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return checkpoints.export(checkpoint, tmp_path_factory.mktemp("models"))


def wanted(checkpoint: Path, image: Any, question: str) -> tuple[str, float]:
    """The answer of transformers' own `generate`, and its probability."""
    from transformers import AutoTokenizer, TFBlipForQuestionAnswering, ViTImageProcessor

    model, tokenizer = TFBlipForQuestionAnswering.from_pretrained(checkpoint), AutoTokenizer.from_pretrained(checkpoint)
    pixel_values = ViTImageProcessor.from_pretrained(checkpoint)(image, return_tensors="tf")["pixel_values"]
    text = tokenizer(question, return_tensors="tf")
    generated = model.generate(
        **text,
        pixel_values=pixel_values,
        generation_config=model.generation_config,
        return_dict_in_generate=True,
        output_scores=True,
    )
    ids, probability = generated.sequences[0].numpy(), 1.0
    for place, scores in enumerate(generated.scores):
        exact = np.exp(scores[0].numpy().astype(float))
        probability *= exact[ids[place + 1]] / exact.sum()
    return tokenizer.decode(ids, skip_special_tokens=True).strip(), probability


def test_answers_are_those_of_transformers(checkpoint: Path, served: Any) -> None:
    encoded, images = checkpoints.pictures(3)
    # In one batch, so that the shorter questions are padded.
    answer = checkpoints.ask(served[1], image_bytes=encoded, question=QUESTIONS)
    assert answer["answers"].shape == answer["scores"].shape == (3, 1)
    pairs = [wanted(checkpoint, image, question) for image, question in zip(images, QUESTIONS, strict=True)]
    assert [text.decode() for text in answer["answers"][:, 0]] == [text for text, _ in pairs]
    np.testing.assert_allclose(answer["scores"][:, 0], [probability for _, probability in pairs], rtol=1e-3, atol=1e-6)
    assert len({text for text, _ in pairs}) > 1


def test_what_cannot_be_answered_leaves_its_neighbours_alone(served: Any) -> None:
    encoded, _ = checkpoints.pictures(3)
    alone = checkpoints.ask(served[1], image_bytes=encoded[2:], question=QUESTIONS[2:])
    answer = checkpoints.ask(
        served[1], image_bytes=[b"junk", *encoded[1:]], question=[QUESTIONS[0], "why " * 100, QUESTIONS[2]]
    )
    assert answer["error"][0]
    assert answer["error"][1].startswith(b"the question has more than the 64 tokens")
    assert answer["answers"][:2].tolist() == [[b""], [b""]]
    assert answer["scores"][:2].tolist() == [[0.0], [0.0]]
    assert answer["error"][2] == b""
    assert answer["answers"][2].tolist() == alone["answers"][0].tolist()
