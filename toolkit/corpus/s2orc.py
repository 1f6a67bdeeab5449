"""Full texts from S2ORC, the bulk data of Semantic Scholar: one JSON record a line, in either of its two layouts.

Decides which records are papers of PubMed and what is known about them; `s2orc_text.py` turns their spans into text and
`papers.py` knows their titles, dates and citations.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.corpus import licence, lines, papers, pubmed_xml, s2orc_text, upsample
from toolkit.corpus.document import BadRow, Document, Left, tidy
from toolkit.corpus.s2orc_spans import Layer
from toolkit.errors import RecipeError, nearest

SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".gz", ".jsonl.zst", ".json.zst", ".zst")
OPTIONS = {
    "papers": "file or folder, or a list of them, of the `papers` metadata: titles, dates, citations, PubMed ids; "
    "PubMed's XML among them adds types of publication and MeSH headings, files of `abstracts` the abstracts that "
    "s2orc_v2 is without",
    "require": "pubmed (default): only papers with a PubMed or PMC id; any: all of them",
    "journals": "text file with a journal's name a line, for the upsampling trial",
    "max_line_mib": "longest line that is read, default 64",
}
REQUIRE = ("pubmed", "any")
_ENGINE = ("markup", "tables", "license", "seed")
_TABLE = "_papers"
_RETRACTED = re.compile(r"\W*(?:retracted\b|(?:this )?article retracted\b)", re.I)


def check(options: Mapping[str, Any]) -> None:
    """Raise `RecipeError` for an unknown option or an impossible value."""
    check_options(options, OPTIONS, "s2orc")


def check_options(options: Mapping[str, Any], known: Mapping[str, str], kind: str) -> None:
    """The same for every kind that joins the `papers` metadata."""
    for key in options:
        if key not in known and key not in _ENGINE and not str(key).startswith("_"):
            raise RecipeError(f"unknown option '{key}' of a source of kind {kind}", why=nearest(key, known))
    if options.get("require", "pubmed") not in REQUIRE:
        raise RecipeError(
            f"'{options['require']}' is not possible", where=f"option require of kind {kind}",
            why=f"it is one of {', '.join(REQUIRE)}",
        )  # fmt: skip
    limit = options.get("max_line_mib", lines.MAX_MIB)
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit > 0:
        raise RecipeError(
            f"{limit!r} is not possible", where=f"option max_line_mib of kind {kind}", why="it is a number over 0"
        )
    for key in ("papers", "journals"):
        value = options.get(key, "")
        many = key == "papers" and isinstance(value, list | tuple) and all(isinstance(v, str | Path) for v in value)
        if not (many or isinstance(value, str | Path)):
            raise RecipeError(f"{value!r} is not possible", where=f"option {key} of kind {kind}", why="it is a path")


def prepare(paths: Sequence[Path], options: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    """Make the table of `papers`, if that metadata is given; see `papers.build` for what it raises."""
    if options.get("journals"):
        _journals(str(options["journals"]))  # a bad list is said before hours of work
    found = options.get("papers") or []
    if not found:
        return {}
    found = [found] if isinstance(found, str | Path) else list(found)
    return {_TABLE: str(papers.build(found, folder, only_pubmed=options.get("require", "pubmed") == "pubmed"))}


def read(file: Path, subset: str, options: Mapping[str, Any]) -> Iterator[Document | BadRow | Left]:
    """Every record of one file. Memory is bounded by the longest line that is read."""
    for number, row, bad in lines.rows(file, float(options.get("max_line_mib", lines.MAX_MIB))):
        if row is None:
            assert bad is not None
            yield bad
            continue
        try:
            yield _record(row, file, subset, options)
        except (_Bad, s2orc_text.Unreadable) as err:
            yield BadRow(file=str(file), line=number, why=str(err), sample=str(row.get("corpusid", ""))[:40])


class _Bad(Exception):
    """A record that is no S2ORC record; its message says why."""


def _record(row: Mapping[str, Any], file: Path, subset: str, options: Mapping[str, Any]) -> Document | Left:
    number = papers.corpus_id(row)
    if number is None:
        raise _Bad("no `corpusid`, so it is no record of Semantic Scholar")
    body, bibliography, access = _parts(row)
    stated = {**papers.ids_of(access.get("externalids")), **papers.ids_of(row.get("externalids"))}
    joined = known(options, number, stated)
    ids = {**(joined.ids if joined else {}), **stated}
    if options.get("require", "pubmed") == "pubmed" and not ("pmid" in ids or "pmc" in ids):
        return Left(rule="not_pubmed", id=f"s2:{number}", sample=joined.title[:200] if joined else "")
    layer = Layer(*body)
    title = (joined.title if joined else "") or _text(row.get("title")) or s2orc_text.title(layer)
    text = s2orc_text.article(
        layer,
        Layer(*bibliography) if bibliography else None,
        _abstract(row, body, options),
        tags=options.get("markup", "plain") == "tags",
        table_text=options.get("tables", "caption") == "text",
    )
    text = tidy(text)
    if not text:
        return Left(rule="no_full_text", id=f"s2:{number}", sample=title[:200])
    trouble = {"ignored_spans": layer.ignored, "unread_annotations": layer.unread}
    return Document(
        id=f"s2:{number}",
        source="s2orc",
        subset=subset,
        title=title,
        text=f"{title}\n\n{text}" if title else text,
        license=oa_licence(access.get("license"), options),
        meta={**about(joined), **{key: value for key, value in trouble.items() if value}, "file": file.name, **ids},
        rank=0,
        version=_text(row.get("updated"))[:10],
        **shared(number, ids, joined, title, options),
    )


def _abstract(row: Mapping[str, Any], body: tuple[str, object], options: Mapping[str, Any]) -> str:
    """An abstract that stands beside the body: in the record, or in the joined table for the second layout, which has
    none. Empty when the body holds it as well.
    """
    text = _text(row.get("abstract"))
    if not text and "content" not in row and options.get(_TABLE):
        text = _text(papers.abstract_of(options[_TABLE], papers.corpus_id(row) or 0))
    begin = "".join(text.split())[:100]
    return "" if begin and begin in "".join(body[0][: 4 * len(text) + 10_000].split()) else text


def known(options: Mapping[str, Any], number: int, ids: Mapping[str, str]) -> papers.Paper | None:
    """What the joined table says of an article, if there is one; `ids` are those that its own record states."""
    table = options.get(_TABLE)
    return papers.look_up(table, number, ids.get("pmid", "")) if table else None


def about(paper: papers.Paper | None) -> dict[str, Any]:
    """The facts of a joined table as they stand in a document's `meta`."""
    if paper is None:
        return {}
    facts = {"journal": paper.venue, "citations": paper.citations, "types": list(paper.types), "mesh": list(paper.mesh)}
    return {key: value for key, value in facts.items() if value not in ("", None, [])}


def shared(
    number: int, ids: Mapping[str, str], paper: papers.Paper | None, title: str, options: Mapping[str, Any]
) -> dict[str, Any]:
    """The fields that a full text and an abstract of Semantic Scholar fill alike."""
    facts = paper or papers.Paper()
    keys = (*(f"{kind}:{value.lower()}" for kind, value in ids.items()), f"s2:{number}")
    retracted = pubmed_xml.RETRACTED in facts.types or bool(_RETRACTED.match(title))
    return {
        "url": f"https://api.semanticscholar.org/CorpusID:{number}",
        "date": facts.date,
        "keys": keys,
        "retracted": retracted,
        "retracts": keys if retracted else (),
        "weight": upsample.features(
            types=facts.types, mesh=facts.mesh, journal=facts.venue, date=facts.date, citations=facts.citations,
            journals=_journals(str(options["journals"])) if options.get("journals") else frozenset(),
        ) if paper else None,
    }  # fmt: skip


def oa_licence(stated: object, options: Mapping[str, Any]) -> str:
    """A licence as `openaccessinfo` names it (CCBYNCND, cc-by, pd) as a short id, else the source's own."""
    name = _text(stated) or _text(options.get("license"))
    if found := re.fullmatch(r"CC[ -]?(0|BY)((?:[ -]?(?:NC|ND|SA))*)", name, re.I):
        name = f"CC-{found[1]}" + "".join(f"-{part}" for part in re.findall("NC|ND|SA", found[2].upper()))
    elif name.lower() in ("pd", "publicdomain", "public-domain"):
        name = "public domain"
    return licence.short_id([name]) if name else licence.UNKNOWN


def _parts(row: Mapping[str, Any]) -> tuple[tuple[str, object], tuple[str, object] | None, Mapping[str, Any]]:
    """(text and spans of the body, those of the bibliography if it stands apart, what is said of access)."""
    content = row.get("content")
    if isinstance(content, Mapping):  # the first layout, from 2022 on
        source = content.get("source")
        access = source.get("oainfo") if isinstance(source, Mapping) else None
        return _layer(content, "content"), None, access if isinstance(access, Mapping) else {}
    body, access = row.get("body"), row.get("openaccessinfo")
    if isinstance(body, Mapping):  # the second, of the dataset s2orc_v2, from 2025 on
        bibliography = row.get("bibliography")
        apart = _layer(bibliography, "bibliography") if isinstance(bibliography, Mapping) else None
        return _layer(body, "body"), apart, access if isinstance(access, Mapping) else {}
    if "content" in row or "body" in row:
        return ("", None), None, {}
    raise _Bad(f"neither `content` nor `body`; the record has {', '.join(map(str, list(row)[:8]))}")


def _layer(part: Mapping[str, Any], name: str) -> tuple[str, object]:
    text, spans = part.get("text"), part.get("annotations")
    if text is not None and not isinstance(text, str):
        raise _Bad(f"`{name}.text` holds {type(text).__name__}, not text")
    if spans is not None and not isinstance(spans, Mapping):
        raise _Bad(f"`{name}.annotations` holds {type(spans).__name__}, not an object")
    return text or "", spans


@functools.lru_cache(maxsize=4)
def _journals(path: str) -> frozenset[str]:
    return upsample.journal_list(path)


def _text(value: object) -> str:
    return " ".join(value.split()) if isinstance(value, str) else ""
