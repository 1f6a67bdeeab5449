"""What a build would make: a definition, its arguments, and the inputs that follow from them.

Decides which value each argument has and which base is meant by digest; leaves building it to `build`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.errors import ToolkitError
from toolkit.images import registry
from toolkit.images.definition import Definition, find, read, values
from toolkit.images.inputs import STAMPS, Inputs, inputs

SANDBOX = ".sandbox"


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to build. `fakeroot` None: when it is needed. `arguments` as --build-arg, `extra` as apptainer build takes
    it. `tmp` is where an image is unpacked (default: APPTAINER_TMPDIR, TMPDIR, /tmp).
    """

    fakeroot: bool | None = None
    sandbox: bool = False
    arguments: Mapping[str, str] = field(default_factory=dict)
    mirror: str | None = None
    force: bool = False
    test: bool = True
    cache: bool = False
    tmp: Path | None = None
    apptainer: str | None = None
    extra: Sequence[str] = ()
    quiet: bool = False


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a build would make: `given` are the arguments beside the definition's defaults, the stamps left out."""

    definition: Definition
    given: Mapping[str, str]
    values: Mapping[str, str]
    inputs: Inputs
    target: Path


def plan(name: str, folder: Path, output: Path | None, options: Options) -> Plan:
    """Read the definition `name` of `folder` and all it is made from. Raises `UsageError` and `ImageError`."""
    definition = read(find(name, folder))
    given = dict(options.arguments)
    unknown = dict.fromkeys((stamp for stamp in STAMPS if stamp in definition.used), "unknown")
    filled = values(definition, {**unknown, **given})
    if digest := _pinned(definition, filled, given):
        given["BASE"] = filled["BASE"] = digest
    target = (output or definition.path.parent) / (definition.name + (SANDBOX if options.sandbox else ".sif"))
    made = inputs(definition, filled)
    return Plan(definition=definition, given=given, values=filled, inputs=made, target=target.expanduser().absolute())


def _pinned(definition: Definition, filled: Mapping[str, str], given: Mapping[str, str]) -> str | None:
    """`name@sha256:...` for a base whose digest is in env/versions.yaml, unless the caller names a base."""
    base = filled.get("BASE")
    if not base or "BASE" in given or "@" in base:
        return None
    from toolkit.pins import table

    try:
        raw = table(definition.root / "env" / "versions.yaml").raw
    except ToolkitError:
        return None
    for entry in _entries(raw):
        digest = entry.get("digest")
        if entry.get("base") == base and isinstance(digest, str) and digest.startswith("sha256:"):
            return registry.pinned(base, digest)
    return None


def looked_up(what: Plan) -> str | None:
    """The digest that a registry's tag stands for now, so that what is built is what is written down."""
    base = what.values.get("BASE", "")
    header = what.definition.filled(what.definition.headers[0]["bootstrap"], what.values)
    return registry.digest(base) if header.lower() == "docker" and base and "@" not in base else None


def _entries(value: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        yield value
        for part in value.values():
            yield from _entries(part)
