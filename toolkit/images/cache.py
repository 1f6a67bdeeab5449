"""Images by what they were made from, so that the same one is not built twice on a machine.

Decides where they lie and that only a whole one is taken; leaves when to ask to `build`.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
from pathlib import Path

from toolkit import files
from toolkit.errors import DiskFull, ImageError
from toolkit.images import sidecar, sif

_KEPT = 3  # of one name: branches that are worked on in turn; each may be many GB
VARIABLE = "MEDITRON_IMAGE_CACHE"


def place(digest: str, name: str) -> Path:
    """Where an image with these inputs lies, or would."""
    folder = os.environ.get(VARIABLE) or Path.home() / ".cache" / "meditron-toolkit" / "images"
    return Path(folder).expanduser().absolute() / digest / name


def take(digest: str, target: Path) -> bool:
    """Put the cached image at `target`, if there is one and its SHA-256 is what it was; a damaged one is removed."""
    source = place(digest, target.name)
    if not source.is_file():
        return False
    known = sidecar.load(source)
    try:
        sif.read(source)
        whole = known.get("inputs") == digest and known.get("sha256") == sidecar.sha256(source, source.stat().st_size)
    except (ImageError, OSError):
        whole = False
    if not whole:
        _forget(source)
        return False
    _share(source, target)
    sidecar.write(target, known)
    return True


def put(digest: str, image: Path) -> Path:
    """Keep `image` under its inputs, as a link where the file system can; the oldest others of its name go."""
    target = place(digest, image.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    _share(image, target)
    sidecar.write(target, sidecar.load(image))
    with contextlib.suppress(OSError):
        others = [path for path in target.parents[1].glob(f"*/{glob.escape(image.name)}") if path != target]
        for path in sorted(others, key=lambda path: path.parent.stat().st_mtime_ns)[: 1 - _KEPT]:
            _forget(path)
            path.parent.rmdir()
    return target


def _share(source: Path, target: Path) -> None:
    """A hard link where it can be, for images are replaced and never written to; else a copy."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with files.disk_errors(target):
            try:
                os.link(source, part)
            except OSError:
                shutil.copy2(source, part)
            os.replace(part, target)
    except (OSError, DiskFull):
        part.unlink(missing_ok=True)
        raise
    finally:
        # Renaming one link of a file over another does nothing, and leaves both.
        part.unlink(missing_ok=True)


def _forget(source: Path) -> None:
    for path in (source, sidecar.beside(source)):
        with contextlib.suppress(OSError):
            path.unlink()
