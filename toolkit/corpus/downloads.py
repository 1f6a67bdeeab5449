"""Where the sources of a corpus are to be had: titles, sizes, licences and commands, from a list in the recipes folder.

Decides how the list is read and shown; downloads nothing, which is `fetch`'s and the user's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from toolkit import cli
from toolkit.errors import DataError, UsageError, nearest


@dataclass(frozen=True, kw_only=True)
class Download:
    """`kind` is the reader of the corpus; `fetch` the way in which `fetch` takes it, "" when it does not.

    `key` names the environment variable that a provider's key is taken from.
    """

    name: str
    title: str
    kind: str
    page: str
    size: str
    license: str
    commands: tuple[str, ...]
    note: str = ""
    unsure: str = ""
    base: str = ""
    fetch: str = ""
    files: str = ""
    repository: str = ""
    key: str = ""


def folder() -> Path:
    """`$TOOLKIT_RECIPES`, else the folder beside the package, and in it data/downloads."""
    recipes = os.environ.get("TOOLKIT_RECIPES") or Path(__file__).resolve().parents[2] / "recipes"
    return Path(recipes) / "data" / "downloads"


def load(where: Path | None = None) -> dict[str, Download]:
    """All downloads by name, in the order of the files and of what they list. Raises `DataError`."""
    import yaml

    found: dict[str, Download] = {}
    paths = sorted((where or folder()).glob("*.yaml"))
    if not paths:
        raise DataError("there is no list of downloads", where=where or folder())
    for path in paths:
        try:
            listed = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as err:
            raise DataError("is no YAML", where=path, why=str(err)) from err
        entries = listed.get("downloads") if isinstance(listed, Mapping) else None
        if not isinstance(entries, Mapping):
            raise DataError("a mapping with 'downloads' was expected", where=path)
        for name, entry in entries.items():
            found[str(name)] = _download(str(name), entry, path)
    return found


def _download(name: str, entry: Any, path: Path) -> Download:
    known = {field.name for field in fields(Download)}
    where = f"{path}: {name}"
    if not isinstance(entry, Mapping):
        raise DataError("a mapping was expected", where=where)
    for key in entry:
        if key not in known:
            raise DataError(f"unknown key '{key}'", where=where, why=nearest(str(key), known))
    for key in ("title", "kind", "page", "size", "license", "commands"):
        if not entry.get(key):
            raise DataError(f"'{key}' is missing", where=where)
    values = {key: " ".join(str(value).split()) for key, value in entry.items() if key != "commands"}
    return Download(name=name, commands=tuple(str(command).strip() for command in entry["commands"]), **values)


def replace_base(download: Download, base: str) -> Download:
    """The same from another server with the same layout."""
    return replace(download, base=base.rstrip("/") + "/")


def choose(names: Sequence[str], where: Path | None = None) -> list[Download]:
    """Those named, or all. Raises `UsageError` with the nearest name."""
    known = load(where)
    for name in names:
        if name not in known:
            raise UsageError(f"no download is called '{name}'", why=nearest(name, known))
    return [known[name] for name in names] if names else list(known.values())


def show(names: Sequence[str] = (), *, as_json: bool = False) -> None:
    """Print what there is and the commands that fetch it; nothing is downloaded."""
    chosen = choose(names)
    if as_json:
        cli.print_json([{field.name: getattr(one, field.name) for field in fields(Download)} for one in chosen])
        return
    for one in chosen:
        print(f"# {one.name}: {one.title}")
        print(f"#   kind of source: {one.kind}")
        print(f"#   size: {one.size}")
        print(f"#   licence: {one.license}")
        for label, words in (("note", one.note), ("unsure", one.unsure), ("page", one.page)):
            if words:
                print(f"#   {label}: {words}")
        for command in one.commands:
            print(command)
        print()
