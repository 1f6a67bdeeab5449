"""Shards that exist: what they hold, whether they are whole, and their documents as ids and as text.

Decides when a pair is consistent in itself; leaves whether it is the right one (its hashes) to who recorded them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from toolkit import tokenizer as tokenizers
from toolkit.errors import ShardError, UsageError
from toolkit.shards.format import CODES, HEADER, MAGIC, VERSION, numpy_dtype, pair

_BLOCK = 1 << 20
_AGAIN = "build the shard again, or copy both files again"


@dataclass(frozen=True, kw_only=True)
class ShardInfo:
    """What a pair holds: documents, tokens, numpy name of the ids' type, bytes of both files together."""

    prefix: str
    documents: int
    tokens: int
    dtype: str
    bytes: int


def info(prefix: str | Path) -> ShardInfo:
    """What the pair holds, by its index and both files' sizes; ids are not read. Raises `ShardError` as `verify`."""
    return Index(prefix).info()


def verify(prefix: str | Path, *, vocab_size: int | None = None) -> ShardInfo:
    """Check the pair: sizes agree, pointers and bounds are in order, each id is in the vocabulary if its size is given.

    Raises `ShardError` for a missing half, another format, a truncated or overlong half (expected and found bytes), an
    index that contradicts itself and an id out of range. Reads `.bin` once, in blocks, if `vocab_size` is given.
    """
    index = Index(prefix)
    index.check_order()
    if vocab_size is not None:
        index.check_ids(vocab_size)
    return index.info()


def read(prefix: str | Path, n: int) -> list[int]:
    """The ids of document `n`, from 0. Raises `UsageError` if there is none, `ShardError` for a damaged pair."""
    return Index(prefix).document(n)


def show(prefix: str | Path, n: int, *, tokenizer: str | Path) -> str:
    """The text of document `n` with control tokens by name. Raises as `read`, and `DataError` for an unknown id."""
    ids = read(prefix, n)
    return tokenizers.load(tokenizer).decode(ids, control=True)


class Index:
    """An opened pair whose files' sizes agree; `lengths`, `pointers` and `bounds` are views of the file."""

    def __init__(self, prefix: str | Path) -> None:
        import numpy as np

        self.prefix = prefix
        self.data_path, self.path = pair(prefix)
        for path, other in ((self.data_path, self.path), (self.path, self.data_path)):
            if not path.is_file():
                found = f"only {other.name} is there" if other.is_file() else "neither half is there"
                raise ShardError("no such file", where=path, why=found, do="build the shard, or check its prefix")
        self.bytes = self.path.stat().st_size
        with open(self.path, "rb") as handle:
            head = handle.read(HEADER.size)
        if not head.startswith(MAGIC):
            if MAGIC.startswith(head):
                raise self._size(self.path, f"at least {HEADER.size}", self.bytes)
            raise ShardError("not a Megatron index", where=self.path, why=f"it begins with {head[:9]!r}", do=_AGAIN)
        if len(head) < HEADER.size:
            raise self._size(self.path, f"at least {HEADER.size}", self.bytes)
        _, version, code, sequences, bounds = HEADER.unpack(head)
        if version != VERSION or code not in CODES:
            raise ShardError(f"index version {version} with dtype code {code} is not known", where=self.path, do=_AGAIN)
        expected = HEADER.size + 12 * sequences + 8 * bounds
        if self.bytes != expected:
            raise self._size(self.path, f"{expected:,}", self.bytes)
        if sequences == 0 or bounds < 2:
            raise ShardError("holds no documents", where=self.path, do=_AGAIN)
        self.dtype = CODES[code]
        whole = np.memmap(self.path, mode="r", dtype=np.uint8)[HEADER.size :]
        self.lengths = whole[: 4 * sequences].view("<i4")
        self.pointers = whole[4 * sequences : 12 * sequences].view("<i8")
        self.bounds = whole[12 * sequences :].view("<i8")
        self.tokens = int(self.lengths.sum(dtype=np.int64))
        expected = self.tokens * numpy_dtype(self.dtype).itemsize
        found = self.data_path.stat().st_size
        if found != expected:
            raise self._size(self.data_path, f"{expected:,}", found)
        self.bytes += found

    def info(self) -> ShardInfo:
        documents = len(self.bounds) - 1
        return ShardInfo(
            prefix=str(self.prefix), documents=documents, tokens=self.tokens, dtype=self.dtype, bytes=self.bytes
        )

    def check_order(self) -> None:
        """Lengths are not negative, each pointer is where the sequence before ends, bounds rise from 0 to the last."""
        import numpy as np

        itemsize, offset = numpy_dtype(self.dtype).itemsize, 0
        for at in range(0, len(self.lengths), _BLOCK):
            lengths = self.lengths[at : at + _BLOCK].astype(np.int64)
            ends = offset + np.cumsum(lengths) * itemsize
            wrong = np.flatnonzero((lengths < 0) | (self.pointers[at : at + _BLOCK] != ends - lengths * itemsize))
            if len(wrong):
                n = int(wrong[0])
                expected = int(ends[n] - lengths[n] * itemsize)
                self._contradiction(
                    f"sequence {at + n} has {int(lengths[n])} tokens from byte {int(self.pointers[at + n])}, "
                    f"expected from byte {expected}"
                )
            offset = int(ends[-1])
        if self.bounds[0] != 0 or self.bounds[-1] != len(self.lengths) or bool((np.diff(self.bounds) < 0).any()):
            self._contradiction(f"the document bounds do not rise from 0 to {len(self.lengths)}")

    def check_ids(self, vocab_size: int) -> None:
        for at in range(0, self.tokens, 4 * _BLOCK):
            ids = self._ids(at, min(4 * _BLOCK, self.tokens - at))
            low, high = int(ids.min()), int(ids.max())
            if low < 0 or high >= vocab_size:
                raise ShardError(
                    f"holds token id {low if low < 0 else high}, outside the vocabulary of {vocab_size}",
                    where=self.data_path,
                    do="use the tokenizer that built it, or build it again",
                )

    def document(self, n: int) -> list[int]:
        documents = len(self.bounds) - 1
        if not 0 <= n < documents:
            raise UsageError(f"there is no document {n}", where=self.prefix, why=f"it has 0 to {documents - 1}")
        self.check_order()
        first, last = int(self.bounds[n]), int(self.bounds[n + 1])
        if first == last:
            return []
        start = int(self.pointers[first]) // numpy_dtype(self.dtype).itemsize
        return self._ids(start, int(self.lengths[first:last].sum())).tolist()

    def pieces(self, start: int, count: int) -> Iterator[tuple[int, int, list[int]]]:
        """(document, its token that comes first, ids) of each stretch of the tokens from `start` on, `count` in all."""
        import numpy as np

        self.check_order()
        ends = np.cumsum(self.lengths, dtype=np.int64)  # one sequence a document, as `build` writes them
        document = int(np.searchsorted(ends, start, side="right"))
        while count > 0 and document < len(ends):
            begin = int(ends[document]) - int(self.lengths[document])
            taken = min(count, int(ends[document]) - start)
            yield document, start - begin, self._ids(start, taken).tolist()
            start, count, document = start + taken, count - taken, document + 1

    def _ids(self, start: int, count: int):
        import numpy as np

        dtype = numpy_dtype(self.dtype)
        return np.fromfile(self.data_path, dtype=dtype, count=count, offset=start * dtype.itemsize)

    def _size(self, path: Path, expected: str, found: int) -> ShardError:
        return ShardError(
            f"expected {expected} bytes, found {found:,}",
            where=path,
            why="it is truncated or not this pair's half",
            do=_AGAIN,
        )

    def _contradiction(self, what: str) -> None:
        raise ShardError("the index contradicts itself", where=self.path, why=what, do=_AGAIN)
