"""The Apptainer of this machine: whether it starts a container, for real, and what building images would lack.

Decides what each missing piece means; leaves finding the command to `toolkit.images`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit.doctor.finding import Finding, State
from toolkit.errors import ImageError
from toolkit.images import command

SECTION = "Apptainer"
_LIMIT_S = 60.0
_NAMESPACES = "user namespaces"
_NOTHING: Mapping[str, Any] = {}


def look(root: Path = Path("/")) -> list[Finding]:
    """One finding where there is none, else whether it runs, mounts a SIF, and builds."""
    try:
        found = command.find()
    except ImageError as err:
        return [_finding("apptainer", "Apptainer", "not here", "absent", f"{err.what}: {err.do}"), namespaces(root)]
    try:
        version = command.version(found)
    except ImageError as err:
        return [_finding("apptainer", "Apptainer", f"{found}: does not run", "fault", f"{err.why}: install it again")]
    built = [_mounts(root), _fakeroot()]
    trouble = starts(found)
    if not trouble:
        # It has just done what namespaces are for: their settings need no judgement of their own.
        return [_finding("apptainer", "Apptainer", f"{version}, starts a container", detail={"command": found}), *built]
    said = f"{version}, starts no container"
    first = _finding("apptainer", "Apptainer", said, "fault", trouble, detail={"command": found})
    return [first, namespaces(root), *built]


def starts(found: str) -> str:
    """Start a container of this machine's own /usr, for real; returns why it could not be, or ""."""
    with tempfile.TemporaryDirectory() as folder:
        box = Path(folder, "box")
        for name in ("dev", "etc", "home", "proc", "root", "sys", "tmp", "usr", "var/tmp"):
            (box / name).mkdir(parents=True)
        for name in ("etc/passwd", "etc/group", "etc/hosts", "etc/resolv.conf", "etc/localtime"):
            (box / name).touch()
        binds = ["/usr"]
        for name in ("bin", "lib", "lib64"):
            if (at := Path("/", name)).is_symlink():
                (box / name).symlink_to(os.readlink(at))
            elif at.is_dir():
                (box / name).mkdir()
                binds.append(str(at))
        words = [found, "exec", *command.without_privileges(), "--no-home", "--pwd", "/"]
        words += [word for bind in binds for word in ("--bind", bind)]
        try:
            done = subprocess.run(
                [*words, str(box), shutil.which("true") or "/bin/true"], stdin=subprocess.DEVNULL, capture_output=True,
                timeout=_LIMIT_S, env=command.environment(),
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"no container within {_LIMIT_S:g} s: look at the file system of {folder}"
        except OSError as err:
            return str(err)
    if done.returncode == 0:
        return ""
    lines = [line.strip() for line in done.stderr.decode("utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "FATAL" in line or "ERROR" in line] or lines or [f"exit code {done.returncode}"]
    return f"{errors[0]}: see {_NAMESPACES} below, or ask the site for its own Apptainer"


def namespaces(root: Path = Path("/")) -> Finding:
    """What an Apptainer without setuid needs, and what is said to forbid it."""
    sysctl = {
        name: _read(root / "proc/sys" / name)
        for name in ("user/max_user_namespaces", "kernel/unprivileged_userns_clone",
                     "kernel/apparmor_restrict_unprivileged_userns")
    }  # fmt: skip
    most, clone, apparmor = sysctl.values()
    mend = "sudo sysctl -w"
    if most == "0":
        return _ns("off", "fault", f"user.max_user_namespaces is 0: {mend} user.max_user_namespaces=15000")
    if clone == "0":
        return _ns("for root alone", "fault",
                   f"kernel.unprivileged_userns_clone is 0: {mend} kernel.unprivileged_userns_clone=1")  # fmt: skip
    if apparmor == "1":
        return _ns(
            "only for programs that AppArmor knows", "warn",
            "kernel.apparmor_restrict_unprivileged_userns is 1: the distribution's apptainer package has the profile "
            f"that is needed, another needs one, or {mend} kernel.apparmor_restrict_unprivileged_userns=0",
        )  # fmt: skip
    if root == Path("/") and (why := _unshare()):
        return _ns(
            "refused", "fault", f"{why}: a container that this runs in, or seccomp, forbids them; ask for them there"
        )
    return _ns(f"on, at most {most}" if most else "on", "ok")


def _mounts(root: Path) -> Finding:
    """How a SIF becomes a file system: without FUSE it is unpacked at each start."""
    what = "mounting a SIF"
    if os.geteuid() == 0:
        return _finding("sif", what, "by root itself")
    fuse = root / "dev/fuse"
    if not os.access(fuse, os.R_OK | os.W_OK):
        why = "is not there" if not fuse.exists() else "is not open to this user"
        do = f"/dev/fuse {why}: images are unpacked at each start (--unsquash), or sudo chmod 666 /dev/fuse"
        return _finding("sif", what, "not with FUSE", "warn", do)
    return _finding("sif", what, "with FUSE")


def _fakeroot() -> Finding:
    what = "building with --fakeroot"
    missing = command.fakeroot_missing()
    if not missing:
        return _finding("fakeroot", what, "possible")
    do = (
        f"{missing}: sudo usermod --add-subuids 1000000-1065535 --add-subgids 1000000-1065535 $USER, or build elsewhere"
    )
    return _finding("fakeroot", what, "not possible", "warn", do)


def _unshare() -> str:
    """Make a user namespace in a process of its own, for real; why not, or ""."""
    code = "import ctypes, os, sys; c = ctypes.CDLL(None, use_errno=True); r = c.unshare(0x10000000); " \
           "sys.exit(os.strerror(ctypes.get_errno()) if r else 0)"  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30
    )
    return "" if done.returncode == 0 else f"a user namespace cannot be made ({done.stderr.strip()})"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _ns(found: str, state: State, remedy: str = "") -> Finding:
    return _finding("namespaces", _NAMESPACES, found, state, remedy)


def _finding(
    key: str, what: str, found: str, state: State = "ok", remedy: str = "", *, detail: Mapping[str, Any] = _NOTHING
) -> Finding:
    return Finding(section=SECTION, key=key, what=what, found=found, state=state, remedy=remedy, detail=detail)
