"""The characters of a web page or text file, of whose encoding nobody can be sure.

Decides which encoding bytes are in, and when they are no text; leaves mending what a text holds to `mend`.
"""

from __future__ import annotations

import re

# Python has codecs that pages have not, and some of them are slow without end.
_CHARSET = re.compile(
    r"utf-?(?:8|16(?:le|be)?)|(?:iso[-_]?8859|latin|windows|cp)[-_]?\d+|koi8-?[ru]|(?:x-)?mac[-_]?\w*|us-ascii|ascii"
    r"|gb(?:k|2312|18030)|big5(?:-hkscs)?|s(?:hift[-_]?)?jis|euc-(?:jp|kr)|tis-?620"
)
_HURT = 10  # sound characters beyond ASCII that must stand beside one that is none


class NotAPage(Exception):
    """Bytes that are no readable page; the reader turns it into a bad row."""


def decode(data: bytes) -> str:
    """The characters of a page or text file: by its byte order mark, what it declares, UTF-8, else Windows-1252.

    Raises `NotAPage` when none of them fits, and for what holds NUL bytes (a packed or other binary file).
    """
    for mark, name in ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if data.startswith(mark):
            try:
                return data[len(mark) :].decode(name)
            except UnicodeDecodeError as err:
                raise NotAPage(f"begins as {name.upper()}, and byte {err.start + 1} is none") from err
    if b"\0" in data:
        raise NotAPage(f"holds a NUL byte (byte {data.index(0) + 1}): no text file, or UTF-16 without its mark")
    declared = re.search(rb"charset\s*=\s*[\"']?\s*([\w.:-]{2,40})", data[:4096], re.I)
    name = declared[1].decode("ascii", "replace").lower() if declared else ""
    names = [name] if _CHARSET.fullmatch(name) else []
    if names and names[0].replace("_", "-") in ("iso-8859-1", "latin-1", "latin1", "us-ascii", "ascii"):
        names = ["utf-8", "cp1252"]  # as browsers take it
    for name in dict.fromkeys((*names, "utf-8", "", "cp1252")):
        if not name:  # UTF-8 that was hurt in a few places is nothing else
            text = data.decode("utf-8", "replace")
            hurt = text.count("\ufffd")
            if sum(not c.isascii() for c in text) > _HURT * hurt:
                return text
            continue
        try:
            text = data.decode(name)
        except (UnicodeDecodeError, LookupError):
            continue
        return text
    raise NotAPage("is in no encoding that can be told: neither what it declares, nor UTF-8, nor Windows-1252")
