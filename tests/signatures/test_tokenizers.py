"""Compiled tokenizers beside the tokenizers that they were compiled from."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from signatures.errors import UsageError
from tests.signatures.tokenizer_kinds import CORPUS, KINDS, batches, compiled, texts, tokenizer, train_bpe

# GPT-2 differs from RoBERTa in its template alone, which pairs show; LayoutLMv3 has its own tests below.
ALL_KINDS = pytest.mark.parametrize("kind", sorted(set(KINDS) - {"layoutlmv3", "gpt2"}))
SOME_KINDS = pytest.mark.parametrize("kind", ["clip", "gpt2", "bert-left"])
LENGTH = 11
STRINGS = tf.TensorSpec([None], tf.string)


@functools.cache
def graphs(kind: str) -> dict[str, Callable[..., Any]]:
    """Traced once for every shape."""
    it = compiled(kind)

    def function(body: Callable[..., Any], *specs: tf.TensorSpec) -> Callable[..., Any]:
        return tf.function(body, input_signature=specs, autograph=False)

    return {
        "plain": function(lambda text: it.encode(text), STRINGS),
        "pair": function(
            lambda text, pair: it.encode(text, pair, max_length=LENGTH, padding="max_length"), STRINGS, STRINGS
        ),
        "decode": function(it.decode, tf.TensorSpec([None, None], tf.int32)),
    }


@pytest.fixture(scope="module", autouse=True)
def _forget() -> Iterator[None]:
    """Lets go of traced functions while TensorFlow can still delete them."""
    yield
    for cached in (graphs, forms, page_graphs):
        cached.cache_clear()


def same(got: dict[str, Any], wanted: Any, texts: object) -> None:
    assert got.keys() == wanted.keys()
    for name, value in got.items():
        assert value.dtype == tf.int32
        assert value.numpy().tolist() == wanted[name], (name, texts)


@ALL_KINDS
@settings(deadline=None, max_examples=30)
@given(batch=batches)
def test_encode(kind: str, batch: list[str]) -> None:
    """Any text, padded to the longest row."""
    same(graphs(kind)["plain"](batch), tokenizer(kind)(batch, padding=True), batch)


@pytest.mark.parametrize("kind", ["clip", "bert-left"])
def test_truncation(kind: str) -> None:
    """Cut to a length on the tokenizer's side, and padded to the longest or to the length."""
    it, graph = tokenizer(kind), compiled(kind)
    for batch in (["a cat"], ["a cat", CORPUS[0], ""]):
        for padding in (True, "max_length"):
            got = graph.encode(tf.constant(batch), max_length=LENGTH, padding=padding)
            same(got, it(batch, padding=padding, truncation=True, max_length=LENGTH), batch)


@SOME_KINDS
@settings(deadline=None, max_examples=25)
@given(batch=st.lists(st.tuples(texts, texts), min_size=1, max_size=5))
def test_pairs(kind: str, batch: list[tuple[str, str]]) -> None:
    """Two texts share the room as the library shares it, and carry its type ids."""
    first, second = map(list, zip(*batch, strict=True))
    wanted = tokenizer(kind)(first, second, padding="max_length", truncation=True, max_length=LENGTH)
    same(graphs(kind)["pair"](first, second), wanted, batch)


@SOME_KINDS
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_decode(kind: str, data: st.DataObject) -> None:
    """Any ids, special and unknown ones included, and ids that came from text."""
    it = tokenizer(kind)
    ids = data.draw(st.lists(st.lists(st.integers(0, len(it) + 2), min_size=7, max_size=7), min_size=1, max_size=5))
    got = [text.decode() for text in graphs(kind)["decode"](ids).numpy()]
    assert got == it.batch_decode(ids, skip_special_tokens=True)
    written = it(data.draw(batches), padding=True)["input_ids"]
    got = [text.decode() for text in graphs(kind)["decode"](written).numpy()]
    assert got == it.batch_decode(written, skip_special_tokens=True)


def test_decode_tidies_and_strips() -> None:
    """What `clean_up_tokenization_spaces` does to a sentence, and what the callers of VQA do to its ends."""
    it, graph = tokenizer("bert"), compiled("bert")
    ids = it(["who didn't sign it, and when?"])["input_ids"]
    assert graph.decode(tf.constant(ids)).numpy() == [it.decode(ids[0], skip_special_tokens=True).encode()]
    it, graph = tokenizer("gpt2"), compiled("gpt2")
    ids = it(["\u3000 the fox \n"])["input_ids"]
    assert graph.decode(tf.constant(ids), strip=True).numpy() == [it.decode(ids[0]).strip().encode()]
    assert graph.decode(tf.constant([[-100, 5]], tf.int64)).numpy() == [it.decode([5]).encode()]


def test_every_code_point() -> None:
    """Each code point by itself between letters: the tables are the library's, whatever Python's Unicode."""
    codes = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    lines = ["".join(f"a{chr(code)}a " for code in codes[first : first + 4096]) for first in range(0, len(codes), 4096)]
    for kind in ("bert", "clip", "gpt2"):
        it, graph = tokenizer(kind), graphs(kind)["plain"]
        for line in lines[::7] if kind == "bert" else lines[::13]:
            assert graph([line])["input_ids"][0].numpy().tolist() == it(line)["input_ids"]


@settings(deadline=None, max_examples=150)
@given(
    text=st.text(
        st.sampled_from(
            [*"aoeKΩ|", *"\u0301\u0323\u0307\u031b\u0345\u0338\u034f\u302e\u1dfa\u0bbe\u0dcf", "\u1e9b", "\u0f73"]
        )
        | st.sampled_from([*"\u1100\u1161\u11a8가각\u0c46\u0c56\u1112\u0344\u0958\ufb1f\u09c7\u09be"])
    )
)
def test_unicode_forms(text: str) -> None:
    """Marks in any order and number, which short texts above seldom hold."""
    from tokenizers import normalizers

    for name, form in forms().items():
        assert form([text]).numpy()[0].decode() == getattr(normalizers, name)().normalize_str(text), name


@functools.cache
def forms() -> dict[str, Callable[..., Any]]:
    from signatures.tokenizers import arrays, normalize

    def form(name: str) -> Callable[..., Any]:
        steps = normalize.normalizers([{"type": name}])
        run = lambda text: arrays.encode(functools.reduce(lambda done, step: step(done), steps, arrays.decode(text)))  # noqa: E731
        return tf.function(run, input_signature=[STRINGS], autograph=False)

    return {name: form(name) for name in ("NFC", "NFKC")}


def test_merges_that_bring_up_better_merges() -> None:
    """Merges listed in an order that no training gives: one at a time, leftmost first, as the library's queue."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from signatures.tokenizers import compile_tokenizer

    merges = [("da", "b"), ("cd", "a"), ("abc", "d"), ("a", "bc"), ("b", "c"), ("c", "d"), ("d", "a"), ("a", "a")]
    merges += [("aa", "b"), ("b", "b"), ("bb", "bb"), ("aa", "aa")]
    tokens = [*pre_tokenizers.ByteLevel.alphabet(), *dict.fromkeys("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE({token: id for id, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    it = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="!")
    encode = tf.function(compile_tokenizer(it).encode, input_signature=[STRINGS], autograph=False)
    for letters in ("abcdabcd", "abcdaabbcda", "aaaaabbbbbbb", "dabcdaabcd", "bcdabcdabcdacdab", "bbbbbbbbb"):
        batch = [letters[start:] + letters[:start] for start in range(len(letters))]
        same(encode(batch), it(batch, padding=True), batch)


def test_symbols_without_an_id() -> None:
    """A byte that the vocabulary lacks becomes the unknown token, or is left out where there is none."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from signatures.tokenizers import compile_tokenizer

    for unknown in ("?", None):
        model = models.BPE({"?": 0, "a": 1, "b": 2, "ab": 3}, [("a", "b")], unk_token=unknown)
        tokenizer = Tokenizer(model)
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        it = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="?")
        batch = ["ab", "axb", "xx", "aéb a", ""]
        same(compile_tokenizer(it).encode(tf.constant(batch)), it(batch, padding=True), batch)


def test_long_words() -> None:
    """The 100 character rule of WordPiece, and words of thousands of characters."""
    batch = ["a" * 100, "a" * 101, "ab" * 1500, "\u0301" * 300 + "e\u0301" * 300, "photographers" * 7 + " cat"]
    for kind in ("bert", "clip", "roberta"):
        same(graphs(kind)["plain"](batch), tokenizer(kind)(batch, padding=True), batch)


def test_nothing_at_all() -> None:
    """No rows, and rows without text."""
    for kind in ("bert", "clip", "roberta"):
        assert graphs(kind)["plain"](tf.constant([], tf.string))["input_ids"].shape[0] == 0
        same(graphs(kind)["plain"](["", " "]), tokenizer(kind)(["", " "], padding=True), "")


def test_bytes_that_are_no_text() -> None:
    """Wrong UTF-8 is read as Python's `errors="replace"` reads it, and cannot pose as a special token's mark."""
    raw = [b"\xff<mask>\xff", b"caf\xe9 \xf0\x9f\x98", b"\xed\xa0\x80\xc0\xaf"]
    for kind in ("bert", "clip", "roberta"):
        same(
            graphs(kind)["plain"](raw),
            tokenizer(kind)([text.decode(errors="replace") for text in raw], padding=True),
            raw,
        )


def test_without_special_tokens() -> None:
    for strategy in ("only_first", "only_second"):
        wanted = tokenizer("bert")(
            ["a cat"], [CORPUS[0]], add_special_tokens=False, truncation=strategy, max_length=40, padding=True
        )
        got = compiled("bert").encode(
            tf.constant(["a cat"]),
            tf.constant(CORPUS[:1]),
            add_special_tokens=False,
            truncation=strategy,
            max_length=40,
        )
        if strategy == "only_second":
            same(got, wanted, strategy)
        else:  # the library gives up where the first text alone cannot make room, the graph keeps the second whole
            assert got["input_ids"].shape[1] >= 40


def there_and_back(it: Any) -> Any:
    def run(text: tf.Tensor) -> dict[str, tf.Tensor]:
        encoded = it.encode(text)
        return {**encoded, "text": it.decode(encoded["input_ids"])}

    return tf.function(run, input_signature=[STRINGS], autograph=False)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind in one SavedModel."""
    path = tmp_path_factory.mktemp("saved")
    module = tf.Module()
    signatures = {}
    for kind in ("clip", "gpt2", "bert"):
        signatures[kind] = there_and_back(compiled(kind))
    module.signatures_by_kind = signatures
    tf.saved_model.save(module, str(path), signatures=signatures)
    return path


BATCH = ["a photo of İstanbul's cafe\u0301 <mask>", "[MASK] naïve 世界 😀"]


def check(kind: str, got: dict[str, Any]) -> None:
    wanted = tokenizer(kind)(BATCH, padding=True)
    assert got["input_ids"].tolist() == wanted["input_ids"]
    assert [text.decode() for text in got["text"]] == tokenizer(kind).batch_decode(
        wanted["input_ids"], skip_special_tokens=True
    )


def test_saved_and_loaded(saved: Path) -> None:
    loaded = tf.saved_model.load(str(saved))
    for kind in ("clip", "gpt2", "bert"):
        answer = loaded.signatures[kind](tf.constant(BATCH))
        check(kind, {name: value.numpy() for name, value in answer.items()})


def test_saved_and_run_in_a_session(saved: Path) -> None:
    """As TensorFlow Serving does it: the graph, its initialisation, then named tensors."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta = tf.compat.v1.saved_model.load(session, ["serve"], str(saved))
        for kind in ("clip", "gpt2", "bert"):
            signature = meta.signature_def[kind]
            feed = {next(iter(signature.inputs.values())).name: BATCH}
            check(kind, session.run({name: tensor.name for name, tensor in signature.outputs.items()}, feed))


def test_only_core_ops(saved: Path) -> None:
    """Every op has a CPU kernel in TensorFlow itself; there are no lookup tables, and nothing of Python."""
    from tensorflow.core.protobuf import saved_model_pb2
    from tensorflow.python.framework import kernels, op_def_registry

    graph = saved_model_pb2.SavedModel.FromString((saved / "saved_model.pb").read_bytes()).meta_graphs[0].graph_def
    functions = {function.signature.name for function in graph.library.function}
    nodes = [node.op for function in graph.library.function for node in function.node_def]
    ops = {op for op in [*nodes, *(node.op for node in graph.node)] if op not in functions}
    assert {"SearchSorted", "LowerBound"} & ops
    assert not [op for op in ops if "PyFunc" in op or "Xla" in op or "HashTable" in op or "TryCatch" in op]
    for op in sorted(ops):
        assert op_def_registry.get(op) is not None, op
        registered = kernels.get_registered_kernels_for_op(op).kernel
        assert any(kernel.device_type in ("CPU", "DEFAULT") for kernel in registered), op


def test_from_a_folder_and_from_a_slow_tokenizer(tmp_path: Path) -> None:
    """A checkpoint's folder, and the Python tokenizers on text where they agree with the fast ones."""
    from transformers import BertTokenizer, CLIPTokenizer, RobertaTokenizer

    from signatures.tokenizers import compile_tokenizer

    tokenizer("bert").save_pretrained(tmp_path)
    same(compile_tokenizer(tmp_path).encode(tf.constant(BATCH)), tokenizer("bert")(BATCH, padding=True), BATCH)
    batch = ["The quick brown fox's tail, it'll jump! 123", "café NAÏVE  photo", ""]
    tokenizer("bert").save_vocabulary(str(tmp_path))
    slow = [
        BertTokenizer(str(tmp_path / "vocab.txt")),
        CLIPTokenizer(*train_bpe("</w>", ["<|startoftext|>", "<|endoftext|>"])),
        RobertaTokenizer(*train_bpe("", ["<s>", "<pad>", "</s>", "<unk>", "<mask>"])),
    ]
    for it in slow:
        same(compile_tokenizer(it).encode(tf.constant(batch)), it(batch, padding=True), it)


def refused() -> dict[str, Any]:
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {"[UNK]": 0, "a": 1}

    def fast(model: Any, **parts: Any) -> Any:
        it = Tokenizer(model)
        for name, part in parts.items():
            if name == "added":
                it.add_tokens([part])
            else:
                setattr(it, name, part)
        return PreTrainedTokenizerFast(tokenizer_object=it)

    bert, byte_level = pre_tokenizers.BertPreTokenizer(), pre_tokenizers.ByteLevel()
    pieces = models.WordPiece(vocab, unk_token="[UNK]")
    return {
        "Unigram": fast(models.Unigram([("a", 0.0)]), pre_tokenizer=byte_level),
        "Metaspace": fast(models.BPE(vocab, []), pre_tokenizer=pre_tokenizers.Metaspace()),
        "null": fast(models.BPE(vocab, [])),
        "Prepend": fast(pieces, pre_tokenizer=bert, normalizer=normalizers.Prepend("x")),
        '"content": "_"': fast(pieces, pre_tokenizer=bert, normalizer=normalizers.Replace(" ", "_")),
        "single_word": fast(pieces, pre_tokenizer=bert, added=AddedToken("cat", single_word=True)),
        "dropout": fast(models.BPE(vocab, [], dropout=0.5), pre_tokenizer=byte_level),
        "byte_fallback": fast(models.BPE(vocab, [], byte_fallback=True), pre_tokenizer=byte_level),
        "Fuse": fast(pieces, pre_tokenizer=bert, decoder=decoders.Fuse()),
    }


def test_what_is_not_known_is_refused_by_name() -> None:
    from signatures.tokenizers import compile_tokenizer

    for named, it in refused().items():
        with pytest.raises(UsageError, match="cannot be put into a TensorFlow graph") as caught:
            compile_tokenizer(it)
        assert named in str(caught.value)
        assert "\n" not in str(caught.value)


def test_wrong_use() -> None:
    from signatures.tokenizers import compile_tokenizer

    it, text = compiled("bert"), tf.constant(["a"])
    with pytest.raises(UsageError, match="adds 2 special tokens"):
        it.encode(text, max_length=2)
    with pytest.raises(UsageError, match="without a max_length"):
        it.encode(text, padding="max_length")
    with pytest.raises(UsageError, match="knows no boxes"):
        it.encode_words(text[None], tf.zeros([1, 1, 4], tf.int32), max_length=8)
    with pytest.raises(UsageError, match="truncates on the left"):
        compiled("bert-left").encode_words(text[None], max_length=8, stride=1)
    with pytest.raises(UsageError, match="Got a int as the tokenizer"):
        compile_tokenizer(3)
    with pytest.raises(UsageError, match="could not be loaded"):
        compile_tokenizer("no/such/folder")


def test_no_padding_token() -> None:
    from transformers import GPT2TokenizerFast

    from signatures.tokenizers import compile_tokenizer

    it = GPT2TokenizerFast(*train_bpe("", []))
    graph = compile_tokenizer(it)
    assert graph.pad_id is None
    with pytest.raises(UsageError, match="has no padding token"):
        graph.encode(tf.constant(["a"]))
    same(graph.encode(tf.constant(["the fox"]), padding=False), it(["the fox"]), "")


WORDS = ["photo", "cat", "x", "it'll", " pad", "<mask>", "", "世界", "a b", "Fox's\u0301", "photographing"]
pages = st.integers(1, 9).flatmap(
    lambda width: st.lists(
        st.tuples(
            st.lists(st.sampled_from(WORDS), min_size=width, max_size=width),
            st.lists(st.sampled_from(["what", "is", "\u3000the", "cat's\x1f", "", "?"]), max_size=4).map(" ".join),
        ),
        min_size=1,
        max_size=3,
    )
)


@functools.cache
def page_graphs() -> dict[str, Callable[..., Any]]:
    it = compiled("layoutlmv3")
    words, boxes = tf.TensorSpec([None, None], tf.string), tf.TensorSpec([None, None, 4], tf.int32)

    def spans(words: tf.Tensor, boxes: tf.Tensor, question: tf.Tensor) -> dict[str, tf.Tensor]:
        return it.encode_words(words, boxes, question, max_length=24, padding="max_length", stride=3)

    def cut(words: tf.Tensor, boxes: tf.Tensor, question: tf.Tensor) -> dict[str, tf.Tensor]:
        return it.encode_words(words, boxes, question, max_length=24)

    def alone(words: tf.Tensor, boxes: tf.Tensor) -> dict[str, tf.Tensor]:
        return it.encode_words(words, boxes, max_length=9)

    return {
        "spans": tf.function(spans, input_signature=[words, boxes, STRINGS], autograph=False),
        "cut": tf.function(cut, input_signature=[words, boxes, STRINGS], autograph=False),
        "alone": tf.function(alone, input_signature=[words, boxes], autograph=False),
    }


def same_page(got: dict[str, Any], wanted: Any) -> None:
    def numbers(values: list[int | None]) -> list[int]:
        return [-1 if value is None else value for value in values]

    count = len(wanted["input_ids"])
    same(
        {name: got[name] for name in ("input_ids", "attention_mask", "bbox")},
        {name: wanted[name] for name in ("input_ids", "attention_mask", "bbox")},
        "",
    )
    assert got["word_ids"].numpy().tolist() == [numbers(wanted.word_ids(row)) for row in range(count)]
    assert got["sequence_ids"].numpy().tolist() == [numbers(wanted.sequence_ids(row)) for row in range(count)]
    assert got["rows"].numpy().tolist() == wanted.get("overflow_to_sample_mapping", list(range(count)))


@settings(deadline=None, max_examples=25)
@given(batch=pages, left=st.integers(0, 1000))
def test_words_and_boxes(batch: list[tuple[list[str], str]], left: int) -> None:
    """Pages with questions as LayoutLMv3's tokenizer takes them: a box per token, long pages in overlapping rows."""
    it, graph = tokenizer("layoutlmv3"), page_graphs()
    words, questions = map(list, zip(*batch, strict=True))
    boxes = [[[left, row, at, 1000] for at in range(len(page))] for row, page in enumerate(words)]
    wanted = it(
        questions,
        words,
        boxes=boxes,
        padding="max_length",
        max_length=24,
        stride=3,
        truncation="only_second",
        return_overflowing_tokens=True,
    )
    same_page(graph["spans"](words, boxes, questions), wanted)
    wanted = it(questions, words, boxes=boxes, padding=True, max_length=24, truncation="only_second")
    same_page(graph["cut"](words, boxes, questions), wanted)
    wanted = it(words, boxes=boxes, padding=True, max_length=9, truncation=True)
    same_page(graph["alone"](words, boxes), wanted)


def test_a_question_that_leaves_no_room() -> None:
    """It is told, it is cut, and it does its neighbour no harm."""
    graph, boxes = page_graphs(), [[[0, 0, 1, 1]] * 2] * 2
    words, questions = [["cat", "photo"]] * 2, ["what is the cat " * 9, "what"]
    alone = graph["spans"](words[1:], boxes[1:], questions[1:])
    for name in ("spans", "cut"):
        got = graph[name](words, boxes, questions)
        assert got["too_long"].numpy().tolist() == [True, False]
        assert got["rows"].numpy().tolist() == [0, 1]
        assert got["input_ids"].shape == (2, 24)
        assert got["input_ids"][1].numpy().tolist() == alone["input_ids"][0].numpy().tolist()


def test_model_length_and_padding_id() -> None:
    it = tokenizer("clip")
    assert compiled("clip").pad_id == it.pad_token_id
    assert compiled("clip").max_length is None
