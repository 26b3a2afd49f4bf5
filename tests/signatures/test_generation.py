"""The loop beside transformers' own logits processors and eager loop, over a decoder that is a table."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from signatures.errors import UsageError
from signatures.generation import Settings, greedy, read_settings
from tests.signatures import checkpoints

SIZE = 23


def table() -> np.ndarray[Any, Any]:
    """The score of every next id after every id, different per text: float32 [3, SIZE, SIZE]."""
    return np.random.default_rng(0).normal(size=(3, SIZE, SIZE)).astype(np.float32)


def generate(settings: Settings, *, cached: bool) -> Any:
    import tensorflow as tf

    scores = tf.constant(table())

    @tf.function(autograph=False)
    def run() -> tuple[Any, Any, Any]:
        def step(ids: Any, cache: Any, position: Any) -> tuple[Any, Any]:
            tf.debugging.assert_equal(position, tf.shape(cache)[2] if cache is not None else 0)
            logits = tf.gather(scores, ids[:, -1], batch_dims=1)
            fresh = tf.cast(ids, tf.float32)[:, None, :, None]
            if not cached:
                return logits, None
            return logits, fresh if cache is None else tf.concat([cache, fresh], axis=2)

        generated = greedy(step, tf.constant(3), settings)
        return generated.sequences, generated.lengths, generated.log_probabilities

    return [value.numpy() for value in run()]


def wanted(settings: Settings) -> list[list[int]]:
    """The same by hand and with transformers' processors, text by text."""
    import tensorflow as tf
    from transformers.generation import tf_logits_process as of

    processors = of.TFLogitsProcessorList()
    if settings.repetition_penalty != 1.0:
        processors.append(of.TFRepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
    if settings.min_length:
        processors.extend(of.TFMinLengthLogitsProcessor(settings.min_length, end) for end in settings.eos)
    if settings.forced_bos is not None:
        processors.append(of.TFForcedBOSTokenLogitsProcessor(settings.forced_bos))
    if settings.forced_eos is not None:
        processors.append(of.TFForcedEOSTokenLogitsProcessor(settings.max_length, settings.forced_eos))
    if settings.suppressed:
        processors.append(of.TFSuppressTokensLogitsProcessor(list(settings.suppressed)))
    if settings.suppressed_at_begin:
        begin = 1 if settings.forced_bos is None else 2
        processors.append(of.TFSuppressTokensAtBeginLogitsProcessor(list(settings.suppressed_at_begin), begin))
    texts = []
    for scores in table():
        ids = [settings.start]
        while len(ids) < settings.max_length and not (len(ids) > 1 and ids[-1] in settings.eos):
            processed = processors(tf.constant([ids]), tf.constant(scores[ids[-1]][None]), len(ids))
            ids.append(int(np.argmax(processed[0])))
        texts.append(ids)
    return texts


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"repetition_penalty": 3.0},
        {"repetition_penalty": 3.0, "min_length": 9},
        {"forced_bos": 4, "forced_eos": 7},
        {"suppressed": (2, 5), "suppressed_at_begin": (11, 12, 13)},
        {"forced_bos": 4, "suppressed_at_begin": (11, 12, 13), "repetition_penalty": 1.5},
        {"eos": ()},
    ],
    ids=lambda extra: ",".join(extra) or "plain",
)
@pytest.mark.parametrize("cached", [True, False], ids=["cached", "uncached"])
def test_the_loop_is_that_of_transformers(extra: dict[str, Any], cached: bool) -> None:
    settings = Settings(**{"start": 1, "max_length": 12, "eos": (0, 9), "pad": 22, **extra})
    sequences, lengths, log_probabilities = generate(settings, cached=cached)
    texts = wanted(settings)
    assert lengths.tolist() == [len(text) for text in texts]
    assert sequences.shape[1] == max(lengths)
    for got, text in zip(sequences.tolist(), texts, strict=True):
        assert got == text + [settings.pad] * (len(got) - len(text))
    assert (log_probabilities <= 0).all()


def test_probabilities_are_of_the_ids_that_were_chosen() -> None:
    settings = Settings(start=1, max_length=6, eos=(0,), pad=0)
    _, _, log_probabilities = generate(settings, cached=True)
    for scores, ids, got in zip(table(), wanted(settings), log_probabilities, strict=True):
        logs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        assert got == pytest.approx(sum(logs[a, b] for a, b in itertools.pairwise(ids)), abs=1e-4)


def config(**settings: Any) -> Any:
    from transformers import GenerationConfig

    return GenerationConfig(**{"bos_token_id": 3, "eos_token_id": 4, **settings})


def test_settings_of_a_checkpoint() -> None:
    settings = read_settings(config(max_length=30, min_length=2, eos_token_id=[4, 5], temperature=0.7), "m")
    assert settings == Settings(start=3, max_length=30, eos=(4, 5), pad=4, min_length=2)
    assert read_settings(config(max_new_tokens=7, decoder_start_token_id=8), "m").max_length == 8
    assert read_settings(config(decoder_start_token_id=8), "m", max_new_tokens=2, pad=6).to_json()["max_length"] == 3


@pytest.mark.parametrize(
    "settings",
    [{"num_beams": 4}, {"do_sample": True}, {"no_repeat_ngram_size": 2}, {"bad_words_ids": [[3]]}, {"odd": 1}],
    ids=lambda settings: next(iter(settings)),
)
def test_what_is_not_honoured_is_refused_by_name(settings: dict[str, Any]) -> None:
    name, value = next(iter(settings.items()))
    with pytest.raises(UsageError, match=f"m generates with {name}="):
        read_settings(config(**{name: value}), "m")


def test_a_start_is_needed() -> None:
    with pytest.raises(UsageError, match="decoder_start_token_id"):
        read_settings(config(bos_token_id=None), "m")
    with pytest.raises(UsageError, match="max-new-tokens"):
        read_settings(config(max_length=1), "m")


def test_settings_survive_weights_that_are_filled_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's weights go into a model made from its configuration alone."""
    from transformers import TFVisionEncoderDecoderModel, VisionEncoderDecoderConfig

    from signatures.sources import transformers as source

    checkpoint = checkpoints.save_captioner(tmp_path, "gpt2", max_length=12)
    bare = TFVisionEncoderDecoderModel(VisionEncoderDecoderConfig.from_pretrained(checkpoint))
    bare.build_in_name_scope()
    assert bare.generation_config.max_length != 12
    monkeypatch.setattr(source, "_from_pretrained", lambda *_: bare)
    assert source.load(str(checkpoint)).native.generation_config.max_length == 12
