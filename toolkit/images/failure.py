"""What went wrong in a build or a test, told from Apptainer's own words. Decides which cause is named and what to do;
leaves the whole log where it lies.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from toolkit.errors import DiskFull, ImageError, ToolkitError
from toolkit.images import command

_LAST = 6
_FATAL = re.compile(
    r"^(?:(?:FATAL|ERROR)\s*:\s*(?:While performing build:\s*|container creation failed:\s*)?|Error for command \S+ )"
)
_UNREACHABLE = re.compile(
    r"no such host|connection refused|network is unreachable|i/o timeout|TLS handshake|x509:|unauthorized|"
    r"manifest unknown|denied|pinging container registry|Temporary failure in name resolution|server misbehaving|"
    r"requested access to the resource|no route to host|toomanyrequests|proxyconnect",
    re.IGNORECASE,
)
_FAKEROOT = re.compile(
    r"/etc/sub[ug]id|newuidmap|newgidmap|user namespace|could not use fakeroot|fakeroot requires|fakeroot command|"
    r"clone: (?:operation not permitted|invalid argument)|max_user_namespaces|unshare.*(?:permitted|No space left)|"
    r"Requesting capability set|while determining suid path|failed to create user namespace|"
    r"Failed to create container process",
    re.IGNORECASE,
)
_ROOM = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)


def of_build(name: str, lines: Sequence[str], code: int, *, log: Path, base: str, tmp: Path) -> ToolkitError:
    """The error for a build in `tmp` that ended with `code`; `lines` are its last ones, `base` what it begins from.

    Called while what the build has unpacked is still there.
    """
    text = "\n".join(lines)
    fatal = next((_FATAL.sub("", line) for line in reversed(lines) if _FATAL.match(line)), "")
    kept = f"the whole log is {log}; an image that was there before is untouched"
    if _FAKEROOT.search(fatal or text[-2000:]):
        return ImageError(
            f"{name} cannot be built here without root", where=log,
            why="; ".join(part for part in (command.fakeroot_missing(), fatal) if part),
            do="an administrator gives this user ids in /etc/subuid and /etc/subgid and allows user namespaces; or"
            " build where they are, and copy the image",
        )  # fmt: skip
    if _ROOM.search(text):
        full = min((tmp, log.parent), key=lambda folder: shutil.disk_usage(folder).free)
        return DiskFull(
            f"no room to build {name}", where=full,
            do=f"free space, or name another folder: --tmp for what is unpacked, -o for the image; {kept}",
        )  # fmt: skip
    script = re.search(r"while running %(\w+) section: exit status (\d+)", fatal)
    if script or "while running engine: exit status" in fatal:
        which = script[1] if script else "post"
        lack = command.fakeroot_missing() if "libs/fakeroot" in text else ""  # Apptainer's makeshift without it
        return ImageError(
            f"%{which} of {name} failed", where=log,
            why=f"its last lines: {tail(lines)}{f'; it had to run without real ids, for {lack}' if lack else ''}",
            do=f"mend the definition; {kept}",
        )  # fmt: skip
    if "conveyor failed to get" in fatal and (_UNREACHABLE.search(text) or "debootstrapping" in fatal):
        return ImageError(
            f"the base of {name} cannot be had: {base}", where=log,
            why=tail(lines, 2) if "debootstrapping" in fatal else fatal.replace("conveyor failed to get: ", ""),
            do="check the name, the network and the proxy, log in (apptainer registry login), or build on a local base:"
            f" --bootstrap localimage --base FILE; {kept}",
        )  # fmt: skip
    if "conveyor failed to get" in fatal:
        return ImageError(
            f"the base of {name} cannot be used: {base}", where=log, why=fatal.replace("conveyor failed to get: ", ""),
            do=f"name another with --base; {kept}",
        )  # fmt: skip
    return ImageError(
        f"{name} could not be built", where=log, why=fatal or f"exit status {code}; its last lines: {tail(lines)}",
        do=f"see {log}; an image that was there before is untouched" if fatal else kept,
    )  # fmt: skip


def of_test(name: str, lines: Sequence[str], code: int, *, log: Path) -> ImageError:
    """The error for an image whose %test ended with `code`, or could not begin."""
    start = next((line for line in lines if line.startswith("FATAL") and "container creation failed" in line), "")
    if start:
        return ImageError(
            f"{name} does not start here, so its %test has not run", where=log, why=_FATAL.sub("", start),
            do=f"the new image was not put in place; the whole log is {log}; --no-test would take it as it is",
        )  # fmt: skip
    return ImageError(
        f"%test of {name} failed with {code}", where=log, why=f"its last lines: {tail(lines)}",
        do=f"the new image was not put in place; the whole log is {log}; --no-test would take it as it is",
    )  # fmt: skip


def no_fuse(lines: Sequence[str]) -> bool:
    """Whether an image did not start for want of FUSE: it still does when it is unpacked first."""
    return any(line.startswith("FATAL") and "fuse" in line and "container creation failed" in line for line in lines)


def tail(lines: Sequence[str], count: int = _LAST) -> str:
    """The last lines that say something, on one line."""
    said = [line.strip() for line in lines if line.strip() and not line.startswith(("FATAL", "INFO", "WARNING"))]
    return " / ".join(line[:200] for line in said[-count:]) or "it said nothing"
