"""What a run was started with: command, code, packages, image, machine. Written once, but for an image that is accepted
later; holds no environment variable.
"""

from __future__ import annotations

import platform
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = (
    "meditron-toolkit",
    "torch",
    "nemo-toolkit",
    "megatron-core",
    "transformers",
    "sentencepiece",
    "submitit",
    "hydra-core",
)


def manifest(run: str, command: Sequence[str], image: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """`image` is the identity of the one that the run's jobs start, None where they start none."""
    return {
        "run": run,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": list(command),
        "git": _git(Path(__file__).resolve().parents[2]),
        "versions": versions(),
        "python": sys.version.split()[0],
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "image": None if image is None else dict(image),
        "data": {},
    }


def versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _git(root: Path) -> dict[str, Any]:
    """Commit and uncommitted changes of the toolkit's own source tree; empty when it is not a checkout."""

    def ask(*args: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(root), *args], capture_output=True, timeout=20, check=True, stdin=subprocess.DEVNULL
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.decode("utf-8", errors="replace")

    top = ask("rev-parse", "--show-toplevel")
    if top is None or Path(top.strip()).resolve() != root:
        return {}
    diff = ask("diff", "HEAD") or ""
    new = (ask("ls-files", "--others", "--exclude-standard") or "").splitlines()
    commit = (ask("rev-parse", "HEAD") or "").strip()
    return {"commit": commit, "dirty": bool(diff or new), "diff": diff, "untracked": new}
