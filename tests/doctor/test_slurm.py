"""What of Slurm's configuration matters, told from its own words; and the one-machine Slurm, asked for real."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from tests.slurm.conftest import Slurm, slurm, slurm_packages  # noqa: F401 - fixtures
from toolkit.doctor import slurm as looked
from toolkit.doctor.finding import Finding

CONFIG = {
    "SLURM_VERSION": "23.11.10",
    "ClusterName": "site",
    "AccountingStorageType": "accounting_storage/slurmdbd",
    "JobRequeue": "1",
    "PreemptType": "preempt/partition_prio",
    "PreemptMode": "REQUEUE",
    "SlurmctldParameters": "preempt_send_user_signal",
    "EnforcePartLimits": "ALL",
    "PropagateResourceLimitsExcept": "MEMLOCK",
}
PARTITION = "PartitionName=gpu GraceTime=600 PreemptMode=REQUEUE State=UP"


def judged(partition: str = PARTITION, **changed: str) -> dict[str, Finding]:
    found = looked.judge({**CONFIG, **changed}, [looked.settings_of_line(partition)])
    return {finding.key: finding for finding in found}


def test_a_site_where_nothing_is_wrong() -> None:
    found = judged()
    assert {finding.state for finding in found.values()} == {"ok"}
    assert found["preemption"].found == "REQUEUE, notice by USR2, 600 s to save"
    assert found["accounting"].found == "on"


@pytest.mark.parametrize(
    ("key", "state", "words", "changed"),
    [
        ("accounting", "ok", "not needed", {"AccountingStorageType": "accounting_storage/none"}),
        ("requeue", "ok", "ask for it themselves", {"JobRequeue": "0"}),
        ("preemption", "ok", "off", {"PreemptType": "preempt/none"}),
        ("preemption", "ok", "notice by SIGTERM", {"SlurmctldParameters": ""}),
        ("preemption", "ok", "notice by USR2", {"SlurmctldParameters": "", "PreemptParameters": "send_user_signal"}),
        ("preemption", "warn", "no GraceTime on gpu", {"partition": PARTITION.replace("600", "0")}),
        ("preemption", "warn", "cancelled", {"partition": PARTITION.replace("REQUEUE", "CANCEL")}),
        ("preemption", "ok", "no partition's jobs", {"partition": PARTITION.replace("REQUEUE", "OFF")}),
        ("slurm", "warn", "no partition is up", {"partition": PARTITION.replace("UP", "DOWN")}),
        ("limits", "warn", "waits for ever", {"EnforcePartLimits": "NO"}),
        ("job-memlock", "ok", "the node's own", {"PropagateResourceLimits": "NONE"}),
    ],
)
def test_each_setting(key: str, state: str, words: str, changed: dict[str, str]) -> None:
    found = judged(**changed)[key]
    assert found.state == state and words in f"{found.found} {found.remedy}", found


def test_a_session_whose_limit_jobs_take_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (8 << 20, 8 << 20))
    found = judged(PropagateResourceLimitsExcept="", PropagateResourceLimits="ALL")["job-memlock"]
    assert found.state == "warn" and "8192 KiB" in found.remedy


def test_words_that_are_none() -> None:
    assert looked.settings("garbage\n\x00\nA = (null)\nB = c = d\n") == {"A": "", "B": "c = d"}
    assert [finding.key for finding in looked.judge({}, [])][0] == "slurm"  # says little, and does not break


def test_no_slurm_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (found,) = looked.look()
    assert (found.state, found.remedy) == ("absent", "")


def command(folder: Path, text: str) -> None:
    for name in ("sinfo", "sbatch", "scontrol"):
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)


def test_commands_and_no_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    command(tmp_path, "echo 'scontrol: fatal: Could not establish a configuration source' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("SLURM_CONF", raising=False)
    assert looked.look()[0].state == "absent"


def test_a_cluster_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    command(tmp_path, "echo 'slurm_load_ctl_conf error: Unable to contact slurm controller' >&2; exit 1")
    conf = tmp_path / "slurm.conf"
    conf.touch()
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("SLURM_CONF", str(conf))
    (found,) = looked.look()
    assert found.state == "fault" and "Unable to contact" in found.remedy


def test_the_one_machine_slurm(slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setenv("SLURM_CONF", str(slurm.conf))
    found = {finding.key: finding for finding in looked.look()}
    assert found["slurm"].state == "ok" and "normal, urgent" in found["slurm"].found
    assert found["preemption"].found == "REQUEUE, notice by USR2, 20 s to save"
    assert found["accounting"].found.startswith("off")
