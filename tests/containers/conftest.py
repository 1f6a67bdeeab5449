"""A real Apptainer, and the CPU image, for every test that asks for one; each is had once for a whole session.

Other folders import the fixtures: `from tests.containers.conftest import apptainer, cpu_image  # noqa: F401`.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.images.command import without_privileges

ROOT = Path(__file__).resolve().parents[2]
INSTALL = ROOT / "env" / "apptainer" / "install"


@pytest.fixture(scope="session")
def apptainer() -> str:
    """The path of an `apptainer` that runs: the one on PATH, or the one that env/apptainer/install made."""
    found = subprocess.run([str(INSTALL), "--path"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    command = found.stdout.strip()
    if not command:
        pytest.skip("no apptainer here; `env/apptainer/install` brings one on Debian and Ubuntu")
    version = subprocess.run([command, "version"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if version.returncode:
        pytest.skip(f"{command} does not run here: {version.stderr.strip()[-200:]}")
    return command


@pytest.fixture(scope="session")
def cpu_image(apptainer: str) -> Path:
    """containers/cpu.sif as its inputs are now: there already, from the cache of images, or built (minutes)."""
    cache = Path(os.environ.get("MEDITRON_IMAGE_CACHE") or Path.home() / ".cache" / "meditron-toolkit" / "images")
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / ".tests.lock", "w") as lock:  # of two test processes one builds, the other waits and finds it
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(
            [sys.executable, "-m", "toolkit.images", "build", "cpu", "--cache", "--apptainer", apptainer],
            cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=3000,
        )  # fmt: skip
    assert done.returncode == 0, f"containers/cpu.sif could not be built:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return ROOT / "containers" / "cpu.sif"


@pytest.fixture(scope="session")
def options(apptainer: str) -> list[str]:
    """What exec, run and test need besides for whoever runs the tests: root may lack some of its capabilities."""
    return without_privileges()
