"""What a definition file says: stages, sections, arguments, and what it copies in.

Decides what is wrong with one before anything is built, with its line; leaves the rest of its meaning to Apptainer.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import ImageError, UsageError, nearest

# Apptainer's own lists: pkg/build/types/parser, validSections and appSections.
SECTIONS = frozenset({
    *("help", "setup", "files", "labels", "environment", "pre", "post", "runscript", "test", "startscript"),
    *("arguments", "appinstall", "applabels", "appfiles", "appenv", "apptest", "apphelp", "apprun", "appstart"),
})  # fmt: skip
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_SECTION = re.compile(r"%(\w+)\b[ \t]*(.*)")
_HEADER = re.compile(r"([A-Za-z0-9]+)[ \t]*:[ \t]*(.*)")
_USED = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_ROOM = re.compile(r"#\s*room:\s*([\d.]+) GiB while building, ([\d.]+) GiB when built", re.IGNORECASE)
_SQUASH = re.compile(r"#\s*mksquashfs:\s*(.+)", re.IGNORECASE)
_MOST_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of the file, without what is around it."""

    number: int
    text: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """`name` as in SECTIONS; `rest` what follows it in its line, such as `from build`."""

    name: str
    rest: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, kw_only=True)
class Definition:
    """A definition file as read. `headers` are those of each stage; `arguments` the defaults in %arguments.

    `room` is (GiB while building, GiB when built) from its `# room:` line, `squashfs` the options of its
    `# mksquashfs:` line.
    """

    path: Path
    name: str
    root: Path
    text: str
    headers: tuple[Mapping[str, str], ...]
    sections: tuple[Section, ...]
    arguments: Mapping[str, str]
    used: Mapping[str, int]
    room: tuple[float, float]
    squashfs: str

    def copied(self) -> list[Line]:
        """What %files takes from the host, as written, each with its line; not what comes from another stage."""
        found = []
        for section in self.sections:
            if section.name not in ("files", "appfiles") or section.rest.split()[:1] == ["from"]:
                continue
            for line in section.lines:
                words = _words(line.text)
                if words:
                    found.append(Line(number=line.number, text=words[0]))
        return found

    def filled(self, text: str, values: Mapping[str, str]) -> str:
        """`text` with its {{ NAME }} replaced."""
        return _USED.sub(lambda match: values.get(match[1], match[0]), text)

    def script(self, *names: str) -> str:
        """The text of all sections of these names."""
        return "\n".join(line.text for part in self.sections if part.name in names for line in part.lines)


def find(name: str, folder: Path) -> Path:
    """The file of a definition: `cpu` is FOLDER/cpu.def, anything with a slash or .def a path. Raises `UsageError`."""
    if "/" in name and name.endswith(".def"):
        path = Path(name).expanduser().absolute()
        if path.is_file() and _NAME.fullmatch(path.stem):
            return path
        raise UsageError("no such definition", where=name, do="name a file that ends in .def, or one of containers/")
    short = name.removesuffix(".def")
    path = folder / f"{short}.def"
    if not _NAME.fullmatch(short) or not path.is_file():
        known = names(folder)
        hint = nearest(short, known) if known else f"there is none in {folder}"
        raise UsageError(f"no definition containers/{short!r}.def".replace("'", ""), why=hint)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.def") if _NAME.fullmatch(path.stem))


def read(path: Path) -> Definition:
    """Read a definition. Raises `ImageError` for one that Apptainer would not take, with the line."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ImageError("the definition is larger than 1 MiB", where=path, do="copy large things in with %files")
        text = path.read_text(encoding="utf-8")
    except OSError as err:
        raise ImageError("the definition cannot be read", where=path, why=os.strerror(err.errno or 0)) from err
    except UnicodeDecodeError as err:
        raise ImageError("the definition is no UTF-8 text", where=path, why=f"byte {err.start}") from err
    headers, sections = _parts(path, text)
    if not headers:
        raise ImageError("the definition has no Bootstrap: line", where=path, do="begin it with Bootstrap: and From:")
    arguments = {}
    for section in sections:
        for line in section.lines if section.name == "arguments" else ():
            key, given, value = line.text.strip().partition("=")
            if given and not key.startswith("#"):
                arguments[key.strip()] = value.strip().strip("\"'")
    used: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        for match in _USED.finditer(line):
            used.setdefault(match[1], number)
    room, squash = _ROOM.search(text), _SQUASH.search(text)
    return Definition(
        path=path,
        name=path.stem,
        root=path.parent.parent if path.parent.name == "containers" else path.parent,
        text=text,
        headers=tuple(headers),
        sections=tuple(sections),
        arguments=arguments,
        used=used,
        room=(float(room[1]), float(room[2])) if room else (1.0, 0.25),
        squashfs=squash[1].strip() if squash else "",
    )


def values(definition: Definition, given: Mapping[str, str]) -> dict[str, str]:
    """The value of every argument that the definition uses: the one given, else its default.

    Raises `UsageError` for one given that it does not use, `ImageError` for one used that nobody gives.
    """
    for name in given:
        if name not in definition.used:
            hint = nearest(name, definition.used)
            raise UsageError(f"the definition uses no argument {name}", where=definition.path, why=hint)
    every = {**definition.arguments, **given}
    for name, line in definition.used.items():
        if name not in every:
            raise ImageError(
                f"nothing says what {{{{ {name} }}}} is",
                where=f"{definition.path}:{line}",
                why=nearest(name, definition.arguments),
                do=f"give it in %arguments, or with --build-arg {name}=VALUE",
            )
    return {name: every[name] for name in definition.used}


def _parts(path: Path, text: str) -> tuple[list[dict[str, str]], list[Section]]:
    headers: list[dict[str, str]] = []
    sections: list[tuple[str, str, list[Line]]] = []
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        section, header = _SECTION.match(line), _HEADER.match(line)
        if section:
            name = section[1].lower()
            if name not in SECTIONS:
                raise ImageError(
                    f"unknown section %{section[1]}", where=f"{path}:{number}", why=nearest(name, SECTIONS)
                )
            sections.append((name, section[2].strip(), []))
            inside = True
        elif header and header[1].lower() == "bootstrap":
            headers.append({"bootstrap": header[2].strip()})
            inside = False
        elif inside:
            sections[-1][2].append(Line(number=number, text=line))
        elif header and headers:
            headers[-1][header[1].lower()] = header[2].strip()
        elif line.strip() and not line.lstrip().startswith("#"):
            raise ImageError(
                "a line that is neither a header nor in a section",
                where=f"{path}:{number}",
                why=f"'{line.strip()[:60]}'",
            )
    return headers, [Section(name=name, rest=rest, lines=tuple(lines)) for name, rest, lines in sections]


def _words(text: str) -> list[str]:
    import shlex

    try:
        return shlex.split(text, comments=True)
    except ValueError:
        return text.split()
