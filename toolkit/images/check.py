"""Whether an image is the one that a run was launched with. Decides when looking at size and time is enough and when
the whole file is read; leaves what to do about another image to the launcher.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit.errors import ImageError
from toolkit.images.sidecar import identity, kind_of
from toolkit.images.sif import read

_DO = "put the first one back, or start a new run with this one"


def check(path: str | os.PathLike[str], wanted: Mapping[str, Any], *, full: bool = False) -> None:
    """Raise `ImageError` when the image is gone, truncated, no SIF, or another than `wanted` (see `identity`).

    Size and time tell first; where they differ, or with `full`, the SHA-256 decides: a copy of the same image passes.
    With `full` the file is read even if a sidecar knows its digest. A sandbox is compared by what it was made from.
    """
    path = Path(path).expanduser().absolute()
    kind = kind_of(path)
    if wanted.get("kind") not in (None, kind):
        raise ImageError(f"the image is a {kind} now, and was a {wanted['kind']} at launch", where=path, do=_DO)
    digest = wanted.get("sha256")
    if kind == "sif" and digest is not None and not full:
        read(path)
        stat = path.stat()
        if (stat.st_size, stat.st_mtime_ns) == (wanted.get("bytes"), wanted.get("mtime_ns")):
            return
    found = identity(path, fresh=full)
    if kind == "sif" and digest is not None:
        if found["sha256"] != digest:
            raise ImageError(
                "this is another image than the one the run was launched with",
                where=path,
                why=f"SHA-256 {found['sha256'][:16]}… ({_when(found)}), not {str(digest)[:16]}… ({_when(wanted)})",
                do=_DO,
            )
    elif wanted.get("inputs") is not None and found["inputs"] != wanted["inputs"]:
        made = [str(value)[:16] if value else "something unknown" for value in (found["inputs"], wanted["inputs"])]
        raise ImageError(
            "this is another image than the one the run was launched with",
            where=path,
            why=f"it was made from {made[0]}, the other from {made[1]}",
            do=_DO,
        )


def _when(facts: Mapping[str, Any]) -> str:
    return f"built {facts['built']}" if facts.get("built") else "build date unknown"
