"""A SentencePiece tokenizer of Llama-2's kind, trained on texts. Decides its settings and which lines are looked at."""

from __future__ import annotations

import io
import random
import re
from collections.abc import Iterable
from pathlib import Path

from toolkit.errors import DataError
from toolkit.tokenizer.pieces import DEFAULT_MAX_LENGTH, Tokenizer, sentencepiece, write


def train(
    texts: Iterable[str],
    out: str | Path,
    *,
    vocab_size: int,
    seed: int = 0,
    max_lines: int = 1_000_000,
    character_coverage: float = 0.9999,
    model_max_length: int = DEFAULT_MAX_LENGTH,
) -> Tokenizer:
    """Train a BPE tokenizer with Llama-2's settings on `texts` and write it to the folder `out`.

    Those are: identity normalisation, a leading space mark, single digits, bytes for characters outside the vocabulary
    (newline is one), ids 0 `<unk>`, 1 `<s>`, 2 `</s>`, no padding token. The same input gives the same bytes; beyond
    `max_lines` lines, a sample drawn with `seed` is used. Raises `DataError` for no text, and for too little or too
    varied text for `vocab_size`, with the size that is possible.
    """
    lines = _sample_lines(texts, max_lines, seed)
    if not lines:
        raise DataError("no text to train a tokenizer on", where=out, do="check that the corpus is not empty")
    model = io.BytesIO()
    try:
        sentencepiece().SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=True,
            split_digits=True,
            byte_fallback=True,
            allow_whitespace_only_pieces=True,
            character_coverage=character_coverage,
            max_sentence_length=1 << 30,  # the default silently leaves out lines over 4 kB
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=-1,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as err:
        raise _training_error(err, vocab_size, out) from err
    return write(Path(out), model.getvalue(), {}, model_max_length)


def _sample_lines(texts: Iterable[str], max_lines: int, seed: int) -> list[str]:
    """At most `max_lines` of the non-empty lines, each with the same chance (reservoir sampling)."""
    rng, kept, seen = random.Random(seed), [], 0
    for text in texts:
        for line in text.split("\n"):
            # A NUL or a lone surrogate would make SentencePiece drop the line, or fail.
            line = line.replace("\0", " ").encode("utf-8", "ignore").decode("utf-8")
            if not line.strip():
                continue
            seen += 1
            if len(kept) < max_lines:
                kept.append(line)
            elif (slot := rng.randrange(seen)) < max_lines:
                kept[slot] = line
    return kept


def _training_error(err: RuntimeError, vocab_size: int, out: object) -> DataError:
    message = str(err)
    if largest := re.search(r"value <= (\d+)", message):
        return DataError(
            f"too little text for a vocabulary of {vocab_size}; the largest possible is {largest[1]}",
            where=out,
            do=f"set the vocabulary size to {largest[1]} or less, or give more text",
        )
    if needed := re.search(r"(\d+) vs (\d+)", message):
        least = max(map(int, needed.groups()))
        return DataError(
            f"a vocabulary of {vocab_size} is too small for this text",
            where=out,
            why=f"its single characters and the 256 bytes alone take {least}",
            do=f"set a vocabulary size above {least} or a lower character_coverage",
        )
    return DataError("the tokenizer could not be trained", where=out, why=message)
