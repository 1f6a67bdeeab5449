"""Which programs of Slurm are on this machine, and the packages that bring the missing ones.

Decides from packages.txt; leaves it to the caller whether they are installed or refused.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from refusal import Refused

TABLE = Path(__file__).with_name("packages.txt")


def search_path() -> str:
    """PATH, and beside each bin folder its sbin: Debian keeps daemons there, out of an ordinary user's PATH."""
    folders = [folder for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    beside = [str(Path(folder).with_name("sbin")) for folder in folders if Path(folder).name == "bin"]
    return os.pathsep.join(dict.fromkeys([*folders, *beside]))


def missing(*, accounting: bool) -> dict[str, str]:
    """The commands that are not found, each with its package."""
    rows = [line.split() for line in TABLE.read_text().splitlines() if line and not line.startswith("#")]
    wanted = {command: package for command, package, use in rows if use == "cluster" or accounting}
    path = search_path()
    return {command: package for command, package in wanted.items() if shutil.which(command, path=path) is None}


def require(*, accounting: bool, install: bool) -> None:
    """Refuses with the list of what is missing, or installs it with apt-get when asked to and root."""
    absent = missing(accounting=accounting)
    if not absent:
        return
    names = " ".join(dict.fromkeys(absent.values()))
    listed = "\n".join(f"  {command:<18} from the package {package}" for command, package in absent.items())
    by_hand = f"sudo apt-get install --no-install-recommends {names}"
    if not install:
        raise Refused(f"programs are missing:\n{listed}\nDo: {by_hand}\nor, as root: slurm-dev up --install", 4)
    if os.geteuid() != 0:
        raise Refused(f"--install needs root, and these are missing:\n{listed}\nDo: {by_hand}", 4)
    if shutil.which("apt-get") is None:
        raise Refused(f"--install needs apt-get (Debian, Ubuntu), and these are missing:\n{listed}", 4)
    print(f"slurm-dev: installing {names}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for step in (["update"], ["install", "--yes", "--no-install-recommends", *names.split()]):
        done = subprocess.run(
            ["apt-get", "--quiet=2", *step], env=environment, stdin=subprocess.DEVNULL, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        # A failed update is no matter where the lists at hand are good enough.
        if done.returncode and step[0] == "install":
            tail = "\n".join(f"  {line}" for line in done.stdout.splitlines()[-8:])
            raise Refused(f"apt-get could not install {names}; its last words:\n{tail}", 4)
    if still := missing(accounting=accounting):
        raise Refused(f"installed {names}, yet not found on PATH: {', '.join(still)}", 4)
