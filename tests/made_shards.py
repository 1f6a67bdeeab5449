"""Shards that a launch takes, for tests of what comes after: two pairs of one document, for a model of any vocabulary.
Their tokenizer is a name and no more; nothing that trains may be given them.
"""

from __future__ import annotations

from pathlib import Path

from toolkit import __version__, files
from toolkit.shards import blend, format


def make(folder: Path, vocab_size: int) -> Path:
    words = folder / blend.TOKENIZER
    words.mkdir(parents=True)
    (words / "tokenizer.model").write_bytes(b"no tokenizer")
    tokens = blend.Tokens(
        folder=blend.TOKENIZER,
        sha256=blend.tokenizer_sha256(words),
        model_sha256=files.sha256_file(words / "tokenizer.model"),
        vocab_size=vocab_size,
        eod_id=2,
        special={},
    )
    dtype = format.dtype_for(vocab_size)
    made = blend.Made(
        toolkit=__version__, dtype=dtype, append_eod=True, text_field="text", tags=None, tokenizer=tokens
    )  # fmt: skip
    given, sides = blend.Input(name="a.jsonl", sha256="0" * 64, bytes=9), {}
    for side in blend.SPLITS:
        prefix = folder / side / "made-00000"
        with format.writer(prefix, dtype) as shard:
            shard.add([3], bytes(3 * shard.itemsize))
        data, index = format.pair(prefix)
        entry = blend.Shard(
            prefix=f"{side}/made-00000", subset="made", documents=1, tokens=3, weight=None,
            bin_bytes=data.stat().st_size, idx_bytes=index.stat().st_size,
            bin_sha256=files.sha256_file(data), idx_sha256=files.sha256_file(index),
            input=given, rows=1, empty=0, replaced=0, bad_rows=0,
        )  # fmt: skip
        sides[side] = (entry,)
    blend.write(folder, blend.Blend(made=made, **sides))
    return folder
