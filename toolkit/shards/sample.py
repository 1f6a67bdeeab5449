"""What a training reads of shards: rows of so many tokens as text, and where in them one document ends and the next
begins.

Decides how rows are cut, which is Megatron's way (documents one behind the other, a row goes on where the last ended);
the order in which a training shuffles them is not known here (`python -m toolkit.train composition`).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit import tokenizer as tokenizers
from toolkit.errors import UsageError
from toolkit.shards.check import Index


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Of document `document` of a shard the tokens from `first` on, as text with control tokens by name."""

    document: int
    first: int
    tokens: int
    text: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """One sequence of a batch: row `number` of the shard at `prefix`."""

    prefix: str
    number: int
    pieces: tuple[Piece, ...]


def sample(
    prefixes: Sequence[str | Path], *, tokenizer: str | Path, seq_length: int = 4096, rows: int = 4, seed: int = 0
) -> tuple[Row, ...]:
    """`rows` rows of `seq_length` tokens, drawn with `seed`: each shard as often as its tokens make it.

    Raises `UsageError` when no shard has so many tokens, `ShardError` for a damaged one and `DataError` for ids that
    are not of this tokenizer.
    """
    if seq_length < 1 or rows < 1:
        raise UsageError(f"{rows} rows of {seq_length} tokens", do="give 1 or more of each")
    loaded, rng = tokenizers.load(tokenizer), random.Random(seed)
    opened = [Index(prefix) for prefix in prefixes]
    counts = [max(0, (index.tokens - 1) // seq_length) for index in opened]  # each row's last label is the next token
    if not any(counts):
        longest = max((index.tokens for index in opened), default=0)
        raise UsageError(
            f"no shard has a row of {seq_length} tokens: the longest has {longest}",
            where=prefixes[0] if prefixes else "",
            do="give a smaller --seq-length",
        )
    found = []
    for index in rng.choices(opened, counts, k=rows):
        number = rng.randrange((index.tokens - 1) // seq_length)
        pieces = tuple(
            Piece(document=document, first=first, tokens=len(ids), text=loaded.decode(ids, control=True))
            for document, first, ids in index.pieces(number * seq_length, seq_length)
        )
        found.append(Row(prefix=str(index.prefix), number=number, pieces=pieces))
    return tuple(found)
