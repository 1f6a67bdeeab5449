"""Slurm's commands, asked with a time limit and answered as values. The only module that runs them, submission apart.

Decides how a job's state is found out where accounting is off and Slurm forgets what has ended; leaves what follows
from a state to others.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import ToolkitError

_LIMIT_S = 45.0
# What a job's own environment says of that job must not become options of commands about other jobs.
_KEPT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_TIME_FORMAT")
_AWAY = re.compile(
    r"unable to contact slurm controller|establish a configuration source|connect failure|connection refused"
    r"|socket timed out|unable to process"
    r" configuration|not responding|zero bytes were transmitted|communication|munge|protocol authentication",
    re.IGNORECASE,
)
_UNKNOWN = re.compile(r"invalid job id", re.IGNORECASE)
_FIELDS = ("JobArrayID", "State", "Reason", "RestartCnt", "TimeLeft", "NodeList", "Comment")
_ACTIVE = {
    *("PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED"),
    *("REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"),
}
_BAD_NODE = re.compile(r"^(down|drain|draining|drained|fail|failing|error|unknown|reboot)", re.IGNORECASE)


class SlurmError(ToolkitError):
    """Slurm refused, in its own words."""


class SlurmAway(SlurmError):
    """Slurm cannot be asked: no commands here, no controller, no answer in time."""


@dataclass(frozen=True, kw_only=True)
class JobState:
    """A job or array task as Slurm knows it. `state` is Slurm's word, such as RUNNING; `left_s` of its time limit."""

    id: str
    state: str
    reason: str = ""
    restarts: int = 0
    left_s: int | None = None
    nodes: str = ""
    comment: str = ""  # the name of the run that it belongs to, where the launcher submitted it

    @property
    def active(self) -> bool:
        """Whether it waits, runs or is about to end: it may still change something."""
        return self.state in _ACTIVE


def environment() -> dict[str, str]:
    """This process's environment without what Slurm has said of the job that it is in."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT or not name.startswith(("SLURM_", "SLURMD_", "SRUN_"))
    }


def ask(*command: str, limit_s: float = _LIMIT_S) -> str:
    """What a command of Slurm prints. Raises `SlurmAway` when it cannot answer, `SlurmError` when it refuses."""
    check_here(command[0])
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit_s, env=environment(), check=False
        )
    except subprocess.TimeoutExpired:
        raise _away(command[0], f"no answer within {limit_s:g} s") from None
    except (OSError, ValueError) as err:
        raise _away(command[0], str(err)) from None
    told = done.stderr.decode("utf-8", errors="replace")
    if done.returncode == 0:
        return done.stdout.decode("utf-8", errors="replace")
    raise refusal(command[0], told or done.stdout.decode("utf-8", errors="replace"))


def check_here(command: str = "sbatch") -> None:
    """Raise `SlurmAway` when this machine has no Slurm to speak of; its commands would look for it for a minute."""
    if shutil.which(command) is None:
        raise _away(
            command,
            "there is no such command here",
            "use a login node of the cluster, load its Slurm module, or try env/slurm-dev/slurm-dev up",
        )
    conf = os.environ.get("SLURM_CONF")
    if conf and not Path(conf).is_file():
        raise _away(command, f"SLURM_CONF names {conf}, and there is no such file", "is that cluster up?")


def refusal(command: str, told: str) -> SlurmError:
    """What a command said on stderr, as the error it amounts to."""
    said = "; ".join(dict.fromkeys(line.strip() for line in told.splitlines() if line.strip())) or "no reason given"
    return (
        _away(command, said[:600]) if _AWAY.search(said) else SlurmError("Slurm refused", where=command, why=said[:600])
    )


def jobs(ids: Iterable[str], *, limit_s: float = _LIMIT_S) -> dict[str, JobState]:
    """States by job id (arrays: `12_3`, one each). What Slurm has forgotten is absent. Raises `SlurmAway`."""
    wanted = sorted({i for i in ids if re.fullmatch(r"\d{1,12}", i)}, key=int)
    if not wanted:
        return {}
    found = _from_squeue(wanted, limit_s)
    gone = [i for i in wanted if i not in found and not any(f.startswith(f"{i}_") for f in found)]
    return {**found, **(_from_sacct(gone, limit_s) if gone else {})}


def of_run(states: Mapping[str, JobState], run: str) -> dict[str, JobState]:
    """Those that belong to the run of this name, or do not say: a Slurm set up anew counts its ids from 1 again."""
    return {name: state for name, state in states.items() if state.comment in ("", run)}


def cancel(ids: Sequence[str]) -> None:
    """Cancel jobs, queued or running; those that have ended are no error."""
    if ids:
        ask("scancel", "--quiet", *ids)


def signal_step(job: str, name: str) -> None:
    """Signal the tasks of the job's steps, not its batch script. `name` without SIG."""
    ask("scancel", "--quiet", f"--signal={name}", job)


def requeue(job: str) -> None:
    """End this attempt of a job and queue it again; what runs in it gets SIGTERM, then KillWait seconds."""
    ask("scontrol", "requeue", job)


def exclude(job: str, hosts: Iterable[str]) -> None:
    """Keep a queued job from these nodes. Raises `SlurmError` when it is not (or no longer) queued."""
    ask("scontrol", "update", f"JobId={job}", f"ExcNodeList={','.join(sorted(hosts))}")


def hostnames(nodelist: str) -> tuple[str, ...]:
    """`node[01-03]` as names, in Slurm's order."""
    if not re.search(r"[\[,]", nodelist):
        return (nodelist,) if nodelist else ()
    return tuple(ask("scontrol", "show", "hostnames", nodelist).split())


def bad_nodes(hosts: Iterable[str]) -> Mapping[str, str]:
    """Those of `hosts` that Slurm itself holds to be unfit, with its word for it: {node: down*}."""
    names = ",".join(sorted(hosts))
    if not names:
        return {}
    lines = (line.split("|") for line in ask("sinfo", "--noheader", "-N", "-n", names, "-o", "%N|%T").splitlines())
    return {line[0]: line[1] for line in lines if len(line) == 2 and (_BAD_NODE.match(line[1]) or "*" in line[1])}


def _away(command: str, why: str, do: str = "try again when it answers; nothing has been lost") -> SlurmAway:
    return SlurmAway("Slurm cannot be asked", where=command, why=why, do=do)


def _from_squeue(ids: Sequence[str], limit_s: float) -> dict[str, JobState]:
    shown = ",".join(f"{name}:|" for name in _FIELDS)
    try:
        asked = (f"--jobs={','.join(ids)}", f"--Format={shown}")
        text = ask("squeue", "--noheader", "--states=all", "--array", *asked, limit_s=limit_s)
    except SlurmAway:
        raise
    except SlurmError as err:
        if _UNKNOWN.search(err.why):
            return {}
        raise
    found: dict[str, JobState] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) < len(_FIELDS):
            continue
        name, state, reason, restarts, left, nodes, comment = cells[:7]
        found[name] = JobState(
            id=name,
            state=state.split()[0] if state else "UNKNOWN",
            reason="" if reason in ("None", "(null)") else reason,
            restarts=int(restarts) if restarts.isdigit() else 0,
            left_s=seconds(left),
            nodes=nodes,
            comment="" if comment == "(null)" else comment,
        )
    return found


def _from_sacct(ids: Sequence[str], limit_s: float) -> dict[str, JobState]:
    """What accounting remembers; nothing where there is none."""
    if shutil.which("sacct") is None:
        return {}
    try:
        fields = "--format=JobID,State,NodeList,Restarts"
        shown = ask("sacct", "-X", "-n", "-P", "-j", ",".join(ids), fields, limit_s=limit_s)
    except SlurmError:
        return {}
    found = {}
    for line in shown.splitlines():
        name, state, nodes, restarts = ([*line.split("|"), "", "", ""])[:4]
        if name and state:
            count = int(restarts) if restarts.isdigit() else 0
            found[name] = JobState(id=name, state=state.split()[0], nodes=nodes, restarts=count)
    return found


def seconds(text: str) -> int | None:
    """Slurm's `[days-]hours:minutes:seconds` as seconds; None for UNLIMITED and the like."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if not match:
        return None
    days, hours, minutes, secs = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + secs
