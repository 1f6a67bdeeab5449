"""What engines have told, kept as it comes, so that no question is asked twice.

Decides what makes two questions the same and how a file of answers survives whatever stops its writer; leaves what an
answer is worth to `judge`.
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from toolkit import files


class Store:
    """A folder of files, one for each key. Several processes may use it at once: lines are only ever added."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def open(self, key: Mapping[str, Any]) -> Kept:
        return Kept(key, self.folder / f"{digest(key)[:32]}.jsonl")


class Kept:
    """The rows of one key by their id, and what is known `about` how they were made. Without a path they are only held
    in memory."""

    def __init__(self, key: Mapping[str, Any], path: Path | None = None) -> None:
        self.key, self.path = json.loads(json.dumps(key)), path
        self.rows: dict[str, dict[str, Any]] = {}
        self.about: dict[str, Any] = {}
        self._begun = False
        for line in _lines(path):
            if "key" in line:
                self._begun = line["key"] == self.key
            elif self._begun and isinstance(line.get("about"), dict):
                self.about = line["about"]
            elif self._begun and isinstance(line.get("id"), str):
                self.rows[line["id"]] = line

    def add(self, row: Mapping[str, Any]) -> None:
        """Keep a row, on the disk when this returns, as far as the operating system goes. Raises DiskFull."""
        self.rows[row["id"]] = dict(row)
        self._append(row)

    def tell(self, about: Mapping[str, Any]) -> None:
        if about != self.about:
            self.about = dict(about)
            self._append({"about": about})

    def _append(self, line: Mapping[str, Any]) -> None:
        if self.path is None:
            return
        lines = [line] if self._begun else [{"key": self.key}, line]
        raw = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in lines).encode()
        with files.disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab", buffering=0) as handle:
                end = handle.tell()
                if end and not _ends_whole(self.path):
                    raw = b"\n" + raw  # after a line that a killed writer left half
                try:
                    if handle.write(raw) != len(raw):
                        raise OSError(errno.ENOSPC, "No space left on device")
                except OSError:
                    handle.truncate(end)
                    raise
        self._begun = True


def digest(value: Any) -> str:
    """SHA-256 of a value that JSON takes."""
    raw = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(raw.encode("utf-8", "surrogatepass")).hexdigest()


def _ends_whole(path: Path) -> bool:
    with open(path, "rb") as handle:
        handle.seek(-1, 2)
        return handle.read(1) == b"\n"


def _lines(path: Path | None) -> Iterator[dict[str, Any]]:
    """The objects of a file; lines that are torn or damaged are left out, and asked again."""
    if path is None:
        return
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return
    for line in raw.split(b"\n")[:-1]:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            yield value
