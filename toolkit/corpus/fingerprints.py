"""What finding duplicates needs to know of each document: columns of one unit's documents, in a folder.

Decides which columns there are and writes them as documents come; leaves what they mean to `sketches` and `near`.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit import files
from toolkit.corpus import sketches
from toolkit.corpus.columns import Column, open_column
from toolkit.errors import DataError, MissingPackage

if TYPE_CHECKING:
    from toolkit.cleaning import Duplicates
    from toolkit.corpus.document import Document, Withdrawal

_FORMAT = 2
_INFO = "fingerprints.json"
_WAITING = 1 << 17  # words of documents whose sketches are made in one go
_BLOCK = 1 << 16
_VERSION = np.dtype("S24")  # as bytes of UTF-8, whose order is that of the characters
# Column -> type, width. Ends are those of the document's stretch in the column of that name.
_COLUMNS: dict[str, tuple[Any, int]] = {
    "exact": (np.uint64, 2),
    "rank": (np.uint8, 0),
    "version": (_VERSION, 0),
    "id": (np.uint8, 0),
    "id_end": (np.int64, 0),
    "id_hash": (np.uint64, 0),
    "key": (np.uint64, 2),
    "key_owner": (np.uint32, 0),
    "sketch": (np.uint32, 0),
    "sketch_end": (np.int64, 0),
    "withdrawn": (np.uint64, 2),
    "withdrawn_version": (_VERSION, 0),
    "retracted": (np.uint64, 2),
}


class Collector:
    """Takes a unit's documents in order and, at `close`, has their fingerprints in `folder` (made if missing).

    Memory does not grow with their number. Without a `close` that ended well the folder is none for `decide`.
    """

    def __init__(self, folder: Path, settings: Duplicates) -> None:
        self._folder, self._settings = Path(folder), settings
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / _INFO).unlink(missing_ok=True)
        self._columns = {name: Column(_path(self._folder, name), *form) for name, form in _COLUMNS.items()}
        if settings.near:
            self._bands = Column(self._folder / "bands.part", np.uint64, settings.bands)
        self._rows = {name: bytearray() for name in _COLUMNS if not name.startswith("sketch")}
        self._waiting: list[np.ndarray] = []
        self._words = self._documents = self._id_end = self._sketch_end = 0

    def add(self, doc: Document, hashes: np.ndarray) -> None:
        """The next document, with the hashes of its text's words (`words.hashes`)."""
        xxhash = _xxhash()
        if not len(hashes):  # a text of signs alone is alike to itself only
            hashes = np.frombuffer(xxhash.xxh3_128_digest(doc.text.encode("utf-8", "surrogatepass")), np.uint64)
        name = _bytes(doc.id)
        self._id_end += len(name)
        rows = self._rows  # as bytes, which join much faster than arrays of one number
        rows["id"] += name
        rows["id_end"] += self._id_end.to_bytes(8, sys.byteorder)
        rows["id_hash"] += xxhash.xxh3_64_digest(name)
        rows["rank"].append(min(max(doc.rank, 0), 255))
        rows["version"] += _version(doc.version)
        rows["exact"] += xxhash.xxh3_128_digest(hashes)
        for key in sorted(set(doc.keys)):
            rows["key"] += xxhash.xxh3_128_digest(_bytes(key))
            rows["key_owner"] += self._documents.to_bytes(4, sys.byteorder)
        self._documents += 1
        self._waiting.append(hashes)
        self._words += len(hashes)
        if self._words >= _WAITING:
            self._flush()

    def withdraw(self, withdrawal: Withdrawal) -> None:
        """A record that the source withdraws, up to that version of it."""
        self._rows["withdrawn"] += _xxhash().xxh3_128_digest(_bytes(withdrawal.key))
        self._rows["withdrawn_version"] += _version(withdrawal.version)

    def retract(self, keys: Iterable[str]) -> None:
        """Articles that are retracted, by their keys: all their versions, in every source."""
        for key in keys:
            self._rows["retracted"] += _xxhash().xxh3_128_digest(_bytes(key))

    def close(self) -> None:
        """Finish the columns. Raises `DiskFull`."""
        self._flush()
        for column in self._columns.values():
            column.close()
        if self._settings.near:
            self._bands.close()
            self._turn_bands()
        info = {"format": _FORMAT, "documents": self._documents, "keys": self._columns["key"].rows}
        info |= {name: self._columns[name].rows for name in ("withdrawn", "retracted")}
        files.write_json(self._folder / _INFO, {**info, "rules": _made_with(self._settings)})

    def _flush(self) -> None:
        for name, raw in self._rows.items():
            self._columns[name].write(raw)
            raw.clear()
        rules = self._settings
        if rules.near and self._waiting:
            keys, found = sketches.make(
                self._waiting, shingle=rules.shingle, bands=rules.bands, rows=rules.rows, sketch=rules.sketch
            )
            self._bands.append(keys)
            self._columns["sketch"].append(np.concatenate(found))
            ends = self._sketch_end + np.cumsum([len(item) for item in found])
            self._columns["sketch_end"].append(ends)
            self._sketch_end = int(ends[-1])
        self._waiting, self._words = [], 0

    def _turn_bands(self) -> None:
        # One band of all documents is read at a time, so that it must lie in one piece.
        given, path = open_column(self._bands.path), _path(self._folder, "bands")
        with files.disk_errors(path), open(path, "wb") as file:
            shape = {"descr": "<u8", "fortran_order": False, "shape": (self._settings.bands, self._documents)}
            np.lib.format.write_array_header_1_0(file, shape)
            head = file.tell()
            for begin in range(0, self._documents, _BLOCK):
                turned = np.ascontiguousarray(given[begin : begin + _BLOCK].T, "<u8")
                for band, keys in enumerate(turned):
                    file.seek(head + 8 * (band * self._documents + begin))
                    file.write(keys.tobytes())
        self._bands.path.unlink()


def counts(folder: Path, rules: Duplicates) -> dict[str, int]:
    """How many documents, keys, withdrawals and retractions the folder holds. Raises `DataError` if it is not complete,
    or when its fingerprints were made for other rules.
    """
    path = folder / _INFO
    try:
        info = files.read_json(path)
        found = {name: int(info[name]) for name in ("documents", "keys", "withdrawn", "retracted")}
        made_with = info["rules"] if info["format"] == _FORMAT else None
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise DataError("holds no fingerprints", where=folder, why=str(err), do="build this unit again") from err
    if made_with != _made_with(rules):
        raise DataError("its fingerprints were made by other rules", where=path, do="build this unit again")
    return found


class Names:
    """The ids of a unit's documents."""

    def __init__(self, folder: Path) -> None:
        self._names, self._ends = open_column(_path(folder, "id")), open_column(_path(folder, "id_end"))

    def __getitem__(self, number: int) -> str:
        begin = int(self._ends[number - 1]) if number else 0
        return bytes(self._names[begin : int(self._ends[number])]).decode("utf-8", "surrogatepass")


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"


def _made_with(rules: Duplicates) -> dict[str, Any]:
    """The rules that decide what the columns hold; the others may change without a unit being read again."""
    names = ("near", "shingle", "bands", "rows", "sketch")
    return {name: value for name, value in dataclasses.asdict(rules).items() if name in names}


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _version(text: str) -> bytes:
    return _bytes(text)[: _VERSION.itemsize].ljust(_VERSION.itemsize, b"\0")


def _xxhash() -> Any:
    try:
        import xxhash
    except ImportError as err:
        raise MissingPackage("xxhash is needed to find duplicates", do="install the extra 'data'") from err
    return xxhash
