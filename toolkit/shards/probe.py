"""Texts of the input on which an engine is tried before it encodes the rest. Decides which and how many."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Sequence
from pathlib import Path

from toolkit.shards.document import document
from toolkit.shards.rows import blocks

_SAMPLES_AT_LEAST, _SAMPLES_AT_MOST, _SAMPLE_LENGTH = 32, 512, 4000
_SEARCHED, _SAMPLED_ROW = 32 << 20, 4 << 20  # bytes read for the sample, in all and for a row


def sample(inputs: Sequence[Path], text_field: str) -> list[str]:
    """Texts from random places of `inputs`, the same each time: more of larger inputs, none over 4,000 characters.

    What cannot be read is left out; who encodes will say it.
    """
    rng = random.Random(0)
    sizes = [_size(path) for path in inputs]
    count = min(max(sum(sizes) >> 20, _SAMPLES_AT_LEAST), _SAMPLES_AT_MOST)
    texts: list[str] = []
    searched = 0
    picked = sorted(rng.choices(range(len(inputs)), weights=[size + 1 for size in sizes], k=count)) if inputs else []
    for number in dict.fromkeys(picked):
        path, wanted = inputs[number], picked.count(number)
        found: list[bytes] = []
        with contextlib.suppress(Exception):
            if path.suffix == ".jsonl":
                for _ in range(wanted if searched < _SEARCHED else 0):
                    found.append(_line_at(path, int(rng.random() * sizes[number])))
                    searched += len(found[-1])
            elif searched < _SEARCHED:
                for block in blocks(path, text_field):
                    lines = (block.data or b"").split(b"\n")
                    found += rng.sample(lines, min(wanted, len(lines)))
                    searched += len(block.data or b"")
                    if searched >= _SEARCHED:
                        break
                found = rng.sample(found, min(wanted, len(found)))
        for row in found:
            text, why, _ = document(row, text_field)
            if why and len(row) == _SAMPLED_ROW:  # cut: then as it stands in the file
                text, why = row.decode("utf-8", "ignore"), ""
            if not why:
                at = rng.randrange(max(1, len(text) - _SAMPLE_LENGTH + 1))
                texts.append(text[at : at + _SAMPLE_LENGTH])
    return texts


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _line_at(path: Path, at: int) -> bytes:
    """The first whole line after `at`, or the first of all if there is none; what is very long is cut."""
    with open(path, "rb") as raw:
        raw.seek(at)
        raw.readline(_SAMPLED_ROW)
        row = raw.readline(_SAMPLED_ROW)
        if not row:
            raw.seek(0)
            row = raw.readline(_SAMPLED_ROW)
    return row
