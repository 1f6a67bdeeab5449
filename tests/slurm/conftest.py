"""A real Slurm of 16 nodes on this machine, brought up once for all tests that ask for it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SLURM_DEV = Path(__file__).resolve().parents[2] / "env" / "slurm-dev" / "slurm-dev"


def slurm_dev(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command itself, with its output; it never waits for a terminal."""
    return subprocess.run(
        [sys.executable, str(SLURM_DEV), *map(str, arguments)], capture_output=True, text=True, timeout=120,
        stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment},
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """A cluster that is up."""

    state: Path

    @property
    def conf(self) -> Path:
        return self.state / "etc" / "slurm.conf"

    def run(self, *command: object, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL,
            env={**os.environ, "SLURM_CONF": str(self.conf)}, cwd=self.state / "log",
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done

    def out(self, *command: object, timeout: float = 60) -> str:
        return self.run(*command, timeout=timeout).stdout.strip()

    def submit(self, *arguments: object) -> str:
        """The new job's id."""
        return self.out("sbatch", "--parsable", *arguments)

    def job(self, job: str) -> dict[str, str]:
        """What scontrol says of a job, such as JobState, Restarts, NodeList."""
        words = self.out("scontrol", "--oneliner", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait(self, ready: Callable[[], object], seconds: float = 60) -> None:
        """Until `ready()` is true; a limit against hanging, no measurement."""
        deadline = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < deadline, f"waited in vain; the queue:\n{self.out('squeue', '-l')}"
            time.sleep(0.1)

    def status(self) -> dict:
        return json.loads(slurm_dev("status", "--json", "--state", self.state).stdout)


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """A folder for states whose path is short and open enough for Slurm's sockets, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="sd-", dir="/tmp"))
    yield folder
    states = [*folder.glob("*/cluster.json")]
    for marker in states:
        slurm_dev("down", "--state", marker.parent)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def slurm_packages() -> None:
    """Skips where Slurm's packages are not installed; `env/setup --system` is who installs them."""
    looked = slurm_dev("up", "--state", "/dev/null/nowhere")
    if looked.returncode == 4:
        pytest.skip(looked.stderr.strip().replace("\n", " "))


@pytest.fixture(scope="session")
def slurm(slurm_packages: None) -> Iterator[Slurm]:
    """16 nodes x 8 GPUs without accounting, in a state folder of its own."""
    state = Path(tempfile.mkdtemp(prefix="sd-", dir="/tmp")) / "state"
    try:
        up = slurm_dev("up", "--state", state)
        assert up.returncode == 0, up.stdout + up.stderr
        yield Slurm(state=state)
    finally:
        slurm_dev("down", "--state", state)
        shutil.rmtree(state.parent, ignore_errors=True)
