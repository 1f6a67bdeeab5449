"""The one-machine Slurm behaves as a cluster does, and comes up and goes without a trace."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.slurm.conftest import SLURM_DEV, Slurm, slurm_dev

slow = pytest.mark.slow
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def own_processes(state: Path) -> list[str]:
    """Command lines of all that lives and has this state folder in its environment."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and str(state).encode() + b"/etc/slurm.conf" in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


# ---- without a cluster -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "required"),
        (["upp"], "invalid choice"),
        (["up", "--nodes", "0"], "no number from 1 to"),
        (["up", "--nodes", "1e3"], "no number from 1 to"),
        (["up", "--gpus", "-1"], "--gpus"),
        (["up", "--gpus", "99"], "no number from 0 to 16"),
        (["up", "--state", "/tmp/with blank"], "Slurm's files take letters"),
        (["up", "--state", "/tmp/a\nNodeName=evil"], "Slurm's files take letters"),
        (["up", "--state", "/tmp/%n"], "Slurm's files take letters"),
        (["up", "--state", "/tmp/" + "x" * 100], "too long for Slurm's sockets"),
        (["up", "--state", "/etc/hostname"], "is no folder"),
        (["up", "--state", "/tmp/sd-none", "--sys", "/no/such"], "--sys /no/such: is no folder"),
        (["run"], "no command given"),
    ],
)
def test_wrong_arguments_are_refused(arguments: list[str], said: str) -> None:
    done = slurm_dev(*arguments)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_help_has_examples() -> None:
    for arguments in (["--help"], ["up", "--help"], ["run", "--help"]):
        done = slurm_dev(*arguments)
        assert done.returncode == 0 and "slurm-dev up --nodes 4" in done.stdout


def test_without_packages_it_refuses_with_the_list(short_tmp: Path) -> None:
    (short_tmp / "bin").mkdir()
    done = slurm_dev("up", "--accounting", "--state", short_tmp / "s", PATH=str(short_tmp / "bin"))
    assert done.returncode == 4 and not (short_tmp / "s").exists()
    for word in ("munged", "slurmctld", "slurmd", "sbatch", "slurm-client", "mariadb-server-core", "apt-get install"):
        assert word in done.stderr
    installing = slurm_dev("up", "--install", "--state", short_tmp / "s", PATH=str(short_tmp / "bin"))
    assert installing.returncode == 4 and "--install needs" in installing.stderr


def test_a_folder_of_other_files_is_left_alone(short_tmp: Path) -> None:
    precious = short_tmp / "results" / "scores.json"
    precious.parent.mkdir()
    precious.write_text("{}")
    for verb in ("up", "down", "status"):
        done = slurm_dev(verb, "--state", precious.parent)
        assert done.returncode == 2 and "nothing was touched" in done.stderr
    assert [*precious.parent.iterdir()] == [precious]


def test_a_folder_where_others_write_is_refused(short_tmp: Path) -> None:
    (short_tmp / "s").mkdir()
    (short_tmp / "s").chmod(0o777)
    done = slurm_dev("up", "--state", short_tmp / "s")
    assert done.returncode == 2 and "others may write there" in done.stderr


def test_nothing_up_is_said(short_tmp: Path) -> None:
    state = short_tmp / "s"
    assert slurm_dev("down", "--state", state).returncode == 0
    status = slurm_dev("status", "--json", "--state", state)
    assert status.returncode == 1 and json.loads(status.stdout)["status"] == "down"
    run = slurm_dev("run", "--state", state, "true")
    assert run.returncode == 1 and "nothing is up" in run.stderr
    assert not state.exists()


# ---- the cluster as users see it -------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def overdue(request: pytest.FixtureRequest) -> str | None:
    """A job past its time limit: Slurm looks for such every half minute, so it is started before the other tests."""
    if not any(item.get_closest_marker("slow") for item in request.session.items):
        return None
    slurm: Slurm = request.getfixturevalue("slurm")
    job = slurm.submit("--time=1", "--no-requeue", "--output=/dev/null", "--wrap", "sleep 600")
    slurm.wait(lambda: slurm.job(job)["JobState"] == "RUNNING")
    slurm.out("scontrol", "update", f"JobId={job}", "EndTime=now+1")
    return job


@slow
def test_sixteen_nodes_with_their_names_and_gpus(slurm: Slurm) -> None:
    body = "srun sh -c 'echo $SLURM_PROCID $(hostname) $CUDA_VISIBLE_DEVICES $(getent hosts node16 | cut -d\" \" -f1)'"
    size = ["--nodes=16", "--ntasks-per-node=1", "--gpus-per-node=8"]
    job = slurm.submit("--wait", *size, "-o", "16.out", "--wrap", body)
    lines = (slurm.state / "log/16.out").read_text().splitlines()
    rows = sorted((line.split() for line in lines), key=lambda row: int(row[0]))
    assert [row[0] for row in rows] == [str(rank) for rank in range(16)]
    assert {row[2] for row in rows} == {"0,1,2,3,4,5,6,7"}
    if rows[0][1] == socket.gethostname():
        pytest.skip("no namespaces here: nodes have no names of their own")
    assert [row[1] for row in rows] == [f"node{number:02d}" for number in range(1, 17)]
    assert {row[3] for row in rows} == {"127.16.0.16"}
    assert slurm.job(job)["JobState"] == "COMPLETED"


@slow
def test_each_task_sees_its_own_gpu(slurm: Slurm) -> None:
    said = slurm.out("srun", "-N2", "--ntasks-per-node=8", "--gpus-per-task=1",
                     "sh", "-c", "echo $SLURM_NODEID $CUDA_VISIBLE_DEVICES")  # fmt: skip
    assert sorted(said.splitlines()) == sorted(f"{node} {gpu}" for node in (0, 1) for gpu in range(8))


@slow
@pytest.mark.parametrize(
    "wanted", [["--nodes=17"], ["--gpus-per-node=9"], ["--mem=2000G"], ["--partition=none"], ["--time=8-0"]]
)
def test_what_the_cluster_lacks_is_refused(slurm: Slurm, wanted: list[str]) -> None:
    done = slurm.run("sbatch", *wanted, "--wrap", "true", check=False)
    assert done.returncode != 0 and "error" in done.stderr


@slow
def test_gpus_are_counted(slurm: Slurm) -> None:
    held = ["--nodelist=node01", "--gpus-per-node=6", "--output=/dev/null", "--wrap", "sleep 600"]
    first = slurm.submit(*held)
    slurm.wait(lambda: slurm.job(first)["JobState"] == "RUNNING")
    second = slurm.submit(*held)
    slurm.wait(lambda: slurm.job(second)["Reason"] == "Resources")
    assert slurm.job(second)["JobState"] == "PENDING"
    slurm.out("scancel", first)
    slurm.wait(lambda: slurm.job(second)["JobState"] == "RUNNING")
    slurm.out("scancel", second)


@slow
def test_sinfo_squeue_and_status_agree(slurm: Slurm) -> None:
    assert slurm.out("sinfo", "-h", "-o", "%P %a %D %G").split("\n") == ["normal* up 16 gpu:8", "urgent up 16 gpu:8"]
    job = slurm.submit("--output=/dev/null", "--job-name=looked at", "--wrap", "sleep 600")
    assert job in slurm.out("squeue", "-h", "-o", "%A").split()
    status = slurm.status()
    assert status["status"] == "up" and len(status["nodes"]) == 16 and job in status["jobs"]
    assert set(status["pids"]) == {"munged", "slurmctld", *(f"node{number:02d}" for number in range(1, 17))}
    slurm.out("scancel", job)


COUNTING = "echo started $SLURM_RESTART_COUNT >>{log}; trap 'echo signalled >>{log}; exit 0' USR2; sleep 600 & wait"


@slow
def test_requeue_preemption_and_a_lost_node_start_a_job_again(slurm: Slurm) -> None:
    """Three jobs at the same time, since each has to wait the requeue delay."""
    jobs = {}
    for what, node in (("requeue", "node03"), ("preempt", "node04"), ("lost", "node[05-06]")):
        log = slurm.state / "log" / f"{what}.txt"
        script = slurm.state / "log" / f"{what}.sh"
        script.write_text("#!/bin/bash\n" + COUNTING.format(log=log) + "\n")
        # The lost one may go elsewhere, the others come back to their node.
        place = ["--nodes=1", "--exclude=node[01-04,07-16]"] if what == "lost" else [f"--nodelist={node}"]
        jobs[what] = slurm.submit(*place, "--exclusive", "--requeue", "--signal=B:USR2@60", "-o", "/dev/null", script)
    slurm.wait(lambda: all(slurm.job(job)["JobState"] == "RUNNING" for job in jobs.values()))
    slurm.wait(lambda: all((slurm.state / "log" / f"{what}.txt").exists() for what in jobs))

    slurm.out("scontrol", "requeue", jobs["requeue"])
    before = ["--partition=urgent", "--nodelist=node04", "--exclusive"]
    urgent = slurm.submit(*before, "-o", "/dev/null", "--wrap", "sleep 1")
    lost = slurm.job(jobs["lost"])["NodeList"]
    slurm.out("scontrol", "update", f"nodename={lost}", "state=down", "reason=test")
    assert slurm.out("sinfo", "-h", "-n", lost, "-p", "normal", "-o", "%T") == "down"

    slurm.wait(lambda: slurm.job(urgent)["JobState"] == "COMPLETED")
    slurm.wait(lambda: all(slurm.job(jobs[what])["JobState"] == "RUNNING" and slurm.job(jobs[what])["Restarts"] == "1"
                           for what in ("requeue", "lost")))  # fmt: skip
    elsewhere = slurm.job(jobs["lost"])["NodeList"]
    assert {lost, elsewhere} == {"node05", "node06"}
    slurm.out("scontrol", "update", f"nodename={lost}", "state=resume")
    slurm.wait(lambda: slurm.out("sinfo", "-h", "-n", lost, "-p", "normal", "-o", "%T") == "idle")
    # The signal that a job asked for reached it before the grace time was over.
    assert "signalled" in (slurm.state / "log" / "preempt.txt").read_text()
    slurm.out("scancel", *jobs.values())


@slow
def test_submitit_submits_a_function(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submitit = pytest.importorskip("submitit")
    monkeypatch.setenv("SLURM_CONF", str(slurm.conf))

    def rank(factor: int) -> tuple[int, int]:
        return factor * submitit.JobEnvironment().global_rank, submitit.JobEnvironment().num_nodes

    executor = submitit.SlurmExecutor(folder=tmp_path)
    executor.update_parameters(nodes=2, ntasks_per_node=2, gpus_per_node=8, time=10, partition="normal")
    assert executor.submit(rank, 10).results() == [(0, 2), (10, 2), (20, 2), (30, 2)]


@slow
def test_run_passes_arguments_and_exit_code_on(slurm: Slurm) -> None:
    said = slurm_dev("run", "--state", slurm.state, "sh", "-c", 'echo "$1"; exit 7', "sh", "a  'b' $c")
    assert (said.stdout, said.returncode) == ("a  'b' $c\n", 7)
    assert slurm_dev("run", "--state", slurm.state, "--", "no-such-command").returncode == 127
    assert slurm_dev("run", "--state", slurm.state, "squeue", "-h").returncode == 0


@slow
def test_up_twice_and_an_other_size(slurm: Slurm) -> None:
    before = slurm.status()["pids"]
    again = slurm_dev("up", "--state", slurm.state)
    assert again.returncode == 0 and "is up already: 16 nodes" in again.stdout
    other = slurm_dev("up", "--nodes", "3", "--state", slurm.state)
    assert other.returncode == 1 and "another cluster is up" in other.stderr
    assert slurm.status()["pids"] == before


@slow
def test_a_dead_slurmd_is_started_again_and_no_other(slurm: Slurm) -> None:
    before = slurm.status()["pids"]
    os.kill(before["node16"], signal.SIGKILL)
    slurm.wait(lambda: slurm.status()["status"] == "damaged")
    assert slurm.status()["dead"] == ["node16"]
    assert "node16" in slurm_dev("up", "--state", slurm.state).stdout
    after = slurm.status()["pids"]
    assert {name for name in after if after[name] != before[name]} == {"node16"}
    assert slurm.out("srun", "-w", "node16", "echo", "here") == "here"


@slow
def test_the_controller_listens_on_loopback_and_ports_are_low(slurm: Slurm) -> None:
    pids = slurm.status()["pids"]

    def listening(pid: int) -> list[str]:
        """Address and port as the kernel writes them: hexadecimal, the address little-endian."""
        sockets = {os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()}
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets]

    assert [address.split(":")[0] for address in listening(pids["slurmctld"])] == ["0100007F"]
    ports = [int(address.split(":")[1], 16) for pid in pids.values() for address in listening(pid)]
    assert len(set(ports)) == 17 and max(ports) < 32768


# ---- coming and going ------------------------------------------------------------------------------------------------


@slow
def test_two_side_by_side_and_down_leaves_only_the_other(slurm: Slurm, short_tmp: Path) -> None:
    state = short_tmp / "s"
    up = slurm_dev("up", "--nodes", "2", "--gpus", "0", "--state", state)
    assert up.returncode == 0, up.stderr
    other = Slurm(state=state)
    # One job that has to be cancelled, one that ignores being asked to end.
    for body in ("sleep 600", "trap '' TERM; sleep 600 & srun sleep 600 & while :; do sleep 1; done"):
        job = other.submit("--output=/dev/null", "--wrap", body)
        other.wait(lambda job=job: other.job(job)["JobState"] == "RUNNING")
    bystander = subprocess.Popen(["sleep", "600"], env={**os.environ, "SLURM_CONF": str(other.conf)})
    try:
        before = slurm.status()["pids"]
        down = slurm_dev("down", "--state", state)
        assert down.returncode == 0 and "down," in down.stdout
        # What the user had started with this SLURM_CONF is no process of the cluster's.
        assert own_processes(state) == ["sleep 600 "] and bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
    assert {entry.name for entry in state.iterdir()} == {"log", "lock", "cluster.json"}
    assert slurm.status()["pids"] == before and slurm.status()["status"] == "up"
    assert "nothing is up" in slurm_dev("down", "--state", state).stdout


@slow
def test_up_after_a_crash_cleans_and_spares_a_foreign_process(slurm_packages: None, short_tmp: Path) -> None:
    state = short_tmp / "s"
    assert slurm_dev("up", "--nodes", "2", "--state", state).returncode == 0
    cluster = Slurm(state=state)
    job = cluster.submit("--output=/dev/null", "--wrap", "sleep 600 & srun sleep 600")
    cluster.wait(lambda: cluster.job(job)["JobState"] == "RUNNING")
    pids = cluster.status()["pids"]
    for pid in pids.values():
        os.kill(pid, signal.SIGKILL)
    foreign = subprocess.Popen(["sleep", "600"])
    try:
        # The pid of a daemon is a stranger's by now: the same number, another start.
        boot, stat = (state / "run/munged.process").read_text().splitlines()
        (state / "run/munged.process").write_text(f"{boot}\n{foreign.pid} {stat.split(' ', 1)[1]}\n")
        (state / "run/node02.process").write_bytes(b"\xff\0cut of")
        (state / "cluster.json").write_text('{"nodes": 2, "gp')  # cut off
        again = slurm_dev("up", "--nodes", "2", "--state", state)
        assert again.returncode == 0 and "that a crash had left" in again.stdout, again.stdout + again.stderr
        assert foreign.poll() is None
    finally:
        foreign.kill()
        foreign.wait()
    assert cluster.out("squeue", "-h") == "" and not set(pids.values()) & set(cluster.status()["pids"].values())
    assert not [line for line in own_processes(state) if "sleep" in line]


@slow
@pytest.mark.parametrize("daemon", ["slurmctld", "slurmd"])
def test_a_failed_up_ends_what_it_started_and_shows_the_log(slurm_packages: None, short_tmp: Path, daemon: str) -> None:
    tools = short_tmp / "bin"
    tools.mkdir()
    (tools / daemon).write_text("#!/bin/sh\n[ \"$1\" = -V ] && exit\necho 'fatal: no can do' >&2\nexit 3\n")
    (tools / daemon).chmod(0o755)
    done = slurm_dev("up", "--nodes", "2", "--state", short_tmp / "s", PATH=f"{tools}:{os.environ['PATH']}")
    assert done.returncode == 1 and "ended at once, with code 3" in done.stderr and "no can do" in done.stderr
    assert f"{short_tmp}/s/log/" in done.stderr and "Traceback" not in done.stderr
    assert own_processes(short_tmp / "s") == []


@slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_up_leaves_nothing_that_down_does_not_find(
    slurm_packages: None, short_tmp: Path, how: signal.Signals
) -> None:
    state = short_tmp / "s"
    process = subprocess.Popen(
        [sys.executable, str(SLURM_DEV), "up", "--state", str(state)], stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
        # A SIGINT that was ignored when Python started, as under nohup, would stay so.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    while not (state / "run/slurmctld.process").exists() and process.poll() is None:
        pass
    process.send_signal(how)
    said = process.communicate(timeout=60)[1]
    if how == signal.SIGKILL:
        slurm_dev("down", "--state", state)
    else:
        assert process.returncode == 130 and "interrupted" in said and "Traceback" not in said
    assert own_processes(state) == []


@slow
@root_only
def test_a_full_disk_is_said(slurm_packages: None, short_tmp: Path) -> None:
    full = short_tmp / "full"
    full.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12k,mode=755", "none", str(full)]).returncode:
        pytest.skip("no tmpfs may be mounted here")
    try:
        done = slurm_dev("up", "--nodes", "2", "--state", full)
        assert done.returncode == 1 and "no room left on the disk" in done.stderr and "Traceback" not in done.stderr
        assert own_processes(full) == []
    finally:
        subprocess.run(["umount", str(full)], check=True)


@slow
@root_only
def test_a_node_can_have_a_sys_of_its_own(slurm_packages: None, short_tmp: Path) -> None:
    (short_tmp / "sys/node02/class/infiniband/mlx5_0").mkdir(parents=True)
    state = short_tmp / "s"
    up = slurm_dev("up", "--nodes", "2", "--sys", short_tmp / "sys", "--state", state)
    if up.returncode == 4 and "namespaces" in up.stderr:
        pytest.skip(up.stderr)
    assert up.returncode == 0, up.stderr
    seen = [Slurm(state=state).out("srun", "-w", node, "ls", "/sys/class") for node in ("node01", "node02")]
    assert "net" in seen[0].split() and seen[1] == "infiniband"


@slow
def test_accounting_remembers_a_job(slurm_packages: None, short_tmp: Path) -> None:
    state = short_tmp / "s"
    up = slurm_dev("up", "--nodes", "2", "--accounting", "--state", state)
    if up.returncode == 4:
        pytest.skip(up.stderr)
    assert up.returncode == 0, up.stderr
    cluster = Slurm(state=state)
    job = cluster.submit("--wait", "--nodes=2", "--gpus-per-node=8", "--output=/dev/null", "--wrap", "srun true")
    cluster.wait(lambda: "COMPLETED" in cluster.out("sacct", "-X", "-n", "-j", job, "-o", "state"))
    assert "gres/gpu=16" in cluster.out("sacct", "-X", "-n", "-P", "-j", job, "-o", "alloctres")
    assert (state / "etc/slurmdbd.conf").stat().st_mode & 0o077 == 0
    slurm_dev("down", "--state", state)
    assert own_processes(state) == []


@slow
def test_a_job_past_its_time_limit_is_ended(slurm: Slurm, overdue: str) -> None:
    """The last one: meanwhile the job ran into its limit."""
    slurm.wait(lambda: slurm.job(overdue)["JobState"] == "TIMEOUT", seconds=90)
