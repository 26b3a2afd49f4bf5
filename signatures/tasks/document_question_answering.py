"""`document-question-answering`: the words of a scanned page that answer a question.

As transformers' `DocumentQuestionAnsweringPipeline` does with words and boxes from the caller: the page is read in
overlapping spans where it is long, and the best span of words is answered (`select_starts_ends`, `decode_spans`,
`postprocess_extractive_qa`). Reading the words off the image (OCR) is left to whoever asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from signatures.errors import UsageError
from signatures.model import MEANINGS, Model, Tensors
from signatures.spec import Tensor
from signatures.tasks import Head, Option, Request, Task
from signatures.text import most_tokens, tokenizer_of

if TYPE_CHECKING:
    from signatures.checkpoint import Checkpoint
    from signatures.tokenizers import GraphTokenizer

__all__ = ["TASK"]

MAX_COORDINATE = 1000
NO_LOGIT = -10000.0
"""What the pipeline puts at tokens that cannot be in an answer."""

KNOWN_OF_TOKENS = ("answerable", "word_ids", "rows")
"""What travels past the model from the tokenizer to the answer: bool and int32 [s, t], and int32 [s]."""


def fit(model: Model, options: Mapping[str, Any]) -> Head:
    """Binds the task to a model that reads pages.

    Raises:
        UsageError: The model does not, or its tokenizer cannot live in the graph.
    """
    from signatures.tokenizers import compile_tokenizer

    if model.config.get("model_type") != "layoutlmv3" or not hasattr(model.native, "qa_outputs"):
        raise UsageError(
            f"{model.source.model} is a {model.source.cls}, but document-question-answering wants a model that finds "
            "answers among words and boxes (TFLayoutLMv3ForQuestionAnswering). Export one of these."
        )
    for name in ("top_k", "max_answer_len"):
        if options[name] < 1:
            raise UsageError(f"Got --{name.replace('_', '-')} {options[name]}, but it wants a positive number.")
    tokenizer = compile_tokenizer(tokenizer_of(model))
    most = most_tokens(model.config)
    reader = _Reader(tokenizer, min(tokenizer.max_length or most, most))

    def forward(inputs: Tensors) -> Tensors:
        seen = {name: inputs[name] for name in (*_TEXT_INPUTS, "pixel_values")}
        outputs = model.native(**seen, training=False)
        # The patches of the image follow the words in the model's sequence; no answer lies there.
        count = inputs["input_ids"].shape[1] or _length(inputs["input_ids"])
        return {
            "start_logits": outputs.start_logits[:, :count],
            "end_logits": outputs.end_logits[:, :count],
            **{name: inputs[name] for name in KNOWN_OF_TOKENS if name in inputs},
        }

    def postprocess(raw: Tensors, request: Request) -> Tensors:
        scores, begins, ends = best_spans(raw, options["top_k"], options["max_answer_len"])
        scores, begins, ends = best_of_pages(scores, begins, ends, raw["rows"], _length(request.inputs["words"], 0))
        return {"answers": joined(request.inputs["words"], begins, ends), "scores": _positive(scores)}

    return Head(
        outputs={
            name: Tensor(dtype=tensor.dtype, shape=(None, options["top_k"]), meaning=tensor.meaning)
            for name, tensor in TASK.outputs.items()
        },
        inputs=TASK.inputs,
        features=reader.features,
        forward=forward,
        postprocess=postprocess,
        options=dict(options),
        state=tokenizer,
        model_inputs={"pixel_values": model.inputs["pixel_values"], **_TEXT_INPUTS},
    )


_TEXT_INPUTS = {
    "input_ids": Tensor(dtype="int32", shape=(None, None), meaning=MEANINGS["input_ids"]),
    "attention_mask": Tensor(dtype="int32", shape=(None, None), meaning=MEANINGS["attention_mask"]),
    "bbox": Tensor(dtype="int32", shape=(None, None, 4), meaning="the box of each token, 0 to 1000"),
}


class _Reader:
    """Questions, words and boxes as what the model reads; one row per span of a page."""

    def __init__(self, tokenizer: GraphTokenizer, most: int) -> None:
        self.tokenizer, self.most = tokenizer, most
        # The pipeline's own choice.
        self.stride = min(most // 2, 256)

    def features(self, images: Tensors, request: Request) -> Tensors:
        """Everything the model is called with, and what is known of each token."""
        import tensorflow as tf

        words, boxes, question = (request.inputs[name] for name in ("words", "boxes", "question"))
        error = self.problem(question, boxes)
        # What cannot be read must not fail its neighbours.
        question = tf.where(tf.equal(error, ""), question, "")
        boxes = tf.clip_by_value(boxes, 0, MAX_COORDINATE)
        encoded = self.tokenizer.encode_words(words, boxes, question, max_length=self.most, stride=self.stride)
        is_first = tf.equal(tf.range(_length(encoded["input_ids"])), 0)
        return {
            "pixel_values": tf.gather(images["pixel_values"], encoded["rows"]),
            **{name: encoded[name] for name in _TEXT_INPUTS},
            "answerable": tf.equal(encoded["sequence_ids"], 1) | is_first,
            "word_ids": encoded["word_ids"],
            "rows": encoded["rows"],
            "error": error,
        }

    def problem(self, question: Any, boxes: Any) -> Any:
        """Why a page cannot be read, string [b], or ""."""
        import tensorflow as tf

        from signatures.tokenizers.arrays import PYTHON_SPACE

        pieces = tf.strings.split(tf.strings.regex_replace(question, PYTHON_SPACE, " ")).to_tensor("")
        asked = self.tokenizer.encode_words(pieces, max_length=self.most)
        # Besides the question, a span holds four special tokens, what it repeats and at least one token more.
        room = self.most - 4 - self.stride - 1
        too_long = tf.reduce_sum(asked["attention_mask"], axis=1) - 2 > room
        outside = tf.reduce_any((boxes < 0) | (boxes > MAX_COORDINATE), axis=[1, 2])
        return tf.where(
            too_long,
            f"the question has more than {room} tokens; send a shorter one",
            tf.where(outside, f"a box lies outside 0 to {MAX_COORDINATE}; scale boxes to thousandths of the image", ""),
        )


def best_spans(raw: Tensors, top_k: int, max_answer_len: int) -> tuple[Any, Any, Any]:
    """The most probable answers of each span of a page, `select_starts_ends` and `decode_spans`.

    Args:
        raw: `start_logits`, `end_logits` float32 [s, t], `answerable` bool [s, t], `word_ids` int32 [s, t].
        top_k: How many.
        max_answer_len: In tokens, at most.

    Returns:
        Scores float32 [s, k] (-1 for no answer) and the first and last word int32 [s, k], best first.
    """
    import tensorflow as tf

    answerable, count = raw["answerable"], _length(raw["answerable"])
    # The first token stands for "no answer": it takes its share of the probability but is never answered.
    first = tf.one_hot(tf.zeros_like(answerable[:, 0], tf.int32), count)
    start, end = (
        tf.nn.softmax(tf.where(answerable, raw[name], NO_LOGIT)) * (1.0 - first)
        for name in ("start_logits", "end_logits")
    )
    padded = tf.pad(end, [[0, 0], [0, max_answer_len - 1]])
    # [s, t, a]: from each token to itself and those after it.
    scores = tf.stack([start * padded[:, after : after + count] for after in range(max_answer_len)], axis=2)
    scores = tf.pad(tf.reshape(scores, [-1, count * max_answer_len]), [[0, 0], [0, top_k]])
    scores, places = tf.math.top_k(scores, k=top_k)
    begins = tf.minimum(places // max_answer_len, count - 1)
    ends = tf.minimum(begins + places % max_answer_len, count - 1)

    def at(name: str, tokens: Any) -> Any:
        return tf.gather(raw[name], tokens, batch_dims=1)

    first_word, last_word = at("word_ids", begins), at("word_ids", ends)
    real = at("answerable", begins) & at("answerable", ends) & (first_word >= 0) & (last_word >= 0) & (scores > 0)
    return tf.where(real, scores, -1.0), first_word, last_word


def best_of_pages(scores: Any, begins: Any, ends: Any, rows: Any, pages: Any) -> tuple[Any, Any, Any]:
    """The best answers of each page out of those of its spans, `postprocess`.

    Args:
        scores: float32 [s, k], -1 for no answer.
        begins: int32 [s, k].
        ends: int32 [s, k].
        rows: int32 [s], the page of each span, rising.
        pages: int32 scalar, how many.

    Returns:
        The three, [pages, k].
    """
    import tensorflow as tf

    top_k = scores.shape[1]

    def per_page(values: Any, blank: float) -> Any:
        ragged = tf.RaggedTensor.from_value_rowids(values, rows, nrows=tf.cast(pages, rows.dtype), validate=False)
        dense = ragged.to_tensor(tf.cast(blank, values.dtype))
        return tf.pad(
            tf.reshape(dense, [pages, -1]), [[0, 0], [0, top_k]], constant_values=tf.cast(blank, values.dtype)
        )

    scores, places = tf.math.top_k(per_page(scores, -1.0), k=top_k)
    begins, ends = (tf.gather(per_page(values, -1), places, batch_dims=1) for values in (begins, ends))
    found = scores > 0
    return scores, tf.where(found, begins, 1), tf.where(found, ends, 0)


def joined(words: Any, begins: Any, ends: Any) -> Any:
    """Words joined by spaces.

    Args:
        words: string [b, w].
        begins: int32 [b, k], the first word of each answer.
        ends: int32 [b, k], the last; before the first for no answer.

    Returns:
        string [b, k].
    """
    import tensorflow as tf

    index = tf.range(_length(words))
    inside = (index >= begins[..., None]) & (index <= ends[..., None])
    spaced = tf.where(inside, tf.strings.join([" ", words])[:, None], "")
    return tf.strings.regex_replace(tf.strings.reduce_join(spaced, axis=-1), "^ ", "", replace_global=False)


def _length(value: Any, axis: int = 1) -> Any:
    import tensorflow as tf

    return tf.shape(value)[axis]


def _positive(scores: Any) -> Any:
    import tensorflow as tf

    return tf.maximum(scores, 0.0)


def samples(count: int) -> dict[str, Any]:
    """A page of a few words for every image."""
    import numpy as np

    words = ["Invoice", "No.", "us-001", "Total:", "$154.06", "due", "26/02/2019"]
    boxes = [[60 + 120 * index, 100, 150 + 120 * index, 130] for index in range(len(words))]
    return {
        "question": np.array(["What is due?"] * count, object),
        "words": np.array([words] * count, object),
        "boxes": np.array([boxes] * count, np.int32),
    }


def reference(checkpoint: Checkpoint, image: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The pipeline's steps, which itself exists for PyTorch alone; its last step is its own code."""
    from types import SimpleNamespace

    import numpy as np
    import tensorflow as tf
    from transformers import AutoTokenizer, DocumentQuestionAnsweringPipeline

    tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder)
    text = tf.compat.as_text
    words, options = [text(word) for word in inputs["words"]], checkpoint.card.options
    most = min(tokenizer.model_max_length, most_tokens(checkpoint.native.config.to_dict()))
    encoding = tokenizer(
        text=[text(inputs["question"])],
        text_pair=[words],
        boxes=[inputs["boxes"].tolist()],
        max_length=most,
        stride=min(most // 2, 256),
        truncation="only_second",
        return_overflowing_tokens=True,
    )
    pixel_values = checkpoint.features(image)["pixel_values"][None]
    spans = []
    for index, ids in enumerate(encoding["input_ids"]):
        seen = {name: tf.constant([encoding[name][index]]) for name in _TEXT_INPUTS}
        outputs = checkpoint.native(**seen, pixel_values=pixel_values)
        masked = [sequence != 1 for sequence in encoding.sequence_ids(index)]
        masked[0] = False
        spans.append(
            {
                "start_logits": outputs.start_logits.numpy()[:, : len(ids)],
                "end_logits": outputs.end_logits.numpy()[:, : len(ids)],
                "p_mask": np.array(masked, int),
                "attention_mask": seen["attention_mask"],
                "word_ids": encoding.word_ids(index),
                "words": words,
            }
        )
    answers = DocumentQuestionAnsweringPipeline.postprocess_extractive_qa(
        SimpleNamespace(framework="tf"), spans, top_k=options["top_k"], max_answer_len=options["max_answer_len"]
    )
    answers = sorted(answers, key=lambda answer: -answer["score"])[: options["top_k"]]
    blank = [{"answer": "", "score": 0.0}] * (options["top_k"] - len(answers))
    answers = [*answers, *blank]
    return {"answers": [a["answer"] for a in answers], "scores": [a["score"] for a in answers]}


def difference(answer: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[float, bool]:
    """The largest difference of a score, and whether the best answer is the same."""
    import numpy as np

    distance = float(np.abs(answer["scores"] - np.array(wanted["scores"])).max())
    return distance, answer["answers"][0].decode() == wanted["answers"][0]


TASK = Task(
    name="document-question-answering",
    summary="The words of a scanned page that answer a question.",
    heads=("LayoutLMv3ForQuestionAnswering",),
    outputs={
        "answers": Tensor(dtype="string", shape=(None, None), meaning='words of the page, best first; "" for none'),
        "scores": Tensor(dtype="float32", shape=(None, None), meaning="the probability of each answer, best first"),
    },
    inputs={
        "question": Tensor(dtype="string", shape=(None,), meaning="a question about each page"),
        "words": Tensor(dtype="string", shape=(None, None), meaning='the words of each page; "" fills up a batch'),
        "boxes": Tensor(
            dtype="int32",
            shape=(None, None, 4),
            meaning="the box of each word: left, top, right, bottom in thousandths of the image",
        ),
    },
    fit=fit,
    options={
        "top_k": Option(kind=int, default=1, meaning="how many answers to give"),
        "max_answer_len": Option(kind=int, default=15, meaning="how long an answer may be, in tokens"),
    },
    samples=samples,
    reference=reference,
    difference=difference,
)
