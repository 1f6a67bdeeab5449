"""The machine itself: Python, room in folders, shared memory, memory that may be locked. Loads nothing heavy."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import tempfile
from pathlib import Path

from toolkit import pins
from toolkit.doctor.finding import Finding, State
from toolkit.doctor.profiles import Place

SECTION = "this machine"
_LEAST_GIB = 1.0
_FEW_GIB = 20.0  # the demo takes two
_SHM_MIB = 512  # a container's default of 64 is too small for loaders and NCCL


def python(where: Place, table: pins.Pins) -> Finding:
    """The version of this Python. In a GPU image it is the image's own affair."""
    found = platform.python_version()
    short = ".".join(found.split(".")[:2])
    wanted = {"login": table.python_host, "cpu": (table.python_cpu,)}.get(where.profile, ())
    if not wanted or short in wanted:
        return _finding("python", "Python", found, wanted=" ".join(wanted))
    return _finding(
        "python", "Python", found, "fault" if where.profile == "cpu" else "warn",
        f"this is Python {short}: PYTHON=/path/to/python{wanted[-1]} env/setup makes an environment with another",
        wanted=" ".join(wanted),
    )  # fmt: skip


def shared_memory(path: Path = Path("/dev/shm")) -> Finding:
    """What loaders and NCCL exchange data through."""
    try:
        mib = shutil.disk_usage(path).total >> 20
    except OSError as err:
        return _finding("shm", "shared memory", f"{path}: {err.strerror}", "warn", f"there is no {path}: NCCL needs it")
    if mib < _SHM_MIB:
        do = f"{path} holds {mib} MiB: give the container more (--shm-size), or bind the host's"
        return _finding("shm", "shared memory", f"{mib} MiB", "warn", do)
    return _finding("shm", "shared memory", f"{mib / 1024:.1f} GiB")


def memlock() -> Finding:
    """Memory that may be locked: RDMA registers its buffers there."""
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft == resource.RLIM_INFINITY:
        return _finding("memlock", "memory that may be locked", "unlimited")
    do = "RDMA locks its buffers: `ulimit -l unlimited`, and in slurmd too (PropagateResourceLimitsExcept=MEMLOCK)"
    return _finding("memlock", "memory that may be locked", f"{soft >> 10} KiB", "warn", do)


def folder(path: Path, key: str, what: str) -> Finding:
    """Whether files can be made there, for real, and how much room there is. A folder that is not there yet is judged
    by the nearest one above it.
    """
    there = path
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"room")
            file.flush()
        gib = shutil.disk_usage(there).free / 2**30
    except OSError as err:
        do = f"{there}: {err.strerror or err}: choose another folder"
        return _finding(key, what, f"{path}: not writable", "fault", do)
    said = f"{path}: {gib:,.1f} GiB free"
    if gib < _LEAST_GIB:
        return _finding(key, what, said, "fault", f"{path} is full: choose another folder or make room")
    few = gib < _FEW_GIB
    return _finding(
        key, what, said, "warn" if few else "ok", f"{gib:.1f} GiB hold no checkpoint of a real model" if few else ""
    )


def scratch() -> Path:
    return Path(os.environ.get("TMPDIR") or tempfile.gettempdir())


def _finding(key: str, what: str, found: str, state: State = "ok", remedy: str = "", *, wanted: str = "") -> Finding:
    return Finding(section=SECTION, key=key, what=what, found=found, wanted=wanted, state=state, remedy=remedy)
