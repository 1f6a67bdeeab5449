"""The peak memory of a process that a test starts. `ru_maxrss` does not tell it: a process inherits that figure from
the one that started it, which may be as large as a test run is.
"""

from __future__ import annotations

from pathlib import Path


def peak_kib() -> int:
    """Of this process since it began, KiB (VmHWM)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
