"""What Semantic Scholar's `papers` files and PubMed's records know of an article, as a table on disk to look it up in.

Decides which facts are kept and when a table is made anew; leaves to the readers what they do with the facts.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import sqlite3
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit import files
from toolkit.corpus import lines, pubmed_xml
from toolkit.corpus.document import BadRow, bare_doi
from toolkit.errors import DataError, DiskFull
from toolkit.progress import progress

SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".gz", ".jsonl.zst", ".json.zst", ".zst", ".xml")
_FORMAT = 2
_BATCH = 10_000
_MOST_BAD = 0.01
_COLUMNS = "id, title, date, venue, citations, types, pmid, pmc, doi"


@dataclass(frozen=True, kw_only=True)
class Paper:
    """Facts about one article; what is not known is empty. `date` is ISO 8601, `pmc` as PMC1234.

    `types` are PubMed's where its record is in the table: they tell trials apart by phase. `mesh` is PubMed's alone.
    """

    title: str = ""
    date: str = ""
    venue: str = ""
    citations: int | None = None
    types: Sequence[str] = ()
    mesh: Sequence[str] = ()
    ids: Mapping[str, str] = field(default_factory=dict)


def build(paths: Sequence[str | Path], folder: Path, *, only_pubmed: bool) -> Path:
    """The table of all rows below `paths`, made in `folder` unless it stands there already; of an article that occurs
    twice the last row counts. Files of PubMed's XML add its types of publication and MeSH headings, by PubMed id, and
    files of the dataset `abstracts` the abstracts of the papers that are known. With `only_pubmed` rows of `papers`
    without a PubMed or PMC id are left out, which are most of them.

    Memory stays flat. Raises `DataError` for missing files, for damaged ones and with over 1 % bad rows; `DiskFull`.
    """
    sources = list(_files(paths))
    stamp = "\n".join(
        [f"{_FORMAT} {only_pubmed}", *(f"{file.name} {files.stat_fingerprint(file)}" for file in sources)]
    )
    table = folder / f"papers-{_digest(stamp)}.sqlite"
    if table.exists():
        return table
    folder.mkdir(parents=True, exist_ok=True)
    # A name of its own: the tasks of an array may do this at the same time, on different machines.
    handle, name = tempfile.mkstemp(dir=folder, prefix=f".{table.name}.", suffix=".part")
    part = Path(name)
    try:
        with _disk_errors(table), contextlib.closing(sqlite3.connect(part, isolation_level=None)) as base:
            _fill(base, sources, only_pubmed)
        os.fsync(handle)
        os.replace(part, table)
    finally:
        os.close(handle)
        part.unlink(missing_ok=True)
    return table


def look_up(table: str | Path, corpus_id: int, pmid: str = "") -> Paper | None:
    """The article of that number in a table of `build`, with what PubMed says of it (by `pmid`, else the table's)."""
    base = _open(str(table), os.getpid())  # by process: a connection must not be used on both sides of a fork
    try:
        row = base.execute(
            f"SELECT {_COLUMNS} FROM papers WHERE id = ? ORDER BY rowid DESC LIMIT 1", (corpus_id,)
        ).fetchone()
        pmid = pmid or (row[6] if row else "")
        query = "SELECT types, mesh FROM pubmed WHERE pmid = ? ORDER BY rowid DESC LIMIT 1"
        record = base.execute(query, (int(pmid),)).fetchone() if pmid.isdigit() and len(pmid) < 19 else None
    except sqlite3.Error as err:
        raise _damaged(table, err) from err
    if row is None and record is None:
        return None
    types, mesh = map(json.loads, record) if record else (json.loads(row[5]) if row[5] else (), ())
    if row is None:
        return Paper(types=tuple(types), mesh=tuple(mesh))
    ids = {kind: value for kind, value in zip(("pmid", "pmc", "doi"), row[6:], strict=True) if value}
    return Paper(
        title=row[1], date=row[2], venue=row[3], citations=row[4], types=tuple(types), mesh=tuple(mesh), ids=ids
    )


def abstract_of(table: str | Path, corpus_id: int) -> str:
    """The abstract of that article, empty when the table has none."""
    query = "SELECT packed FROM abstracts WHERE id = ? ORDER BY rowid DESC LIMIT 1"
    try:
        row = _open(str(table), os.getpid()).execute(query, (corpus_id,)).fetchone()
        return zlib.decompress(row[0]).decode("utf-8", "surrogatepass") if row else ""
    except (sqlite3.Error, zlib.error) as err:
        raise _damaged(table, err) from err


def _damaged(table: str | Path, err: Exception) -> DataError:
    return DataError("the table of papers is damaged", where=table, why=str(err), do="remove it; it is made anew")


def ids_of(external: object) -> dict[str, str]:
    """`pmid`, `pmc` (as PMC1234) and `doi` of an `externalids` object, however its keys are written."""
    found: dict[str, str] = {}
    for key, value in external.items() if isinstance(external, dict) else ():
        value = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
        name = str(key).lower()
        if not value:
            continue
        if name == "pubmed" and value.isdigit():
            found["pmid"] = value
        elif name == "pubmedcentral" and value.upper().removeprefix("PMC").isdigit():
            found["pmc"] = "PMC" + value.upper().removeprefix("PMC")
        elif name == "doi":
            found["doi"] = bare_doi(value)
    return found


def _files(paths: Sequence[str | Path]) -> Iterator[Path]:
    for path in map(Path, paths):
        if not path.exists():
            raise DataError("no such file or folder", where=path, why="the `papers` metadata was expected there")
        found = sorted(p for p in path.rglob("*") if p.name.lower().endswith(SUFFIXES)) if path.is_dir() else [path]
        if not found:
            raise DataError("the folder holds no `papers` files", where=path, why=f"looked for {', '.join(SUFFIXES)}")
        yield from found


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _fill(base: sqlite3.Connection, sources: Sequence[Path], only_pubmed: bool) -> None:
    for order in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-65536", "temp_store=FILE"):
        base.execute(f"PRAGMA {order}")
    base.execute(f"CREATE TABLE papers ({_COLUMNS})")
    base.execute("CREATE TABLE pubmed (pmid, types, mesh)")
    base.execute("CREATE TABLE abstracts (id, packed)")
    rows = _Rows(base, only_pubmed)
    abstracts = [file for file in sources if _is_abstracts(file)]
    with progress("papers", len(sources), "files") as bar:
        for file in sources:
            if file not in abstracts:
                rows.take(file, _headings(file) if pubmed_xml.holds_xml(file) else _papers(file))
                bar.advance()
        # Made after the rows: an index that grows with them would be written all over the disk.
        base.execute("CREATE INDEX by_id ON papers (id)")
        base.execute("CREATE INDEX by_pmid ON pubmed (pmid)")
        for file in abstracts:  # their rows do not say whether PubMed has the article, those of `papers` do
            rows.take(file, _abstracts(file))
            bar.advance()
        base.execute("CREATE INDEX by_abstract ON abstracts (id)")
    if rows.bad > _MOST_BAD * rows.seen:
        raise DataError(
            f"{rows.bad} of {rows.seen} rows of the `papers` metadata cannot be read",
            why=f"the first is {rows.first}",
            do="fetch the file again, or remove it",
        )


_Fact = tuple[str, tuple[Any, ...]] | BadRow  # the name of a table and a row of it


class _Rows:
    """Writes rows to their tables in batches, and counts what cannot be read."""

    def __init__(self, base: sqlite3.Connection, only_pubmed: bool) -> None:
        self.base, self.only_pubmed = base, only_pubmed
        self.seen = self.bad = 0
        self.first = ""

    def take(self, file: Path, facts: Iterator[_Fact]) -> None:
        batches: dict[str, list[tuple[Any, ...]]] = {"papers": [], "pubmed": [], "abstracts": []}
        for fact in facts:
            self.seen += 1
            if isinstance(fact, BadRow):
                self.bad += 1
                self.first = self.first or f"{file}:{fact.line}: {fact.why}"
                continue
            table, row = fact
            if self._is_wanted(table, row):
                batches[table].append(row)
                if len(batches[table]) >= _BATCH:
                    self._write(table, batches[table])
        for table, batch in batches.items():
            self._write(table, batch)

    def _is_wanted(self, table: str, row: tuple[Any, ...]) -> bool:
        if table == "papers":
            return not self.only_pubmed or bool(row[6] or row[7])
        if table == "abstracts":
            return self.base.execute("SELECT 1 FROM papers WHERE id = ? LIMIT 1", row[:1]).fetchone() is not None
        return True

    def _write(self, table: str, batch: list[tuple[Any, ...]]) -> None:
        if batch:
            self.base.execute("BEGIN")
            self.base.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(batch[0]))})", batch)
            self.base.execute("COMMIT")
            batch.clear()


def _is_abstracts(file: Path) -> bool:
    """Whether a file is one of the dataset `abstracts`, by its first record."""
    if pubmed_xml.holds_xml(file):
        return False
    row = next((row for _, row, _ in lines.rows(file) if row is not None), {})
    return "abstract" in row and "citationcount" not in row


def _headings(file: Path) -> Iterator[_Fact]:
    for item in pubmed_xml.headings(file):
        yield item if isinstance(item, BadRow) else ("pubmed", item)


def _papers(file: Path) -> Iterator[_Fact]:
    for number, row, bad in lines.rows(file):
        record = None if row is None else _row(row)
        yield bad or (("papers", record) if record else BadRow(file=str(file), line=number, why="no `corpusid`"))


def _abstracts(file: Path) -> Iterator[_Fact]:
    for number, row, bad in lines.rows(file):
        id = None if row is None else corpus_id(row)
        text = None if row is None else row.get("abstract")
        if bad or id is None:
            yield bad or BadRow(file=str(file), line=number, why="no `corpusid`")
        elif isinstance(text, str) and text.strip():
            yield "abstracts", (id, zlib.compress(text.encode("utf-8", "surrogatepass")))


def _row(row: Mapping[str, Any]) -> tuple[Any, ...] | None:
    number = corpus_id(row)
    if number is None:
        return None
    journal = row.get("journal")
    venue = _text(row.get("venue")) or _text(journal.get("name") if isinstance(journal, dict) else None)
    year, citations = row.get("year"), row.get("citationcount")
    date = _text(row.get("publicationdate")) or (str(year) if isinstance(year, int) else "")
    types = row.get("publicationtypes")
    kinds = [kind for kind in types if isinstance(kind, str)] if isinstance(types, list) else []
    ids = ids_of(row.get("externalids"))
    cited = citations if isinstance(citations, int) and 0 <= citations < 2**63 else None
    return (
        number, _text(row.get("title")), date, venue, cited,
        json.dumps(kinds) if kinds else "", ids.get("pmid", ""), ids.get("pmc", ""), ids.get("doi", ""),
    )  # fmt: skip


def corpus_id(row: Mapping[str, Any]) -> int | None:
    """The number of an article's row, whether it is written as a number or as text."""
    value = row.get("corpusid")
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else None


def _text(value: object) -> str:
    return " ".join(value.split()) if isinstance(value, str) else ""


@functools.lru_cache(maxsize=4)
def _open(table: str, process: int) -> sqlite3.Connection:
    try:
        return sqlite3.connect(f"{Path(table).absolute().as_uri()}?mode=ro&immutable=1", uri=True)
    except sqlite3.Error as err:
        raise DataError("the table of papers cannot be opened", where=table, why=str(err)) from err


@contextlib.contextmanager
def _disk_errors(table: Path) -> Iterator[None]:
    try:
        with files.disk_errors(table):
            yield
    except sqlite3.Error as err:
        if "full" in str(err) or "disk I/O" in str(err):
            raise DiskFull(
                "no space left while writing", where=table, why=str(err),
                do="free space or choose another folder, then run the same command again",
            ) from err  # fmt: skip
        raise
