"""Rows to token ids, chunk by chunk, in this process or in several; the chunks come back in the order of the input.

Decides what makes a row a document; leaves counting and writing to `build`.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit import tokenizer as tokenizers
from toolkit.errors import ShardError
from toolkit.shards.format import numpy_dtype
from toolkit.shards.rows import MAX_ROW_BYTES, rows

_CHUNK_ROWS, _CHUNK_BYTES = 512, 1 << 20
_IN_FLIGHT = 3  # chunks for each worker: one in work, one on the way in, one on the way out
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
    """Consecutive rows of one file as (line, bytes, or None if too long); `read` bytes of the file led to them."""

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


def encode_all(inputs: Sequence[Path], settings: Settings, workers: int) -> Iterator[Encoded]:
    """Encode every chunk of `inputs`, in order. Raises `ShardError` if a worker process dies."""
    if workers == 1:
        tokenizer = tokenizers.load(settings.tokenizer)
        for path in inputs:
            for chunk in _chunks(path):
                yield encode(chunk, tokenizer, settings)
        return
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    # Spawned, not forked: the process that builds may have threads (progress, torch), and their locks would come along.
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start, initargs=(settings,))
    waiting = deque()
    try:
        for path in inputs:
            for chunk in _chunks(path):
                waiting.append(pool.submit(_work, chunk))
                if len(waiting) >= _IN_FLIGHT * workers:
                    yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as err:
        raise ShardError(
            "a worker process died", why="most often the machine ran out of memory", do="use fewer workers"
        ) from err
    finally:
        pool.shutdown(cancel_futures=True)


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


def _chunks(path: Path) -> Iterator[Chunk]:
    taken, size, before, at = [], 0, 0, 0
    for number, row, at in rows(path):
        taken.append((number, row))
        size += len(row or b"")
        if len(taken) >= _CHUNK_ROWS or size >= _CHUNK_BYTES:
            yield Chunk(file=str(path), rows=taken, read=at - before)
            taken, size, before = [], 0, at
    if taken:
        yield Chunk(file=str(path), rows=taken, read=at - before)


_worker: tuple[tokenizers.Tokenizer, Settings] | None = None


def _start(settings: Settings) -> None:
    """Prepare a worker process: Ctrl-C is the parent's to handle, and a killed parent leaves no orphans."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = tokenizers.load(settings.tokenizer), settings


def _end_with_parent() -> None:
    from multiprocessing import parent_process

    parent_process().join()
    os._exit(1)


def _work(chunk: Chunk) -> Encoded:
    return encode(chunk, *_worker)
