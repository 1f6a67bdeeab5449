"""Abstracts: PubMed's own XML, and the `abstracts` data of Semantic Scholar, told apart by what a file holds.

Decides which abstracts of Semantic Scholar belong to PubMed, which their own records do not say; `pubmed_xml.py` reads
the other form. An abstract whose full text is in the corpus goes when duplicates do, by the ids that are given here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.corpus import lines, papers, pubmed_xml, readers, s2orc, upsample
from toolkit.corpus.document import BadRow, Document, Left, Withdrawal, tidy
from toolkit.errors import RecipeError

SUFFIXES = (".xml", ".xml.gz", ".xml.zst", *s2orc.SUFFIXES)
OPTIONS = s2orc.OPTIONS


def check(options: Mapping[str, Any]) -> None:
    """Raise `RecipeError` for an unknown option or an impossible value."""
    s2orc.check_options(options, OPTIONS, "abstracts")


def prepare(paths: Sequence[Path], options: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    """Make the table of `papers`. Raises `RecipeError` for abstracts of Semantic Scholar that would nearly all be left
    out because no table says which of them are in PubMed.
    """
    if not options.get("papers") and options.get("require", "pubmed") == "pubmed":
        for path in (file.path for place in paths for file in readers.files_of("abstracts", place)):
            if not pubmed_xml.holds_xml(path):
                raise RecipeError(
                    "abstracts of Semantic Scholar carry no PubMed ids, so these cannot be told from all the others",
                    where=path,
                    do="give the `papers` metadata of the same release as option papers, or set require to any",
                )
    return s2orc.prepare(paths, options, folder)


def read(file: Path, subset: str, options: Mapping[str, Any]) -> Iterator[Document | BadRow | Left | Withdrawal]:
    """Every record of one file. Memory is bounded by the longest line, or by one record of XML."""
    if pubmed_xml.holds_xml(file):
        journals = upsample.journal_list(options["journals"]) if options.get("journals") else frozenset()
        yield from pubmed_xml.read(file, subset, journals, str(options.get("license") or ""))
        return
    for number, row, bad in lines.rows(file, float(options.get("max_line_mib", lines.MAX_MIB))):
        if row is None:
            assert bad is not None
            yield bad
        else:
            yield _record(row, file, number, subset, options)


def _record(
    row: Mapping[str, Any], file: Path, number: int, subset: str, options: Mapping[str, Any]
) -> Document | BadRow | Left:
    corpus_id = papers.corpus_id(row)
    if corpus_id is None or "abstract" not in row:
        what = ", ".join(str(key) for key in list(row)[:8]) or "nothing"
        return BadRow(file=str(file), line=number, why=f"no `corpusid` and `abstract`; the record has {what}")
    text = row["abstract"]
    if text is not None and not isinstance(text, str):
        return BadRow(file=str(file), line=number, why=f"`abstract` holds {type(text).__name__}, not text")
    access = row.get("openaccessinfo")
    access = access if isinstance(access, Mapping) else {}
    stated = {**papers.ids_of(access.get("externalids")), **papers.ids_of(row.get("externalids"))}
    joined = s2orc.known(options, corpus_id, stated)
    ids = {**(joined.ids if joined else {}), **stated}
    title = joined.title if joined else ""
    if options.get("require", "pubmed") == "pubmed" and not ("pmid" in ids or "pmc" in ids):
        return Left(rule="not_pubmed", id=f"s2:{corpus_id}", sample=title[:200])
    text = tidy(text or "")
    if not text:
        return Left(rule="no_abstract", id=f"s2:{corpus_id}", sample=title[:200])
    updated = row.get("updated")
    return Document(
        id=f"s2:{corpus_id}",
        source="s2abstracts",
        subset=subset,
        title=title,
        text=f"{title}\n{text}" if title else text,
        license=s2orc.oa_licence(access.get("license"), options),
        meta={**s2orc.about(joined), "file": file.name, **ids},
        rank=1,
        version=updated[:10] if isinstance(updated, str) else "",
        **s2orc.shared(corpus_id, ids, joined, title, options),
    )
