"""Greedy decoding as a loop in the graph, after transformers' `TFGenerationMixin.greedy_search`.

A checkpoint's generation settings are read into plain data; what greedy decoding here does not honour is refused by
name, so a servable never answers otherwise than its checkpoint would.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from signatures.errors import UsageError

__all__ = ["Generated", "Settings", "Step", "greedy", "read_settings"]

Step = Callable[[Any, Any, Any], tuple[Any, Any]]
"""Token ids int32 [b, t], the cache (None at first) and the first id's position to the last position's logits
float32 [b, vocabulary] and the new cache. A step that gives None for the cache is asked with the whole text each time.
"""

_HONOURED = {
    "max_length", "max_new_tokens", "min_length", "repetition_penalty", "forced_bos_token_id", "forced_eos_token_id",
    "suppress_tokens", "begin_suppress_tokens", "use_cache", "pad_token_id", "bos_token_id", "eos_token_id",
    "decoder_start_token_id",
}  # fmt: skip
_WITHOUT_EFFECT = {
    # Sampling, beams, contrastive search and assistants only.
    "temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "length_penalty",
    "early_stopping", "low_memory", "num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_early_exit",
    "assistant_confidence_threshold", "assistant_lookbehind", "target_lookbehind", "max_matching_ngram_size",
    "prompt_lookup_num_tokens", "is_assistant",
    # How transformers computes or returns, and what it says of itself.
    "cache_implementation", "cache_config", "return_legacy_cache", "prefill_chunk_size", "output_attentions",
    "output_hidden_states", "output_scores", "output_logits", "return_dict_in_generate", "compile_config",
    "disable_compile", "transformers_version", "remove_invalid_values", "renormalize_logits",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides which text is generated.

    Args:
        start: The id that every text begins with.
        max_length: Ids at most, `start` included.
        eos: Ids that end a text.
        pad: What fills up shorter texts of a batch.
        min_length: Ids, `start` included, before a text may end.
        repetition_penalty: Divides the positive and multiplies the negative scores of ids that were there before.
        forced_bos: The id after `start`; None leaves it to the model.
        forced_eos: The last id of a text that reaches `max_length`; None leaves it to the model.
        suppressed: Ids that never come.
        suppressed_at_begin: Ids that do not come first.
    """

    start: int
    max_length: int
    eos: tuple[int, ...]
    pad: int
    min_length: int = 0
    repetition_penalty: float = 1.0
    forced_bos: int | None = None
    forced_eos: int | None = None
    suppressed: tuple[int, ...] = ()
    suppressed_at_begin: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What a card says of it."""
        return {"max_length": self.max_length, "min_length": self.min_length}


@dataclass(frozen=True, kw_only=True)
class Generated:
    """Texts of a batch, as ids.

    Args:
        sequences: int32 [b, t], from `start` to the first end, then `pad`.
        lengths: int32 [b], how many ids each text has, both ends included.
        log_probabilities: float32 [b], the logarithm of each text's probability: the sum over its ids after `start`.
    """

    sequences: Any
    lengths: Any
    log_probabilities: Any


def read_settings(config: Any, model: str, **overrides: int | None) -> Settings:
    """The settings of a `GenerationConfig`.

    Args:
        config: transformers' generation configuration of the model.
        model: The model's name, for messages.
        **overrides: `start`, `eos`, `pad` where the model's own `generate` sets them, and `max_new_tokens`.

    Raises:
        UsageError: A setting is not one that greedy decoding here honours, or the start is not known.
    """
    from transformers import GenerationConfig

    usual = GenerationConfig().to_dict()
    given = {name: value for name, value in config.to_dict().items() if not name.startswith("_")}
    refused = [
        f"{name}={value!r}"
        for name, value in sorted(given.items())
        if name not in _HONOURED | _WITHOUT_EFFECT and value != usual.get(name)
    ]
    if refused:
        raise UsageError(
            f"{model} generates with {', '.join(refused)}, but a servable decodes greedily and honours only "
            f"{', '.join(sorted(_HONOURED))}. Remove them from generation_config.json if greedy text is what you want."
        )
    start = _first(overrides.get("start"), given.get("decoder_start_token_id"), given.get("bos_token_id"))
    if start is None:
        raise UsageError(
            f"{model} does not say which token its texts start with. "
            "Set decoder_start_token_id in generation_config.json."
        )
    eos = _ids(_first(overrides.get("eos"), given.get("eos_token_id")))
    pad = _first(overrides.get("pad"), given.get("pad_token_id"), eos[0] if eos else 0)
    new_tokens = _first(overrides.get("max_new_tokens"), given.get("max_new_tokens"))
    max_length = given["max_length"] if new_tokens is None else new_tokens + 1
    if max_length < 2:
        raise UsageError(f"{model} may generate {max_length - 1} tokens, but a text needs one. Raise --max-new-tokens.")
    return Settings(
        start=start,
        max_length=max_length,
        eos=eos,
        pad=pad,
        min_length=given.get("min_length") or 0,
        repetition_penalty=given.get("repetition_penalty") or 1.0,
        forced_bos=given.get("forced_bos_token_id"),
        forced_eos=given.get("forced_eos_token_id"),
        suppressed=_ids(given.get("suppress_tokens")),
        suppressed_at_begin=_ids(given.get("begin_suppress_tokens")),
    )


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _ids(value: Any) -> tuple[int, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, (list, tuple)) else (int(value),)


def greedy(step: Step, batch: Any, settings: Settings) -> Generated:
    """Takes the most probable id until every text has ended.

    Args:
        step: The decoder, one position further.
        batch: int32 scalar, how many texts.
        settings: When a text ends, and what may come in it.

    Returns:
        The texts; their axis of ids is as long as the longest of them.
    """
    import tensorflow as tf

    ids = tf.fill([batch, settings.max_length], settings.pad)
    ids = tf.concat([tf.fill([batch, 1], settings.start), ids[:, 1:]], axis=1)
    blank = (ids, tf.constant(1), tf.zeros([batch], tf.bool), tf.ones([batch], tf.int32), tf.zeros([batch]))

    def advance(state: tuple[Any, ...], scores: Any) -> tuple[Any, ...]:
        ids, length, finished, lengths, log_probabilities = state
        # A decoder that computes in bfloat16 is compared in float32.
        scores = _processed(tf.cast(scores, tf.float32), ids[:, :length], length, settings)
        chosen = tf.argmax(scores, axis=-1, output_type=tf.int32)
        gained = tf.gather(tf.nn.log_softmax(scores), chosen, batch_dims=1)
        chosen = tf.where(finished, settings.pad, chosen)
        column = tf.equal(tf.range(settings.max_length), length)
        ids = tf.where(column[None], chosen[:, None], ids)
        return (
            ids,
            length + 1,
            finished | _among(chosen, settings.eos),
            tf.where(finished, lengths, length + 1),
            tf.where(finished, log_probabilities, log_probabilities + gained),
        )

    scores, cache = step(ids[:, :1], None, tf.constant(0))
    state = advance(blank, scores)

    def more(state: tuple[Any, ...], cache: Any) -> Any:  # noqa: ARG001
        return (state[1] < settings.max_length) & ~tf.reduce_all(state[2])

    def body(state: tuple[Any, ...], cache: Any) -> tuple[Any, Any]:
        ids, length = state[:2]
        if uncached:
            scores, _ = step(ids[:, :length], None, tf.constant(0))
            return advance(state, scores), cache
        scores, cache = step(ids[:, length - 1 : length], cache, length - 1)
        return advance(state, scores), cache

    uncached = cache is None
    state, _ = tf.while_loop(
        more,
        body,
        (state, () if uncached else cache),
        shape_invariants=(_shapes(state), () if uncached else tf.nest.map_structure(_growing, cache)),
        parallel_iterations=1,
    )
    ids, length, _, lengths, log_probabilities = state
    return Generated(sequences=ids[:, :length], lengths=lengths, log_probabilities=log_probabilities)


def _processed(scores: Any, before: Any, length: Any, settings: Settings) -> Any:
    """Scores after transformers' logits processors, in the order of `_get_logits_processor`.

    Args:
        scores: float32 [b, v].
        before: int32 [b, length], the ids so far.
        length: int32 scalar.
        settings: What may come.
    """
    import tensorflow as tf

    size = scores.shape[-1]
    never = tf.constant(float("-inf"))
    if settings.repetition_penalty != 1.0:
        seen = tf.reduce_any(tf.one_hot(before, size, on_value=True, off_value=False), axis=1)
        penalty = tf.constant(settings.repetition_penalty, tf.float32)
        scores = tf.where(seen, tf.where(scores > 0, scores / penalty, scores * penalty), scores)
    if settings.min_length > 0 and settings.eos:
        scores = tf.where((length < settings.min_length) & _one_of(settings.eos, size), never, scores)
    if settings.forced_bos is not None:
        scores = _force(scores, settings.forced_bos, tf.equal(length, 1))
    if settings.forced_eos is not None:
        scores = _force(scores, settings.forced_eos, tf.equal(length, settings.max_length - 1))
    if settings.suppressed:
        scores = tf.where(_one_of(settings.suppressed, size), never, scores)
    if settings.suppressed_at_begin:
        begin = 1 if settings.forced_bos is None else 2
        scores = tf.where(tf.equal(length, begin) & _one_of(settings.suppressed_at_begin, size), never, scores)
    return scores


def _one_of(ids: tuple[int, ...], size: int) -> Any:
    """Bool [size]: true at the ids."""
    import tensorflow as tf

    return tf.constant([index in ids for index in range(size)])


def _force(scores: Any, chosen: int, now: Any) -> Any:
    """Scores of 0 for one id and minus infinity for all others, where it is time."""
    import tensorflow as tf

    forced = tf.where(_one_of((chosen,), scores.shape[-1]), 0.0, float("-inf"))
    return tf.where(now, forced[None], scores)


def _among(ids: Any, wanted: tuple[int, ...]) -> Any:
    import tensorflow as tf

    return tf.reduce_any(tf.equal(ids[:, None], tf.constant(wanted, tf.int32, [1, len(wanted)])), axis=1)


def _shapes(state: tuple[Any, ...]) -> tuple[Any, ...]:
    """The shapes of the loop's state, in which the batch is open: a model may forget a batch that was known."""
    import tensorflow as tf

    return tuple(tf.TensorShape([None, *value.shape[1:]] if value.shape.rank else []) for value in state)


def _growing(cached: Any) -> Any:
    """The shape of a cache's tensor [..., batch, heads, positions, width] over all rounds."""
    import tensorflow as tf

    shape = cached.shape.as_list()
    shape[-4] = shape[-2] = None
    return tf.TensorShape(shape)
