"""Builds an image: only when what it is made from has changed, tested before it takes the place of the one before.

Decides whether to build, the order of a build and what is left when it ends early; leaves the command to `command`,
the messages of a failed one to `failure`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from toolkit import files
from toolkit.errors import DiskFull, ImageError, UsageError
from toolkit.images import cache, command, failure, process, registry, sidecar, sif, sources
from toolkit.images.inputs import changed, pins, stamps
from toolkit.images.plan import Options, Plan, looked_up, plan
from toolkit.images.workplace import abandoned, alone, leftovers, prefix, remove, room


@dataclass(frozen=True, kw_only=True)
class Built:
    """An image as it now lies at `path`. `state` is built, kept or cached; `why` says what decided that."""

    name: str
    path: Path
    state: str
    why: str
    sha256: str | None
    bytes: int | None
    inputs: str
    seconds: float
    notes: tuple[str, ...] = ()


def build(name: str, *, folder: Path, output: Path | None = None, options: Options | None = None) -> Built:
    """Build containers/NAME.def (or the file that `name` is) to NAME.sif beside it, or in `output`.

    An image whose inputs are those of the one that is there is kept. What was there before stays until the new one is
    whole and its %test has passed; on any error or Ctrl-C nothing of the new one is left but NAME.log. Raises
    `ImageError`, `UsageError` or `DiskFull`.
    """
    options = options or Options()
    began = time.monotonic()
    what = plan(name, folder, output, options)
    target = what.target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise ImageError(
            "the folder for images is not usable", where=target.parent, why=os.strerror(err.errno or 0)
        ) from err
    with alone(target) as lock:
        leftovers(target)
        place = Path(options.tmp or os.environ.get("APPTAINER_TMPDIR") or os.environ.get("TMPDIR") or "/tmp").absolute()
        abandoned(place, prefix(what.definition))
        why = _reason(what, options)
        if not why:
            return _built(what, "kept", "its inputs are those it was built from", began)
        if options.cache and not options.force and not options.sandbox and cache.take(what.inputs.digest, target):
            return _built(what, "cached", "an image with these inputs was in the cache", began)
        program = command.find(options.apptainer)
        version = command.version(program)
        _say(options, f"building {target.name}: {why}")
        notes = _make(what, options, program, version, place, lock)
        if options.cache and not options.sandbox:
            with contextlib.suppress(OSError, DiskFull):
                cache.put(what.inputs.digest, target)
        return _built(what, "built", why, began, notes)


def _reason(what: Plan, options: Options) -> str:
    """Why it has to be built; empty when it has not."""
    target = what.target
    if options.force:
        return "--force"
    if not os.path.lexists(target):
        return "there is none yet"
    try:
        known = sidecar.load(target)
        if sidecar.kind_of(target) == "sif":
            sif.read(target)
    except ImageError as err:
        return f"the one that is there is damaged ({err.what})"
    if not known:
        return "it is not known what the one that is there was made from"
    if known.get("inputs") == what.inputs.digest:
        return ""
    old = known.get("parts")
    names = changed(old, what.inputs.parts) if isinstance(old, dict) else []
    more = ", …" if len(names) > 5 else ""
    return f"its inputs changed: {', '.join(names[:5])}{more}" if names else "its inputs changed"


def _make(what: Plan, options: Options, program: str, version: str, place: Path, lock: int) -> tuple[str, ...]:
    definition, target, notes = what.definition, what.target, []
    lack = command.lacking()
    fakeroot = bool(lack) if options.fakeroot is None else options.fakeroot
    if fakeroot and options.fakeroot is None:
        notes.append(f"built with --fakeroot: {lack}")
    if not {"BOOTSTRAP", "BASE"} & set(options.arguments):  # what a definition says of itself is with its own base
        room(definition, place, target)
    log = target.with_name(f"{target.stem}.log")
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        tmp = Path(tempfile.mkdtemp(prefix=f"{prefix(definition)}{os.getpid()}-", dir=place))
    except OSError as err:
        raise ImageError("the temporary folder is not usable", where=place, why=os.strerror(err.errno or 0),
                         do="name another with --tmp or APPTAINER_TMPDIR") from err  # fmt: skip
    try:
        with files.disk_errors(log), open(log, "w", encoding="utf-8", buffering=1) as handle:
            found = _sources(what, options, tmp)
            if found.said:
                notes.append(f"package sources of this machine: {', '.join(found.said)}")
            found_base = looked_up(what)
            if found_base:
                notes.append(f"{what.values['BASE']} is {found_base}: write it beside that base in env/versions.yaml")
            for note in notes:
                handle.write(f"# {note}\n")
                _say(options, f"{target.name}: {note}")
            env = command.environment(tmp)
            env["PATH"] = os.pathsep.join([*found.path, env.get("PATH", os.defpath)])
            words = _command(what, options, program, fakeroot, found.binds, part, found_base)
            how = {"label": target.name, "log": handle, "env": env, "quiet": options.quiet}
            done = process.run(words, cwd=definition.root, pass_fds=[lock], **how)
            if done.code:
                base = f"{what.values.get('BOOTSTRAP', '')} {what.values.get('BASE', '')}".strip() or _from(what)
                raise failure.of_build(definition.name, list(done.lines), done.code, log=log, base=base, tmp=tmp)
            if not options.sandbox:
                sif.read(part)
            if options.test and "%test" in definition.text:
                for more in ([], ["--unsquash"]):
                    test = [program, *_QUIET, "test", *command.without_privileges(), *more, "--cleanenv", "--pwd", "/"]
                    how = {**how, "env": command.environment(tmp)}
                    done = process.run([*test, str(part)], cwd=tmp, pass_fds=[lock], **how)
                    if not (done.code and failure.no_fuse(list(done.lines))):
                        break
                if done.code:
                    raise failure.of_test(definition.name, list(done.lines), done.code, log=log)
        with files.disk_errors(target):
            _finish(what, options, part, version, found_base)
    finally:
        remove(part)
        remove(tmp)
    return tuple(notes)


_QUIET = ["--nocolor"]


def _command(
    what: Plan, options: Options, program: str, fakeroot: bool, binds: Sequence[str], part: Path, digest: str | None
) -> list[str]:
    words = [program, *_QUIET, "build", "--notest"]  # the finished image is tested instead
    words += ["--fakeroot"] if fakeroot else []
    words += ["--sandbox"] if options.sandbox else []
    given = {**what.given, **stamps(what.definition.root), "INPUTS": what.inputs.digest}
    if digest:
        given["BASE"] = registry.pinned(what.values["BASE"], digest)
    for name, value in given.items():
        if name in what.definition.used:
            words += ["--build-arg", f"{name}={value}"]
    for bind in binds:
        words += ["--bind", bind]
    if what.definition.squashfs and not options.sandbox:
        words += ["--mksquashfs-args", what.definition.squashfs]
    return [*words, *options.extra, str(part), str(what.definition.path)]


def _sources(what: Plan, options: Options, tmp: Path) -> sources.Sources:
    definition = what.definition
    if f"{sources.INSIDE}/sources.sh" not in definition.text:
        return sources.Sources(binds=(), path=(), said=())
    header = {k: definition.filled(v, what.values) for k, v in definition.headers[0].items()}
    boot = header["bootstrap"].lower() == "debootstrap"
    mirror = (options.mirror or sources.debian_mirror()) if boot else None
    if options.mirror and not boot:
        raise UsageError("--mirror is for a definition that bootstraps Debian", where=definition.path)
    return sources.prepare(
        tmp, mirror=mirror, suite=header.get("osversion"), default_mirror=header.get("mirrorurl"),
        pip=sources.pip_config(),
    )  # fmt: skip


def _finish(what: Plan, options: Options, part: Path, version: str, base: str | None) -> None:
    digest = None if options.sandbox else sidecar.sha256(part, part.stat().st_size)
    stamp = stamps(what.definition.root)
    facts: dict[str, Any] = {
        "image": what.target.name,
        "sha256": digest,
        "inputs": what.inputs.digest,
        "parts": what.inputs.parts,
        "def": what.inputs.parts["definition"],
        "pins": pins(what.definition.root),
        "commit": stamp["COMMIT"],
        "base": base,
        "apptainer": version,
        "built": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "args": dict(options.arguments),
        "tested": options.test and "%test" in what.definition.text,
    }
    if options.sandbox:
        old = what.target.with_name(f".{what.target.name}.{os.getpid()}.old")
        if what.target.exists():
            os.replace(what.target, old)
        try:
            os.replace(part, what.target)
        except BaseException:
            if old.exists() and not what.target.exists():
                os.replace(old, what.target)
            raise
        remove(old)
    else:
        part.chmod(0o755 & ~_umask())
        os.replace(part, what.target)
    sidecar.write(what.target, facts)


def _built(what: Plan, state: str, why: str, began: float, notes: tuple[str, ...] = ()) -> Built:
    known = sidecar.identity(what.target)
    return Built(
        name=what.definition.name, path=what.target, state=state, why=why, sha256=known["sha256"],
        bytes=known["bytes"], inputs=what.inputs.digest, seconds=round(time.monotonic() - began, 1), notes=notes,
    )  # fmt: skip


def _from(what: Plan) -> str:
    header = what.definition.headers[0]
    return " ".join(what.definition.filled(header.get(key, ""), what.values) for key in ("bootstrap", "from"))


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _say(options: Options, text: str) -> None:
    if not options.quiet:
        print(text, file=sys.stderr, flush=True)
