"""Rows to token ids, block by block, in this process or in several; the blocks come back in the order of the input.

Decides in which order what is encoded; leaves what a document is to `document`, the engine to `fast`, how bytes travel
to `pool`, counting and writing to `build`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from toolkit import tokenizer as tokenizers
from toolkit.shards import fast, rows
from toolkit.shards.document import document
from toolkit.shards.fast import Engine
from toolkit.shards.format import numpy_dtype
from toolkit.shards.pool import Made, Pool, Work
from toolkit.shards.probe import sample
from toolkit.shards.rows import blocks
from toolkit.tokenizer import Tags, chosen

_TEXT_KEPT = 2000


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How documents become ids; `tags` are the added tokens that a text may name (None: all but control names)."""

    tokenizer: Path
    eod_id: int | None
    text_field: str
    dtype: str
    tags: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class BadRow:
    """A row that is no document: its file, its line from 1, and why."""

    file: str
    line: int
    why: str


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Consecutive rows of input number `input`: `lengths` of its documents in tokens (int32 array), `ids` one document
    after the other, and the bad rows with the start of each. `read` bytes of the input led to them.

    In `replaced` of the documents was what no Unicode text can hold, now U+FFFD.
    """

    input: int
    rows: int
    read: int
    lengths: Any
    ids: bytes
    empty: int
    replaced: int
    bad: list[tuple[BadRow, str]]


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What a worker is told."""

    settings: Settings
    engine: Engine
    tags: Mapping[str, int]


class Encoder:
    """Encodes the rows of `inputs`: a context, then an iterator of `Encoded`, once. `engine` says who encodes.

    The ids do not depend on the engine nor on the number of `workers`. Raises `DataError` for a damaged tokenizer or
    input, and `ShardError` if a worker process dies.
    """

    engine: Engine

    def __init__(self, inputs: Sequence[Path], settings: Settings, workers: int) -> None:
        self._inputs, self._settings, self._workers = inputs, settings, workers

    def __enter__(self) -> Encoder:
        with contextlib.ExitStack() as stack:
            # Workers start, load the engine and encode first blocks while it is tried on a sample. Nothing that they
            # made is given out before.
            pool = stack.enter_context(Pool(self._workers, ready)) if self._workers > 1 else None
            tokenizer = tokenizers.load(self._settings.tokenizer)
            names = self._settings.tags
            tags = tokenizer.tags if names is None else chosen(tokenizer.added, names)
            engine = fast.candidate(tokenizer)
            plan = _Plan(settings=self._settings, engine=engine, tags=dict(tags.ids))
            answers = pool and self._spread(plan, pool)
            texts = sample(self._inputs, self._settings.text_field)
            self.engine, encode = fast.prove(engine, tokenizer, texts, tags)
            plan = replace(plan, engine=self.engine)
            if pool and self.engine.name != engine.name:
                stack.close()
                answers = self._spread(plan, stack.enter_context(Pool(self._workers, ready)))
            self._answers, self._stack = answers or self._here(plan, encode), stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _spread(self, plan: _Plan, pool: Pool) -> Iterator[tuple[Any, Made]]:
        pool.begin(plan)
        return pool.map(self._blocks())

    def _here(self, plan: _Plan, encode: fast.Encode) -> Iterator[tuple[Any, Made]]:
        work = prepare(plan, encode)
        return ((label, work(lines, first)) for label, lines, first in self._blocks())

    def _blocks(self) -> Iterator[tuple[Any, bytes | None, int]]:
        for number, path in enumerate(self._inputs):
            for block in blocks(path, self._settings.text_field):
                yield (number, str(path), block.read), block.data, block.first

    def __iter__(self) -> Iterator[Encoded]:
        for (number, file, read), made in self._answers:
            yield _encoded(number, file, read, made)


def encode_all(inputs: Sequence[Path], settings: Settings, workers: int) -> Iterator[Encoded]:
    """`Encoder` for who needs not know the engine."""
    with Encoder(inputs, settings, workers) as encoder:
        yield from encoder


def log_line(engine: Engine) -> str:
    """What to tell people of the engine."""
    if not engine.why:
        return f"encoding with {engine.name} {engine.version}: the reference's ids on {engine.compared:,} characters"
    return f"encoding with {engine.name} {engine.version}, the slow reference: {engine.why}"


def _encoded(number: int, file: str, read: int, made: Made) -> Encoded:
    import numpy as np

    count, empty, replaced, bad = made.said
    return Encoded(
        input=number,
        rows=count,
        read=read,
        lengths=np.frombuffer(made.made[0], dtype="<i4"),
        ids=made.made[1],
        empty=empty,
        replaced=replaced,
        bad=[(BadRow(file=file, line=line, why=why), shown) for line, why, shown in bad],
    )


def ready() -> Callable[[_Plan], Work]:
    """What a worker does before it knows its plan."""
    import numpy  # noqa: F401

    _loads()
    with contextlib.suppress(ImportError):
        import gigatoken  # noqa: F401
    return prepare


def _loads() -> Callable[[bytes], Any]:
    """What reads good rows quickly; all others, and all where orjson is missing, are for `document`."""
    try:
        import orjson

        return orjson.loads
    except ImportError:
        return lambda row: None


def prepare(plan: _Plan, stretch: fast.Encode | None = None) -> Work:
    """What a worker does with a block: (rows, empty, replaced, bad rows), and lengths and ids as bytes.

    `stretch` is the plan's engine where it is loaded already.
    """
    import numpy as np

    loads = _loads()
    settings, tags = plan.settings, Tags(ids=plan.tags)
    stretch = stretch or fast.load(plan.engine, settings.tokenizer)
    rest = stretch.rest if isinstance(stretch, fast.Gigatoken) else lambda: None
    dtype, name = numpy_dtype(settings.dtype), settings.text_field
    tag = {text: np.array([number], dtype=np.uint32) for text, number in tags.ids.items()}
    end = None if settings.eod_id is None else np.array([settings.eod_id], dtype=np.uint32)

    def work(data: bytes | None, first: int) -> Made:
        parts, lengths, bad = [], [], []
        count = empty = replaced = 0
        for line, row in enumerate([None] if data is None else data.split(b"\n"), first):
            if row is not None and not row.strip():
                continue
            count += 1
            try:
                text = loads(row)[name]
                sound = type(text) is str and len(row) <= rows.MAX_ROW_BYTES
            except Exception:  # whatever it is, the slow way says it
                sound = False
            if not sound:
                text, why, mended = document(row, name)
                replaced += mended
                if why:
                    bad.append((line, why, (row or b"")[:_TEXT_KEPT].decode("utf-8", "replace")))
                    continue
            length = 0
            for i, piece in enumerate(tags.split(text)):  # text and tags alternate
                if i % 2:
                    ids = tag[piece]
                elif piece:
                    ids = np.asarray(stretch(piece), dtype=np.uint32)
                else:
                    continue
                parts.append(ids)
                length += len(ids)
            if not length:
                empty += 1
                continue
            if end is not None:
                parts.append(end)
                length += 1
            lengths.append(length)
        ids = np.concatenate(parts, dtype=dtype, casting="unsafe").tobytes() if parts else b""
        rest()
        return Made((count, empty, replaced, bad), (np.array(lengths, dtype="<i4").tobytes(), ids))

    return work
