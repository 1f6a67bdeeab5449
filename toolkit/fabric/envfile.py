"""The text of `nccl.env`: one NAME='VALUE' a line, the reason above it, as Apptainer's --env-file reads it.

Decides the quoting, and what is refused because it would arrive as something else.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from toolkit.errors import DataError
from toolkit.fabric.settings import Value
from toolkit.recipe.fabric import fits

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SOURCES = {"detected": "detected", "policy": "site policy", "caller": "caller", "toolkit": "toolkit"}
_WIDTH = 118


def text(values: Sequence[Value], title: str = "") -> str:
    """The file. Raises `DataError` for a name or a value that cannot stand in it, such as one of several lines."""
    parts = [
        *_comment(title or "What NCCL and its like are told of the fabric."),
        *_comment("Given to an image by --env-file: an image's own settings would hide the environment of the job."),
    ]
    for value in values:
        parts.append("#")
        if not _NAME.fullmatch(value.name) or not fits(value.value or ""):
            raise DataError(
                f"{value.name[:80]!r} cannot be a line of an environment file",
                why="its name or its value would be read as something else",
                do="give text that prints, without quotes, $, ` and \\",
            )
        if value.value is None:
            parts += _comment(f"{value.name} is not set ({_SOURCES[value.source]}): {value.why}")
        else:
            parts += [*_comment(f"{_SOURCES[value.source]}: {value.why}"), f"{value.name}='{value.value}'"]
    return "\n".join(parts) + "\n"


def parse(written: str) -> dict[str, str]:
    """`text` read back: name -> value. Raises `DataError` for a line that is none of its own."""
    found = {}
    for number, line in enumerate(written.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, mark, rest = line.partition("=")
        try:
            words = shlex.split(rest) if mark and _NAME.fullmatch(name) else []
        except ValueError:
            words = []
        if len(words) != 1 or not fits(words[0]):
            raise DataError("is no NAME='VALUE'", where=f"line {number}", do="remove it, or write the file anew")
        found[name] = words[0]
    return found


def _comment(words: str) -> list[str]:
    """Comment lines of the file's width; nothing in them ends the line."""
    lines, line = [], "#"
    for word in "".join(c if c.isprintable() else " " for c in words).split():
        if len(line) + 1 + len(word) > _WIDTH and line != "#":
            lines.append(line)
            line = "#"
        line += f" {word}"
    return [*lines, line]
