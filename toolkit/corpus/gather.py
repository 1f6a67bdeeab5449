"""The last pass: what stays of each unit, into the parts of the corpus.

Decides for every document of a unit whether it trains or validates and how often it is written; leaves to `dedup` which
documents are others over again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit import files
from toolkit.corpus import sift, zlines
from toolkit.corpus.document import Document
from toolkit.corpus.pool import Say
from toolkit.corpus.sources import Settings, Source
from toolkit.corpus.split import position
from toolkit.corpus.tally import Tally
from toolkit.corpus.units import Unit

if TYPE_CHECKING:
    from toolkit.corpus.dedup import Verdicts

TRAIN, VALID = "train", "valid"


@dataclass(frozen=True, kw_only=True)
class Edge:
    """A kept document, its unit, and its position in [0, 1)."""

    at: float
    id: str
    unit: int


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """What became of a unit: all of its counts, and, should a part of the corpus stay empty, its nearest documents."""

    tally: Mapping[str, Any]
    low: Edge | None  # of what may validate
    high: Edge | None


@dataclass(kw_only=True)
class Gatherer:
    """All that a process needs for the last pass; `folders` are those of the units, `out` that of the corpus."""

    sources: Sequence[Source]
    units: Sequence[Unit]
    folders: Sequence[Path]
    out: Path
    settings: Settings
    verdicts: Verdicts | None
    limits: Sequence[float] | None  # of upsampling

    def gather(self, number: int, say: Say) -> Gathered:
        """Write what stays of the unit to its parts of the corpus, unless that is nothing."""
        unit, folder = self.units[number], self.folders[number]
        source, settings = self.sources[unit.source], self.settings
        tally = Tally.from_dict(files.read_json(folder / sift.TALLY))
        weights = self._weights(folder)
        reasons = self.verdicts.reasons[number] if self.verdicts is not None else None
        share = settings.share(source)
        low = high = None
        paths = {part: self.out / part / part_name(source, unit) for part in (TRAIN, VALID)}
        with zlines.ZstdWriter(paths[TRAIN]) as train, zlines.ZstdWriter(paths[VALID]) as valid:
            for place, line in enumerate(zlines.lines(folder / sift.DOCUMENTS)):
                doc = Document(**zlines.loads(line))
                if reasons is not None and reasons[place]:
                    tally.remove(self._removed(number, place, int(reasons[place])), doc)
                    continue
                at = position(settings.seed, doc.id)
                copies = self._copies(weights, place, doc)
                if copies == 0:
                    tally.remove(_removed_by_trial(), doc)
                    continue
                part, out = (VALID, valid) if at < share else (TRAIN, train)
                copies = 1 if part == VALID else copies
                for _ in range(copies):
                    out.write_line(line)
                tally.keep(doc, part, copies)
                edge = Edge(at=at, id=doc.id, unit=number)
                low = edge if share > 0 and (low is None or at < low.at) else low
                high = edge if high is None or at > high.at else high
        for written in (train, valid):
            if not written.lines:
                written.path.unlink()
        return Gathered(tally=tally.as_dict(), low=low, high=high)

    def _removed(self, unit: int, place: int, reason: int) -> Any:
        from toolkit.corpus.dedup import REASONS, RETRACTED
        from toolkit.corpus.filters import Removed

        assert self.verdicts is not None
        winner = self.verdicts.winner(unit, place)
        why = f"{winner.id} stays" if winner is not None else "another record says so" if reason == RETRACTED else ""
        return Removed(rule=REASONS[reason], why=why)

    def _weights(self, folder: Path) -> Any:
        if self.limits is None:
            return None
        import numpy as np

        return np.load(folder / sift.WEIGHTS, mmap_mode="r", allow_pickle=False)

    def _copies(self, weights: Any, place: int, doc: Document) -> int:
        if self.limits is None or not len(weights) or weights[place][0] != weights[place][0]:  # NaN: it has none
            return 1
        from toolkit.corpus import upsample

        return upsample.copies([float(w) for w in weights[place]], self.limits, self.settings.seed, doc.id)


def part_name(source: Source, unit: Unit) -> str:
    return f"{source.name}-{unit.within:05d}.jsonl.zst"


def limits(folders: Sequence[Path], verdicts: Verdicts | None) -> list[float]:
    """The lower and the upper quartile of citations a year over what stays (`upsample.thresholds`, in less memory)."""
    import numpy as np

    from toolkit.corpus import upsample

    found = [np.zeros(0)]
    for number, folder in enumerate(folders):
        weights = np.load(folder / sift.WEIGHTS, allow_pickle=False)
        if len(weights):
            stays = np.ones(len(weights), bool) if verdicts is None else verdicts.reasons[number] == 0
            rates = weights[stays, 2]
            found.append(rates[~np.isnan(rates) & (rates != upsample.NOT_KNOWN)])
    rates = np.concatenate(found)
    if not len(rates):
        return [0.0, 0.0]
    ranks = [(len(rates) - 1) // 4, 3 * (len(rates) - 1) // 4]
    return [float(rate) for rate in np.partition(rates, ranks)[ranks]]


def move(out: Path, source: Source, unit: Unit, edge: Edge, old: str, new: str, tally: Tally) -> None:
    """A document of part `old` changes to `new`, which holds none."""
    name = part_name(source, unit)
    (out / new).mkdir(exist_ok=True)
    written = out / old / name
    written.replace(rest := out / f".{name}")
    with zlines.ZstdWriter(written) as stays, zlines.ZstdWriter(out / new / name) as goes:
        for line in zlines.lines(rest):
            row = zlines.loads(line)
            (goes if row["id"] == edge.id else stays).write_line(line)
    rest.unlink()
    if not stays.lines:
        written.unlink()
    counts = tally.subsets[source.name]
    setattr(counts, old, getattr(counts, old) - 1)
    setattr(counts, new, getattr(counts, new) + 1)


def _removed_by_trial() -> Any:
    from toolkit.corpus.filters import Removed

    return Removed(rule="upsample_dropped", why="the trial of upsampling leaves such documents out")
