"""Builds a corpus in three passes: every unit of input by itself, then duplicates among all, then what stays.

Decides what is made when, what of an earlier attempt is gone on with, and that the corpus appears whole or not at all;
leaves the work on a unit to `sift` and `gather`. The bytes depend on the input and the settings alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

from toolkit import files
from toolkit.cleaning import NO_BENCHMARKS
from toolkit.corpus import gather, limits, pool, readers, sift, units, workplace, zlines
from toolkit.corpus.sources import Settings, Source, check, work_folder
from toolkit.corpus.tally import Tally
from toolkit.errors import DataError
from toolkit.progress import Progress, progress

_MARK, _SET_ASIDE = "report.json", "set_aside.jsonl.zst"
_MB = 1_000_000
_SMALL = units.MIB * 64  # a larger file is not given up as a whole when reading it kills the process
# A reader's own fault, met again by whoever reads the file again; other signals come from outside.
_CRASHES = ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGFPE", "SIGILL")


@dataclass(frozen=True, kw_only=True)
class CorpusReport:
    """Counts of documents; `removed` is rule -> number, and documents_in = documents_out + its sum.

    `written` counts lines, which upsampling makes more than documents. The whole of it, with examples, is
    `report.json` in `out`.
    """

    out: Path
    documents_in: int
    documents_out: int
    train: int
    valid: int
    written: int
    set_aside: int
    characters: int
    removed: Mapping[str, int]
    unknown_licence: int


def build(
    *,
    sources: Sequence[Source],
    out: str | Path,
    settings: Settings | None = None,
    workers: int = 1,
    work: str | Path | None = None,
    finished: Sequence[Path] = (),
    prepared: str | Path | None = None,
) -> CorpusReport:
    """Write `out/train/<subset>-<number>.jsonl.zst`, `out/valid/...`, the report and the rows that were set aside.

    A corpus that stood there is replaced last. A document validates when a hash of the seed and its id falls below its
    source's fraction; should that leave train or valid empty, the nearest document changes sides. Units that are
    finished are kept in `work` (default: `out` with `.work` added), which goes when the corpus stands, or are found in
    `finished`, folders that `build_units` filled with what `prepare` had made in `prepared`; killed and called again,
    it goes on. Raises `DataError` for missing or empty input, for no documents left, and when more than
    `max_bad_fraction` of a source's rows cannot be read; `RecipeError` for impossible values; `DiskFull`, also when
    there is too little room to begin with.
    """
    settings, out = settings or Settings(), Path(out).absolute()
    if out.exists() and not (out.is_dir() and ((out / _MARK).exists() or not any(out.iterdir()))):
        raise DataError("would be replaced, and it is no corpus", where=out, do="choose another output folder")
    check(sources, out)
    if settings.decontamination.mode != "off" and not settings.benchmarks:
        print(f"warning: {NO_BENCHMARKS}", file=sys.stderr, flush=True)
    own = Path(work).absolute() if work is not None else work_folder(out)
    workplace.writable(out.parent)
    with workplace.alone(own):
        for left in out.parent.glob(f".{escape(out.name)}.*"):  # of a build that was killed
            if re.fullmatch(r"\d+\.(?:part|old)", left.name.removeprefix(f".{out.name}.")):
                shutil.rmtree(left, ignore_errors=True)
        try:
            made = _sift(sources, own, settings, workers, finished, share=(0, 1), prepared=prepared)
            report = _finish(made, sources, out, own, settings, workers)
        except BaseException:
            if not any((own / workplace.UNITS).glob("*")):  # there is nothing to go on with
                workplace.clear(own)
            raise
        workplace.clear(own)
    return report


def build_units(
    *,
    sources: Sequence[Source],
    folder: str | Path,
    settings: Settings,
    share: tuple[int, int],
    workers: int = 1,
    prepared: str | Path | None = None,
) -> int:
    """The first pass over a share of the units, (k, n): those numbered k, k + n, k + 2n, ..., into `folder`.

    `prepared` is the folder that all shares have what `prepare` made in. Returns the number of units. Raises as
    `build`, but for sources that hold too many bad rows, which only a whole corpus tells.
    """
    folder = Path(folder).absolute()
    check(sources, folder)
    with workplace.alone(folder):
        return len(_sift(sources, folder, settings, workers, (), share=share, prepared=prepared).folders)


def prepare(sources: Sequence[Source], folder: Path, settings: Settings) -> list[Mapping[str, Any]]:
    """What readers must know of a whole source before they read its files: tables and counts, made once in `folder`.

    It is done in a process of its own, so that what it loads is not there in those that read.
    """
    found: list[Mapping[str, Any]] = [{} for _ in sources]
    asked = [i for i, source in enumerate(sources) if hasattr(readers.module(source.kind), "prepare")]

    def work(number: int, say: pool.Say) -> Mapping[str, Any]:
        source = sources[number]
        place = folder / source.name
        place.mkdir(parents=True, exist_ok=True)
        options = sift.options_of(source, {}, settings)
        return readers.module(source.kind).prepare([Path(p).absolute() for p in source.paths], options, place)

    def done(number: int, value: Mapping[str, Any]) -> None:
        found[number] = value

    def died(number: int, death: pool.Death) -> int:
        raise DataError(f"preparing the source {sources[number].name} {death}", do="look for its cause in the log")

    pool.each(asked, work, workers=1, done=done, died=died)
    return found


@dataclass(frozen=True, kw_only=True)
class _Sifted:
    listing: units.Listing
    folders: Mapping[int, Path]  # by the unit's number


def _sift(
    sources: Sequence[Source],
    own: Path,
    settings: Settings,
    workers: int,
    finished: Sequence[Path],
    *,
    share: tuple[int, int],
    prepared: str | Path | None = None,
) -> _Sifted:
    (own / workplace.UNITS).mkdir(parents=True, exist_ok=True)
    files.remove_parts(own / workplace.UNITS)
    listing = units.make(sources, own / workplace.INPUTS)
    mine = [unit for unit in listing.units if unit.number % share[1] == share[0]]
    places = (own / workplace.UNITS, *(Path(place) / workplace.UNITS for place in finished))
    limits.room(own, sources, listing, mine, places)
    extra = prepare(sources, Path(prepared) if prepared is not None else own / workplace.PREPARED, settings)
    sifter = sift.Sifter(sources, extra, settings, listing)
    folders: dict[int, Path] = {}
    total = sum(unit.bytes for unit in mine)
    with _told(own, lambda: (len(folders), len(mine))), progress("corpus", max(1, total // _MB), "MB") as bar:
        watch = _Watch(bar, listing)

        def done(job: sift.Job, made: sift.Made) -> None:
            folders[job.unit.number] = made.folder
            watch.done(job.unit, made.fresh)

        def died(job: sift.Job, death: pool.Death) -> sift.Job:
            return _without(listing, job, death)

        jobs = [sift.Job(unit=unit, places=places) for unit in sorted(mine, key=lambda u: (-u.bytes, u.number))]
        try:
            pool.each(jobs, sifter.make, workers=workers, done=done, heard=watch.heard, died=died)
        except pool.OutOfMemory as err:
            file = _file(listing, err.job, err.said)
            where = file.path if file is not None else own
            raise DataError("there is not enough memory to read it", where=where, do="use fewer workers") from err
        finally:
            files.remove_parts(own / workplace.UNITS)
    return _Sifted(listing=listing, folders=folders)


def _finish(
    made: _Sifted, sources: Sequence[Source], out: Path, own: Path, settings: Settings, workers: int
) -> CorpusReport:
    listing = made.listing
    folders = [made.folders[unit.number] for unit in listing.units]
    for number, source in enumerate(sources):
        limits.judge(source, [f for f, u in zip(folders, listing.units, strict=True) if u.source == number], settings)
    verdicts = None
    shutil.rmtree(own / workplace.DUPLICATES, ignore_errors=True)
    if settings.deduplicates:
        from toolkit.corpus import dedup

        print("corpus: looking for duplicates", file=sys.stderr, flush=True)
        prints = [folder / sift.PRINTS for folder in folders]
        (own / workplace.DUPLICATES).mkdir(parents=True)
        verdicts = dedup.decide(prints, own / workplace.DUPLICATES, settings.duplicates, workers)
    tally = Tally()
    edges: list[tuple[gather.Edge | None, gather.Edge | None]] = []
    with _told(own, lambda: (len(edges), len(folders))), files.atomic_folder(out) as folder:
        for part in (gather.TRAIN, gather.VALID):
            (folder / part).mkdir()
        gatherer = gather.Gatherer(
            sources=sources,
            units=listing.units,
            folders=folders,
            out=folder,
            settings=settings,
            verdicts=verdicts,
            limits=gather.limits(folders, verdicts) if settings.upsample else None,
        )
        with progress("corpus: writing", len(folders), "units") as bar:

            def done(number: int, found: gather.Gathered) -> None:
                tally.merge(Tally.from_dict(found.tally))
                edges.append((found.low, found.high))
                bar.advance()

            def died(number: int, death: pool.Death) -> int:
                raise DataError(f"the process that wrote this unit {death}", where=folders[number])

            largest_first = sorted(range(len(folders)), key=lambda n: (-listing.units[n].bytes, n))
            pool.each(largest_first, gatherer.gather, workers=workers, done=done, died=died)
        if tally.lost:
            raise RuntimeError(f"{tally.lost} documents were neither kept nor counted as removed")
        if tally.total("out") == 0:
            limits.nothing_left(sources, tally)
        moved = _fill_empty_part(folder, sources, listing, settings, tally, edges)
        _set_aside(folder, folders)
        _report(folder, sources, listing, settings, tally, moved, gatherer.limits)
    removed = tally.counted("removed")
    return CorpusReport(
        out=out,
        documents_in=tally.total("inn"),
        documents_out=tally.total("out"),
        train=tally.total("train"),
        valid=tally.total("valid"),
        written=tally.total("copies"),
        set_aside=removed["bad_row"],
        characters=tally.total("characters"),
        removed={rule: removed[rule] for rule in sorted(removed)},
        unknown_licence=tally.counted("licences")["unknown"],
    )


class _Watch:
    """Tells how far the first pass is, in megabytes; files count when the next one is begun."""

    def __init__(self, bar: Progress, listing: units.Listing) -> None:
        self._bar, self._listing = bar, listing
        self._done = 0
        self._begun: dict[int, tuple[list[readers.File], int]] = {}  # unit -> its files, bytes of those read

    def heard(self, job: sift.Job, place: Any) -> None:
        found, _ = self._begun.get(job.unit.number) or (self._listing.files(job.unit), 0)
        self._begun[job.unit.number] = (found, sum(file.size for file in found[:place]))
        self._at(str(found[place].name) if found else "")

    def done(self, unit: units.Unit, fresh: bool) -> None:
        self._begun.pop(unit.number, None)
        self._done += unit.bytes
        if fresh:
            self._at()
        else:  # was there before: it says nothing of the speed
            self._bar.skip(unit.bytes // _MB)

    def _at(self, note: str = "") -> None:
        self._bar.at((self._done + sum(size for _, size in self._begun.values())) // _MB, note)


def _without(listing: units.Listing, job: sift.Job, death: pool.Death) -> sift.Job:
    """The same unit without the file that kills the process that reads it; raises when that may not be done."""
    file = _file(listing, job, death.said)
    where = file.path if file is not None else "the corpus"
    if str(death).removeprefix("ended by ") not in _CRASHES:
        do = "give it more memory or fewer workers, then run the same command again" if death.signal == 9 else ""
        raise DataError(f"the process that read this file {death}", where=where, do=do)
    if file is None or file.size > _SMALL or death.said in job.skip:
        raise DataError(f"the process that read this file {death}", where=where, do="mend or remove it")
    print(f"corpus: {file.path} is set aside: the process that read it {death}", file=sys.stderr, flush=True)
    why = f"the process that read it {death}"
    return dataclasses.replace(job, skip={**job.skip, death.said: why})


def _file(listing: units.Listing, job: sift.Job, place: Any) -> readers.File | None:
    found = listing.files(job.unit)
    return found[place] if isinstance(place, int) and place < len(found) else None


@contextlib.contextmanager
def _told(own: Path, how_far: Any) -> Iterator[None]:
    """Ctrl-C says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        done, of = how_far()
        print(f"corpus: stopped; {done} of {of} units are done, the same command goes on from there", file=sys.stderr)
        raise


def _fill_empty_part(
    folder: Path,
    sources: Sequence[Source],
    listing: units.Listing,
    settings: Settings,
    tally: Tally,
    edges: Sequence[tuple[gather.Edge | None, gather.Edge | None]],
) -> str:
    """Small corpora can fall on one side altogether; then the document nearest to the border changes sides."""
    low = min((low for low, _ in edges if low is not None), key=lambda edge: (edge.at, edge.unit), default=None)
    high = max((high for _, high in edges if high is not None), key=lambda edge: (edge.at, edge.unit), default=None)
    if tally.total("train") == 0:
        old, new, edge = gather.VALID, gather.TRAIN, high
    elif tally.total("valid") == 0 and tally.total("out") > 1:
        old, new, edge = gather.TRAIN, gather.VALID, low
    else:
        return ""
    if edge is None:  # nothing may validate
        return ""
    unit = listing.units[edge.unit]
    gather.move(folder, sources[unit.source], unit, edge, old, new, tally)
    return f"{edge.id} moved from {old} to {new}, which would be empty"


def _set_aside(folder: Path, folders: Sequence[Path]) -> None:
    with zlines.ZstdWriter(folder / _SET_ASIDE) as out:
        for unit in folders:
            for line in zlines.lines(unit / sift.SET_ASIDE):
                out.write_line(line)


def _report(
    folder: Path,
    sources: Sequence[Source],
    listing: units.Listing,
    settings: Settings,
    tally: Tally,
    moved: str,
    quartiles: Sequence[float] | None,
) -> None:
    from toolkit.corpus import report

    read: Counter[int] = Counter()
    size: Counter[int] = Counter()
    for unit in listing.units:
        read[unit.source] += unit.files
        size[unit.source] += unit.bytes
    told = dataclasses.asdict(settings)
    told["sources"] = [
        {**dataclasses.asdict(source), "files": read[number], "bytes": size[number]}
        for number, source in enumerate(sources)
    ]
    extra: dict[str, Any] = {"moved": moved}
    if quartiles is not None:
        extra["upsampling_limits"] = list(quartiles)
    report.write(folder, report.summary(tally, settings=told, extra=extra))
