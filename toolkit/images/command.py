"""Which Apptainer builds and tests here, and with which rights.

Decides the command and whether --fakeroot and --no-privs are needed; leaves what is run to `build`.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import shutil
import subprocess
from pathlib import Path

import toolkit
from toolkit.errors import ImageError

VARIABLE = "MEDITRON_APPTAINER"
_INSTALL = "env/apptainer/install"
_UNWANTED = ("BIND", "BINDPATH", "MOUNT", "NV", "ROCM", "OVERLAY", "OVERLAYIMAGE", "CONTAINALL", "NAME", "SANDBOX")


def find(given: str | None = None) -> str:
    """The command: the one given, MEDITRON_APPTAINER, apptainer or singularity on PATH, or the one of
    env/apptainer/install. Raises `ImageError` when there is none, or when the one named is not there.
    """
    named = given or os.environ.get(VARIABLE)
    if named:
        found = shutil.which(named)
        if not found:
            raise ImageError(f"no {named} on {os.uname().nodename}", do=f"load its module, or name it with {VARIABLE}")
        return found
    for name in ("apptainer", "singularity"):
        if found := shutil.which(name):
            return found
    script = Path(toolkit.__file__).resolve().parents[1] / _INSTALL
    if script.is_file():  # it knows where it puts one
        done = subprocess.run([str(script), "--path"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode == 0 and done.stdout.strip():
            return done.stdout.strip()
    raise ImageError(
        f"no apptainer on {os.uname().nodename}",
        do=f"load its module, name it with {VARIABLE} or --apptainer, or install one: {_INSTALL}",
    )


def version(command: str) -> str:
    """As it says itself, such as 1.4.5. Raises `ImageError` when it does not run."""
    try:
        done = subprocess.run(
            [command, "version"], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError) as err:
        raise ImageError("Apptainer does not run", where=command, why=str(err)) from err
    if done.returncode:
        raise ImageError("Apptainer does not run", where=command, why=plain(done.stderr or done.stdout))
    return done.stdout.strip().split()[-1] if done.stdout.strip() else "unknown"


def lacking() -> str:
    """Why this user cannot build as the kernel's own root; empty for a root with every capability."""
    if os.geteuid() != 0:
        return f"{_user()} is not root"
    try:
        status = Path("/proc/self/status").read_text()
        last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
        have = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), 16)
    except (OSError, ValueError, StopIteration):
        return ""
    return "" if have == (1 << last + 1) - 1 else "root lacks some of its capabilities here"


def without_privileges() -> list[str]:
    """Options of exec, run and test that a root without all its capabilities needs."""
    return ["--no-privs"] if os.geteuid() == 0 and lacking() else []


def environment(tmp: Path | None = None) -> dict[str, str]:
    """Of a build or a test: the caller's, without what would bind the site's folders or set values in the image."""
    dropped = ("APPTAINERENV_", "SINGULARITYENV_")
    named = {f"{program}_{name}" for program in ("APPTAINER", "SINGULARITY") for name in _UNWANTED}
    kept = {k: v for k, v in os.environ.items() if not k.startswith(dropped) and k not in named}
    if tmp is not None:
        kept |= {"APPTAINER_TMPDIR": str(tmp), "SINGULARITY_TMPDIR": str(tmp)}
    return kept


def fakeroot_missing() -> str:
    """What --fakeroot lacks on this machine; empty when nothing that can be seen from here is missing."""
    for name in ("user/max_user_namespaces", "kernel/unprivileged_userns_clone"):
        with contextlib.suppress(OSError):
            if Path("/proc/sys", name).read_text().strip() == "0":
                return f"user namespaces are off (/proc/sys/{name} is 0)"
    lines: list[str] = []
    with contextlib.suppress(OSError):
        lines = Path("/etc/subuid").read_text().splitlines()
    if not any(line.split(":")[0] in (_user(), str(os.getuid())) for line in lines):
        return f"/etc/subuid has no line for {_user()}"
    return ""


def plain(text: str) -> str:
    """Without colours, which Apptainer writes even to a pipe."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).split())[-300:]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
