"""What a SIF says of itself: whether it is one, whether it is all there, and the labels it was built with.

Reads the header and the table of objects only (a few kB of many GB); leaves what is in the file systems to Apptainer.
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import ImageError

# Layout of version 01, little-endian and unpadded: sylabs/sif, pkg/sif/sif.go (`header`, `rawDescriptor`).
_HEADER = struct.Struct("<32s10s3s3s16s8q")
_OBJECT = struct.Struct("<i?3I7q128s384s")
_MAGIC = b"SIF_MAGIC\0"
_LAUNCH = b"#!/usr/bin/env run-singularity\n".ljust(32, b"\0") + _MAGIC
_ARCH = {"01": "386", "02": "amd64", "03": "arm", "04": "arm64", "05": "ppc64", "06": "ppc64le", "09": "mips64",
         "11": "s390x", "12": "riscv64"}  # fmt: skip
_PARTITION, _SIGNATURE, _METADATA = 0x4004, 0x4005, 0x4006
_MOST_OBJECTS = 4096  # Apptainer writes 48; a table beyond this is no table
_MOST_METADATA = 4 << 20


@dataclass(frozen=True, kw_only=True)
class Object:
    """One entry of the table: `kind` as in sif.go's DataType, place and size in bytes."""

    kind: int
    offset: int
    size: int
    name: str


@dataclass(frozen=True, kw_only=True)
class Sif:
    """A SIF's own account of itself. `labels` is empty where its builder left none."""

    arch: str
    objects: tuple[Object, ...]
    labels: dict[str, str]

    @property
    def signed(self) -> bool:
        return any(entry.kind == _SIGNATURE for entry in self.objects)


def read(path: Path) -> Sif:
    """Read the header of `path`. Raises `ImageError` when it is no SIF, or shorter than it says."""
    try:
        with open(path, "rb") as handle:
            size = os.fstat(handle.fileno()).st_size
            return _read(path, handle, size)
    except OSError as err:
        raise ImageError("the image cannot be read", where=path, why=os.strerror(err.errno or 0)) from err


def _read(path: Path, handle: Any, size: int) -> Sif:
    head = handle.read(_HEADER.size)
    again = "build it again (python -m toolkit.images build), or copy it again from where it came"
    if not head:
        raise ImageError("the image is empty", where=path, do=again)
    if _MAGIC not in head[:42] and not _LAUNCH[: len(head)] == head[:42]:
        raise ImageError("this is no SIF", where=path, why=_instead(head), do=again)
    if len(head) < _HEADER.size:
        raise _truncated(path, size, _HEADER.size)
    _, magic, version, arch, _, _, _, free, total, table, _, _, _ = _HEADER.unpack(head)
    if magic != _MAGIC or version != b"01\0":
        raise ImageError("this is no SIF that is known", where=path, why=f"its version is {version[:2]!r}", do=again)
    if not (0 <= free <= total <= _MOST_OBJECTS) or table < 0:
        raise ImageError("the SIF's header is damaged", where=path, do=again)
    if table + total * _OBJECT.size > size:
        raise _truncated(path, size, table + total * _OBJECT.size)
    handle.seek(table)
    rows = handle.read(total * _OBJECT.size)
    objects = []
    for row in _OBJECT.iter_unpack(rows):
        kind, used, offset, length, name = row[0], row[1], row[5], row[6], row[12]
        if used:
            if offset < 0 or length < 0:
                raise ImageError("the SIF's table of objects is damaged", where=path, do=again)
            text = name.split(b"\0")[0].decode("utf-8", "replace")
            objects.append(Object(kind=kind, offset=offset, size=length, name=text))
    end = max((entry.offset + entry.size for entry in objects), default=0)
    if end > size:
        raise _truncated(path, size, end)
    if not any(entry.kind == _PARTITION for entry in objects):
        raise ImageError("the SIF holds no file system", where=path, do=again)
    name = arch[:2].decode("ascii", "replace")
    return Sif(arch=_ARCH.get(name, name), objects=tuple(objects), labels=_labels(handle, objects))


def _truncated(path: Path, size: int, wanted: int) -> ImageError:
    return ImageError(
        f"the SIF is truncated: {size:,} bytes of at least {wanted:,}",
        where=path,
        why="a copy or a download of it has ended early",
        do="copy it again from where it came, or build it again (python -m toolkit.images build)",
    )


def _instead(head: bytes) -> str:
    for start, name in ((b"hsqs", "a bare squashfs"), (b"\x1f\x8b", "a gzip archive"), (b"<", "a page of HTML"),
                        (b"version https://git-lfs", "a pointer of git-lfs, not the file itself")):  # fmt: skip
        if head.startswith(start):
            return f"it looks like {name}"
    return "it does not begin as one"


def _labels(handle: Any, objects: list[Object]) -> dict[str, str]:
    """Of the JSON that `apptainer build` leaves for `apptainer inspect`; one without it has no labels for us."""
    for entry in objects:
        if entry.kind == _METADATA and entry.size <= _MOST_METADATA:
            handle.seek(entry.offset)
            found = labels_in(handle.read(entry.size))
            if found:
                return found
    return {}


def labels_in(data: bytes | str) -> dict[str, str]:
    """The labels in what `apptainer inspect --json` prints, or in a sandbox's labels.json; {} where it is neither."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    for key in ("data", "attributes", "labels"):
        if isinstance(value, dict) and isinstance(value.get(key), dict):
            value = value[key]
    if not isinstance(value, dict):
        return {}
    return {name: text for name, text in value.items() if isinstance(text, str)}
