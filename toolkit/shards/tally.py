"""What becomes of the rows: counted, the bad ones set aside in a file of their own, and too many of them refused.

Decides when too few rows are good; leaves what makes a row bad to `document`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from toolkit import files
from toolkit.errors import DataError, ShardError
from toolkit.shards.encode import BadRow, Encoded

_HOPELESS_ROWS = 1000
BAD_SHOWN = 10

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


def bad_rows(prefix: Path) -> Iterator[BadRow]:
    try:
        with open(bad_file(prefix), encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                yield BadRow(file=row["file"], line=row["line"], why=row["why"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as err:
        raise ShardError("cannot be read", where=bad_file(prefix), why=str(err), do="build the shards again") from err


@dataclass(kw_only=True)
class Tally:
    """Counts what became of the rows, and says when too few of them are good."""

    inputs: list[Path]
    max_bad_fraction: float
    rows: int = 0
    empty: int = 0
    replaced: int = 0
    bad_rows: int = 0
    bad: list[BadRow] = field(default_factory=list)

    def add(self, encoded: Encoded) -> None:
        self.rows += encoded.rows
        self.empty += encoded.empty
        self.replaced += encoded.replaced
        self.bad_rows += len(encoded.bad)
        self.bad += [row for row, _ in encoded.bad[: BAD_SHOWN - len(self.bad)]]
        # Not one good row in so many: the wrong field or file. Reading on for hours would say the same.
        if self.bad_rows == self.rows >= _HOPELESS_ROWS and self.max_bad_fraction < 1:
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
