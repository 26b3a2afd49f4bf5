from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.signatures import checkpoints

PAGES = [
    ["Invoice", "No.", "us-001", "Total:", "$154.06", "due", "26/02/2019", "for", "the", "naïve", "café", "at", "the"],
    ["Hello", "world"],
    ["Dear", "all", ",", "the", "total", "is", "12", "."],
]
QUESTIONS = ["What is the total?", "Who?", "  How \n much  "]


def boxes_of(words: list[str]) -> list[list[int]]:
    return [[40 * index, 10 * index, 40 * index + 30, 10 * index + 20] for index in range(len(words))]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.save_layoutlmv3(tmp_path_factory.mktemp("layout"))


@pytest.fixture(scope="module")
def served(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return checkpoints.export(checkpoint, tmp_path_factory.mktemp("models"), top_k=3)


def batch(pages: list[list[str]]) -> dict[str, Any]:
    """Words and boxes of pages of different lengths, filled up."""
    longest = max(map(len, pages))
    return {
        "words": [words + [""] * (longest - len(words)) for words in pages],
        "boxes": [boxes_of(words) + [[0] * 4] * (longest - len(words)) for words in pages],
    }


def wanted(checkpoint: Path, image: Any, question: str, words: list[str], top_k: int) -> tuple[list[str], list[float]]:
    """The pipeline's steps with the TensorFlow model; its last step is the pipeline's own code."""
    from transformers import (
        AutoTokenizer,
        DocumentQuestionAnsweringPipeline,
        TFLayoutLMv3ForQuestionAnswering,
        ViTImageProcessor,
    )

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = TFLayoutLMv3ForQuestionAnswering.from_pretrained(checkpoint)
    pixel_values = ViTImageProcessor.from_pretrained(checkpoint)(image, return_tensors="tf")["pixel_values"]
    encoding = tokenizer(
        text=[question], text_pair=[words], boxes=[boxes_of(words)], max_length=48, stride=24, padding="max_length",
        truncation="only_second", return_overflowing_tokens=True, return_tensors="np",
    )  # fmt: skip
    outputs = []
    for index in range(len(encoding["input_ids"])):
        one = {name: encoding[name][index : index + 1] for name in ("input_ids", "attention_mask", "bbox")}
        logits = model(**one, pixel_values=pixel_values)
        outputs.append(
            {
                "start_logits": logits.start_logits.numpy()[:, :48],
                "end_logits": logits.end_logits.numpy()[:, :48],
                "p_mask": np.array([place > 0 and s != 1 for place, s in enumerate(encoding.sequence_ids(index))], int),
                "attention_mask": SimpleNamespace(numpy=lambda one=one: one["attention_mask"]),
                "word_ids": encoding.word_ids(index),
                "words": words,
            }
        )
    answers = DocumentQuestionAnsweringPipeline.postprocess_extractive_qa(
        SimpleNamespace(framework="tf"), outputs, top_k=top_k
    )
    best = sorted(answers, key=lambda answer: answer["score"], reverse=True)[:top_k]
    return [answer["answer"] for answer in best], [answer["score"] for answer in best]


def test_answers_are_those_of_the_pipeline(checkpoint: Path, served: Any) -> None:
    encoded, images = checkpoints.pictures(3)
    answer = checkpoints.ask(served[1], image_bytes=encoded, question=QUESTIONS, **batch(PAGES))
    assert answer["answers"].shape == answer["scores"].shape == (3, 3)
    for index, image in enumerate(images):
        texts, scores = wanted(checkpoint, image, QUESTIONS[index], PAGES[index], 3)
        np.testing.assert_allclose(answer["scores"][index, : len(scores)], scores, atol=1e-4)
        assert [text.decode() for text in answer["answers"][index, : len(texts)]] == texts
        assert not answer["scores"][index, len(scores) :].any()
    assert len({*answer["answers"][:, 0]}) == 3


def test_what_cannot_be_answered_leaves_its_neighbours_alone(served: Any) -> None:
    encoded, _ = checkpoints.pictures(3)
    alone = checkpoints.ask(served[1], image_bytes=encoded[2:], question=QUESTIONS[2:], **batch(PAGES[2:]))
    inputs = batch([["far", "out"], PAGES[1], PAGES[2]])
    inputs["boxes"][0][0] = [0, 0, 1200, 10]
    answer = checkpoints.ask(served[1], image_bytes=encoded, question=["Who?", "why " * 40, QUESTIONS[2]], **inputs)
    assert b"outside 0 to 1000" in answer["error"][0]
    assert b"more than 19 tokens" in answer["error"][1]
    assert not answer["scores"][:2].any()
    assert answer["error"][2] == b""
    assert answer["answers"][2].tolist() == alone["answers"][0].tolist()
    np.testing.assert_allclose(answer["scores"][2], alone["scores"][0], atol=1e-5)


def test_a_page_without_words_has_no_answer(served: Any) -> None:
    encoded, _ = checkpoints.pictures(2)
    answer = checkpoints.ask(
        served[1], image_bytes=encoded, question=["Who?", "Why?"], words=np.zeros((2, 0), object),
        boxes=np.zeros((2, 0, 4)),
    )  # fmt: skip
    assert answer["answers"].tolist() == [[b""] * 3] * 2
    assert answer["error"].tolist() == [b"", b""]
