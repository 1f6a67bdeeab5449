"""JSON lines as objects, a line at a time, whatever the file holds.

Decides which lines are sound JSON objects and how much of one line is held; leaves their fields to the readers.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from toolkit.corpus.document import BadRow, has_lone_surrogate
from toolkit.corpus.inputs import DamagedStream, chunks

MAX_MIB = 64  # of one line; a full text with its annotations is seldom over 2 MiB
_SAMPLE = 120


def rows(file: Path, max_mib: float = MAX_MIB) -> Iterator[tuple[int, dict[str, Any] | None, BadRow | None]]:
    """(line number from 1, object, None) or (line number, None, bad row) for every line that is not blank.

    The file may be packed (.gz, .zst). A stream that breaks off ends with one bad row; an empty file is one as well.
    """
    number, load = 0, _loader()
    try:
        for number, line in raw(file, max_mib):
            if line is None:
                yield number, None, _bad(file, number, f"the line is longer than {max_mib:g} MiB")
            elif line.strip():
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                value, why = _value(line, load)
                if value is None:
                    yield number, None, _bad(file, number, why, line)
                else:
                    yield number, value, None
    except DamagedStream as err:
        yield number + 1, None, _bad(file, number + 1, str(err))
    else:
        if number == 0:
            yield 0, None, _bad(file, 0, "the file is empty")


def one(file: Path, number: int, line: bytes) -> tuple[dict[str, Any] | None, BadRow | None]:
    """A line that `raw` gave, as an object or a bad row."""
    value, why = _value(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line, _loader())
    return (None, _bad(file, number, why, line)) if value is None else (value, None)


def _loader() -> Callable[[bytes], Any] | None:
    try:
        import orjson
    except ImportError:
        return None
    return orjson.loads


def _value(line: bytes, load: Callable[[bytes], Any] | None) -> tuple[dict[str, Any] | None, str]:
    value = None
    if load is not None:
        with contextlib.suppress(ValueError):
            value = load(line)
    if value is None:
        # The standard library reads a little more (NaN), and what it says is said without the other package as well.
        try:
            value = json.loads(line.decode())
        except UnicodeDecodeError as err:
            return None, f"not UTF-8 (byte {err.start + 1} of the line)"
        except RecursionError:
            return None, "not JSON: nested too deeply"
        except ValueError as err:
            return None, f"not JSON: {err}"
        if b"\\u" in line and has_lone_surrogate(json.dumps(value, ensure_ascii=False)):
            return None, "half of a surrogate pair, which no UTF-8 file can hold"
    if not isinstance(value, dict):
        return None, f"a JSON object was expected, not {type(value).__name__}"
    return value, ""


def _bad(file: Path, number: int, why: str, line: bytes = b"") -> BadRow:
    return BadRow(file=str(file), line=number, why=why, sample=line[:_SAMPLE].decode("utf-8", "replace"))


def raw(file: Path, max_mib: float = MAX_MIB) -> Iterator[tuple[int, bytes | None]]:
    """(line number, bytes), or None in place of a line over `max_mib`, of which no more than that is held.

    For readers that leave most lines unread. Raises `DamagedStream` where a packed file breaks off.
    """
    limit, number, held, over = int(max_mib * 2**20), 1, bytearray(), False
    for piece in chunks(file):
        first, *others = piece.split(b"\n")
        over = over or len(held) + len(first) > limit
        held = bytearray() if over else held + first
        for part in others:
            yield number, None if over else bytes(held)
            number, over = number + 1, len(part) > limit
            held = bytearray() if over else bytearray(part)
    if held or over:
        yield number, None if over else bytes(held)
