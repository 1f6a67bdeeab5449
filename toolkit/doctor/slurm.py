"""The Slurm of a login node: whether it can be asked, and whether it is set as trainings that survive need it.

Decides what of its configuration matters; asks through `toolkit.cluster.slurm`.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
from collections.abc import Mapping

from toolkit.cluster import slurm
from toolkit.doctor.finding import Finding, State

SECTION = "Slurm"
_LIMIT_S = 30.0
_NO_CLUSTER = re.compile(r"establish a configuration source|no such file", re.IGNORECASE)
_SIGNAL = "preempt_send_user_signal"


def look() -> list[Finding]:
    """One finding where there is none or it is away, else one for each setting that matters."""
    if shutil.which("sinfo") is None or shutil.which("sbatch") is None:
        return [_finding("slurm", "Slurm", "no sinfo and sbatch here", "absent")]
    try:
        config = slurm.ask("scontrol", "show", "config", limit_s=_LIMIT_S)
        partitions = slurm.ask("scontrol", "show", "partition", "-o", limit_s=_LIMIT_S)
    except slurm.SlurmError as err:
        if _NO_CLUSTER.search(err.why) and not os.environ.get("SLURM_CONF"):
            do = "SLURM_CONF names a cluster's slurm.conf; env/slurm-dev/slurm-dev up makes one of this machine"
            return [_finding("slurm", "Slurm", "its commands, and no cluster", "absent", do)]
        return [_finding("slurm", "Slurm", "cannot be asked", "fault", f"{err.why or err.what}: {err.do}")]
    return judge(settings(config), [settings_of_line(line) for line in partitions.splitlines() if line.strip()])


def settings(text: str) -> dict[str, str]:
    """`scontrol show config` as name and value; (null) is empty."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {name.strip(): "" if value.strip() == "(null)" else value.strip() for name, _, value in pairs}


def settings_of_line(line: str) -> dict[str, str]:
    """`scontrol show partition -o`, a line."""
    return dict(word.split("=", 1) for word in line.split() if "=" in word)


def judge(config: Mapping[str, str], partitions: list[dict[str, str]]) -> list[Finding]:
    return [
        _up(config, partitions),
        _accounting(config),
        _requeue(config),
        _preemption(config, partitions),
        _limits(config),
        _memlock(config),
    ]


def _up(config: Mapping[str, str], partitions: list[dict[str, str]]) -> Finding:
    version, name = config.get("SLURM_VERSION", ""), config.get("ClusterName", "")
    up = [part.get("PartitionName", "?") for part in partitions if part.get("State", "").upper() == "UP"]
    said = f"{version}, cluster {name}, partitions that are up: {', '.join(up) or 'none'}"
    do = "" if up else "no partition is up: jobs would wait; ask the site"
    return _finding("slurm", "Slurm", said, "ok" if up else "warn", do)


def _accounting(config: Mapping[str, str]) -> Finding:
    on = config.get("AccountingStorageType", "").endswith("slurmdbd")
    return _finding("accounting", "accounting", "on" if on else "off: sacct has nothing to say, and is not needed")


def _requeue(config: Mapping[str, str]) -> Finding:
    """The toolkit's jobs say --requeue themselves, so that this default matters to others alone."""
    on = config.get("JobRequeue", "1") == "1"
    return _finding("requeue", "JobRequeue", "on" if on else "off, and the toolkit's jobs ask for it themselves")


def _preemption(config: Mapping[str, str], partitions: list[dict[str, str]]) -> Finding:
    what = "preemption"
    if config.get("PreemptType", "preempt/none").endswith("none"):
        return _finding("preemption", what, "off: no job is preempted")
    mode = config.get("PreemptMode", "")
    told = _SIGNAL in config.get("SlurmctldParameters", "") or "send_user_signal" in config.get("PreemptParameters", "")
    notice = "USR2" if told else "SIGTERM"
    open_to = {
        p.get("PartitionName", "?"): p for p in partitions if p.get("PreemptMode", mode).upper() not in ("", "OFF")
    }
    if not open_to:
        return _finding("preemption", what, f"{mode}, and no partition's jobs are preempted")
    ended = [name for name, part in open_to.items() if "CANCEL" in part.get("PreemptMode", mode).upper()]
    if ended:
        do = f"jobs of {', '.join(ended)} are cancelled when preempted: PreemptMode=REQUEUE queues them again"
        return _finding("preemption", what, f"{mode}, notice by {notice}", "warn", do)
    hasty = [name for name, part in open_to.items() if _number(part.get("GraceTime", "0")) == 0]
    if hasty and any("REQUEUE" in part.get("PreemptMode", mode).upper() for part in open_to.values()):
        do = f"no GraceTime on {', '.join(hasty)}: a preempted training goes on from its last checkpoint"
        return _finding("preemption", what, f"{mode}, notice by {notice}", "warn", do)
    grace = min(_number(part.get("GraceTime", "0")) for part in open_to.values())
    return _finding("preemption", what, f"{mode}, notice by {notice}, {grace} s to save")


def _limits(config: Mapping[str, str]) -> Finding:
    value = config.get("EnforcePartLimits", "")
    if value.upper() in ("", "NO"):
        do = "EnforcePartLimits=NO: a job beyond a partition's limits is taken, and waits for ever; look at its reason"
        return _finding("limits", "limits of partitions", "not enforced when a job is submitted", "warn", do)
    return _finding("limits", "limits of partitions", f"enforced when a job is submitted ({value})")


def _memlock(config: Mapping[str, str]) -> Finding:
    what = "memory that jobs may lock"
    kept = {*re.split(r"[,\s]+", config.get("PropagateResourceLimitsExcept", "").upper())}
    sent = {*re.split(r"[,\s]+", config.get("PropagateResourceLimits", "ALL").upper())}
    if {"ALL", "MEMLOCK"} & kept or (sent and not {"ALL", "MEMLOCK"} & sent):
        return _finding("job-memlock", what, "the node's own limit")
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft == resource.RLIM_INFINITY:
        return _finding("job-memlock", what, "this session's limit, unlimited")
    do = (
        f"jobs take this session's limit along, {soft >> 10} KiB, too little for RDMA: `ulimit -l unlimited` first, "
        "or PropagateResourceLimitsExcept=MEMLOCK in slurm.conf"
    )
    return _finding("job-memlock", what, f"this session's limit, {soft >> 10} KiB", "warn", do)


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0


def _finding(key: str, what: str, found: str, state: State = "ok", remedy: str = "") -> Finding:
    return Finding(section=SECTION, key=key, what=what, found=found, state=state, remedy=remedy)
