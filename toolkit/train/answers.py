"""The rows of a finetuning on disk, and the order in which a training takes them.

Decides the files' form and the shuffle; leaves what the rows say to whoever writes them, and batches to `answer_data`.
`NAME.bin` holds all token ids (int32, little-endian), `NAME.npy` one line a row: where its ids begin and end there, and
where its answer begins.
"""

from __future__ import annotations

import array
import functools
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit import files
from toolkit.errors import DataError

if TYPE_CHECKING:
    import numpy as np

_BLOCK = 1 << 20  # ids that are written at once


def write(path: str | Path, rows: Iterable[tuple[Sequence[int], int]]) -> int:
    """Write `path`.bin and `path`.npy of (ids, where the answer begins); returns how many rows. Raises `DiskFull`."""
    import numpy as np

    lines, at, block = array.array("q"), 0, array.array("i")
    with files.atomic_write(Path(f"{path}.bin"), "wb") as out:
        for ids, answer in rows:
            lines.extend((at, at + len(ids), at + answer))
            block.extend(ids)
            at += len(ids)
            if len(block) >= _BLOCK:
                _flush(block, out)
        _flush(block, out)
    save_table(path, np.array(lines, dtype=np.int64).reshape(-1, 3))
    return len(lines) // 3


def _flush(block: array.array[int], out: Any) -> None:
    if sys.byteorder == "big":
        block.byteswap()
    out.write(block.tobytes())
    del block[:]


def save_table(path: str | Path, table: np.ndarray) -> None:
    import numpy as np

    with files.atomic_write(Path(f"{path}.npy"), "wb") as out:
        np.save(out, table, allow_pickle=False)


def repeated(table: np.ndarray, weight: float, seed: int) -> np.ndarray:
    """Each line of `table` as often as `weight` says; of its fraction, as many lines as that makes are drawn."""
    import numpy as np

    whole, rest = int(weight), round((weight - int(weight)) * len(table))
    drawn = np.sort(np.random.default_rng(seed).permutation(len(table))[:rest])
    return np.concatenate([*[table] * whole, table[drawn]])


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows that can be read by number: ids, and how many of them come before the answer."""

    path: Path
    tokens: np.ndarray  # int32, of all rows
    table: np.ndarray  # int64 [rows, 3]

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, number: int) -> tuple[np.ndarray, int]:
        begin, end, answer = (int(value) for value in self.table[number])
        return self.tokens[begin:end], answer - begin


def read(path: str | Path) -> Rows:
    """What `write` wrote, without reading it all. Raises `DataError` for files that are missing or damaged."""
    import numpy as np

    place = Path(f"{path}.npy")
    try:
        table = np.load(place, allow_pickle=False)
        size = Path(f"{path}.bin").stat().st_size
        whole = table.ndim == 2 and table.shape[1] == 3 and table.dtype == np.int64
        if not whole or (len(table) and not _sound(table, size)):
            raise ValueError(f"its lines do not fit {size:,} bytes of ids")
        tokens = np.memmap(f"{path}.bin", dtype="<i4", mode="r") if size else np.empty(0, "<i4")
    except (OSError, ValueError, EOFError) as err:
        raise DataError("finetuning rows that cannot be read", where=place, why=str(err), do="run it again") from None
    return Rows(path=Path(path), tokens=tokens, table=table)


def _sound(table: np.ndarray, size: int) -> bool:
    begin, end, answer = table.T
    return bool((begin >= 0).all() and (begin < answer).all() and (answer < end).all() and (end * 4 <= size).all())


@functools.lru_cache(maxsize=4)
def shuffle(length: int, seed: int, epoch: int) -> np.ndarray:
    """The order of the rows in an epoch: all of them once."""
    import numpy as np

    return np.random.default_rng([seed, epoch]).permutation(length)


def at(position: int, length: int, seed: int) -> int:
    """The number of the row that stands at `position` of the training, counted over all epochs."""
    return int(shuffle(length, seed, position // length)[position % length])
