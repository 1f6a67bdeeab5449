"""Builds a corpus folder from sources, whole or not at all; in one go, or of parts that were made source by source.

Decides what is written and what stands beside it in the report; leaves the rules to `sift`, counting to `tally`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit import files
from toolkit.corpus import licence
from toolkit.corpus.sift import Rules, Sifted, Source, sift
from toolkit.errors import DataError, RecipeError
from toolkit.progress import progress

_STATE = "sifted.json"
_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class CorpusReport:
    """Counts of documents; `removed` is rule -> number, and documents_in = documents_out + its sum.

    The whole of it, with examples and rows set aside, is `report.json` in `out`.
    """

    out: Path
    documents_in: int
    documents_out: int
    train: int
    valid: int
    set_aside: int
    characters: int
    removed: Mapping[str, int]
    unknown_licence: int


def build(
    *,
    sources: Sequence[Source],
    out: str | Path,
    seed: int,
    valid_fraction: float,
    allow_noncommercial: bool = False,
    max_bad_fraction: float = 0.01,
    parts: Mapping[int, Path] | None = None,
) -> CorpusReport:
    """Write `out/train.jsonl`, `out/valid.jsonl` and `out/report.json`; a corpus that stood there is replaced last.

    A document validates when a hash of `seed` and its id falls below `valid_fraction`; should that leave one part
    empty, the nearest document changes sides. `parts` gives, by the number of a source from 0, the folder that
    `build_part` made of it with the same values; the bytes are the same with it and without. Raises `DataError` for
    missing or empty input, for no documents left, and when more than `max_bad_fraction` of a source's rows cannot be
    read; `RecipeError` for impossible values.
    """
    out = Path(out).absolute()
    _check(sources, out, valid_fraction, max_bad_fraction, mark="report.json")
    settings = {"seed": seed, "valid_fraction": valid_fraction, "allow_noncommercial": allow_noncommercial}
    settings["max_bad_fraction"] = max_bad_fraction
    with files.atomic_folder(out) as folder:
        found = _fill(folder, sources, Rules(**settings), parts or {})
        tally = found.tally
        if tally.kept == 0:
            reasons = ", ".join(f"{rule} {count}" for rule, count in tally.removed.items())
            raise DataError(
                "no documents are left",
                where=", ".join(str(s.path or s.kind) for s in sources),
                why=f"all {tally.read} were removed ({reasons})",
                do="allow non-commercial licences, if your use permits it" if tally.removed["licence"] else "",
            )
        moved = _fill_empty_part(folder, found, valid_fraction)
        settings["sources"] = [_described(source) for source in sources]
        files.write_json(folder / "report.json", {**settings, **tally.as_dict(), "moved": moved})
    return CorpusReport(
        out=out,
        documents_in=tally.read,
        documents_out=tally.kept,
        train=tally.part("train"),
        valid=tally.part("valid"),
        set_aside=tally.removed["bad_row"],
        characters=tally.characters,
        removed=dict(tally.removed),
        unknown_licence=tally.licences[licence.UNKNOWN],
    )


def build_part(
    *,
    source: Source,
    out: str | Path,
    seed: int,
    valid_fraction: float,
    allow_noncommercial: bool = False,
    max_bad_fraction: float = 0.01,
) -> int:
    """One source's share of a corpus as the folder `out`, for `build`; returns how many documents it kept.

    Raises as `build` does, but for a source of which nothing is left: the others may have documents.
    """
    out = Path(out).absolute()
    _check([source], out, valid_fraction, max_bad_fraction, mark=_STATE)
    rules = Rules(
        seed=seed,
        valid_fraction=valid_fraction,
        allow_noncommercial=allow_noncommercial,
        max_bad_fraction=max_bad_fraction,
    )
    with files.atomic_folder(out) as folder:
        found = _fill(folder, [source], rules, {})
        files.write_json(folder / _STATE, found.as_state())
    return found.tally.kept


def _described(source: Source) -> dict[str, Any]:
    return {**dataclasses.asdict(source), "path": str(source.path or "")}


def _check(sources: Sequence[Source], out: Path, valid_fraction: float, max_bad_fraction: float, *, mark: str) -> None:
    if not sources:
        raise RecipeError("a corpus needs at least one source")
    for name, value, below in (("valid_fraction", valid_fraction, 1), ("max_bad_fraction", max_bad_fraction, math.inf)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < below or value > 1:
            limit = "at least 0 and below 1" if below == 1 else "between 0 and 1"
            raise RecipeError(f"{value!r} is not possible", where=name, why=f"it must be {limit}")
    if out.exists() and not (out.is_dir() and ((out / mark).exists() or not any(out.iterdir()))):
        raise DataError("would be replaced, and it is no corpus", where=out, do="choose another output folder")
    for source in sources:
        if source.path is not None and out.resolve() in (path := Path(source.path).resolve(), *path.parents):
            raise DataError("the input lies in the output folder", where=source.path, do="choose another output folder")


def _fill(folder: Path, sources: Sequence[Source], rules: Rules, parts: Mapping[int, Path]) -> Sifted:
    """Write both parts of the corpus, in the order of the sources, from each source or from what was made of it."""
    found = Sifted()
    with (
        open(folder / "train.jsonl", "wb") as train,
        open(folder / "valid.jsonl", "wb") as valid,
        progress("corpus", unit="docs") as bar,
    ):
        for number, source in enumerate(sources):
            if (made := parts.get(number)) is None:
                found.merge(sift(source, rules, train=train, valid=valid, advance=bar.advance))
                continue
            for name, whole in (("train", train), ("valid", valid)):
                with open(made / f"{name}.jsonl", "rb") as piece:
                    shutil.copyfileobj(piece, whole, _BLOCK)
            later = Sifted.from_state(files.read_json(made / _STATE))
            found.merge(later)
            bar.advance(later.tally.read)
    return found


def _fill_empty_part(folder: Path, found: Sifted, valid_fraction: float) -> str:
    """Small corpora can fall on one side altogether; then the document nearest to the border changes sides."""
    tally = found.tally
    assert found.low is not None and found.high is not None
    if tally.part("train") == 0:
        old, new, edge = "valid", "train", found.high
    elif tally.part("valid") == 0 and valid_fraction > 0 and tally.kept > 1:
        old, new, edge = "train", "valid", found.low
    else:
        return ""
    with (
        open(folder / f"{old}.jsonl", encoding="utf-8", newline="\n") as given,
        open(folder / f"{new}.jsonl", "w", encoding="utf-8", newline="\n") as taken,
        open(folder / "rest", "w", encoding="utf-8", newline="\n") as rest,
    ):
        for line in given:
            row = json.loads(line)
            if row["id"] == edge.id:
                tally.move(row["subset"], old, new)
            (taken if row["id"] == edge.id else rest).write(line)
    (folder / "rest").replace(folder / f"{old}.jsonl")
    return f"{edge.id} moved from {old} to {new}, which would be empty"
