"""Run as a script, in a process of its own: the lines of one PDF with their places, as JSON on standard output.

Decides nothing about the text; `guidelines_pdf` starts it with limits of time and memory, since PDFs can crash or hang
the library, and makes text of what it says.
"""

from __future__ import annotations

import ctypes
import json
import re
import resource
import sys

_POWER = re.compile(r"(?<!\d)10[-+−–]?\d")


def main(argv: list[str]) -> int:
    """argv: file, most pages, most characters, CPU seconds, MiB of memory."""
    file = argv[0]
    most_pages, most_characters, seconds, memory = map(int, argv[1:])
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    resource.setrlimit(resource.RLIMIT_AS, (memory << 20, memory << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import pypdfium2
    import pypdfium2.raw as pdfium

    try:
        document = pypdfium2.PdfDocument(file)
    except pypdfium2.PdfiumError as err:
        # The class carries the library's code since 5.0; its words name it too.
        code = getattr(err, "err_code", None)
        words = str(err).lower()
        if code == pdfium.FPDF_ERR_PASSWORD or "password" in words:
            return _say({"error": "is encrypted, and no password is known"})
        if code == pdfium.FPDF_ERR_SECURITY or "security" in words:
            return _say({"error": "is encrypted in a way that is not supported"})
        return _say({"error": "is damaged, or no PDF at all"})
    count = len(document)
    if count == 0:
        return _say({"error": "has no pages"})
    if count > most_pages:
        return _say({"error": f"has {count} pages, more than the {most_pages} that are read"})
    pages, left, broken = [], most_characters, 0
    for number in range(count):
        try:
            page = document[number]
            text = page.get_textpage()
        except pypdfium2.PdfiumError:
            broken += 1
            pages.append([])
            continue
        lines = _lines(text, pdfium)
        left -= sum(len(line[0]) for line in lines)
        if left < 0:
            return _say({"error": f"holds more than {most_characters} characters"})
        pages.append(lines)
        text.close()
        page.close()
    if broken == count:
        return _say({"error": "none of its pages can be read"})
    return _say({"title": document.get_metadata_value("Title"), "pages": pages, "broken": broken})


def _lines(text, pdfium) -> list[list]:
    """[text, font size, x, y of the first letter] of each line, in the order that the library finds.

    Where a word is broken at the end of a line the library gives U+FFFE (or U+0002) in place of hyphen and line end.
    """
    whole = text.get_text_range(errors="replace")
    found, start = [], 0
    for part in re.split("(\r\n|\r|\n|(?<=[\ufffe\x02]))", whole):
        line = part.strip()
        if line:
            first = start + _units(part[: len(part) - len(part.lstrip())])
            x, y = _origin(text, pdfium, first)
            size = _size(text, pdfium, first + _units(line) // 2)
            found.append([_powers(line, first, text, pdfium, size), round(size, 1), round(x, 1), round(y, 1)])
        start += _units(part)
    return found


def _units(part: str) -> int:
    return len(part.encode("utf-16-le", "surrogatepass")) // 2


def _index(text, pdfium, position: int) -> int:
    return pdfium.FPDFText_GetCharIndexFromTextIndex(text, position)


def _origin(text, pdfium, position: int) -> tuple[float, float]:
    x, y = ctypes.c_double(), ctypes.c_double()
    index = _index(text, pdfium, position)
    return (x.value, y.value) if index >= 0 and pdfium.FPDFText_GetCharOrigin(text, index, x, y) else (0.0, 0.0)


def _size(text, pdfium, position: int) -> float:
    """Of the letters as they stand on the page: the font's own size times the height that the page gives it."""
    index = _index(text, pdfium, position)
    if index < 0:
        return 0.0
    size, matrix = pdfium.FPDFText_GetFontSize(text, index), pdfium.FS_MATRIX()
    if pdfium.FPDFText_GetMatrix(text, index, matrix):
        size *= (matrix.c**2 + matrix.d**2) ** 0.5 or 1.0
    return size


def _powers(line: str, first: int, text, pdfium, size: float) -> str:
    """10 with a raised number behind it is a power of ten, and without a mark it would be another number."""
    marked, done = "", 0
    for match in _POWER.finditer(line):
        at = first + _units(line[: match.start()])
        base, raised = _origin(text, pdfium, at)[1], _origin(text, pdfium, at + 2)[1]
        if raised - base > 0.15 * size > 0:
            marked += line[done : match.start() + 2] + "^"
            done = match.start() + 2
    return marked + line[done:]


def _say(answer: dict) -> int:
    json.dump(answer, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
