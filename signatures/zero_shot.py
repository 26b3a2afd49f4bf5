"""Labels in free words, put into a sentence each: read at export, or with every request.

What the tasks with such labels have in common. With `--labels` the sentences' vectors are constants of the graph and
only the vision tower is left in it; without, `candidate_labels` come with the request, and the tokenizer and the text
tower live in the graph too. Each different sentence of a batch goes through the text tower once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from signatures.errors import UsageError
from signatures.model import Model, Tensors
from signatures.spec import Tensor
from signatures.tasks import Option, Request
from signatures.text import accepted, encode_within, most_tokens, text_inputs, tokenizer_of

if TYPE_CHECKING:
    from signatures.checkpoint import Checkpoint

__all__ = [
    "CANDIDATE_LABELS", "OPTIONS", "PROMPT", "Sentences", "asked_labels", "listed", "logit_scale", "normalized",
    "places_of", "read", "samples", "vectors",
]  # fmt: skip

PROMPT = "This is a photo of {}."
"""The pipeline's own."""

CANDIDATE_LABELS = Tensor(
    dtype="string",
    shape=(None, None),
    meaning='labels to choose from, per image; "" fills up a batch and is not scored',
)
OPTIONS: Mapping[str, Option] = {
    "labels": Option(
        kind=str,
        default=None,
        meaning="labels fixed at export: a,b,c or a file with a label a line (default: per request)",
    ),
    "prompt": Option(kind=str, default=PROMPT, meaning="the sentence that a label is put into, at {}"),
}


def listed(labels: str) -> tuple[str, ...]:
    """The labels of an option: a label a line, or separated by commas on one line."""
    return tuple(label.strip() for label in labels.split("\n" if "\n" in labels else ",") if label.strip())


def read(labels: str) -> tuple[str, ...]:
    """As `listed`, of labels that are told apart by their words.

    Raises:
        UsageError: There is none, or one is given twice.
    """
    names = listed(labels)
    if not names:
        raise UsageError("Got --labels without a label, but an image must fit something. Give --labels a,b,c.")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"Got the label {twice!r} more than once. Give every label one name of its own.")
    return names


def _embedded(prompt: str, label: str) -> str:
    """A label in its sentence.

    Raises:
        UsageError: The prompt has no place for a label, or more than one.
    """
    if prompt.count("{}") != 1 or "{" in prompt.replace("{}", "") or "}" in prompt.replace("{}", ""):
        raise UsageError(f"Got --prompt {prompt!r}, but it wants {{}} once, for the label. Try 'a photo of {{}}'.")
    return prompt.replace("{}", label)


def logit_scale(model: Model) -> Any:
    """The variable that scales similarities; None where there is none."""
    named = [weight for weight in model.native.weights if weight.name.split("/")[-1].startswith("logit_scale")]
    return named[0] if named else None


def normalized(embeddings: Any) -> Any:
    """Vectors [..., d] in float32, each of length 1."""
    import tensorflow as tf

    embeddings = tf.cast(embeddings, tf.float32)
    return embeddings / tf.norm(embeddings, axis=-1, keepdims=True)


def vectors(model: Model, prompt: str, labels: tuple[str, ...]) -> Any:
    """The vectors of labels that are fixed at export, NumPy float32 [n, d], each of length 1."""
    encoded = tokenizer_of(model)([_embedded(prompt, label) for label in labels], padding=True, return_tensors="tf")
    most, got = most_tokens(model.config["text_config"]), int(encoded["input_ids"].shape[1])
    if got > most:
        longest = max(labels, key=len)
        raise UsageError(
            f"A label has {got} tokens in its sentence, but {model.source.model} reads {most}. "
            f"Shorten the labels or --prompt; the longest label is {longest!r}."
        )
    return normalized(model.native.get_text_features(**accepted(model, encoded))).numpy()


class Sentences:
    """The labels of a request as what a text tower reads.

    Args:
        model: A model with a text tower.
        prompt: The sentence that a label is put into.
    """

    def __init__(self, model: Model, prompt: str) -> None:
        from signatures.tokenizers import compile_tokenizer

        _embedded(prompt, "")
        tokenizer = tokenizer_of(model)
        self.model = model
        self.tokenizer = compile_tokenizer(tokenizer)
        self.inputs = text_inputs(model, tokenizer)
        self._most = most_tokens(model.config["text_config"])
        self._before, self._after = prompt.split("{}")

    def features(self, images: Tensors, request: Request) -> Tensors:
        """What the model is called with: the image, and each different sentence once; `error` string [b]."""
        import tensorflow as tf

        different, places = _different(request.inputs["candidate_labels"])
        sentences = tf.strings.join([self._before, different, self._after])
        encoded, too_long = encode_within(self.tokenizer, sentences, self._most)
        refused = tf.reduce_any(tf.gather(too_long, places), axis=1)
        reason = f"a candidate label has more than the {self._most} tokens that the model reads; send shorter labels"
        return {
            "pixel_values": images["pixel_values"],
            **accepted(self.model, encoded),
            "error": tf.where(refused, reason, ""),
        }


def places_of(candidates: Any) -> Any:
    """Where each label of a request, string [b, n], is among the sentences of `Sentences.features`, int32 [b, n]."""
    return _different(candidates)[1]


def _different(candidates: Any) -> tuple[Any, Any]:
    """The different labels of a batch, string [u], and where each candidate is among them, int32 [b, n]."""
    import tensorflow as tf

    # A first label that is always there keeps the text tower's batch from being empty.
    different, places = tf.unique(tf.concat([[""], tf.reshape(candidates, [-1])], axis=0))
    return different, tf.reshape(places[1:], tf.shape(candidates))


def asked_labels(checkpoint: Checkpoint, inputs: Mapping[str, Any]) -> list[str]:
    """The labels that were fixed at export, else those of one item's further inputs."""
    import tensorflow as tf

    fixed = checkpoint.card.options.get("labels")
    return list(fixed) if fixed else [tf.compat.as_text(label) for label in inputs["candidate_labels"]]


def samples(count: int) -> dict[str, Any]:
    """The same three labels for every image."""
    import numpy as np

    return {"candidate_labels": np.array([["a disc", "a cat", "a photograph of the sea"]] * count, object)}
