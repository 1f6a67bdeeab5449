"""Corpora for tests: reading what a build wrote, and inputs of several kinds of trouble."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from toolkit.cleaning import Duplicates
from toolkit.corpus import Source, zlines

OFF = Duplicates(ids=False, exact=False, near=False)


def documents(out: Path, part: str) -> list[dict[str, Any]]:
    """All rows of `train` or `valid`, in order."""
    return [zlines.loads(line) for path in sorted((out / part).glob("*.zst")) for line in zlines.lines(path)]


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def trouble(folder: Path, size: int = 40) -> list[Source]:
    """Sources with bad rows, licences, duplicates in and across sources, text beyond ASCII, and one that writes itself;
    several files each, so that there are several units when these are small.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in "abcd":
        rows: list[Any] = [
            {
                "id": f"{name}{i}",
                "text": f"note {i} of {name} {_words(i, name)}",
                "license": ("CC0", "cc-by-nc")[i % 5 == 4],
            }
            for i in range(size)
        ]
        rows += [{"id": f"{name}again{i}", "text": f"Note {i}, of b: {_words(i, 'b')}!"} for i in range(3)]
        _write(folder / "notes" / f"{name}.jsonl", rows, b"{bad" if name == "b" else b"")
    more = [{"id": f"m{i}", "text": f"é \u2028 {i} {_words(i, 'm')}", "date": "2020-01"} for i in range(size)]
    _write(folder / "more.jsonl", [*more, {"id": "a3", "text": "other words under an id of the notes"}], b"[1]")
    return [
        Source(kind="jsonl", paths=(str(folder / "notes"),), subset="notes"),
        Source(kind="jsonl", paths=(str(folder / "more.jsonl"),), subset="more", valid_fraction=0.5),
        Source(kind="world", subset="world", options={"documents_per_entity": 1}),
    ]


def _words(number: int, salt: str) -> str:
    return " ".join(f"{salt}{number * 7919 + i * i}" for i in range(60))


def _write(path: Path, rows: list[Any], bad: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row).encode() for row in rows]
    if bad:
        lines.insert(len(lines) // 2, bad)
    path.write_bytes(b"".join(line + b"\n" for line in lines))
