"""What an image is made from, and one hash of it all: another hash, another image.

Decides what counts: the definition, its arguments, the files it copies, its local base. The toolkit's own source does
not, for a run shows the image the source it was launched from.
"""

from __future__ import annotations

import glob
import hashlib
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit import files
from toolkit.errors import ImageError, ToolkitError
from toolkit.images import sidecar
from toolkit.images.definition import Definition

# Values that differ although nothing that is installed does.
STAMPS = ("COMMIT", "PINS", "INPUTS")
# The toolkit's source, as a definition copies it for `apptainer run`; definitions count through their own text.
_SOURCE = {"toolkit", "recipes", "tests", "slurm", "containers", "env", "README.md", "CHANGELOG.md", "Makefile",
           "pyproject.toml", "env/versions.yaml"}  # fmt: skip
_TABLE = "env/versions.yaml"


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """`digest` of `parts`: what each input is called, and its value or SHA-256."""

    digest: str
    parts: Mapping[str, str]


def inputs(definition: Definition, values: Mapping[str, str]) -> Inputs:
    """Of an image built with these arguments (`definition.values`). Raises `ImageError` for a file that is missing."""
    parts = {"definition": hashlib.sha256(definition.text.encode()).hexdigest()}
    parts |= {f"argument {name}": value for name, value in sorted(values.items()) if name not in STAMPS}
    for line in definition.copied():
        name = definition.filled(line.text, values).rstrip("/")
        if name in _SOURCE or (name.startswith("containers/") and name.endswith(".def")):
            continue
        found = sorted(glob.glob(str(definition.root / name)))
        if not found:
            raise ImageError(
                "the definition copies a file that is not there",
                where=f"{definition.path}:{line.number}",
                why=str(definition.root / name),
            )
        for path in map(Path, found):
            shown = path.relative_to(definition.root) if path.is_relative_to(definition.root) else path
            parts[f"file {shown}"] = _contents(path)
    if _TABLE in definition.script("post", "setup", "pre", "appinstall"):
        parts[f"file {_TABLE}"] = pins(definition.root)
    for header in definition.headers:
        filled = {name: definition.filled(value, values) for name, value in header.items()}
        base = Path(filled.get("from", "")).expanduser()
        if filled["bootstrap"].lower() == "localimage":
            parts[f"base {filled.get('from', '')}"] = _base(definition.root / base)
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True)
    return Inputs(digest=hashlib.sha256(text.encode()).hexdigest()[:32], parts=parts)


def changed(old: Mapping[str, Any], new: Mapping[str, str]) -> list[str]:
    """The names of the inputs that differ, new, gone or other."""
    return sorted({name for name in {*old, *new} if old.get(name) != new.get(name)})


def stamps(root: Path) -> dict[str, str]:
    """COMMIT and PINS of the source in `root`, for an image's labels."""
    return {"COMMIT": _commit(root), "PINS": pins(root)}


def pins(root: Path) -> str:
    """A hash of what env/versions.yaml says, reasons and comments aside; `unknown` where it cannot be read."""
    try:
        from toolkit.pins import table

        said = table(root / _TABLE).raw
    except ToolkitError:
        return "unknown"
    return hashlib.sha256(json.dumps(_plain(said), sort_keys=True, default=str).encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items() if key not in ("why", "source")}
    return [_plain(part) for part in value] if isinstance(value, list) else value


def _contents(path: Path) -> str:
    if path.is_file():
        return files.sha256_file(path)
    digest = hashlib.sha256()
    for file in sorted(part for part in path.rglob("*") if part.is_file() and "__pycache__" not in part.parts):
        digest.update(f"{file.relative_to(path).as_posix()}\0{files.sha256_file(file)}\n".encode())
    return digest.hexdigest()


def _base(path: Path) -> str:
    """A local base by digest; a sandbox by what it was made from, or by its top folders where nothing tells."""
    if path.is_dir() and not (path / ".singularity.d").is_dir():
        return files.stat_fingerprint(path)
    try:
        known = sidecar.identity(path)
    except ImageError as err:
        do = "name another with --base, or another kind with --bootstrap"
        raise ImageError(f"the local base cannot be used: {err.what}", where=err.where, why=err.why, do=do) from err
    return known["sha256"] or known["inputs"] or files.stat_fingerprint(path)


def _commit(root: Path) -> str:
    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = git("rev-parse", "HEAD")
        return f"{commit}-dirty" if commit and git("status", "--porcelain", "-uno") else commit or "unknown"
    except (OSError, subprocess.SubprocessError):
        return "unknown"
