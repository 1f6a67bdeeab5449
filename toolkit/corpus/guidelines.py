"""Clinical guidelines: a folder of web pages, PDFs, Markdown and text as somebody fetched them, or the published JSONL.

Decides which source a file is of, under which licence it stands and what is no guideline; leaves the text of a format
to `guidelines_html` and `guidelines_pdf`, and what is cut from it to `guidelines_clean`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.corpus import characters, guidelines_clean, guidelines_html, guidelines_pdf, licence, lines
from toolkit.corpus import guidelines_sources as sources
from toolkit.corpus.document import BadRow, Document, Item, Left, content_id, has_lone_surrogate, tidy
from toolkit.corpus.inputs import DamagedStream, chunks
from toolkit.errors import DataError, RecipeError, nearest

_PAGES = (".html", ".htm", ".xhtml")
_TEXTS = (".md", ".markdown", ".txt")
_ROWS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson")
SUFFIXES = (*_PAGES, ".pdf", *_TEXTS, *(f"{s}.gz" for s in (*_PAGES, *_TEXTS)), *_ROWS)
OPTIONS = {
    "source": "the source of all files (default: the first folder below the input, or the row's own)",
    "exclude": "sources to leave out, for example [wikidoc]",
    "license": "licence of files of unknown sources",
    "text_field": "field of the text in JSONL (default clean_text, else text)",
    "clean": "false: keep references, acknowledgements and lines of the web site",
    "pdf_seconds": "CPU time that one PDF may take (default 60)",
    "pdf_memory_mib": "memory that one PDF may take (default 1024)",
    "max_mib": "largest HTML, text or row that is read (default 16; a page in memory takes 60 times its size)",
}
_COMMON = ("markup", "tables")  # what the engine adds for every reader
_FRONT = re.compile(r"\A---\n(.*?)\n(?:---|\.\.\.)\n", re.S)
_FIELD = re.compile(r"^(title|url|date|license|licence|source|language):\s*(.+?)\s*$", re.M | re.I)
_TITLE = re.compile(r"\A\s*(?:#\s+(.+?)\s*#*\n|([^\n]{3,200})\n=+\n)")


def check(options: Mapping[str, Any]) -> None:
    """Raises `RecipeError` for an option that does not exist or has an impossible value."""
    for key in options:
        if key not in OPTIONS and key not in _COMMON and not key.startswith("_"):
            raise RecipeError(f"unknown option '{key}' of a source of guidelines", why=nearest(key, OPTIONS))
    for name in _excluded(options, raw=True):
        if sources.find(name) is None:
            raise RecipeError(
                f"'{name}' is no source of guidelines", where="exclude", why=nearest(name, sources.SOURCES)
            )
    for key in ("pdf_seconds", "pdf_memory_mib", "max_mib"):
        value = options.get(key, 1)
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise RecipeError(f"{value!r} is not possible", where=key, why="it must be a number above 0")
    if not isinstance(options.get("clean", True), bool):
        raise RecipeError(f"{options['clean']!r} is not possible", where="clean", why="it is true or false")


def prepare(paths: Sequence[Path], options: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    """Where the inputs lie, so that a file's folder below them can name its source."""
    return {"_roots": [str(Path(path).absolute()) for path in paths]}


def read(file: Path, subset: str, options: Mapping[str, Any]) -> Iterator[Item]:
    """The guidelines in one file: a row each in JSONL, else one. What cannot be read is a `BadRow`."""
    name = file.name.lower()
    if name.endswith(_ROWS):
        yield from _rows(file, subset, options)
        return
    # Judged by the first folder alone, without opening what the user does not want.
    source = _source(file, options)
    if _known(source) in _excluded(options):
        yield Left(rule="excluded_source", id=_name(file, options))
        return
    try:
        item = _file(file, subset, options, source)
        if isinstance(item, Document) and item.source in _excluded(options):  # as its front matter says
            item = Left(rule="excluded_source", id=item.id)
        yield item
    except (characters.NotAPage, guidelines_pdf.NotAPdf, DamagedStream) as err:
        yield BadRow(file=str(file), line=0, why=str(err))
    except guidelines_pdf.NoText as err:
        yield Left(rule="no_text", id=_name(file, options), sample=str(err))
    except OSError as err:
        yield BadRow(file=str(file), line=0, why=f"cannot be read ({err.strerror})")


def _file(file: Path, subset: str, options: Mapping[str, Any], source: str) -> Item:
    name = file.name.lower().removesuffix(".gz")
    limit = int(float(options.get("max_mib", 16)) * 2**20)
    stated: dict[str, str] = {}
    if name.endswith(".pdf"):
        _expect_pdf(file)
        pdf = guidelines_pdf.read(
            file, seconds=int(options.get("pdf_seconds", 60)), memory_mib=int(options.get("pdf_memory_mib", 1024))
        )
        title, text, extra = pdf.title, pdf.text, {"pages": pdf.pages}
        if pdf.broken:
            extra["pages_unread"] = pdf.broken
    else:
        extra = {}
        data = _bytes(file, limit)
        if data.lstrip()[:5] == b"%PDF-":
            raise characters.NotAPage("is a PDF under another name: let its name end in .pdf")
        if not data.strip():
            raise characters.NotAPage("the file is empty")
        if name.endswith(_PAGES):
            page = guidelines_html.extract(data, tables=str(options.get("tables", "caption")))
            title, text = page.title, page.text
            stated = {"url": page.url, "date": page.date, "license": page.licence, "language": page.language}
        else:
            title, text, stated = _markdown(characters.decode(data))
    return _document(
        text=text,
        title=title,
        file=file,
        name=_name(file, options),
        source=stated.get("source") or source,
        subset=subset,
        stated=stated,
        extra=extra,
        options=options,
    )


def _markdown(text: str) -> tuple[str, str, dict[str, str]]:
    """(title, text without it, what its front matter states)."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    stated: dict[str, str] = {}
    if front := _FRONT.match(text):
        stated = {key.lower(): value.strip("\"'") for key, value in _FIELD.findall(front[1])}
        text = text[front.end() :]
    title = stated.get("title", "")
    if found := _TITLE.match(text):
        title = title or (found[1] or found[2]).strip()
        text = text[found.end() :]
    if licence_ := stated.pop("licence", ""):
        stated.setdefault("license", licence_)
    return title, text, stated


def _rows(file: Path, subset: str, options: Mapping[str, Any]) -> Iterator[Item]:
    fields = (str(options["text_field"]),) if options.get("text_field") else ("clean_text", "text")
    seen: set[bytes] = set()
    for number, row, bad in lines.rows(file, float(options.get("max_mib", 16))):
        if row is None:
            if bad is not None:
                yield bad
            continue
        name = next((f for f in fields if row.get(f) is not None), None)
        if name is None or not isinstance(row[name], str):
            has = ", ".join(list(row)[:8]) or "none"
            why = f"no text in {' or '.join(fields)}; the row has {has}"
            yield BadRow(file=str(file), line=number, why=why, sample=str(row)[:120])
            continue
        source = str(options.get("source") or "") or _string(row, "source") or _source(file, options)
        label = _string(row, "id") or f"{file.name}:{number}"
        if _known(source) in _excluded(options):
            yield Left(rule="excluded_source", id=label)
            continue
        item = _document(
            text=row[name],
            title=_string(row, "title"),
            file=file,
            name=_string(row, "id"),
            source=source,
            subset=subset,
            stated={key: _string(row, key) for key in ("url", "date", "license", "language")},
            extra={"overview": _string(row, "overview")} if 0 < len(_string(row, "overview")) <= 500 else {},
            options=options,
        )
        if isinstance(item, Document):
            # Pages of one source that begin alike are one page fetched twice, as the paper took them.
            start = f"{item.source}\0{guidelines_clean.beginning(item.text)}"
            key = hashlib.blake2b(start.encode(), digest_size=16).digest()
            if len(item.text) >= 200 and key in seen:
                yield Left(rule="same_beginning", id=item.id, sample=item.text[:200])
                continue
            seen.add(key)
        yield item


def _document(
    *,
    text: str,
    title: str,
    file: Path,
    name: str,
    source: str,
    subset: str,
    stated: Mapping[str, str],
    extra: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Item:
    if has_lone_surrogate(text) or has_lone_surrogate(title):
        return BadRow(file=str(file), line=0, why="half of a surrogate pair, which no UTF-8 file can hold")
    known = sources.find(source) if source else None
    tag = known.tag if known else source.lower() or "guidelines"
    text, title = tidy(text), tidy(title)
    if options.get("clean", True):
        if rule := guidelines_clean.left_out(text, tag):
            return Left(rule=rule, id=name, sample=text[:200])
        text = guidelines_clean.clean(text, tag)
    if title and text and not guidelines_clean.beginning(text).startswith(guidelines_clean.beginning(title)):
        text = f"# {title}\n\n{text}"
    meta: dict[str, Any] = {"file": file.name, **extra}
    if known:
        meta |= {"publisher": known.name, "audience": known.audience, "country": known.country}
    license_ = licence.short_id([stated["license"]]) if stated.get("license") else licence.UNKNOWN
    if license_ == licence.UNKNOWN:
        default = str(options.get("license") or "")
        license_ = known.license if known else licence.short_id([default]) if default else licence.UNKNOWN
    return Document(
        id=f"{tag}:{name}" if name else content_id(f"{subset}\0{text}"),
        source=tag,
        subset=subset,
        title=title,
        text=text,
        url=stated.get("url", ""),
        license=license_,
        date=stated.get("date", ""),
        meta=meta,
        language=stated.get("language", ""),
    )


def _source(file: Path, options: Mapping[str, Any]) -> str:
    """What the option says, else the first folder below the input that is known, else the first; else the input's."""
    if stated := options.get("source"):
        return str(stated)
    below = _below(file, options)
    folders = below.parts[:-1] if below is not None else ()
    near = (*folders, file.absolute().parent.name, file.name.partition(".")[0])
    return next((name for name in near if sources.find(name)), folders[0] if folders else "")


def _below(file: Path, options: Mapping[str, Any]) -> Path | None:
    """The path of a file below the input it came with."""
    path = file.absolute()
    for root in options.get("_roots") or ():
        if path != Path(root) and path.is_relative_to(root):
            return path.relative_to(root)
    return None


def _name(file: Path, options: Mapping[str, Any]) -> str:
    """What a file is known by, the same wherever its folder lies: its path below the input, else its name."""
    below = _below(file, options)
    if below is None:
        return file.name
    roots = options["_roots"]
    above = next(Path(root).name for root in roots if file.absolute().is_relative_to(root)) if len(roots) > 1 else ""
    return (Path(above) / below).as_posix()


def _known(source: str) -> str:
    found = sources.find(source) if source else None
    return found.tag if found else source.lower()


def _excluded(options: Mapping[str, Any], *, raw: bool = False) -> tuple[str, ...]:
    value = options.get("exclude") or ()
    if isinstance(value, str):
        value = value.replace(",", " ").split()
    if not isinstance(value, Sequence) or not all(isinstance(name, str) for name in value):
        raise RecipeError(f"{value!r} is not possible", where="exclude", why="it is a list of sources")
    return tuple(value) if raw else tuple(_known(name) for name in value)


def _expect_pdf(file: Path) -> None:
    with open(file, "rb") as handle:
        head = handle.read(1024)
    if not head:
        raise guidelines_pdf.NotAPdf("the file is empty")
    if b"%PDF-" not in head:
        page = re.match(rb"\s*<(?:!doctype|html|head|\?xml)", head, re.I)
        raise guidelines_pdf.NotAPdf(
            "is an HTML page and no PDF (what a server said instead?)" if page else "is no PDF"
        )


def _bytes(file: Path, limit: int) -> bytes:
    data = bytearray()
    try:
        for piece in chunks(file):
            data += piece
            if len(data) > limit:
                raise characters.NotAPage(f"is larger than {limit / 2**20:g} MiB")
    except DataError as err:
        raise characters.NotAPage(f"cannot be read ({err.why or err.what})") from err
    return bytes(data)


def _string(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    return value if isinstance(value, str) else str(value) if isinstance(value, int) else ""
