"""The tokenizer as a module of TensorFlow ops."""

from __future__ import annotations

from typing import Any, Literal

import tensorflow as tf

from signatures.errors import UsageError
from signatures.tokenizers.added import Finder, Pieces, joined
from signatures.tokenizers.arrays import PYTHON_SPACE, decode, encode
from signatures.tokenizers.bpe import Bpe
from signatures.tokenizers.detokenize import Decoder, stripped
from signatures.tokenizers.layout import Grid, Tokens, Truncation, arrange, spans, truncate
from signatures.tokenizers.normalize import Step, normalizers
from signatures.tokenizers.plan import BytePairs, Plan, Slot, read_plan
from signatures.tokenizers.wordpiece import WordPiece
from signatures.tokenizers.words import Cutter

__all__ = ["GraphTokenizer", "compile_tokenizer"]

# Many small steps on short vectors: an accelerator would only add a launch to each.
_CPU = "CPU:0"

Padding = bool | Literal["max_length"]


def compile_tokenizer(tokenizer: Any) -> GraphTokenizer:
    """A tokenizer of transformers as TensorFlow ops.

    Args:
        tokenizer: A tokenizer, fast or slow, or the folder (or Hub id) of one.

    Raises:
        UsageError: A part of it has no equal here; the message names it.
    """
    return GraphTokenizer(read_plan(tokenizer))


class GraphTokenizer(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
    """A compiled tokenizer; make one with `compile_tokenizer`.

    Args:
        plan: Its settings.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__(name="tokenizer")
        self._plan = plan
        self._before = Finder([token for token in plan.added if not token.normalized])
        self._after = Finder([token for token in plan.added if token.normalized])
        self._normalizers: tuple[Step, ...] = tuple(normalizers(plan.normalizers))
        self._cutter = Cutter(plan.words)
        model = plan.model
        self._model = Bpe(model, plan.name) if isinstance(model, BytePairs) else WordPiece(model, plan.name)
        self._decoder = Decoder(plan)

    @property
    def max_length(self) -> int | None:
        """The tokenizer's own `model_max_length`; None where it has none."""
        return self._plan.max_length

    @property
    def pad_id(self) -> int | None:
        """The id of padding; None where the tokenizer has no padding token."""
        return self._plan.pad_id

    def encode(
        self,
        text: tf.Tensor,
        pair: tf.Tensor | None = None,
        *,
        max_length: int | None = None,
        padding: Padding = True,
        truncation: Truncation = "longest_first",
        add_special_tokens: bool = True,
    ) -> dict[str, tf.Tensor]:
        """`tokenizer(text, pair, padding=..., truncation=..., max_length=...)`.

        Args:
            text: string [n], UTF-8.
            pair: string [n], the second texts.
            max_length: The most tokens of a row, special ones included; None cuts nothing.
            padding: True or False to the longest row (a tensor has no ragged rows), "max_length" to `max_length`.
            truncation: Which text is cut where a row is too long.
            add_special_tokens: Whether the template's special tokens are added.

        Returns:
            The tokenizer's own inputs, int32 [n, L]: `input_ids`, `attention_mask`, and `token_type_ids` where the
            tokenizer returns them.

        Raises:
            UsageError: `max_length` leaves no room for the special tokens, or is missing where it is needed.
        """
        template = self._template(pair is not None, add_special_tokens)
        with tf.device(_CPU):
            first, second = self._texts(text, pair)
            if max_length is not None:
                budget = self._budget(max_length, template)
                first, second = truncate(first, second, budget, truncation, self._plan.truncation_side)
            texts = {"A": first} if second is None else {"A": first, "B": second}
            return self._named(self._arrange(template, texts, max_length, padding))

    def encode_words(
        self,
        words: tf.Tensor,
        boxes: tf.Tensor | None = None,
        question: tf.Tensor | None = None,
        *,
        max_length: int,
        padding: Padding = True,
        stride: int | None = None,
    ) -> dict[str, tf.Tensor]:
        """Words that are cut already, such as those of a scanned page, with an optional question before them.

        The question is cut at whitespace and its words are encoded as the page's are, as LayoutLMv3's tokenizer does.
        The words alone are truncated (`only_second`). Empty words have no tokens, so pages of
        different lengths share a tensor by filling up with "".

        Args:
            words: string [b, w].
            boxes: int [b, w, 4], the words' boxes.
            question: string [b].
            max_length: The most tokens of a row, special ones included.
            padding: True to the longest row, "max_length" to `max_length`.
            stride: None cuts long pages off; a number gives each page as many rows as it needs, every row repeating
                so many tokens of the one before it (`return_overflowing_tokens`).

        Returns:
            Beside what `encode` returns, [s, L] with s = b unless `stride` is given: `word_ids` int32 [s, L], the index
            in `words` (or in the question's words), -1 for special tokens and padding; `sequence_ids` int32 [s, L], 0
            or 1, -1 for the same; `rows` int32 [s], the page of each row; and `bbox` int32 [s, L, 4] where boxes are
            given: a word's box for each of its tokens, the tokenizer's own boxes for question and special tokens.
            `too_long` bool [b]: the question leaves no room for a new word; it is cut, and its page has one row.

        Raises:
            UsageError: Boxes are given to a tokenizer that knows none, or `max_length` leaves no room.
        """
        template = self._template(question is not None, True)
        budget = self._budget(max_length, template)
        with tf.device(_CPU):
            page, asked = self._words(words, question)
            spent = tf.zeros_like(page.sizes) if asked is None else asked.sizes
            page, rows = self._spans(page, budget - spent, stride)
            texts = {"A": page}
            if asked is not None:
                begins, sizes = tf.gather(asked.begins, rows), tf.gather(tf.minimum(spent, budget), rows)
                texts = {"A": asked._replace(begins=begins, sizes=sizes), "B": page}
            grid = self._arrange(template, texts, max_length, padding)
            answer = self._named(grid) | {"word_ids": grid.words, "sequence_ids": grid.sequences, "rows": rows}
            answer["too_long"] = spent >= (budget + 1 if stride is None else budget - stride)
            if boxes is not None:
                answer["bbox"] = self._boxes(grid, tf.gather(tf.cast(boxes, tf.int32), rows), asked is not None)
            return answer

    def decode(self, ids: tf.Tensor, *, strip: bool = False) -> tf.Tensor:
        """`tokenizer.decode(ids, skip_special_tokens=True)` of each row.

        Args:
            ids: Integers [n, L].
            strip: Whether whitespace at the ends is cut off, as `str.strip()` does.

        Returns:
            Texts, string [n].
        """
        with tf.device(_CPU):
            text = self._decoder(ids)
            return stripped(text) if strip else text

    def _texts(self, text: tf.Tensor, pair: tf.Tensor | None) -> tuple[Tokens, Tokens | None]:
        """The tokens of texts and their seconds, in one pass."""
        count = tf.size(text)
        if pair is None:
            ids, rows = self._encode(text)
            return Tokens.of(ids, rows, rows, count), None
        ids, rows = self._encode(tf.concat([text, pair], 0))
        return Tokens.of(ids, rows, rows, 2 * count).halves(count)

    def _words(self, words: tf.Tensor, question: tf.Tensor | None) -> tuple[Tokens, Tokens | None]:
        """The tokens of pages and of their questions, in one pass."""
        count, width = tf.unstack(tf.shape(words))
        values, index = tf.reshape(words, [-1]), tf.tile(tf.range(width), [count])
        rows = tf.repeat(tf.range(count), width)
        if question is None:
            return self._cut_words(values, index, rows, count), None
        asked = _split(question)
        asked_rows = tf.cast(asked.value_rowids(), tf.int32)
        asked_index = tf.range(tf.size(asked_rows)) - tf.gather(tf.cast(asked.row_splits, tf.int32), asked_rows)
        values = tf.concat([values, asked.values], 0)
        index, rows = tf.concat([index, asked_index], 0), tf.concat([rows, asked_rows + count], 0)
        return self._cut_words(values, index, rows, 2 * count).halves(count)

    def _cut_words(self, values: tf.Tensor, index: tf.Tensor, rows: tf.Tensor, count: tf.Tensor) -> Tokens:
        ids, owners = self._encode(values)
        return Tokens.of(ids, tf.gather(index, owners), tf.gather(rows, owners), count)

    def _encode(self, texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Flat token ids without a template, and the text of each, rising."""
        count = tf.size(texts)
        # Valid UTF-8 from here on: the finder marks its finds with a byte that no such text holds.
        texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
        pieces = self._before(Pieces(texts, tf.fill([count], -1), tf.range(count), count))
        text = decode(pieces.texts)
        for step in self._normalizers:
            text = step(text)
        if self._after:
            pieces = self._after(pieces._replace(texts=encode(text)))
            text = decode(pieces.texts)
        ids, owners = self._model(self._cutter(text))
        return joined(pieces, ids, owners)

    def _template(self, paired: bool, special: bool) -> tuple[Slot, ...]:
        template = self._plan.pair if paired else self._plan.single
        return template if special else tuple(slot for slot in template if slot.kind != "special")

    def _budget(self, max_length: int, template: tuple[Slot, ...]) -> int:
        special: int = sum(slot.kind == "special" for slot in template)
        if max_length <= special:
            raise UsageError(
                f"Got max_length={max_length}, but {self._plan.name} adds {special} special tokens. "
                f"Give at least {special + 1}."
            )
        return max_length - special

    def _spans(self, page: Tokens, room: tf.Tensor, stride: int | None) -> tuple[Tokens, tf.Tensor]:
        side = self._plan.truncation_side
        cut = page.keep(tf.clip_by_value(room, 0, page.sizes), side)
        if stride is None:
            return cut, tf.range(tf.size(page.sizes))
        if side == "left":
            raise UsageError(
                f"{self._plan.name} truncates on the left, but overlapping rows go from left to right. "
                'Set its truncation_side to "right".'
            )
        # A page whose question leaves no room for a new word has one row, not endlessly many.
        fits = room > stride
        page = page._replace(sizes=tf.where(fits, page.sizes, cut.sizes))
        return spans(page, tf.where(fits, room, stride + 1), stride)

    def _arrange(
        self, template: tuple[Slot, ...], texts: dict[str, Tokens], max_length: int | None, padding: Padding
    ) -> Grid:
        plan = self._plan
        if plan.pad_id is None and padding:
            raise UsageError(f"{plan.name} has no padding token. Set tokenizer.pad_token, or give padding=False.")
        if padding == "max_length" and max_length is None:
            raise UsageError('Got padding="max_length" without a max_length. Give the length to pad to.')
        return arrange(
            template,
            texts,
            width=max_length if padding == "max_length" else None,
            pad_id=plan.pad_id or 0,
            pad_type=plan.pad_type,
            side=plan.padding_side,
        )

    def _named(self, grid: Grid) -> dict[str, tf.Tensor]:
        tensors = {"input_ids": grid.ids, "attention_mask": grid.mask, "token_type_ids": grid.types}
        return {name: tensors[name] for name in self._plan.inputs}

    def _boxes(self, grid: Grid, boxes: tf.Tensor, paired: bool) -> tf.Tensor:
        plan = self._plan
        if not {"cls", "sep", "pad"} <= plan.boxes.keys():
            raise UsageError(f"{plan.name} knows no boxes, but boxes were given. Leave them out.")
        answer = tf.broadcast_to(tf.constant(plan.boxes["pad"], tf.int32), tf.concat([tf.shape(grid.ids), [4]], 0))
        special = (grid.words < 0) & (grid.mask > 0)
        for role in ("sep", "cls"):  # the class token is looked at first, so it is written last
            here = special & (grid.ids == plan.roles[role])
            answer = tf.where(here[..., None], tf.constant(plan.boxes[role], tf.int32), answer)
        word = (grid.words >= 0) & (grid.sequences == (1 if paired else 0))
        # One more box keeps the gather lawful on pages without words.
        padded = tf.pad(boxes, [[0, 0], [0, 1], [0, 0]])
        own = tf.gather(padded, tf.where(word, grid.words, 0), batch_dims=1)
        return tf.where(word[..., None], own, answer)


def _split(texts: tf.Tensor) -> tf.RaggedTensor:
    """`str.split()`, whose whitespace is Python's."""
    return tf.strings.split(tf.strings.regex_replace(texts, PYTHON_SPACE, " "))
