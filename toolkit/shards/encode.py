"""Rows to token ids, chunk by chunk, in this process or in several; the chunks come back in the order of the input.

Decides what makes a row a document; leaves counting and writing to `build`.
"""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit import tokenizer as tokenizers
from toolkit.errors import ShardError
from toolkit.shards.format import numpy_dtype
from toolkit.shards.rows import MAX_ROW_BYTES, Span, rows

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_CHUNK_ROWS, _CHUNK_BYTES = 512, 1 << 20
_TEXT_KEPT = 2000


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What every worker needs to know."""

    tokenizer: Path
    eod_id: int | None
    text_field: str
    dtype: str


@dataclass(frozen=True, kw_only=True)
class BadRow:
    """A row that is no document: its file, its line from 1, and why."""

    file: str
    line: int
    why: str


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Consecutive rows of one span as (line, bytes, or None if too long); `read` bytes of the file led to them."""

    file: str
    rows: list[tuple[int, bytes | None]]
    read: int


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A chunk's documents (`lengths` in tokens, `ids` one after the other) and its bad rows with the start of each."""

    rows: int
    read: int
    lengths: list[int]
    ids: bytes
    empty: int
    bad: list[tuple[BadRow, str]]


def encode_all(inputs: Sequence[Span], settings: Settings, workers: int) -> Iterator[Encoded]:
    """Encode every chunk of `inputs`, in order. Raises `ShardError` if a worker process dies."""
    if workers == 1:
        tokenizer = tokenizers.load(settings.tokenizer)
        for span in inputs:
            for chunk in _chunks(span):
                yield encode(chunk, tokenizer, settings)
        return
    with _Workers(settings, workers) as pool:
        for span in inputs:
            for chunk in _chunks(span):
                yield from pool.give(chunk)
        yield from pool.rest()


def encode(chunk: Chunk, tokenizer: tokenizers.Tokenizer, settings: Settings) -> Encoded:
    """Encode one chunk."""
    import numpy as np

    texts, bad = [], []
    for line, row in chunk.rows:
        text, why = document(row, settings.text_field)
        if why:
            shown = (row or b"")[:_TEXT_KEPT].decode("utf-8", "replace")
            bad.append((BadRow(file=chunk.file, line=line, why=why), shown))
        else:
            texts.append(text)
    end = [] if settings.eod_id is None else [settings.eod_id]
    documents = [ids + end for ids in tokenizer.encode_batch(texts) if ids]
    ids = np.array([number for document in documents for number in document], dtype=numpy_dtype(settings.dtype))
    return Encoded(
        rows=len(chunk.rows),
        read=chunk.read,
        lengths=[len(document) for document in documents],
        ids=ids.tobytes(),
        empty=len(texts) - len(documents),
        bad=bad,
    )


def document(row: bytes | None, text_field: str) -> tuple[str, str]:
    """(text, "") of a good row, ("", why) of a bad one. None stands for a row over `MAX_ROW_BYTES`."""
    if row is None:
        return "", f"longer than {MAX_ROW_BYTES >> 20} MiB"
    try:
        value = json.loads(row.decode("utf-8"))
    except UnicodeDecodeError as err:
        return "", f"not UTF-8: {err.reason} at byte {err.start}"
    except (ValueError, RecursionError) as err:
        return "", f"not JSON: {err}"
    if not isinstance(value, dict):
        return "", f"not a JSON object but a {type(value).__name__}"
    if text_field not in value:
        return "", f"no field '{text_field}' among {', '.join(sorted(value)[:12]) or 'none'}"
    text = value[text_field]
    if not isinstance(text, str):
        return "", f"field '{text_field}' is not a string but a {type(text).__name__}"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as err:
        return "", f"not Unicode text: a lone surrogate at character {err.start}"
    return text, ""


def _chunks(span: Span) -> Iterator[Chunk]:
    taken, size, before, at = [], 0, 0, 0
    for number, row, at in rows(span):
        taken.append((number, row))
        size += len(row or b"")
        if len(taken) >= _CHUNK_ROWS or size >= _CHUNK_BYTES:
            yield Chunk(file=str(span.path), rows=taken, read=at - before)
            taken, size, before = [], 0, at
    if taken:
        yield Chunk(file=str(span.path), rows=taken, read=at - before)


class _Workers:
    """Processes that take chunks in turn, so that answers come in order; each has a pipe of its own and one chunk.

    No lock or queue is shared: a worker that is killed is an end of file on its pipe, and so is a killed parent.
    """

    def __init__(self, settings: Settings, count: int) -> None:
        from multiprocessing import get_context

        # Spawned, not forked: whoever builds may have threads (progress, torch), and their locks would come along.
        context = get_context("spawn")
        self._turn, self._team = 0, []
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, settings), daemon=True)
            self._team.append((process, ours))
            process.start()
            theirs.close()
        self._busy = [False] * count

    def __enter__(self) -> _Workers:
        return self

    def give(self, chunk: Chunk) -> Iterator[Encoded]:
        """Hand over a chunk, and yield what the worker whose turn it is had in work."""
        yield from self._answer()
        try:
            self._team[self._turn][1].send(chunk)
        except OSError as err:
            raise _died() from err
        self._busy[self._turn] = True
        self._turn = (self._turn + 1) % len(self._team)

    def rest(self) -> Iterator[Encoded]:
        for _ in self._team:
            yield from self._answer()
            self._turn = (self._turn + 1) % len(self._team)

    def _answer(self) -> Iterator[Encoded]:
        if self._busy[self._turn]:
            self._busy[self._turn] = False
            try:
                answer = self._team[self._turn][1].recv()
            except (EOFError, OSError) as err:
                raise _died() from err
            if isinstance(answer, Exception):
                raise answer
            yield answer

    def __exit__(self, *_: object) -> None:
        for process, pipe in self._team:
            pipe.close()
            process.terminate()
        for process, _pipe in self._team:
            process.join()


def _died() -> ShardError:
    return ShardError(
        "a worker process died",
        why="most often the machine ran out of memory",
        do="use fewer workers, then run it again",
    )


def _work(pipe: Connection, settings: Settings) -> None:
    """The life of a worker process; Ctrl-C is for its parent to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, OSError):  # the parent is gone, or needs no more
        try:
            tokenizer = tokenizers.load(settings.tokenizer)
            while True:
                pipe.send(encode(pipe.recv(), tokenizer, settings))
        except (EOFError, OSError):
            raise
        except Exception as err:  # for the parent to raise
            pipe.send(err)
