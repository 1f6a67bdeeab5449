"""Reading /sys and /proc as they are on machines: files that are missing, empty, unreadable, binary or far too large.

Decides that nothing found there raises; what a value means is the caller's. Every read is bounded.
"""

from __future__ import annotations

import heapq
import os
import re
import stat
from pathlib import Path

_MOST_BYTES = 4096  # a sysfs attribute is one page at most
_MOST_TABLE = 1 << 18  # a table of /proc
MOST_TEXT = 500  # characters of a value; the kernel's are shorter
_MOST_ENTRIES = 4096
# What a device, an interface or a module may be called here. Names end up in lists that ',' ':' and '=' divide.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")


def text(path: Path, most: int = _MOST_BYTES) -> str:
    """A file's text on one line, without what does not print; '' where there is none.

    Reading an attribute may fail with EINVAL (an empty slot of the GID table), EACCES or EIO: all of it is "none".
    """
    return " ".join("".join(c if c.isprintable() else " " for c in _read(path, most)).split())[:MOST_TEXT]


def lines(path: Path) -> list[str]:
    """The lines of a table in /proc, as far as the first 256 KiB go; [] where there is none."""
    return _read(path, _MOST_TABLE).splitlines()


def number(path: Path) -> int | None:
    """A whole number, decimal or 0x; None for anything else."""
    word = text(path)
    if not re.fullmatch(r"-?[0-9]{1,18}|0x[0-9a-fA-F]{1,15}", word):
        return None
    return int(word, 16 if word.startswith("0x") else 10)


def names(folder: Path, most: int = _MOST_ENTRIES, form: re.Pattern[str] = NAME) -> list[str]:
    """What a folder holds that has a harmless name, one of this `form`; [] for no folder; the first `most`.

    Names that are numbers are in the order of these, others by stem and number.
    """
    try:
        with os.scandir(folder) as entries:
            return heapq.nsmallest(most, (e.name for e in entries if form.fullmatch(e.name)), key=_order)
    except OSError:
        return []


def strange(folder: Path) -> int:
    """How many entries of a folder have a name that is passed over."""
    try:
        return sum(not NAME.fullmatch(name) for name in os.listdir(folder))
    except OSError:
        return 0


def real(path: Path) -> Path | None:
    """Where a link leads, all links of the way resolved; None when it leads nowhere, or round in a circle."""
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        return None


def is_there(path: Path) -> bool:
    return real(path) is not None


def _order(name: str) -> tuple[int, int, str]:
    """`2` before `10`, `mlx5_2` before `mlx5_10`."""
    digits = re.search(r"[0-9]{1,18}$", name)
    stem = name[: digits.start()] if digits else name
    return (0, int(name), "") if stem == "" and digits else (1, 0, f"{stem}\0{int(digits[0]) if digits else 0:020d}")


def _read(path: Path, most: int) -> str:
    try:
        # A pipe would wait for a writer, and opening a device may do something: neither is opened.
        if not stat.S_ISREG(os.stat(path).st_mode):
            return ""
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return ""
    found = b""
    try:
        while len(found) < most and (part := os.read(handle, most - len(found))):
            found += part
    except OSError:
        return ""
    finally:
        os.close(handle)
    return found.decode("utf-8", errors="replace")
