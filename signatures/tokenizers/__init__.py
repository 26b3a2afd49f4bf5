"""Tokenizers that live in the SavedModel: text to ids and back with TensorFlow's core CPU ops only.

    tokenizer = compile_tokenizer("path/to/checkpoint")
    tokenizer.encode(tf.constant(["two cats"]), max_length=77)["input_ids"]

Kinds: CLIP's BPE, byte-level BPE (GPT-2, RoBERTa, LayoutLMv3, BART) and BERT's WordPiece. The answers equal those of
the checkpoint's *fast* tokenizer, which is the one that transformers' pipelines use; a slow tokenizer is converted as
transformers itself converts it. Anything else (SentencePiece, tiktoken, other normalisers) is refused by name.

Where the slow tokenizer answers otherwise, the fast one is followed. For byte-level BPE no difference is known. BERT's
slow one drops code points that Python's Unicode does not know. CLIP's slow one cleans text with ftfy where that is
installed and else as BERT does: it drops control and zero-width characters, splits ideographs, and lowers a final sigma
as one, where the fast one lowers each letter by itself.

Limits: text that is no UTF-8 is read with U+FFFD for each wrong byte sequence, a case in which Python has no string
at all. Unicode's tables are those of the `tokenizers` library at export. Ids that the tokenizer does not know are left
out by `decode`, negative ones too.

All state is constants, so that there is nothing to initialise: `tf.saved_model.load`, a version 1 Session and TF
Serving read the same graph.
"""

from __future__ import annotations

from signatures.tokenizers.graph import GraphTokenizer, compile_tokenizer

__all__ = ["GraphTokenizer", "compile_tokenizer"]
