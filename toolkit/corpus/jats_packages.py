"""The XML files inside PMC's tar packages, one after another as the stream gives them; nothing is put on disk.

Decides which members are articles, which are refused (links, devices, names that lead out of the folder, sizes beyond
bounds) and where a broken stream ends; leaves their content to `jats.py`.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from toolkit.corpus.inputs import DamagedStream, chunks

BLOCK = 512
_LONG_NAME = 64 * 2**10  # bytes of a name or of a member's extended attributes; more is hostile
_EXTENDED = frozenset((tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE, b"X"))


class _Stream:
    """Bytes of a (packed) file in order; no more than a piece and the member that is asked for is held."""

    def __init__(self, file: Path) -> None:
        self.pieces, self.held, self.at = chunks(file), b"", 0

    def read(self, count: int) -> bytes:
        """`count` bytes, fewer at the end of the stream."""
        parts, wanted = [], count
        while wanted:
            if self.at == len(self.held):
                self.held, self.at = next(self.pieces, b""), 0
                if not self.held:
                    break
            part = self.held[self.at : self.at + wanted]
            parts.append(part)
            self.at += len(part)
            wanted -= len(part)
        return b"".join(parts)

    def skip(self, count: int) -> bool:
        """Whether so many bytes were there."""
        while count > 0:
            if not (part := self.read(min(count, 1 << 20))):
                return False
            count -= len(part)
        return True


def members(file: Path, suffixes: tuple[str, ...], limit: int) -> Iterator[tuple[str, bytes | str]]:
    """(name, bytes of the member), or (name, why it is refused), of every member whose name ends in `suffixes`.

    Other plain files and folders are passed over, links, devices and names that lead elsewhere are refused. Raises
    `DamagedStream` where the stream breaks, after everything before it.
    """
    stream, name, size_named, any_member = _Stream(file), "", None, False
    while True:
        head = stream.read(BLOCK)
        if not head and not any_member:
            raise DamagedStream("the file is empty")
        if head == bytes(BLOCK):
            return
        if len(head) < BLOCK:
            raise DamagedStream("the tar package ends early (a truncated file)")
        try:
            info = tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
        except tarfile.HeaderError as err:
            raise DamagedStream(f"is not a tar package or is damaged ({err})") from err
        any_member = True
        padded = -(-info.size // BLOCK) * BLOCK
        if info.size < 0:
            raise DamagedStream("is not a tar package or is damaged (a member of negative size)")
        if info.type in _EXTENDED:
            if info.size > _LONG_NAME:
                raise DamagedStream(f"a header of {info.size} bytes, which no name needs")
            data = stream.read(padded)[: info.size]
            if info.type == tarfile.GNUTYPE_LONGNAME:
                name = data.rstrip(b"\0").decode("utf-8", "surrogateescape")
            elif info.type in (tarfile.XHDTYPE, b"X"):
                records = _records(data)
                name = records.get("path", name)
                size_named = int(records["size"]) if records.get("size", "").isdigit() else None
            continue
        info.name, name = name or info.name, ""
        if size_named is not None:
            info.size, size_named = size_named, None
            padded = -(-info.size // BLOCK) * BLOCK
        shown = _shown(info.name)
        why = _refused(info)
        beside = shown.rpartition("/")[2].startswith("._")  # what macOS keeps beside a file
        wanted = not why and info.isreg() and shown.lower().endswith(suffixes) and not beside
        if wanted and info.size > limit:
            why = f"larger than {limit / 2**20:g} MiB"
        if wanted and not why:
            data = stream.read(padded)
            if len(data) < info.size:
                raise DamagedStream(f"the tar package ends early, within {shown} (a truncated file)")
            yield shown, data[: info.size]
            continue
        if why:
            yield shown, why
        if not stream.skip(padded if info.isreg() else 0):
            raise DamagedStream(f"the tar package ends early, within {shown} (a truncated file)")


def _records(data: bytes) -> dict[str, str]:
    """The `key=value` lines of an extended header; what is not written as such is passed over."""
    found, at = {}, 0
    while (blank := data.find(b" ", at)) > 0 and data[at:blank].isdigit():
        length = int(data[at:blank])
        key, equals, value = data[blank + 1 : at + length - 1].partition(b"=")
        if length <= blank - at or not equals:
            break
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        at += length
    return found


def _refused(info: tarfile.TarInfo) -> str:
    path = PurePosixPath(info.name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        return "a name that leads out of its folder"
    if info.issym() or info.islnk():
        return "a link, which no package needs"
    if not (info.isreg() or info.isdir()):
        return "a device or another thing that is no file"
    return ""


def _shown(name: str) -> str:
    """A member's name as it may stand in a report."""
    name = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "?" for c in name)[-200:]
