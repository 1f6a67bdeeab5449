"""Documents from JATS XML, the format of PubMed Central: single files, sets of articles, bulk packages.

Decides which files are sound articles; `jats_meta.py` says what is known about them, `jats_text.py` turns them into
text. Nothing is fetched, no DTD is loaded, and XML that declares entities of its own is set aside unread.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.corpus.document import BadRow, Document, content_id
from toolkit.corpus.inputs import DamagedStream, chunks
from toolkit.errors import MissingPackage, RecipeError, nearest

if TYPE_CHECKING:
    from lxml.etree import _Element

PLAIN = (".xml", ".nxml", ".xml.gz", ".nxml.gz")
PACKAGES = (".tar.gz", ".tgz", ".tar")
SUFFIXES = PLAIN + PACKAGES
OPTIONS = {
    "markup": "tags: citations, captions and formulas between the paper's tokens; plain: as running text",
    "tables": "caption: of a table its caption alone; text: its cells too, a line a row",
}
_CHOICES = {"markup": ("tags", "plain"), "tables": ("caption", "text")}
MAX_MIB = 32  # of one article, seldom over 5; a parsed one takes six to ten times its size
_WHOLE = 16 * 2**20  # bytes that are parsed at once, which is faster than by the piece
_SAFELY = {
    "resolve_entities": False, "load_dtd": False, "no_network": True, "dtd_validation": False, "huge_tree": False,
    "remove_comments": True, "remove_pis": True, "collect_ids": False,
}  # fmt: skip
_ENTITIES = "declares entities of its own, which no article needs and hostile files use"


def check(options: Mapping[str, Any]) -> None:
    """Raise `RecipeError` for an option that there is not, or a value that it does not take."""
    for key, value in options.items():
        if key not in OPTIONS:
            raise RecipeError(f"unknown option '{key}' of a pmc source", why=nearest(key, tuple(OPTIONS)))
        if value not in _CHOICES[key]:
            raise RecipeError(f"'{key}' of a pmc source is {value!r}", why=f"valid: {', '.join(_CHOICES[key])}")


def read(file: Path, subset: str, options: Mapping[str, Any]) -> Iterator[Document | BadRow]:
    """Every article of one file as a document or a bad row; a package's members are named `FILE:MEMBER`.

    Raises `MissingPackage` without lxml, `DataError` for a file that cannot be opened.
    """
    try:
        import lxml.etree  # noqa: F401
    except ImportError as err:
        raise MissingPackage("lxml is needed to read JATS XML", where=file, do="install the extra 'data'") from err
    file = Path(file)
    if not file.name.lower().endswith(PACKAGES):
        yield from _stream(chunks(file), str(file), file.name, subset, options)
        return
    from toolkit.corpus.jats_packages import members

    try:
        for name, data in members(file, PLAIN, MAX_MIB * 2**20):
            where = f"{file}:{name}"
            if isinstance(data, str):
                yield BadRow(file=where, line=0, why=data)
            else:
                yield from _stream(_member(name, data), where, file.name, subset, options)
    except DamagedStream as err:
        yield BadRow(file=str(file), line=0, why=str(err))


def _member(name: str, data: bytes) -> Iterator[bytes]:
    if not name.lower().endswith(".gz"):
        yield data
        return
    unpack = zlib.decompressobj(31)
    try:
        while data and not unpack.eof:
            if piece := unpack.decompress(data, 1 << 20):
                yield piece
            data = unpack.unconsumed_tail
    except zlib.error as err:
        raise DamagedStream(f"is not gzip or is damaged ({err})") from err
    if not unpack.eof:
        raise DamagedStream("the gzip stream ends early (a truncated file)")


def _stream(
    pieces: Iterator[bytes], where: str, name: str, subset: str, options: Mapping[str, Any]
) -> Iterator[Document | BadRow]:
    """The articles of one XML stream; a broken or a large one is read piece by piece, for what is sound in it."""
    from lxml import etree

    held: list[bytes] = []
    try:
        for piece in pieces:
            held.append(piece)
            if sum(map(len, held)) > _WHOLE:
                break
        else:
            data = b"".join(held)
            if not data:
                raise DamagedStream("the file is empty")
            if b"<!ENTITY" in _head(data):
                raise DamagedStream(_ENTITIES)
            try:
                root = etree.fromstring(data, etree.XMLParser(**_SAFELY))
            except etree.XMLSyntaxError:
                pieces, held = iter(()), [data]
            else:
                yield from _tree(root, where, name, subset, options)
                return
        yield from _by_piece(chain(held, pieces), where, name, subset, options)
    except DamagedStream as err:
        yield BadRow(file=where, line=0, why=str(err))


def _head(data: bytes) -> bytes:
    """What stands before the first article; UTF-16 is read as if it were ASCII."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in data[:64]:
        data = data.replace(b"\0", b"")
    return data.partition(b"<article")[0]


def _tree(
    root: _Element, where: str, name: str, subset: str, options: Mapping[str, Any]
) -> Iterator[Document | BadRow]:
    from lxml import etree

    if (dtd := root.getroottree().docinfo.internalDTD) is not None and any(True for _ in dtd.iterentities()):
        raise DamagedStream(_ENTITIES)
    if etree.QName(root).localname == "article":
        yield _article(root, where, name, subset, options)
        return
    found = False
    for article in root.iter("{*}article"):
        if not any(True for _ in article.iterancestors("{*}article")):
            found = True
            yield _article(article, where, name, subset, options)
    if not found:
        why = f"no JATS article inside (the root is <{etree.QName(root).localname}>)"
        yield BadRow(file=where, line=root.sourceline or 0, why=why)


def _by_piece(
    pieces: Iterable[bytes], where: str, name: str, subset: str, options: Mapping[str, Any]
) -> Iterator[Document | BadRow]:
    """The articles of a set one after the other, so that the set needs the memory of one."""
    from lxml import etree

    parser = etree.XMLPullParser(events=("start", "end"), tag="{*}article", **_SAFELY)
    since, depth, found, tail, begun = 0, 0, False, b"", False
    try:
        for piece in pieces:
            since += len(piece)
            if not begun:
                # Expansion bombs do their harm while parsing, so this is asked before.
                head = (tail + piece).replace(b"\0", b"")
                if b"<!ENTITY" in head.partition(b"<article")[0]:
                    raise DamagedStream(_ENTITIES)
                tail, begun = head[-16:], b"<article" in head
            parser.feed(piece)
            for event, element in parser.read_events():
                depth += 1 if event == "start" else -1
                if depth or element.getparent() is None:
                    continue  # an article that is the whole file is read when it has proved to be whole
                found, since = True, 0
                yield _article(element, where, name, subset, options)
                element.clear()
                while (older := element.getprevious()) is not None:
                    older.getparent().remove(older)
            if since > MAX_MIB * 2**20:
                raise DamagedStream(f"larger than {MAX_MIB} MiB of XML")
        root = parser.close()
        if not found:
            yield from _tree(root, where, name, subset, options)
    except etree.XMLSyntaxError as err:
        yield BadRow(file=where, line=err.lineno or 0, why=f"malformed XML: {err.msg}")


def _article(article: _Element, where: str, name: str, subset: str, options: Mapping[str, Any]) -> Document | BadRow:
    from toolkit.corpus import jats_meta, jats_text

    try:
        front = jats_meta.front(article)
        title, text = jats_text.article_text(
            article, markup=options.get("markup", "plain"), tables=options.get("tables", "caption")
        )
    except RecursionError:
        return BadRow(file=where, line=article.sourceline or 0, why="elements are nested too deeply")
    pmc, doi, pmid = (front.ids.get(key, "") for key in ("pmc", "doi", "pmid"))
    url = f"https://www.ncbi.nlm.nih.gov/pmc/articles/{pmc}/" if pmc else f"https://doi.org/{doi}" if doi else ""
    other = f"doi:{doi}" if doi else f"pmid:{pmid}" if pmid else content_id(f"{subset}\0{text}")
    keys = tuple(f"{kind}:{value.lower()}" for kind, value in (("pmc", pmc), ("pmid", pmid), ("doi", doi)) if value)
    released = re.search(r"\d{4}-\d{2}-\d{2}", name)
    return Document(
        id=pmc or other,
        source="pmc",
        subset=subset,
        title=title,
        text=text,
        url=url,
        license=front.licence if front.licence != "unknown" else str(options.get("license") or "unknown"),
        date=front.date,
        meta={"file": name, "type": front.kind, **front.ids, "journal": front.journal},
        keys=keys,
        version=released[0] if released else "",  # of PMC's packages: the same article comes again when it changed
        retracted=front.retracted,
        retracts=front.retracts + (keys if front.retracted else ()),
        language=front.language,
    )
