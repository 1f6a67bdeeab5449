"""What sbatch is asked for: sizes and limits from the site's profile, arrays, and words that cannot do harm."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.cluster.sbatch import Job, jobs
from toolkit.cluster.submission import text
from toolkit.errors import PlanRefused, RecipeError
from toolkit.plan import steps
from toolkit.recipe import Recipe, compose

RUN = Path("/runs/demo-20260101-120000-ab12")


def recipe(*overrides: str, name: str = "demo") -> Recipe:
    return compose(name, ["cluster=slurm_dev", *overrides] if name == "demo" else overrides).recipe


def made(recipe: Recipe, run: Path = RUN) -> dict[str, Job]:
    return {job.key: job for step in steps(recipe) for job in jobs(recipe, step, run)}


def options(script: str) -> dict[str, str]:
    """What a script's #SBATCH lines say, read as a shell reads words."""
    words = [word for line in script.splitlines() if line.startswith("#SBATCH") for word in shlex.split(line)[1:]]
    return dict((word.removeprefix("--").split("=", 1) + [""])[:2] for word in words)


def test_a_training_on_one_device_is_a_training_still() -> None:
    recipe = compose("demo", ["cluster=slurm_dev", "cluster.nodes=1", "parallel=tp1_pp1", "stages=[pretrain]"]).recipe
    (job,) = jobs(recipe, steps(recipe)[0], RUN)
    assert job.signal and (job.nodes, job.tasks) == (1, 1)


def test_a_training_takes_the_whole_layout() -> None:
    job = made(recipe(name="pretrain_70b"))["pretrain"]
    told = options(text(job, ["11", "12"]))
    wanted = {
        "nodes": "16", "ntasks-per-node": "8", "gpus-per-node": "8", "cpus-per-task": "8", "mem": "0", "exclusive": "",
        "signal": "B:USR2@600", "requeue": "", "open-mode": "append", "time": "1440", "kill-on-invalid-dep": "yes",
        "dependency": "afterok:11:12", "job-name": "pretrain_70b-pretrain", "output": f"{RUN}/jobs/pretrain-%j.out",
        "chdir": str(RUN),
        "comment": RUN.name,
    }  # fmt: skip
    assert told == wanted


def test_a_job_of_one_process_takes_what_small_says() -> None:
    told = options(text(made(recipe(name="pretrain_70b"))["import"]))
    assert {name: told[name] for name in ("nodes", "ntasks-per-node", "cpus-per-task", "mem", "time")} == {
        "nodes": "1", "ntasks-per-node": "1", "cpus-per-task": "16", "mem": "256G", "time": "480",
    }  # fmt: skip
    assert not {"signal", "gpus-per-node", "exclusive", "dependency", "array"} & told.keys() and "requeue" in told


def test_only_a_job_that_scores_has_gpus() -> None:
    found = made(
        recipe(
            "cluster.gres=h100", "cluster.small.devices=2", "stages=[import,pretrain,export,score]", name="pretrain_7b"
        )
    )
    gpus = {key: job.gpus for key, job in found.items() if job.gpus}
    assert gpus == {"pretrain": "h100:8", "score": "h100:2"}
    assert all(job.gpus is None for job in made(recipe("cluster.gres=none", name="pretrain_7b")).values())
    assert all(job.gpus is None for job in made(recipe()).values())  # trains on CPUs


def test_a_site_may_have_places_and_options_of_its_own() -> None:
    words = ["cluster.partition=gpu", "cluster.small.partition=cpu", "cluster.account=med", "cluster.qos=long"]
    words += ["cluster.sbatch={constraint: 'a&b', nice: 5}", "cluster.small.sbatch={}"]
    found = made(recipe(*words))
    train, small = options(text(found["pretrain"])), options(text(found["shards"]))
    assert (train["partition"], small["partition"]) == ("gpu", "cpu")
    assert train["account"] == small["account"] == "med" and train["qos"] == small["qos"] == "long"
    assert train["constraint"] == "a&b" and train["nice"] == "5"
    assert not {"constraint", "nice"} & small.keys()


def test_what_a_site_leaves_open_is_left_to_slurm() -> None:
    told = options(text(made(recipe("cluster.time_limit_min=null", "cluster.small.time_limit_min=null"))["pretrain"]))
    assert not {"time", "mem", "account", "qos", "exclusive", "gpus-per-node", "wckey", "error"} & told.keys()


def test_a_stage_with_parts_is_an_array_and_a_job_that_finishes_it() -> None:
    found = made(recipe("data.shard_parts=5"))
    parts, whole = found["shards-parts"], found["shards"]
    told = options(text(parts))
    assert told["array"] == "0-4%2" and told["output"].endswith("/jobs/shards-%A_%a.out")
    assert text(parts).rstrip().endswith('shards --part "$SLURM_ARRAY_TASK_ID"')
    assert text(whole).rstrip().endswith(" shards") and "array" not in options(text(whole))
    assert parts.needs == ("corpus", "base") and whole.needs == ("shards-parts",)
    assert found["pretrain"].needs == ("shards", "import")  # nobody waits for the parts alone
    assert "array" not in options(text(made(recipe("data.shard_parts=1"))["shards"]))


@pytest.mark.parametrize(
    "name", ["a b", "it's", 'q"q', "d$HOME", "p%j%%", "ünï", "h#x", "`id`", "$(id)", "-x", "~", "*;&|"]
)
def test_the_command_of_a_folder_with_any_name(name: str, tmp_path: Path) -> None:
    """bash reads the script's last line as the words that were meant, and sbatch its options."""
    job = made(recipe(), tmp_path / name)["corpus"]
    script = text(job)
    told = options(script)
    assert told["chdir"] == str(tmp_path / name)
    assert told["output"] == str(tmp_path / name).replace("%", "%%") + "/jobs/corpus-%j.out"
    last = script.rstrip().splitlines()[-1].removeprefix("exec ")
    words = subprocess.run(["bash", "-c", f"printf '%s\\0' {last}"], capture_output=True, text=True, check=True).stdout
    assert words.split("\0")[:-1] == [sys.executable, "-m", "toolkit.job", str(tmp_path / name), "corpus"]
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0


@pytest.mark.parametrize("name", ["nl\nx", "back\\slash", "tab\tx", "bell\a", "nul\x00", "line\u2028x", "half\udcff"])
def test_a_folder_that_sbatch_would_misread_is_refused(name: str) -> None:
    with pytest.raises(PlanRefused, match="a name that sbatch cannot be given") as caught:
        made(recipe(), RUN / name)
    assert caught.value.exit_code == 3 and "runs=FOLDER" in caught.value.do


def test_modules_and_scratch_come_before_the_command() -> None:
    words = ["cluster.modules=[gcc/12.2,cuda/12.8]", "cluster.scratch='/scratch/$USER/$SLURM_JOB_ID'"]
    lines = text(made(recipe(*words))["corpus"]).splitlines()
    kept = lines[lines.index("# setup") + 2 :]
    assert kept[1:5] == [
        "module load gcc/12.2 || exit 1", "module load cuda/12.8 || exit 1",
        'export TMPDIR="/scratch/$USER/$SLURM_JOB_ID"', 'mkdir -p "$TMPDIR" || exit 1',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("cluster.partition='a b'", "cluster.partition='a b' is no name that Slurm has"),
        ("cluster.partition='-x'", "is no name that Slurm has"),
        ("cluster.small.partition='a;id'", "cluster.small.partition='a;id' is no name"),
        ("cluster.account='$(id)'", "is no name that Slurm has"),
        ("cluster.qos=''", "is no name that Slurm has"),
        ("cluster.gres='a100 --wrap=id'", "is no name that Slurm has"),
        ("cluster.modules=['x;id']", "cluster.modules[0]='x;id' is no name of a module"),
        ("cluster.modules=[a,'-x']", "cluster.modules[1]='-x' is no name of a module"),
        ("cluster.modules=['a b']", "is no name of a module"),
        ("cluster.scratch=relative", "no folder that a script can name"),
        ("cluster.scratch='/a b'", "no folder that a script can name"),
        ("cluster.scratch='/a/$(id)'", "no folder that a script can name"),
        ("cluster.scratch='/a/`id`'", "no folder that a script can name"),
        ("cluster.scratch='/a/$HOME'", "it may name $SLURM_JOB_ID"),
        ("cluster.scratch='/a/$SLURM_JOB_IDX'", "no folder that a script can name"),
        ("cluster.scratch='/a\"; id; \"'", "no folder that a script can name"),
        ("cluster.sbatch={wrap: id}", "cluster.sbatch.wrap: the toolkit sets --wrap itself"),
        ("cluster.sbatch={nodes: 3}", "Use cluster.nodes"),
        ("cluster.sbatch={output: x}", "Leave it out"),
        ("cluster.sbatch={signal: x}", "Use cluster.alive.signal_before_s"),
        ("cluster.small.sbatch={array: 3}", "cluster.small.sbatch.array: the toolkit sets"),
        ("cluster.sbatch={9nice: 3}", "Write it as sbatch does, without --"),
        ("cluster.sbatch={mail_type: ALL}", "cluster.sbatch.mail_type is no option of sbatch"),
        ("cluster.sbatch={comment: [a]}", "cannot be given to sbatch"),
        ("cluster.sbatch={comment: null}", "cannot be given to sbatch"),
        ("cluster.sbatch={comment: false}", "cannot be given to sbatch"),
        ("cluster.sbatch={comment: ''}", "cannot be given to sbatch"),
        ("cluster.sbatch={comment: 'a\\\\b'}", "cannot be given to sbatch"),
        ("cluster.cpus_per_device=0", "cluster.cpus_per_device is 0"),
        ("cluster.mem_gib=-1", "cluster.mem_gib is -1"),
        ("cluster.small.devices=-1", "cluster.small.devices is -1"),
        ("cluster.small.array_parallelism=0", "cluster.small.array_parallelism is 0"),
        ("cluster.alive.idle_attempts=0", "cluster.alive.idle_attempts is 0"),
        ("cluster.alive.hang_s=0", "cluster.alive.hang_s is 0"),
        ("cluster.alive.signal_before_s=3600", "leaves nothing of cluster.time_limit_min=60"),
        ("cluster.apptainer.options=[x]", "cluster.apptainer.options[0]='x' is no option"),
        ("cluster.apptainer.command='-x'", "would be read as an option"),
        ("container.image=''", "cannot be a word of a command"),
        ("container.runtime=docker", "Valid: apptainer, none"),
    ],
)
def test_a_profile_that_would_do_harm_is_refused(override: str, told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe(override)
    assert told in str(caught.value) and "\n" not in str(caught.value)
