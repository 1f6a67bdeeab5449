"""The folder that a build works in: one build at a time, and nothing left behind.

Decides what lies where in it; leaves what is in those files to those who write them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from toolkit.errors import DataError, RunBusy

UNITS, PREPARED, DUPLICATES, INPUTS = "units", "prepared", "duplicates", "inputs.jsonl"
_LOCK = "lock"


@contextlib.contextmanager
def alone(own: Path) -> Iterator[None]:
    """Hold the folder against other builds; the lock is the kernel's, so that one which dies leaves none behind."""
    writable(own)
    with open(own / _LOCK, "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            if err.errno not in (errno.EAGAIN, errno.EACCES):  # a file system without locks: nothing can be told
                handle.close()
                yield
                return
            raise RunBusy("another build works here", where=own, do="wait for it or end it, then try again") from None
        yield


def writable(folder: Path) -> None:
    """Make the folder if it is missing; said now, before the work is done that could not be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as err:
        why = "it is no folder" if isinstance(err, FileExistsError) else str(err.strerror or err)
        raise DataError("cannot be written", where=folder, why=why, do="choose another folder") from err


def clear(own: Path) -> None:
    """Remove what a build keeps in its folder, and the folder when it held nothing else."""
    for name in (UNITS, PREPARED, DUPLICATES):
        shutil.rmtree(own / name, ignore_errors=True)
    lists = [*own.glob(f"{INPUTS}.names"), *own.glob(f".{INPUTS}*.part")]  # of a build killed while it wrote them
    for path in (own / INPUTS, own / _LOCK, *lists):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        own.rmdir()
