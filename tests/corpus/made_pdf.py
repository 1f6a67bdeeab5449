"""Little PDFs that are real: text at places, in any characters, on any number of pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def lines_of(*texts: str, top: float = 700, left: float = 72, size: float = 11, step: float = 14) -> list[tuple]:
    """Lines below one another, as (x, y, size, text)."""
    return [(left, top - i * step, size, text) for i, text in enumerate(texts)]


def pdf(pages: Sequence[Iterable[tuple]], *, title: str = "", password: bool = False) -> bytes:
    """A PDF of lines (x, y, size, text); with `password` one that nobody can open."""
    pages = [list(page) for page in pages]
    letters = sorted({c for page in pages for *_, text in page for c in text} - {" "})
    assert len(letters) < 220, "one font of single bytes"
    codes = {" ": 32} | {c: i + (33 if i < 90 else 70) for i, c in enumerate(letters)}
    objects: list[bytes] = []

    def add(body: bytes) -> int:
        objects.append(body)
        return len(objects)

    def stream(data: bytes, head: bytes = b"") -> int:
        return add(b"<<%s /Length %d>>\nstream\n%s\nendstream" % (head, len(data), data))

    catalog, tree = add(b""), add(b"")
    table = b"".join(b"<%02x> <%s>\n" % (code, c.encode("utf-16-be").hex().encode()) for c, code in codes.items())
    unicode = stream(
        b"/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /A def /CMapType 2 def\n"
        b"1 begincodespacerange <00> <ff> endcodespacerange\n%d beginbfchar\n%sendbfchar\nendcmap end end"
        % (len(codes), table)
    )
    font = add(
        b"<</Type /Font /Subtype /Type1 /BaseFont /Courier /FirstChar 0 /LastChar 255 /Widths [%s] /ToUnicode %d 0 R>>"
        % (b" ".join([b"600"] * 256), unicode)
    )
    kids = []
    for page in pages:
        drawn = b"\n".join(
            b"BT /F %g Tf %g %g Td <%s> Tj ET" % (size, x, y, bytes(codes[c] for c in text).hex().encode())
            for x, y, size, text in page
        )
        content = stream(drawn)
        kids.append(add(
            b"<</Type /Page /Parent %d 0 R /MediaBox [0 0 612 792] /Contents %d 0 R "
            b"/Resources <</Font <</F %d 0 R>>>>>>"
            % (tree, content, font)
        ))  # fmt: skip
    objects[catalog - 1] = b"<</Type /Catalog /Pages %d 0 R>>" % tree
    objects[tree - 1] = b"<</Type /Pages /Count %d /Kids [%s]>>" % (len(kids), b" ".join(b"%d 0 R" % k for k in kids))
    info = add(b"<</Title <%s>>>" % ("\ufeff" + title).encode("utf-16-be").hex().encode())
    more = b""
    if password:
        lock = add(b"<</Filter /Standard /V 1 /R 2 /O <%s> /U <%s> /P -4>>" % (b"11" * 32, b"22" * 32))
        more = b" /Encrypt %d 0 R /ID [<%s> <%s>]" % (lock, b"33" * 16, b"33" * 16)
    out, places = bytearray(b"%PDF-1.5\n"), []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer <</Size %d /Root %d 0 R /Info %d 0 R%s>>\nstartxref\n%d\n%%%%EOF\n" % (
        len(objects) + 1, catalog, info, more, start,
    )  # fmt: skip
    return bytes(out)
