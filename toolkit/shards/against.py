"""A pair beside the input that it was made of: encoded once more, and compared document by document.

Decides where the two first part; leaves whether the pair is whole in itself to `check`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

from toolkit.errors import ShardError
from toolkit.progress import progress
from toolkit.shards import check, format, rows
from toolkit.shards.build import settings_of
from toolkit.shards.encode import Settings, encode_all

_AGAIN = "build the shard again"


def against(
    prefix: str | Path,
    inputs: Sequence[str | Path],
    *,
    tokenizer: str | Path,
    append_eod: bool = True,
    text_field: str = "text",
    special_tokens: Sequence[str] | None = None,
    workers: int = 1,
) -> check.ShardInfo:
    """Check that the pair is what `build` makes of `inputs`: the same documents in the same order, id by id.

    Raises `ShardError` for the first document that is another, missing or too many, and as `check.verify`.
    """
    paths = [Path(path) for path in inputs]
    rows.check_inputs(paths)
    settings, made = settings_of(
        Path(tokenizer), append_eod=append_eod, text_field=text_field, special_tokens=special_tokens
    )
    found = check.verify(prefix)
    if found.dtype != settings.dtype:
        raise ShardError(
            f"its ids are {found.dtype}, and those of this tokenizer {settings.dtype}",
            where=prefix,
            why=f"a vocabulary of {made.tokenizer.vocab_size:,} takes {settings.dtype}",
            do="give the tokenizer that it was built with",
        )
    with contextlib.closing(_encoded(paths, settings, workers)) as ours:
        stored = _documents(format.documents(prefix, found.dtype, found.documents))
        for number, (theirs, own) in enumerate(zip_longest(stored, ours)):
            if theirs != own:
                raise ShardError(
                    f"document {number} is not what its input gives",
                    where=prefix,
                    why=_difference(theirs, own, settings.dtype),
                    do=_AGAIN,
                )
    return found


def _difference(theirs: bytes | None, own: bytes | None, dtype: str) -> str:
    import numpy as np

    if own is None:
        return "the input ends before it"
    if theirs is None:
        return "the shard ends before it"
    found, expected = (np.frombuffer(ids, dtype=format.numpy_dtype(dtype)).tolist() for ids in (theirs, own))
    pairs = zip(found, expected, strict=False)
    at = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(found), len(expected)))
    told = [ids[at] if at < len(ids) else "no more" for ids in (found, expected)]
    return f"token {at} of {len(found)} is {told[0]}, expected {told[1]} of {len(expected)}"


def _encoded(paths: Sequence[Path], settings: Settings, workers: int) -> Iterator[bytes]:
    total = sum(path.stat().st_size for path in paths)
    with (
        progress("verify", total=total, unit="bytes") as bar,
        contextlib.closing(encode_all(paths, settings, workers)) as chunks,
    ):
        for encoded in chunks:
            yield from _documents([(encoded.lengths, encoded.ids)])
            bar.advance(encoded.read)


def _documents(chunks: Iterable[tuple[Sequence[int], bytes]]) -> Iterator[bytes]:
    """Each document's ids as bytes."""
    for lengths, ids in chunks:
        total, at = int(sum(lengths)), 0
        size = len(ids) // total if total else 0
        for length in map(int, lengths):
            yield bytes(ids[at : at + length * size])
            at += length * size
