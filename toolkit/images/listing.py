"""What images there are and what state each is in; and whether one is still the file that was built.

Decides the words ready, stale, untracked, damaged and absent; leaves what to do about them to the reader.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import ImageError, ToolkitError
from toolkit.images import command, sidecar, sif
from toolkit.images.definition import names
from toolkit.images.inputs import changed
from toolkit.images.plan import SANDBOX, Options, plan


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An image, or a definition without one.

    `state`: `ready` (made from what its definition says now), `stale` (that has changed: `why` says what), `untracked`
    (nothing tells what it was made from), `damaged`, `absent`.
    """

    name: str
    path: Path
    state: str
    why: str = ""
    kind: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    built: str | None = None
    commit: str | None = None
    signed: bool = False


def listing(folder: Path, output: Path | None = None) -> tuple[Entry, ...]:
    """Every definition of `folder` with its image in `output` (default: beside it), then the other images there.

    No image is read whole: a SHA-256 is given where a sidecar tells it.
    """
    output = (output or folder).expanduser().absolute()
    entries, seen = [], set()
    for name in names(folder):
        found = [path for path in (output / f"{name}.sif", output / f"{name}{SANDBOX}") if path.exists()]
        for path in found or [output / f"{name}.sif"]:
            entries.append(_entry(path, folder))
            seen.add(path)
    others = [*output.glob("*.sif"), *output.glob(f"*{SANDBOX}")] if output.is_dir() else []
    entries += [_entry(path, folder) for path in sorted(others) if path not in seen and not path.name.startswith(".")]
    return tuple(entries)


def verify(path: Path, folder: Path, *, apptainer: str | None = None) -> Entry:
    """Read the whole image: is it what its sidecar says, and is that what its definition would make now?

    A signed one is given to `apptainer verify` too. Raises `ImageError` when it is gone, damaged or another file than
    was built, or a signature does not hold. A stale image is whole: the entry's `state` says so.
    """
    path = path.expanduser().absolute()
    noted = sidecar.noted(path)
    found = sidecar.identity(path, fresh=True)
    wanted = noted.get("sha256")
    if found["kind"] == "sif" and isinstance(wanted, str) and wanted != found["sha256"]:
        raise ImageError(
            "the image is not the one that was built", where=path,
            why=f"SHA-256 {found['sha256'][:16]}… instead of {wanted[:16]}…",
            do="build it again (python -m toolkit.images build); or remove the .json beside it if you changed the image"
            " yourself, by signing it for example",
        )  # fmt: skip
    if found["kind"] == "sif" and sif.read(path).signed:
        done = subprocess.run(
            [command.find(apptainer), "--nocolor", "verify", str(path)],
            capture_output=True, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode:
            said = command.plain(done.stderr).rpartition("FATAL:")[2].strip()
            do = "if its key is only unknown here, import it (apptainer key import)"
            raise ImageError("a signature of the image does not hold", where=path, why=said, do=do)
    return _entry(path, folder, sha256=found["sha256"])


def _entry(path: Path, folder: Path, sha256: str | None = None) -> Entry:
    name = path.name.removesuffix(".sif").removesuffix(SANDBOX)
    if not path.exists():
        return Entry(name=name, path=path, state="absent")
    try:
        kind = sidecar.kind_of(path)
        signed = kind == "sif" and sif.read(path).signed
        labels = sidecar.labels(path)
    except ImageError as err:
        return Entry(name=name, path=path, state="damaged", why=err.what)
    known = sidecar.load(path)
    state, why = _state(name, path, folder, str(known.get("inputs") or labels.get(sidecar.INPUTS) or ""))
    return Entry(
        name=name, path=path, state=state, why=why, kind=kind, signed=signed,
        bytes=path.stat().st_size if kind == "sif" else None, sha256=sha256 or known.get("sha256"),
        built=known.get("built") or labels.get(sidecar.BUILT), commit=known.get("commit") or labels.get(sidecar.COMMIT),
    )  # fmt: skip


def _state(name: str, path: Path, folder: Path, made_from: str) -> tuple[str, str]:
    """As in `Entry`. The arguments that an image was built with are kept: it is stale when anything else changed."""
    if name not in names(folder):
        return ("untracked", f"no definition {name}.def")
    if not made_from or made_from == "unknown":
        return ("untracked", "nothing tells what it was made from")
    known = sidecar.load(path)
    given = known.get("args")
    arguments = {k: v for k, v in given.items() if isinstance(v, str)} if isinstance(given, dict) else {}
    try:
        now = plan(name, folder, path.parent, Options(arguments=arguments, sandbox=path.is_dir())).inputs
    except ToolkitError as err:
        return ("stale", f"its definition cannot be read: {err.what}")
    if now.digest == made_from:
        return ("ready", "")
    parts = known.get("parts")
    which = changed(parts, now.parts) if isinstance(parts, dict) else []
    return ("stale", f"changed: {', '.join(which[:5])}" if which else "its inputs changed")
