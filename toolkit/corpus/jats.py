"""Documents from JATS XML, the format of PubMed Central: files, folders of files, sets of articles in one file.

Decides which files are sound articles and what is known about them (ids, date, licence); `jats_text.py` turns their
body into text. Nothing is fetched, no DTD is loaded, and XML that declares entities of its own is set aside unread.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.corpus import licence
from toolkit.corpus.document import BadRow, Document, content_id, tidy
from toolkit.corpus.inputs import DamagedStream, chunks, find
from toolkit.errors import MissingPackage, RecipeError

if TYPE_CHECKING:
    from lxml.etree import _Element

SUFFIXES = (".xml", ".nxml", ".xml.gz", ".nxml.gz")
MAX_MIB = 256  # an article is seldom over 5 MiB; the bound keeps a packed bomb out of memory
_HREF = "{http://www.w3.org/1999/xlink}href"
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


def read(path: str | Path | None, subset: str, options: Mapping[str, Any]) -> Iterator[Document | BadRow]:
    """Every article of a file or of a folder and its subfolders, as a document or a bad row."""
    for key in options:
        raise RecipeError(f"unknown option '{key}' of a jats source", why="it takes none")
    for file in find(path, SUFFIXES, "JATS XML"):
        yield from _file(file, subset)


def _file(file: Path, subset: str) -> Iterator[Document | BadRow]:
    try:
        from lxml import etree
    except ImportError as err:
        raise MissingPackage("lxml is needed to read JATS XML", where=file, do="install the extra 'data'") from err
    try:
        data = _bytes(file)
        parser = etree.XMLParser(
            resolve_entities=False, load_dtd=False, no_network=True, dtd_validation=False, huge_tree=False,
            remove_comments=True, remove_pis=True,
        )  # fmt: skip
        root = etree.fromstring(data, parser)
        if (dtd := root.getroottree().docinfo.internalDTD) is not None and any(True for _ in dtd.iterentities()):
            raise DamagedStream("declares entities of its own, which no article needs and hostile files use")
    except DamagedStream as err:
        yield BadRow(file=str(file), line=0, why=str(err))
        return
    except etree.XMLSyntaxError as err:
        yield BadRow(file=str(file), line=err.lineno or 0, why=f"malformed XML: {err.msg}")
        return
    articles = [e for e in root.iter("{*}article") if not any(True for _ in e.iterancestors("{*}article"))]
    if not articles:
        name = etree.QName(root).localname
        yield BadRow(file=str(file), line=root.sourceline or 0, why=f"no JATS article inside (the root is <{name}>)")
    for article in articles:
        yield _article(article, file, subset)


def _bytes(file: Path) -> bytes:
    data = bytearray()
    for piece in chunks(file):
        data += piece
        if len(data) > MAX_MIB * 2**20:
            raise DamagedStream(f"larger than {MAX_MIB} MiB of XML")
    if not data:
        raise DamagedStream("the file is empty")
    # Expansion bombs do their harm while parsing, so this is asked before; UTF-16 is read as if it were ASCII.
    if b"<!ENTITY" in bytes(data).replace(b"\0", b"").split(b"<article", 1)[0]:
        raise DamagedStream("declares entities of its own, which no article needs and hostile files use")
    return bytes(data)


def _article(article: _Element, file: Path, subset: str) -> Document | BadRow:
    from toolkit.corpus import jats_text

    try:
        title, text = jats_text.article_text(article)
    except RecursionError:
        return BadRow(file=str(file), line=article.sourceline or 0, why="elements are nested too deeply")
    meta = article.find("{*}front/{*}article-meta")
    ids = _ids(meta)
    text = tidy(text)
    pmc, doi = ids.get("pmc", ""), ids.get("doi", "")
    url = f"https://www.ncbi.nlm.nih.gov/pmc/articles/{pmc}/" if pmc else f"https://doi.org/{doi}" if doi else ""
    other = f"doi:{doi}" if doi else f"pmid:{ids['pmid']}" if "pmid" in ids else content_id(f"{subset}\0{text}")
    return Document(
        id=pmc or other,
        source="pmc",
        subset=subset,
        title=tidy(title),
        text=text,
        url=url,
        license=_licence(meta),
        date=_date(meta),
        meta={"file": file.name, "type": article.get("article-type", ""), **ids, "journal": _journal(article)},
    )


def _ids(meta: _Element | None) -> dict[str, str]:
    """`pmc` (as PMC1234), `pmid` and `doi`, those that are there."""
    found: dict[str, str] = {}
    for element in [] if meta is None else meta.iterfind("{*}article-id"):
        kind, value = element.get("pub-id-type", ""), "".join(element.itertext()).strip()
        if kind in ("pmc", "pmcid") and (number := re.search(r"\d+", value)):
            found["pmc"] = f"PMC{number[0]}"
        elif kind in ("pmid", "doi") and value:
            found[kind] = value
    return found


def _journal(article: _Element) -> str:
    element = article.find("{*}front/{*}journal-meta//{*}journal-title")
    return "" if element is None else " ".join("".join(element.itertext()).split())


def _licence(meta: _Element | None) -> str:
    """What <permissions> says, links before prose; older articles state it beside <copyright-statement>."""
    if meta is None:
        return licence.UNKNOWN
    links, prose = [], []
    for element in meta.iterfind(".//{*}license"):
        for part in element.iter("*"):
            links.append(part.get(_HREF, ""))
            if part.tag.endswith("license_ref"):
                links.append(part.text or "")
        prose += [element.get("license-type", "").replace("_", "-"), " ".join(" ".join(element.itertext()).split())]
    prose += [" ".join(" ".join(e.itertext()).split()) for e in meta.iterfind(".//{*}copyright-statement")]
    by_link = licence.short_id(links)
    return by_link if by_link != licence.UNKNOWN else licence.short_id(prose)


def _date(meta: _Element | None) -> str:
    """The earliest publication date, as precise as it is given: YYYY, YYYY-MM or YYYY-MM-DD."""
    dates = []
    for element in [] if meta is None else meta.iterfind("{*}pub-date"):
        year, month, day = (element.findtext("{*}" + name, "").strip() for name in ("year", "month", "day"))
        if not re.fullmatch(r"\d{4}", year):
            continue
        month = f"{_MONTHS.index(month[:3].lower()) + 1}" if month[:3].lower() in _MONTHS else month
        parts = [year]
        if month.isdigit() and 1 <= int(month) <= 12:
            parts.append(f"{int(month):02d}")
            if day.isdigit() and 1 <= int(day) <= 31:
                parts.append(f"{int(day):02d}")
        dates.append("-".join(parts))
    # Of dates in the same year the fuller one says more, so "2011-08-02" goes before "2011".
    return min(dates, key=lambda date: (date[:4], -len(date), date), default="")
