"""From JSONL files to one shard: every row is encoded, in order, by any number of processes, to the same bytes.

Decides which rows are documents and which are set aside; leaves the bytes to `format` and the encoding to `encode`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from toolkit import files
from toolkit import tokenizer as tokenizers
from toolkit.errors import DataError
from toolkit.progress import progress
from toolkit.shards import format, rows
from toolkit.shards.check import ShardInfo
from toolkit.shards.encode import BadRow, Encoded, Settings, encode_all

_HOPELESS_ROWS = 1000
BAD_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class Built(ShardInfo):
    """A shard just written. `bad` holds the first ten rows set aside; all `bad_rows` of them are in `bad_file`."""

    rows: int
    empty: int
    bad_rows: int
    bad: tuple[BadRow, ...]
    bad_file: str
    vocab_size: int
    eod_id: int | None
    bin_sha256: str
    idx_sha256: str
    tokenizer_sha256: str


def build(
    inputs: Sequence[str | Path],
    prefix: str | Path,
    *,
    tokenizer: str | Path,
    append_eod: bool = True,
    text_field: str = "text",
    max_bad_fraction: float = 0.01,
    workers: int = 1,
) -> Built:
    """Write `<prefix>.bin` and `.idx` from the documents of `inputs` (`.jsonl`, `.jsonl.gz`, `.jsonl.zst`), in order.

    One sequence per document, no begin token, `<EOD>` (or else `</s>`) at its end if `append_eod`; empty documents are
    left out. Rows that are not JSON in UTF-8 with a text in `text_field` are set aside, into `<prefix>.bad.jsonl`.
    The bytes do not depend on `workers`. Raises `DataError` if more than `max_bad_fraction` of the rows are bad, if no
    document is left, or if an input is damaged, and `DiskFull`; then no shard is written.
    """
    inputs, folder = [Path(path) for path in inputs], Path(tokenizer)
    rows.check_inputs(inputs)
    if not 0 <= max_bad_fraction <= 1 or workers < 1:
        raise DataError(
            f"max_bad_fraction is {max_bad_fraction} and workers is {workers}",
            do="give a fraction from 0 to 1, and one worker or more",
        )
    settings, vocab_size = settings_of(folder, append_eod=append_eod, text_field=text_field)
    tally = Tally(inputs=inputs, max_bad_fraction=max_bad_fraction)
    with set_aside(prefix) as bad, format.writer(prefix, settings.dtype) as shard:
        fill(shard, bad, tally, [rows.Span(path=path) for path in inputs], settings, workers)
        tally.check(documents=len(shard.lengths))
    return built(prefix, shard, tally, settings, vocab_size)


def settings_of(tokenizer: Path, *, append_eod: bool, text_field: str) -> tuple[Settings, int]:
    """What workers need to know, and the size of the vocabulary."""
    loaded = tokenizers.load(tokenizer)
    eod_id = loaded.eod_id if append_eod else None
    dtype = format.dtype_for(loaded.vocab_size)
    return Settings(tokenizer=tokenizer, eod_id=eod_id, text_field=text_field, dtype=dtype), loaded.vocab_size


def fill(
    shard: format.Writer, bad: SetAside, tally: Tally, spans: Sequence[rows.Span], settings: Settings, workers: int
) -> None:
    """Encode the spans' rows into the shard; what is no document goes to `bad`, and all is counted in `tally`."""
    total = sum((span.path.stat().st_size if span.end is None else span.end) - span.start for span in spans)
    with (
        progress("shards", total=total, unit="bytes") as bar,
        contextlib.closing(encode_all(spans, settings, workers)) as chunks,
    ):
        for encoded in chunks:
            for row, text in encoded.bad:
                bad({"file": row.file, "line": row.line, "why": row.why, "row": text})
            tally.add(encoded)
            shard.add(encoded.lengths, encoded.ids)
            bar.advance(encoded.read, note=f"{len(shard.lengths)} documents, {shard.tokens} tokens")


SetAside = Callable[[Mapping[str, Any]], None]


def bad_file(prefix: str | Path) -> Path:
    return Path(f"{prefix}.bad.jsonl")


@contextlib.contextmanager
def set_aside(prefix: str | Path) -> Iterator[SetAside]:
    """Something to give bad rows to. Their file appears when the block ends well, and only if there were any."""
    path = bad_file(prefix)
    with contextlib.ExitStack() as opened:
        handle: IO[str] | None = None

        def add(row: Mapping[str, Any]) -> None:
            nonlocal handle
            if handle is None:
                handle = opened.enter_context(files.atomic_write(path))
            handle.write(json.dumps(row) + "\n")

        yield add
    if handle is None:
        path.unlink(missing_ok=True)  # of an earlier build


def built(prefix: str | Path, shard: format.Writer, tally: Tally, settings: Settings, vocab_size: int) -> Built:
    """What has just been written at `prefix`."""
    data, index = format.pair(prefix)
    return Built(
        prefix=str(prefix),
        documents=len(shard.lengths),
        tokens=shard.tokens,
        dtype=settings.dtype,
        bytes=data.stat().st_size + index.stat().st_size,
        rows=tally.rows,
        empty=tally.empty,
        bad_rows=tally.bad_rows,
        bad=tuple(tally.bad),
        bad_file=str(bad_file(prefix)) if tally.bad_rows else "",
        vocab_size=vocab_size,
        eod_id=settings.eod_id,
        bin_sha256=shard.sha256,
        idx_sha256=files.sha256_file(index),
        tokenizer_sha256=files.sha256_file(tokenizers.model_file(settings.tokenizer)),
    )


@dataclass(kw_only=True)
class Tally:
    """Counts what became of the rows, and says when too few of them are good.

    Where `from_first` is not set, the rows are not a file's first, and a thousand bad ones say nothing of the rest.
    """

    inputs: list[Path]
    max_bad_fraction: float
    from_first: bool = True
    rows: int = 0
    empty: int = 0
    bad_rows: int = 0
    bad: list[BadRow] = field(default_factory=list)

    def add(self, encoded: Encoded) -> None:
        self.rows += encoded.rows
        self.empty += encoded.empty
        self.bad_rows += len(encoded.bad)
        self.bad += [row for row, _ in encoded.bad[: BAD_SHOWN - len(self.bad)]]
        # Not one good row in so many: the wrong field or file. Reading on for hours would say the same.
        if self.from_first and self.bad_rows == self.rows >= _HOPELESS_ROWS and self.max_bad_fraction < 1:
            self._refuse(f"the first {self.rows} rows are all bad")

    def check(self, *, documents: int) -> None:
        if self.bad_rows > self.max_bad_fraction * self.rows:
            share = f"{self.bad_rows} of {self.rows} rows are bad"
            self._refuse(f"{share}, more than the {self.max_bad_fraction:.3%} allowed")
        if not documents:
            raise DataError(
                "no document in the input",
                where=", ".join(map(str, self.inputs[:3])) + (", ..." if len(self.inputs) > 3 else ""),
                why=f"{self.rows} rows, {self.empty} with an empty text, {self.bad_rows} set aside",
                do="check the stage that made the corpus",
            )

    def _refuse(self, what: str) -> None:
        first = self.bad[0]
        raise DataError(
            what,
            where=f"{first.file}:{first.line}",
            why=f"this is the first: {first.why}",
            do="repair the input, name its text field, or allow a larger share of bad rows",
        )
