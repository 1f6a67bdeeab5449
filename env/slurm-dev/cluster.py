"""Brings a one-machine Slurm up, looks at it and takes it down.

Decides which daemons there are, in what order they start, and when all is well; leaves their settings to settings.py,
processes to processes.py and words for the user to commands.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import processes
import settings as files
from packages import search_path
from processes import Process
from refusal import Refused
from settings import Settings

LOG_LINES = 12
# In the environment of every daemon, and so of the steps that slurmd starts; a job's own processes do not have it.
MARK = "SLURM_DEV_STATE"
# Long enough for a machine whose cores and disk are busy with other things.
PATIENCE_S = 60.0
# In a node: its own name, its own /etc/hosts and, where they are given, parts of /sys; all of it would hide cgroups.
AS_NODE = (
    'hostname "$1" && mount --bind "$2" /etc/hosts || exit; '
    'if [ -n "$3" ]; then for part in "$3"/*; do mount --bind "$part" "/sys/${part##*/}" || exit; done; fi; shift 3; '
    # The rights that an ordinary user has in a namespace are for the two lines above, not for jobs.
    'if [ "$(id -u)" != 0 ]; then set -- setpriv --ambient-caps=-all --inh-caps=-all "$@"; fi; exec "$@"'
)
OWN_NAMES = ["unshare", "--uts", "--mount", "--propagation", "private"]
AS_USER = ["unshare", "--user", "--map-current-user", "--keep-caps", *OWN_NAMES[1:]]


@contextlib.contextmanager
def locked(state: Path) -> Iterator[None]:
    """One `up` or `down` at a time in a state folder; the kernel lets go of it however this process ends."""
    with (state / "lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"slurm-dev: another slurm-dev is at work in {state}; waiting for it", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def environment(state: Path) -> dict[str, str]:
    """What daemons and Slurm's commands run with: nothing of a job or a cluster that the caller may be in."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH", "SALLOC"))}
    return {**kept, "PATH": search_path(), "SLURM_CONF": str(state / "etc" / "slurm.conf"), MARK: str(state)}


def daemons(state: Path, settings: Settings) -> dict[str, Process | None]:
    """Every daemon that this cluster consists of, in the order of starting, with its process where it is alive."""
    names = ["munged", *(("mariadbd", "slurmdbd") if settings.accounting else ()), "slurmctld", *settings.names]
    return {name: processes.recorded(_record(state, name)) for name in names}


def answers(state: Path) -> bool:
    """Whether the controller does; asked only where one lives, since Slurm's commands wait long for a dead one."""
    return processes.recorded(_record(state, "slurmctld")) is not None and " UP" in _ask(state, "scontrol", "ping")


def node_states(state: Path) -> dict[str, str]:
    """Slurm's own word for each node, such as idle, mixed, allocated, down*."""
    return dict(line.split() for line in _ask(state, "sinfo", "-h", "-N", "-o", "%N %T").splitlines())


def jobs(state: Path) -> list[str]:
    """The ids of jobs that wait, run or are being ended."""
    waiting = "pending,running,completing,configuring,suspended,stopped,requeued,requeue_hold"
    return sorted(set(_ask(state, "squeue", "-h", "-o", "%A", "-t", waiting).split()))


def bring_up(state: Path, settings: Settings) -> list[str]:
    """Starts everything in an empty state folder, or ends what it started and says which log to read.

    Returns remarks for the user: what this machine does not allow.
    """
    started: dict[str, subprocess.Popen[bytes]] = {}
    try:
        files.save(state, settings)
        files.write(state, settings)
        return _start_all(state, settings, started)
    except BaseException:
        end_all(state)
        raise
    finally:
        for process in started.values():
            process.poll()


def start_missing(state: Path, settings: Settings) -> list[str]:
    """Starts the slurmd of nodes whose slurmd is gone; the others and their jobs are not touched. Returns the nodes."""
    dead = [name for name, process in daemons(state, settings).items() if process is None]
    started: dict[str, subprocess.Popen[bytes]] = {}
    prefix, _ = _isolation(state)
    for name in dead:
        _start_node(state, settings, name, prefix, started)
    _wait_for_nodes(state, dead, started)
    return dead


def end_all(state: Path) -> int:
    """Cancels jobs, ends every daemon and what came from it, empties the folder but for log/.

    Returns how many processes ended.
    """
    settings = files.load(state)
    records = sorted((state / "run").glob("*.process"))
    daemons_alive = [found for path in records if (found := processes.recorded(path))]
    controller = processes.recorded(_record(state, "slurmctld"))
    if controller and settings:
        _cancel_jobs(state)
    own = processes.descendants([*daemons_alive, *_left_behind(state)])
    processes.end(own)
    # A job's process that got away from its step, and what was started while the others ended.
    late = processes.descendants(_left_behind(state))
    processes.end(late, grace_s=0.5)
    for entry in state.iterdir():
        if entry.name not in ("log", "lock", files.MARKER):
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    return len(own) + len(late)


def log_tail(state: Path, name: str) -> str:
    """The last lines of a daemon's log, with its path."""
    path = state / "log" / f"{name}.log"
    lines = path.read_text(errors="replace").splitlines()[-LOG_LINES:] if path.exists() else []
    return "\n".join([f"{path} ends with:", *(f"  {line}" for line in lines or ["(nothing)"])])


# ---- starting --------------------------------------------------------------------------------------------------------


def _start_all(state: Path, settings: Settings, started: dict[str, subprocess.Popen[bytes]]) -> list[str]:
    run, etc, log = state / "run", state / "etc", state / "log"
    # --force: the state folder may be in a place that munge would call too open or too closed.
    _start(state, started, "munged", ["munged", "--foreground", "--force", f"--key-file={etc}/munge.key",
        f"--socket={run}/munge.socket", f"--pid-file={run}/munged.pid", f"--log-file={log}/munged.log",
        f"--seed-file={run}/munged.seed", "--num-threads=2"])  # fmt: skip
    _wait(state, started, "munged", (run / "munge.socket").exists)
    if settings.accounting:
        _start_accounting(state, settings, started)
    _start(state, started, "slurmctld", ["slurmctld", "-D"])
    # Asked before it listens, scontrol sleeps for seconds before it asks again.
    _wait(state, started, "slurmctld", lambda: _listens(settings.port) and answers(state))
    prefix, remarks = _isolation(state)
    for name in settings.names:
        _start_node(state, settings, name, prefix, started)
    _wait_for_nodes(state, settings.names, started)
    return remarks


def _start_accounting(state: Path, settings: Settings, started: dict[str, subprocess.Popen[bytes]]) -> None:
    small = ["--innodb-buffer-pool-size=16M", "--innodb-log-file-size=8M", "--innodb-flush-log-at-trx-commit=0"]
    with (state / "log" / "mariadbd.log").open("ab") as log:
        made = subprocess.run(
            ["mariadb-install-db", "--no-defaults", "--auth-root-authentication-method=socket", "--skip-test-db",
             f"--auth-root-socket-user={files.user()}", "--skip-name-resolve", f"--user={files.user()}",
             f"--datadir={state}/db", *small],
            env=environment(state), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    if made.returncode:
        raise Refused(f"the accounting database could not be made; {log_tail(state, 'mariadbd')}")
    _start(state, started, "mariadbd", [
        "mariadbd", "--no-defaults", f"--user={files.user()}", f"--datadir={state}/db",
        f"--init-file={state}/etc/database.sql", f"--socket={state}/run/database.socket",
        f"--pid-file={state}/run/mariadbd.pid", "--bind-address=127.0.0.1", f"--port={settings.port + 2}",
        "--skip-name-resolve", "--performance-schema=OFF", "--key-buffer-size=1M", "--skip-log-bin",
        "--aria-pagecache-buffer-size=4M", *small,
    ])  # fmt: skip
    _wait(state, started, "mariadbd", lambda: _listens(settings.port + 2))
    _start(state, started, "slurmdbd", ["slurmdbd", "-D"])
    _wait(state, started, "slurmdbd", lambda: _listens(settings.port + 1))
    for what in (["cluster", "slurmdev"], ["account", "dev"], ["user", files.user(), "account=dev"]):
        _ask(state, "sacctmgr", "-i", "add", *what)


def _isolation(state: Path) -> tuple[list[str], list[str]]:
    """What to put before a node's slurmd so that it has its own hostname and /etc/hosts, and a remark if it cannot."""
    for prefix in [OWN_NAMES] if os.geteuid() == 0 else [AS_USER]:
        probe = [*prefix, "/bin/sh", "-c", AS_NODE, "sh", "probe", str(state / "etc" / "hosts"), "", "uname", "-n"]
        done = subprocess.run(probe, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode == 0 and done.stdout.strip() == "probe":
            return prefix, []
    return [], ["no namespaces on this machine: every node has the machine's hostname, and node names do not resolve"]


def _start_node(
    state: Path, settings: Settings, name: str, prefix: list[str], started: dict[str, subprocess.Popen[bytes]]
) -> None:
    own_sys = Path(settings.sys, name) if settings.sys else None
    if own_sys and own_sys.is_dir() and not prefix:
        raise Refused("--sys needs namespaces, which this machine does not allow", 4)
    seen = str(own_sys) if own_sys and own_sys.is_dir() else ""
    node = [*prefix, "/bin/sh", "-c", AS_NODE, "sh", name, str(state / "etc" / "hosts"), seen] if prefix else []
    (state / "spool" / name).mkdir(exist_ok=True)
    _start(state, started, name, [*node, "slurmd", "-D", "-N", name])


def _start(state: Path, started: dict[str, subprocess.Popen[bytes]], name: str, command: list[str]) -> None:
    log = state / "log" / f"{name}.log"
    started[name] = processes.start(command, record=_record(state, name), log=log, environment=environment(state))


def _record(state: Path, name: str) -> Path:
    return state / "run" / f"{name}.process"


def _wait_for_nodes(state: Path, names: list[str], started: Mapping[str, subprocess.Popen[bytes]]) -> None:
    wanted = set(names)

    def all_here() -> bool:
        # A star after the word means that the node does not answer.
        return wanted <= {name for name, word in node_states(state).items() if word in ("idle", "mixed", "allocated")}

    _wait(state, started, names[-1] if names else "slurmctld", all_here)


def _wait(state: Path, started: Mapping[str, subprocess.Popen[bytes]], name: str, ready: Callable[[], bool]) -> None:
    """Until `ready`, while all that was started lives."""
    deadline = time.monotonic() + PATIENCE_S
    while not ready():
        for one, process in started.items():
            if process.poll() is not None:
                raise Refused(f"{one} ended at once, with code {process.returncode}; {log_tail(state, one)}")
        if time.monotonic() > deadline:
            raise Refused(f"{name} is not ready after {PATIENCE_S:.0f} s; {log_tail(state, name)}")
        time.sleep(0.05)


# ---- ending ----------------------------------------------------------------------------------------------------------


def _cancel_jobs(state: Path) -> None:
    """So that steps end in their own way; what does not within a few seconds is ended as a process."""
    if not (ids := jobs(state)):
        return
    _ask(state, "scancel", *ids)
    deadline = time.monotonic() + 10
    while jobs(state) and time.monotonic() < deadline:
        time.sleep(0.1)


def _left_behind(state: Path) -> list[Process]:
    """Daemons, steps and jobs' processes of this cluster that no record leads to: their parents are gone."""
    conf = f"SLURM_CONF={state / 'etc' / 'slurm.conf'}"
    return [*processes.with_environment(f"{MARK}={state}"), *processes.with_environment(conf, "SLURMD_NODENAME=")]


# ---- asking ----------------------------------------------------------------------------------------------------------


def _ask(state: Path, *command: str) -> str:
    """What one of Slurm's commands prints; nothing when it fails or hangs, as it does while the controller is away."""
    try:
        done = subprocess.run(
            command, env=environment(state), capture_output=True, text=True, errors="replace", timeout=10,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def same_settings(held: Settings, asked: Mapping[str, object]) -> bool:
    """Whether what was asked for, where it was, is what there is."""
    return replace(held, **{name: value for name, value in asked.items() if value is not None}) == held
