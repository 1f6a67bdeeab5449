"""Which image a path is: its SHA-256, what it was made from and when, from the file beside it while that still fits.

Decides when a sidecar is believed (size and time of the image are those it was written for); leaves whether that is
the image a run wants to `check`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit import files
from toolkit.errors import DiskFull, ImageError
from toolkit.images import sif

LABELS = ".singularity.d/labels.json"  # in a sandbox
COMMIT, PINS, INPUTS = "meditron.commit", "meditron.pins", "meditron.inputs"
BUILT = "org.label-schema.build-date"
_BUILD = "build one: python -m toolkit.images build NAME"


def beside(path: Path) -> Path:
    """The sidecar of an image: `cpu.sif` has `cpu.json`, the sandbox `cpu.sandbox` has `cpu.sandbox.json`."""
    return path.with_suffix(".json") if path.suffix == ".sif" else path.with_name(path.name + ".json")


def kind_of(path: Path) -> str:
    """`sif` or `sandbox`. Raises `ImageError` when there is neither."""
    if not os.path.lexists(path):
        raise ImageError("the image is not there", where=path, do=_BUILD)
    if path.is_dir():
        if not (path / ".singularity.d").is_dir():
            raise ImageError(
                "the folder is no sandbox of Apptainer", where=path, why="it has no .singularity.d", do=_BUILD
            )
        return "sandbox"
    if not path.exists():
        raise ImageError("the image is a link that leads nowhere", where=path, why=f"to {os.readlink(path)}", do=_BUILD)
    if not path.is_file():
        raise ImageError("the image is neither a file nor a folder", where=path, do=_BUILD)
    return "sif"


def noted(path: Path) -> dict[str, Any]:
    """What the sidecar says, whatever has become of the image since; {} when there is none."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        found = files.read_json(beside(path))
        return found if isinstance(found, dict) else {}
    return {}


def load(path: Path) -> dict[str, Any]:
    """What the sidecar says, if it was written for the image as it lies there; else {}."""
    found = noted(path)
    with contextlib.suppress(OSError):
        stat = path.stat()
        if found.get("mtime_ns") == stat.st_mtime_ns:
            if path.is_dir():
                return found
            digest = found.get("sha256")
            if found.get("bytes") == stat.st_size and isinstance(digest, str) and len(digest) == 64:
                return found
    return {}


def identity(path: str | os.PathLike[str], *, fresh: bool = False) -> dict[str, Any]:
    """{path, kind ("sif"|"sandbox"), sha256, bytes, mtime_ns, inputs, commit, built} of an image.

    `sha256` comes from the sidecar while size and time of the image are those it was written for, else (or when
    `fresh`) the whole file is read: 2 to 3 s a GB. A sandbox has no sha256 and no bytes. `inputs`, `commit` and `built`
    are None where neither sidecar nor labels tell. Raises `ImageError` when there is no image, or no whole one.
    """
    path = Path(path).expanduser().absolute()
    kind = kind_of(path)
    said = labels(path)
    try:
        known, stat = load(path), path.stat()
        digest = None if kind == "sandbox" else known.get("sha256")
        if kind == "sif" and (fresh or digest is None):
            digest = sha256(path, stat.st_size)
    except OSError as err:
        raise ImageError("the image cannot be read", where=path, why=os.strerror(err.errno or 0)) from err
    return {
        "path": str(path),
        "kind": kind,
        "sha256": digest,
        "bytes": stat.st_size if kind == "sif" else None,
        "mtime_ns": stat.st_mtime_ns,
        "inputs": _text(known.get("inputs")) or said.get(INPUTS),
        "commit": _text(known.get("commit")) or said.get(COMMIT),
        "built": _text(known.get("built")) or said.get(BUILT),
    }


def labels(path: Path) -> dict[str, str]:
    """What the image's %labels and Apptainer say of it. Raises `ImageError` for a file that is no whole SIF."""
    if not path.is_dir():
        return sif.read(path).labels
    with contextlib.suppress(OSError):
        return sif.labels_in((path / LABELS).read_bytes())
    return {}


def sha256(path: Path, size: int) -> str:
    """Of the whole file, with progress where that takes long."""
    if size < 1 << 30:
        return files.sha256_file(path)
    import hashlib

    from toolkit.progress import progress

    digest = hashlib.sha256()
    with open(path, "rb") as handle, progress(f"hashing {path.name}", total=size >> 20, unit="MiB") as bar:
        while chunk := handle.read(8 << 20):
            digest.update(chunk)
            bar.advance(len(chunk) >> 20)
    return digest.hexdigest()


def write(path: Path, facts: Mapping[str, Any]) -> None:
    """Write the sidecar of `path`, with size and time of the image as it lies there."""
    stat = path.stat()
    size = None if path.is_dir() else stat.st_size
    with contextlib.suppress(DiskFull):  # the image is whole without; the next look hashes it
        files.write_json(beside(path), {**facts, "bytes": size, "mtime_ns": stat.st_mtime_ns})


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
