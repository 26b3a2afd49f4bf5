"""The text decoders of transformers as steps for `signatures.generation`, with their caches of keys and values."""

from __future__ import annotations

from typing import Any

from signatures.generation import Settings, Step, read_settings
from signatures.model import Model

__all__ = ["blip_settings", "blip_step", "encoder_decoder_step", "texts"]


def blip_settings(model: Model, max_new_tokens: int | None) -> Settings:
    """What a BLIP model generates with: its own `generate` sets start, end and padding from the text configuration."""
    text = model.native.config.text_config
    return read_settings(
        model.native.generation_config,
        model.source.model,
        start=text.bos_token_id,
        eos=text.sep_token_id,
        pad=text.pad_token_id,
        max_new_tokens=max_new_tokens,
    )


def blip_step(decoder: Any, seen: Any, mask: Any = None) -> Step:
    """BLIP's text decoder.

    Args:
        decoder: A `TFBlipTextLMHeadModel`.
        seen: float32 [b, n, d], what it attends to.
        mask: int32 [b, n], 0 for padding in `seen`; None where there is none.
    """
    import tensorflow as tf

    seen_mask = tf.ones(tf.shape(seen)[:2], tf.int32) if mask is None else mask

    def step(ids: Any, cache: Any, position: Any) -> tuple[Any, Any]:
        batch, count = tf.unstack(tf.shape(ids))
        places = position + tf.range(count)
        # Three axes: the mask is taken as it is, each id sees itself and what was before it.
        before = tf.cast(tf.range(position + count) <= places[:, None], tf.int32)
        outputs = decoder(
            input_ids=ids,
            attention_mask=tf.tile(before[None], [batch, 1, 1]),
            position_ids=places[None],
            encoder_hidden_states=seen,
            encoder_attention_mask=seen_mask,
            past_key_values=cache,
            use_cache=True,
            is_decoder=True,
            return_dict=True,
            training=False,
        )
        return outputs.logits[:, -1], outputs.past_key_values

    return step


def encoder_decoder_step(model: Any, seen: Any) -> Step:
    """The decoder of a `TFVisionEncoderDecoderModel`, whatever its class.

    Args:
        model: The whole model.
        seen: float32 [b, n, d], the encoder's last hidden state.
    """
    from transformers.modeling_tf_outputs import TFBaseModelOutput

    def step(ids: Any, cache: Any, position: Any) -> tuple[Any, Any]:  # noqa: ARG001
        outputs = model(
            pixel_values=None,
            decoder_input_ids=ids,
            encoder_outputs=TFBaseModelOutput(last_hidden_state=seen),
            past_key_values=cache,
            use_cache=True,
            return_dict=True,
            training=False,
        )
        return outputs.logits[:, -1], outputs.past_key_values

    return step


def texts(tokenizer: Any, sequences: Any, settings: Settings) -> Any:
    """Generated ids as text, without special tokens and without what fills up the batch.

    Args:
        tokenizer: A `GraphTokenizer`.
        sequences: int32 [b, t], from the start token on.
        settings: Which ids end a text.

    Returns:
        string [b].
    """
    import tensorflow as tf

    ends = tf.reduce_any(tf.equal(sequences[:, 1:, None], tf.constant(settings.eos, tf.int32)), axis=2)
    ended = tf.cumsum(tf.cast(ends, tf.int32), axis=1, exclusive=True) > 0
    ended = tf.pad(ended, [[0, 0], [1, 0]])
    # The tokenizer leaves out ids that it does not know.
    return tokenizer.decode(tf.where(ended, -1, sequences))
