"""What a cluster is (nodes, GPUs, ports, folder) and the configuration files that say so to Slurm.

Decides every setting and where each file lies; leaves starting and ending to cluster.py.
"""

from __future__ import annotations

import json
import os
import pwd
import random
import re
import secrets
import shutil
import socket
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from packages import search_path
from refusal import Refused

MOST_NODES, MOST_GPUS = 200, 16
# As large as a real GPU node, since the numbers are believed and not used: eight A100 sit beside 128 CPUs and 1 TiB.
CPUS, MEMORY_MIB = 128, 1_000_000
GRACE_S = 20
# Slurm puts sockets under the state folder, and the kernel takes 107 bytes: spool/node001/node001_<job>.<step>.
LONGEST_STATE = 107 - len("/spool/node001/node001_1234567.4294967291")
FIRST_PORT, LAST_PORT = 15000, 32767
MARKER = "cluster.json"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One cluster: `port` is the first of `nodes + 3` that it uses."""

    nodes: int
    gpus: int
    accounting: bool
    sys: str
    port: int

    @property
    def names(self) -> list[str]:
        return [f"node{number:0{self.width}d}" for number in range(1, self.nodes + 1)]

    @property
    def width(self) -> int:
        return max(2, len(str(self.nodes)))

    @property
    def range(self) -> str:
        """The nodes as Slurm writes them, such as node[01-16]."""
        return f"node[{self.names[0][4:]}-{self.names[-1][4:]}]"


def default_state() -> Path:
    """The user's own folder for such things, unless programs may not run there: batch scripts do."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime and os.access(runtime, os.W_OK | os.X_OK) and not _no_programs(runtime):
        return Path(runtime) / "slurm-dev"
    return Path("/tmp") / f"slurm-dev-{os.getuid()}"


def checked_state(given: str | None) -> Path:
    """The state folder, if Slurm can work with such a path and it is nobody else's; nothing is made here."""
    state = Path(os.path.realpath(given)) if given else default_state()
    if not re.fullmatch(r"[A-Za-z0-9/._+-]+", str(state)):
        raise Refused(f"state folder {str(state)!r}: Slurm's files take letters, digits and /._+- in a path only", 2)
    if len(str(state)) > LONGEST_STATE:
        raise Refused(f"state folder {state}: longer than {LONGEST_STATE} characters, too long for Slurm's sockets", 2)
    if not state.exists() and not state.is_symlink():
        return state
    if state.is_symlink() or not state.is_dir():
        raise Refused(f"state folder {state}: is no folder", 2)
    # In /tmp anybody could have made it first, and would then own the key of this cluster.
    if state.stat().st_uid != os.getuid() or state.stat().st_mode & 0o022:
        raise Refused(f"state folder {state}: belongs to somebody else, or others may write there", 2)
    if any(state.iterdir()) and not (state / MARKER).exists():
        raise Refused(f"state folder {state}: holds files that are not slurm-dev's; nothing was touched", 2)
    return state


def check_file_system(state: Path) -> None:
    if _no_programs(state):
        raise Refused(f"state folder {state}: on a file system mounted noexec, where no job's script can run", 2)


def load(state: Path) -> Settings | None:
    """What is written in the state folder, None where nothing readable is."""
    try:
        held = Settings(**json.loads((state / MARKER).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    wanted = {"nodes": int, "gpus": int, "accounting": bool, "sys": str, "port": int}
    sound = all(type(getattr(held, name)) is kind for name, kind in wanted.items())
    return held if sound and 1 <= held.nodes <= MOST_NODES else None


def free_ports(count: int) -> int:
    """The first of `count` neighbouring ports that are free now, below those that the kernel gives out by itself."""
    last = min(LAST_PORT, int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]) - 1)
    # At random, so that two clusters brought up in the same moment hardly meet.
    for _ in range(200):
        first = random.randint(FIRST_PORT, max(FIRST_PORT, last - count))
        if all(_free(port) for port in range(first, first + count)):
            return first
    raise Refused(f"no {count} neighbouring free ports found between {FIRST_PORT} and {last}")


def write(state: Path, settings: Settings) -> None:
    """Every file that the daemons read; `state` is there and empty but for its marker."""
    for name in ("etc", "run", "log", "spool", "save", "dev", "db"):
        (state / name).mkdir(mode=0o755, exist_ok=True)
    for number in range(settings.gpus):
        # Slurm takes a GPU's file for real when it is a character device, also through a link; nothing is read from it.
        (state / "dev" / f"nvidia{number}").symlink_to("/dev/null")
    etc = state / "etc"
    _private(etc / "munge.key", secrets.token_bytes(128))
    (etc / "slurm.conf").write_text(_slurm_conf(state, settings))
    (etc / "gres.conf").write_text(
        f"Name=gpu File={state}/dev/nvidia[0-{settings.gpus - 1}]\n" if settings.gpus else ""
    )
    # Older releases do not know the word, newer ones insist on cgroups without it.
    (etc / "cgroup.conf").write_text("CgroupPlugin=disabled\n" if _release() >= 23 else "")
    own = Path("/etc/hosts").read_text(errors="replace") if Path("/etc/hosts").exists() else ""
    lines = [f"{address(number)} {name}" for number, name in enumerate(settings.names, 1)]
    (etc / "hosts").write_text("\n".join([own.rstrip("\n"), f"127.0.0.1 localhost {host()}", *lines, ""]))
    if settings.accounting:
        password = secrets.token_hex(16)
        _private(etc / "slurmdbd.conf", _slurmdbd_conf(state, settings, password).encode())
        # One statement per line: MariaDB loses the second one on a line without a word.
        _private(
            etc / "database.sql",
            "CREATE DATABASE IF NOT EXISTS slurm_acct_db;\n"
            f"CREATE USER IF NOT EXISTS 'slurm'@'127.0.0.1' IDENTIFIED BY '{password}';\n"
            "GRANT ALL ON slurm_acct_db.* TO 'slurm'@'127.0.0.1';\n".encode(),
        )


def save(state: Path, settings: Settings) -> None:
    part = state / f"{MARKER}.part"
    part.write_text(json.dumps(asdict(settings)) + "\n")
    part.replace(state / MARKER)


def address(number: int) -> str:
    """Every node has a loopback address of its own; 127.0.1.1 is often the machine's name already."""
    return f"127.16.0.{number}"


def host() -> str:
    return socket.gethostname().split(".")[0]


def user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _slurm_conf(state: Path, settings: Settings) -> str:
    port, nodes = settings.port, settings.nodes
    accounting = f"""\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port + 1}
# The munge socket again: without it slurmctld asks the system's munge.
AccountingStoragePass={state}/run/munge.socket
""" + ("AccountingStorageTRES=gres/gpu\n" if settings.gpus else "")
    return f"""\
# Written by slurm-dev; a new `up` writes it anew.
ClusterName=slurmdev
SlurmctldHost={host()}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user()}
SlurmdUser={user()}
AuthType=auth/munge
# cred_expire is what holds a requeued job back; 5 is the least that is taken, the default is 120.
AuthInfo=socket={state}/run/munge.socket,cred_expire=5
CredType=cred/munge
# The controller listens on loopback alone. NoInAddrAny would do so for slurmd, and for srun too, which in a node would
# then wait at the node's address while its tasks call 127.0.0.1. Every message is signed by this cluster's own munge.
CommunicationParameters=NoCtldInAddrAny
StateSaveLocation={state}/save
SlurmdSpoolDir={state}/spool/%n
SlurmctldPidFile={state}/run/slurmctld.pid
SlurmdPidFile={state}/run/slurmd.%n.pid
# Daemons run in the foreground and write to log/ by their standard error.
SlurmctldLogFile=/dev/null
SlurmdLogFile=/dev/null
SlurmctldSyslogDebug=quiet
SlurmdSyslogDebug=quiet
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
MailProg=/bin/true
SlurmdParameters=config_overrides
# A node whose slurmd was away comes back by itself; one that was set down stays so until it is resumed.
ReturnToService=1
JobRequeue=1
# A job that asks for more than a partition allows is refused, instead of waiting for ever.
EnforcePartLimits=ALL
SlurmdTimeout=10
SlurmctldTimeout=30
KillWait=3
# Ended jobs stay in scontrol and squeue for an hour: without accounting that is the only place.
MinJobAge=3600
UnkillableStepTimeout=180
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,bf_interval=2,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=1024
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
# A preempted job gets the signal that it asked for with --signal, then GraceTime.
SlurmctldParameters=preempt_send_user_signal
ScronParameters=enable
{"GresTypes=gpu" if settings.gpus else ""}
{accounting if settings.accounting else "AccountingStorageType=accounting_storage/none"}
NodeName={settings.range} NodeHostname={host()} NodeAddr=127.16.0.[1-{nodes}] Port=[{port + 3}-{port + 2 + nodes}] \
CPUs={CPUS} RealMemory={MEMORY_MIB}{f" Gres=gpu:{settings.gpus}" if settings.gpus else ""} State=UNKNOWN
PartitionName=normal Nodes=ALL Default=YES MaxTime=7-0 DefaultTime=1:00:00 PriorityTier=10 PreemptMode=REQUEUE \
GraceTime={GRACE_S} OverSubscribe=NO State=UP
PartitionName=urgent Nodes=ALL MaxTime=7-0 DefaultTime=1:00:00 PriorityTier=100 PreemptMode=OFF \
OverSubscribe=NO State=UP
"""


def _slurmdbd_conf(state: Path, settings: Settings, password: str) -> str:
    return f"""\
AuthType=auth/munge
AuthInfo=socket={state}/run/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={settings.port + 1}
SlurmUser={user()}
PidFile={state}/run/slurmdbd.pid
LogFile=/dev/null
DebugLevel=info
DebugLevelSyslog=quiet
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={settings.port + 2}
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm_acct_db
"""


def _release() -> int:
    slurmd = shutil.which("slurmd", path=search_path()) or "slurmd"
    said = subprocess.run([slurmd, "-V"], capture_output=True, text=True).stdout
    found = re.search(r"(\d+)\.\d+", said)
    return int(found.group(1)) if found else 0


def _private(path: Path, content: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as handle:
        handle.write(content)


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def _no_programs(folder: str | Path) -> bool:
    return bool(os.statvfs(folder).f_flag & os.ST_NOEXEC)
