"""Inputs while they are read: what they are by their content, and how fast they become tokens.

Decides when an input was changed under the reader's hands; leaves its rows to `rows`.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from toolkit import files
from toolkit.errors import DataError
from toolkit.progress import Progress, progress
from toolkit.shards import blend
from toolkit.shards.encode import Encoded, log_line
from toolkit.shards.fast import Engine


class Reading:
    """Inputs by their content, hashed one after the other while they are encoded."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._before = {path: _stat(path) for path in paths}
        self._found: list[str] = []
        self._thread = threading.Thread(target=self._hash, daemon=True)
        self._thread.start()

    def told(self) -> list[blend.Input]:
        """Raises `DataError` if one was changed meanwhile."""
        self._thread.join()
        for number, (path, before) in enumerate(self._before.items()):
            if number >= len(self._found) or _stat(path) != before:
                raise DataError("was changed while it was read", where=path, do="run it again when nobody writes it")
        pairs = zip(self._before.items(), self._found, strict=True)
        return [blend.Input(name=path.name, sha256=found, bytes=size) for (path, (size, _)), found in pairs]

    def _hash(self) -> None:
        with contextlib.suppress(OSError):
            for path in self._before:
                self._found.append(files.sha256_file(path))


def _stat(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError as err:
        raise DataError(f"cannot be read: {err.strerror}", where=path, do="check its permissions") from err
    return found.st_size, found.st_mtime_ns


class Bar:
    """Bytes of the inputs, with what they became a second."""

    def __init__(self, bar: Progress) -> None:
        self._bar, self._start, self._read, self._tokens, self._documents = bar, time.monotonic(), 0, 0, 0

    def advance(self, encoded: Encoded) -> None:
        self._read += encoded.read
        self._documents += len(encoded.lengths)
        self._tokens += int(encoded.lengths.sum())
        spent = max(time.monotonic() - self._start, 1e-9)
        rates = f"{self._read / spent / 1e6:.1f} MB/s, {self._tokens / spent:,.0f} tokens/s"
        self._bar.advance(encoded.read, note=f"{rates}, {self._documents} documents, {self._tokens} tokens")


@contextlib.contextmanager
def progress_of(inputs: Sequence[Path], engine: Engine) -> Iterator[Bar]:
    print(log_line(engine), file=sys.stderr, flush=True)
    with progress("shards", total=sum(path.stat().st_size for path in inputs), unit="bytes") as bar:
        yield Bar(bar)
