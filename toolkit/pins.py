"""The table of pins, env/versions.yaml, as values: which version of what belongs where.

Decides how the table is read and when a found version is the wanted one; what is installed is the doctor's to find out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.errors import MissingPackage, ToolkitError

TABLE = Path(__file__).resolve().parents[1] / "env" / "versions.yaml"
"""Beside the package: in the source tree, and where an image is shown it."""

_ANY = ("as shipped", "any")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")


@dataclass(frozen=True, kw_only=True)
class Pin:
    """A package as its index names it. `version` is exact; `groups` are explained at the head of the table."""

    name: str
    version: str
    groups: tuple[str, ...]
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Pins:
    """`packages` by canonical name, `torch_cpu` the CPU build's version; `raw` is the whole table for what is not here.

    `sha256` is of the file's bytes.
    """

    path: Path
    sha256: str
    packages: Mapping[str, Pin]
    torch_cpu: str
    python_host: tuple[str, ...]
    python_cpu: str
    gpu_image: Mapping[str, Any]
    apptainer: str | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def of(self, *groups: str, cpu: bool = False) -> dict[str, str]:
        """Version by name of the packages in any of these groups; torch is its CPU build with `cpu`."""
        found = {name: pin.version for name, pin in self.packages.items() if set(groups) & set(pin.groups)}
        if cpu and "torch" in found:
            found["torch"] = self.torch_cpu
        return found


def canonical(name: str) -> str:
    """A package's name as PyPA's rules write it, so that two spellings of it are one."""
    return re.sub(r"[-_.]+", "-", name).lower()


def table(path: str | Path | None = None) -> Pins:
    """Read the table. Raises `ToolkitError` when it is missing or is no such table, `MissingPackage` without PyYAML."""
    try:
        import yaml
    except ImportError:
        raise MissingPackage(
            "PyYAML is not installed here, and the table of pins is YAML",
            do="env/setup --group host makes an environment with the light core",
        ) from None
    path = Path(path) if path is not None else TABLE
    try:
        data = path.read_bytes()
        raw = yaml.safe_load(data.decode("utf-8"))
    except OSError as err:
        raise _damaged(path, err.strerror or str(err)) from None
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError, ValueError) as err:
        raise _damaged(path, " ".join(str(err).split())[:200]) from None
    if not isinstance(raw, dict):
        raise _damaged(path, "it holds no table")
    try:
        packages = {canonical(name): _pin(name, pin) for name, pin in _map(raw, "packages").items()}
        return Pins(
            path=path,
            sha256=hashlib.sha256(data).hexdigest(),
            packages=packages,
            torch_cpu=str(_map(raw, "torch_cpu")["version"]),
            python_host=tuple(map(str, _map(raw, "python")["host"])),
            python_cpu=str(_map(raw, "python")["cpu"]),
            gpu_image=_map(raw, "gpu_image"),
            apptainer=str(raw["apptainer"]["version"]) if isinstance(raw.get("apptainer"), dict) else None,
            raw=raw,
        )
    except (KeyError, TypeError, ValueError) as err:
        raise _damaged(path, f"not as the toolkit writes it: {err}") from None


def fits(found: str, wanted: str, *, leading: bool = False) -> bool:
    """Whether a found version is the wanted one.

    A local part such as +cu129 counts only where the wanted one has it. With `leading` it is enough that the found one
    begins with the wanted one's numbers (2.9 takes 2.9.1), or the wanted one with its (13.0.1 takes CUDA's "13.0").
    """
    if wanted.split(";")[0].strip().lower().startswith(_ANY):
        return True
    if "+" not in wanted:
        found = found.partition("+")[0]
    a, b = _parts(found), _parts(wanted)
    if leading:
        shared = min(len(a), len(b))
        return shared > 0 and a[:shared] == b[:shared]
    length = max(len(a), len(b))
    return _filled(a, length) == _filled(b, length)


def _parts(version: str) -> list[str]:
    """2.9.0a0 is 2, 9, 0a0; numbers lose leading zeros, so that 2024.01 is 2024.1."""
    return [part.lstrip("0") or "0" if part.isdigit() else part.lower() for part in version.strip().split(".") if part]


def _filled(parts: list[str], length: int) -> list[str]:
    return parts + ["0"] * (length - len(parts))


def _map(raw: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = raw[key]
    if not isinstance(value, dict):
        raise TypeError(f"'{key}' is no table")
    return value


def _pin(name: Any, pin: Any) -> Pin:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no package's name")
    if not isinstance(pin, dict) or not isinstance(pin.get("groups"), list):
        raise TypeError(f"'{name}' has no version and groups")
    return Pin(
        name=canonical(name),
        version=str(pin["version"]),
        groups=tuple(map(str, pin["groups"])),
        why=str(pin.get("why", "")),
    )


def _damaged(path: Path, why: str) -> ToolkitError:
    return ToolkitError(
        "the table of pins cannot be read", where=path, why=why, do="git checkout env/versions.yaml brings it back"
    )
