"""Records of PubMed's own XML, the yearly baseline and the daily update files, one at a time.

Decides what of a record is its text and which facts go with it, and turns deletions into withdrawals; which of several
versions of a record stands is for the removal of duplicates. No DTD is loaded and no entity followed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.entities import html5
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.corpus import licence, upsample
from toolkit.corpus.document import BadRow, Document, Left, Withdrawal, bare_doi
from toolkit.corpus.inputs import DamagedStream, chunks
from toolkit.errors import DataError, MissingPackage

if TYPE_CHECKING:
    from lxml.etree import _Element

# Root -> what a record is called below it. The second was the form of the files until 2016.
_ROOTS = {"PubmedArticleSet": ("PubmedArticle", "PubmedBookArticle"), "MedlineCitationSet": ("MedlineCitation",)}
_PROLOG = 1 << 20
_MOST_MIB = 16  # between the ends of two records; the largest ones, with thousands of references, are near 2 MiB
_PIECES = 1000  # of a file, in which something must be said
_LATEST = "9999-12-31"
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_UPDATE = re.compile(r"pubmed(\d\d)n(\d{4,5})\.", re.I)
_LABELS_WITHOUT_SENSE = frozenset(("UNLABELLED", "UNASSIGNED", "UNLABELED"))
RETRACTED = "Retracted Publication"


class _Refused(Exception):
    """A file that is not read, with its reason."""


def read(
    file: Path, subset: str, journals: frozenset[str] = frozenset(), default_licence: str = ""
) -> Iterator[Document | BadRow | Left | Withdrawal]:
    """Every record and deletion of one file, packed or not; what cannot be read is one bad row at its place.

    `default_licence` is that of records that state none. After a fault in the XML nothing more of the file can be
    trusted: the rest of it is that one bad row.
    """
    try:
        from lxml import etree
    except ImportError as err:
        raise MissingPackage("lxml is needed to read PubMed XML", where=file, do="install the extra 'data'") from err
    stamp = _UPDATE.search(file.name)
    order = f"{stamp[1]}n{int(stamp[2]):05d}" if stamp else ""
    line = 0
    try:
        for element in _records(file):
            line = element.sourceline or 0
            if element.tag == "DeleteCitation":
                for pmid in element.iterfind("PMID"):
                    if number := (pmid.text or "").strip():
                        yield Withdrawal(key=f"pubmed:{number}", version=f"{order} {_LATEST}".strip())
            else:
                yield _record(element, file, subset, order, journals, default_licence)
    except etree.XMLSyntaxError as err:
        yield BadRow(file=str(file), line=err.lineno or 0, why=f"malformed XML: {err.msg}")
    except (DamagedStream, _Refused) as err:
        yield BadRow(file=str(file), line=line, why=str(err))


def _records(file: Path) -> Iterator[_Element]:
    """The records and deletions in order, each emptied once the next is asked for, so that memory stays flat."""
    from lxml import etree

    parser, since, seen = None, 0, bytearray()
    for piece in chunks(file):
        if parser is None:
            seen += piece
            root = _root(bytes(seen))
            if not root:
                continue
            tags = (*_ROOTS[root], "DeleteCitation")
            parser = etree.XMLPullParser(
                events=("end",), tag=tags, resolve_entities=False, load_dtd=False, no_network=True,
                dtd_validation=False, huge_tree=False, remove_comments=True, remove_pis=True,
            )  # fmt: skip
            piece = bytes(seen)
        fault = None
        try:
            parser.feed(piece)
        except etree.XMLSyntaxError as err:
            fault = err  # what ended before it is sound
        since += len(piece)
        for _, element in parser.read_events():
            since = 0
            yield element
            element.clear()
            while element.getprevious() is not None:
                del element.getparent()[0]
        if fault is not None:
            raise fault
        if since > _MOST_MIB * 2**20:
            raise _Refused(f"no record ends within {_MOST_MIB} MiB of XML")
    if parser is None:
        raise _Refused("no XML element inside" if seen.strip() else "the file is empty")
    parser.close()
    for _, element in parser.read_events():
        yield element


def _root(head: bytes) -> str:
    """The name of the root element, empty when more of the file is needed to know it; hostile and other files raise."""
    text = head.replace(b"\0", b"")  # UTF-16 is read as if it were ASCII
    if b"<!ENTITY" in re.split(rb"<Pubmed|<Medline", text, maxsplit=1)[0]:
        raise _Refused("declares entities of its own, which no record needs and hostile files use")
    plain = re.sub(rb"<!--.*?-->|<\?.*?\?>", b"", text, flags=re.S)
    found = re.search(rb"<([A-Za-z_][\w.:-]*)[\s/>]", plain)
    if not found:
        if len(head) > _PROLOG:
            raise _Refused("no XML element begins in its first MiB")
        return ""
    name = found[1].decode()
    if name not in _ROOTS:
        raise _Refused(f"no PubMed records inside (the root is <{name}>)")
    return name


def _record(
    element: _Element, file: Path, subset: str, order: str, journals: frozenset[str], default_licence: str
) -> Document | Left | BadRow:
    citation = element if element.tag == "MedlineCitation" else element.find("MedlineCitation")
    if citation is None:
        citation = element.find("BookDocument")
    pmid = "" if citation is None else (citation.findtext("PMID") or "").strip()
    if citation is None or not pmid.isdigit():
        return BadRow(file=str(file), line=element.sourceline or 0, why="a record without a PubMed id")
    article = citation.find("Article")
    article = citation if article is None else article  # a book's chapter has no <Article>
    title = _title(article)
    text = _abstract(article, citation)
    types = [_line(kind) for kind in article.iterfind("PublicationTypeList/PublicationType")]
    types += [_line(kind) for kind in citation.iterfind("PublicationType")]
    mesh = [_line(name) for name in citation.iterfind("MeshHeadingList/MeshHeading/DescriptorName")]
    ids = {"pmid": pmid, **_ids(element, article)}
    keys = tuple(f"{kind}:{value.lower()}" for kind, value in ids.items())
    notes = list(citation.iterfind("CommentsCorrectionsList/CommentsCorrections"))
    retracted = RETRACTED in types or any(note.get("RefType") == "RetractionIn" for note in notes)
    others = (_line(note.find("PMID")) for note in notes if note.get("RefType") == "RetractionOf")
    retracts = (keys if retracted else ()) + tuple(f"pmid:{number}" for number in others if number)
    if not text:
        other = citation.find("OtherAbstract")
        rule = "no_abstract" if other is None else "no_english_abstract"
        return Left(rule=rule, id=f"pmid:{pmid}", sample=title[:200], retracts=retracts)
    languages = [_line(language) for language in article.iterfind("Language")]
    journal = _line(article.find("Journal/Title"))
    date = _date(article, citation)
    stated = licence.short_id([_line(article.find("Abstract/CopyrightInformation"))])
    if stated == licence.UNKNOWN and default_licence:
        stated = licence.short_id([default_licence])
    return Document(
        id=f"pmid:{pmid}",
        source="pubmed",
        subset=subset,
        title=title,
        text=f"{title}\n{text}" if title else text,
        url=f"https://pubmed.ncbi.nlm.nih.gov/{pmid}/",
        license=stated,
        date=date,
        meta={"file": file.name, **ids, "journal": journal, "types": types, "mesh": mesh, "languages": languages},
        # The last one is that of the record itself: when PubMed takes it back, most often because there are two of it,
        # the full text that others hold of the article stays.
        keys=(*keys, f"pubmed:{pmid}"),
        rank=1,
        version=_version(citation, order),
        retracted=retracted,
        retracts=retracts,
        # The language is that of the article; abstracts of articles in other languages are here in English as well.
        language="en" if languages == ["eng"] else "",
        weight=upsample.features(types=types, mesh=mesh, journal=journal, date=date, citations=None, journals=journals),
    )


def _title(article: _Element) -> str:
    title = _line(article.find("ArticleTitle"))
    if title.strip("[]. ").lower() in ("not available", "in process citation"):
        return _line(article.find("VernacularTitle"))
    # Brackets say that the title was translated.
    found = re.fullmatch(r"\[(.*?)([.?!]?)\]([.?!]?)", title)
    return found[1] + (found[2] or found[3]) if found else title


def _abstract(article: _Element, citation: _Element) -> str:
    own = article.find("Abstract")
    parts = [] if own is None else _paragraphs(own)
    for other in citation.iterfind("OtherAbstract"):
        plain = other.get("Type") == "plain-language-summary"
        if other.get("Language", "eng") == "eng" and (plain or not parts):
            parts += [f"PLAIN LANGUAGE SUMMARY: {p}" if plain and parts else p for p in _paragraphs(other)]
    return "\n".join(parts)


def _paragraphs(abstract: _Element) -> list[str]:
    parts = []
    for element in abstract.iterfind("AbstractText"):
        text, label = _line(element), (element.get("Label") or "").strip()
        if text and label and label.upper() not in _LABELS_WITHOUT_SENSE:
            text = f"{label.rstrip(':')}: {text}"
        if text:
            parts.append(text)
    return parts


def _line(element: _Element | None) -> str:
    """All text inside on one line. Files printed with indents break the line before <sub> and <sup>, where no blank is
    meant.
    """
    if element is None:
        return ""
    text = _flat(element) if len(element) else element.text or ""
    return " ".join(text.replace("\x7f", "").split())  # the one control character that XML lets pass


def _flat(element: _Element) -> str:
    text = element.text or ""
    for child in element:
        name = child.tag.rpartition("}")[2] if isinstance(child.tag, str) else ""
        if not name:  # an entity that only the unread DTD declares; its name says which letter it is
            text += html5.get(f"{child.name};", "") if hasattr(child, "name") else ""
        elif name in ("sub", "sup"):
            inner = _flat(child).strip()
            if "\n" in text[len(text.rstrip()) :]:
                text = text.rstrip()
            # Superscript numbers need a mark: 10<sup>-3</sup> is not 10-3.
            raised = name == "sup" and re.fullmatch(r"[+\-−–]?\d+(?:[.,/]\d+)?[+\-−–]?|[+\-−–]", inner)
            text += f"^{inner}" if raised else inner
        elif name == "math":
            text += "".join(_math(child).split())
        else:
            text += _flat(child)
        text += child.tail or ""
    return text


def _math(element: _Element) -> str:
    name = element.tag.rpartition("}")[2] if isinstance(element.tag, str) else "annotation"
    if name.startswith("annotation"):
        return ""
    parts = [_math(child) for child in element]
    if len(parts) == 2 and name in ("msup", "msub"):
        return f"{parts[0]}{'^' if name == 'msup' else '_'}{parts[1]}"
    if len(parts) == 2 and name == "mfrac":
        return f"({parts[0]})/({parts[1]})"
    return (element.text or "") + "".join(parts)


def _ids(element: _Element, article: _Element) -> dict[str, str]:
    """`pmc` (as PMC1234) and `doi` of the record itself, not of what it cites."""
    found: dict[str, str] = {}
    for place in ("PubmedData", "PubmedBookData"):
        for entry in element.iterfind(f"{place}/ArticleIdList/ArticleId"):
            kind, value = entry.get("IdType", ""), _line(entry)
            if kind == "pmc" and (number := re.search(r"\d+", value)):
                found["pmc"] = f"PMC{number[0]}"
            elif kind == "doi" and value:
                found["doi"] = bare_doi(value)
    for entry in article.iterfind("ELocationID"):
        if entry.get("EIdType") == "doi" and entry.get("ValidYN") != "N" and _line(entry):
            found.setdefault("doi", bare_doi(_line(entry)))
    return found


def _date(article: _Element, citation: _Element) -> str:
    """The earliest date of publication, as precise as it is given: YYYY, YYYY-MM or YYYY-MM-DD."""
    places = (article.find("Journal/JournalIssue/PubDate"), article.find("ArticleDate"), citation.find("Book/PubDate"))
    dates = [date for place in places if place is not None and (date := _one_date(place))]
    return min(dates, key=lambda date: (date[:4], -len(date), date), default="")


def _one_date(place: _Element) -> str:
    year, month, day = ((place.findtext(name) or "").strip() for name in ("Year", "Month", "Day"))
    if not year and (found := re.search(r"\b(1[5-9]\d\d|20\d\d)\b", place.findtext("MedlineDate") or "")):
        return found[1]
    if not re.fullmatch(r"\d{4}", year):
        return ""
    month = str(_MONTHS.index(month[:3].lower()) + 1) if month[:3].lower() in _MONTHS else month
    if not (month.isdigit() and 1 <= int(month) <= 12):
        return year
    return f"{year}-{int(month):02d}" + (f"-{int(day):02d}" if day.isdigit() and 1 <= int(day) <= 31 else "")


def _version(citation: _Element, order: str) -> str:
    """What sorts later stands: the number of the update file, then the day of the last revision, then the version.

    The National Library of Medicine asks for the files to be applied in the order of their numbers.
    """
    place = citation.find("DateRevised")
    if place is None:
        place = citation.find("DateCompleted")
    date = "" if place is None else _one_date(place)
    number = (citation.find("PMID").get("Version") or "1").strip()
    tail = f".{int(number):02d}" if number.isdigit() and int(number) > 1 else ""
    return f"{order} {date}{tail}".strip()


def headings(file: Path) -> Iterator[tuple[int, str, str] | BadRow]:
    """(PubMed id, types of publication, MeSH headings) of every record, the last two as JSON."""
    from lxml import etree

    line = 0
    try:
        for element in _records(file):
            line = element.sourceline or 0
            citation = element if element.tag == "MedlineCitation" else element.find("MedlineCitation")
            pmid = "" if citation is None else (citation.findtext("PMID") or "").strip()
            if citation is not None and pmid.isdigit() and len(pmid) < 19:
                types = [_line(kind) for kind in citation.iterfind("Article/PublicationTypeList/PublicationType")]
                mesh = [_line(name) for name in citation.iterfind("MeshHeadingList/MeshHeading/DescriptorName")]
                yield int(pmid), json.dumps(types), json.dumps(mesh)
    except etree.XMLSyntaxError as err:
        yield BadRow(file=str(file), line=err.lineno or 0, why=f"malformed XML: {err.msg}")
    except (DamagedStream, _Refused) as err:
        yield BadRow(file=str(file), line=line, why=str(err))


def holds_xml(file: Path) -> bool:
    """Whether a file is XML, by the first bytes that say anything; what cannot be unpacked goes by its name."""
    head = b""
    try:
        for piece in islice(chunks(file), _PIECES):
            head = (head + piece).lstrip()[:8]
            if start := head.replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n"):
                return start.startswith(b"<")
    except (DamagedStream, DataError):
        pass
    return ".xml" in file.name.lower()
