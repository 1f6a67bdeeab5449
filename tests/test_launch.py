"""The command line: lists, dry runs, words that make no sense, and what a dry run must not do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit import cli, launch
from toolkit.recipe import compose, list_recipes
from toolkit.runs import create


def run(*words: str) -> int:
    try:
        return cli.run(launch.main, list(words))
    except SystemExit as err:  # argparse
        return int(err.code or 0)


def tree(root: Path) -> list[tuple[str, int]]:
    return sorted((str(path.relative_to(root)), path.stat().st_mtime_ns) for path in root.rglob("*"))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_arguments_it_lists_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    out = capsys.readouterr().out
    for name, title in list_recipes():
        assert any(line.split()[0] == name and title in line for line in out.splitlines() if line)


def test_the_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--json") == 0
    listed = json.loads(capsys.readouterr().out)["recipes"]
    assert [(row["name"], row["title"]) for row in listed] == list_recipes()


@pytest.mark.parametrize("name", ["demo", "pretrain_70b"])
def test_a_dry_run_as_json(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"recipe={name}", "train.seed=7", "--dry-run", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    recipe = compose(name, ["train.seed=7"]).recipe
    assert shown["recipe"] == name
    assert shown["values"]["train"]["seed"] == 7 and shown["origin"]["train.seed"] == "command line"
    assert [row["stage"] for row in shown["stages"]] == list(recipe.stages)
    assert shown["layout"]["world"] == recipe.cluster.nodes * recipe.cluster.devices_per_node
    assert [row["key"] for row in shown["missing"]] == [] if name == "demo" else shown["missing"]


def test_a_dry_run_writes_nothing_and_loads_nothing_heavy(repo_root: Path, elsewhere: Path) -> None:
    """In a process of its own, with a recipes folder whose times would show a write."""
    before = tree(elsewhere), tree(repo_root / "recipes")
    code = (
        "import sys; from toolkit import cli, launch; rc = cli.run(launch.main);"
        "print(rc, sorted({'torch', 'numpy', 'transformers', 'nemo', 'pandas'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(repo_root), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, "recipe=pretrain_70b", "--dry-run"],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "0 []"
    assert "128 GPUs" in done.stdout
    assert (tree(elsewhere), tree(repo_root / "recipes")) == before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["recipe=demp"], "unknown recipe 'demp'. Did you mean 'demo'?"),
        (["recipe", "demo"], "'recipe' is not key=value. Write recipe=demo."),
        (["demo"], "'demo' is not key=value. Did you mean recipe=demo?"),
        (["dmeo"], "'dmeo' is not key=value. Did you mean recipe=demo?"),
        (["recipe="], "'recipe=' is not key=value. Write recipe=NAME"),
        (["run="], "'run=' is not key=value. Write run=RUN"),
        (["recipe=demo", "xyzzy"], "'xyzzy' is not key=value"),
        (["train.lr=1"], "'train.lr=1' without recipe=NAME"),
        (["recipe=demo", "recipe=demo"], "recipe= is given twice"),
        (["recipe=demo", "run=last"], "recipe= and run= exclude each other"),
        (["run=last", "train.lr=1"], "a run keeps the recipe it was started with"),
        (["run=last", "~train.lr"], "a run keeps the recipe it was started with"),
        (["recipe=demo", "train.stps=1"], "command line: unknown key 'train.stps'. Did you mean 'train.steps'?"),
        (["recipe=demo", "parallel.pp=3"], "parallel.pp=3 x vp=1 does not divide model.layers=4"),
        (["recipe=demo", "title=$(id)"], "command line: cannot read"),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["", "dry"])
def test_usage_errors(
    words: list[str], told: str, dry: list[str], elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words, *dry) == 2
    out, err = capsys.readouterr()
    assert told in err and err.startswith("error: ")
    assert err.count("\n") == 1 and out == ""
    assert list(elsewhere.iterdir()) == []


def test_what_is_not_stated_is_named_before_anything_is_written(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("recipe=pretrain_70b") == 2
    err = capsys.readouterr().err
    assert "not stated: corpus.sources.guidelines.path" in err and "model.base" in err
    assert list(elsewhere.iterdir()) == []
    assert run("recipe=pretrain_70b", "--dry-run") == 0  # which shows them instead


def test_an_unknown_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("recipe=demo", "--dryrun") == 2
    assert "unrecognized arguments: --dryrun" in capsys.readouterr().err


def test_a_damaged_recipe_file_does_not_end_in_a_traceback(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TOOLKIT_RECIPES", str(elsewhere))
    (elsewhere / "bad.yaml").write_bytes(b"\ttitle: x\n")
    for words in ([], ["demo"], ["recipe=bad"], ["recipe=bad", "--dry-run"]):
        assert run(*words) == 2
        assert f"{elsewhere}/bad.yaml:1: not valid YAML" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["recipe=demo", "train.stps=1"], ["recipe=demo", "parallel.pp=3"], ["recipe=nope"], ["run=nope"]]
)
def test_by_subprocess_one_message_and_an_exit_code(words: list[str], repo_root: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(repo_root)}
    command = [sys.executable, "-m", "toolkit.launch", *words, "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == (1 if words == ["run=nope"] else 2)
    assert done.stdout == "" and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    told = subprocess.run([*command, "--json"], capture_output=True, text=True, env=environment)
    document = json.loads(told.stdout)
    assert document["exit_code"] == told.returncode == done.returncode
    assert document["what"] in done.stderr


def test_runs_that_are_not_there(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("last", "demo-20200101-000000-abcd", "../..", "/nowhere"):
        assert run(f"run={name}") == 1
        assert f"no run '{name}'. Start one with recipe=NAME." in capsys.readouterr().err
    made = create(compose("demo").recipe, command=["x"], plan={})
    assert run(f"run={made.id[:-1]}0" if made.id[-1] != "0" else f"run={made.id[:-1]}1") == 1
    assert f"Did you mean '{made.id}'?" in capsys.readouterr().err


def test_what_going_on_would_do(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = create(compose("demo", ["stages=[corpus,base]"]).recipe, command=["x"], plan={})
    before = tree(elsewhere)
    for name in ("last", made.id, f"runs/{made.id}", str(made.path)):
        assert run(f"run={name}", "--dry-run", "--json") == 0
        shown = json.loads(capsys.readouterr().out)
        assert shown["run"] == str(made.path)
        assert [row["id"] for row in shown["stages"]] == ["corpus", "base"]
        assert all(row["state"].startswith("to run") for row in shown["stages"])
    assert run("run=last", "--dry-run") == 0
    assert "corpus" in capsys.readouterr().out
    assert tree(elsewhere) == before


def test_a_folder_for_runs_that_cannot_be_made(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (elsewhere / "file").write_text("x")
    assert run("recipe=demo", "runs=file/runs") == 1
    err = capsys.readouterr().err
    assert "the run's folder cannot be made: Not a directory" in err and "runs=FOLDER" in err


def test_output_into_a_closed_pipe_is_no_fault(repo_root: Path) -> None:
    command = f"{sys.executable} -m toolkit.launch recipe=demo --dry-run | head -1"
    environment = {**os.environ, "PYTHONPATH": str(repo_root)}
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, env=environment)
    assert done.stderr == "" and done.stdout.startswith("demo: ")


def test_a_cluster_that_cannot_be_submitted_to_is_refused_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # a machine without Slurm
    assert run("recipe=demo", "cluster=slurm_dev", f"runs={tmp_path / 'runs'}") == 1
    assert "sbatch: Slurm cannot be asked. There is no such command here." in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_for_slurm_shows_every_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same in both forms, as sbatch would get them; Slurm need not be there."""
    words = ("recipe=demo", "cluster=slurm_dev", "--dry-run")
    assert run(*words) == 0
    shown = capsys.readouterr().out
    assert run(*words, "--json") == 0
    jobs = json.loads(capsys.readouterr().out)["jobs"]
    assert [job["key"] for job in jobs] == [
        *("corpus", "base", "shards", "import", "pretrain", "export-pretrain", "finetune", "export-finetune"),
        *("score-parts", "score", "report"),
    ]
    for job in jobs:
        assert job["script"].rstrip() in shown
        assert f"-m toolkit.job {tmp_path}/runs/demo-DATE-ID {job['step']}" in job["script"]
    assert not (tmp_path / "runs").exists()
    assert run("recipe=demo", "--dry-run", "--json") == 0
    assert "jobs" not in json.loads(capsys.readouterr().out)  # this machine takes no scripts


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["recipe=demo", "--only"], "--only goes with --in-job"),
        (["--in-job", "corpus"], "--in-job without recipe=NAME or run=RUN"),
        (["--in-job", "corpus", "recipe=demo", "--dry-run"], "--in-job goes with --only and --force alone"),
        (["--in-job", "corpus", "recipe=demo", "--yes"], "--in-job goes with --only and --force alone"),
        (["--in-job", "corpus", "recipe=demo", "--wait"], "--in-job goes with --only and --force alone"),
        (["--in-job", "corpus", "recipe=demo"], "--in-job is for scripts that sbatch runs"),
    ],
)
def test_in_job_by_mistake(
    words: list[str], told: str, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert run(*words) == 2
    out, err = capsys.readouterr()
    assert told in err and out == "" and list(elsewhere.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "environment", "code", "told"),
    [
        (["recipe=demo", "cluster=slurm_dev"], {}, 3, "stage pretrain takes 4 nodes x 1 tasks, and this job has 1 x ?"),
        (["recipe=demo", "cluster=slurm_dev"], {"NODES": "4", "NTASKS": "8"}, 3, "--nodes=4 --ntasks-per-node=1"),
        (["recipe=demo", "cluster=slurm_dev"], {"NODES": "4", "NTASKS": "7"}, 3, "this job has 4 x ? tasks"),
        (["recipe=demo", "cluster=slurm_dev", "cluster.device=gpu", "cluster.gpu=a100_80gb_sxm", "cluster.gres=null"],
         {"NODES": "4", "NTASKS": "4", "GPUS": "0"}, 3, "--gpus-per-node=1"),
        (["recipe=pretrain_70b"], {"NODES": "16", "NTASKS": "128"}, 2, "not stated: model.base"),
        (["recipe=demo", "stages=[corpus]"], {}, 2, "has no stage 'pretrain'"),
    ],
)  # fmt: skip
def test_a_job_that_does_not_fit_is_refused_with_what_would(
    words: list[str], environment: dict[str, str], code: int, told: str, elsewhere: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for name in ("SLURM_JOB_NUM_NODES", "SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_GPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    names = {"NODES": "SLURM_JOB_NUM_NODES", "NTASKS": "SLURM_NTASKS", "GPUS": "SLURM_GPUS_ON_NODE"}
    for name, value in environment.items():
        monkeypatch.setenv(names[name], value)
    monkeypatch.setenv("PATH", str(slurm_stand_in(elsewhere)), prepend=os.pathsep)
    given = ["inputs.shards=/s", "inputs.checkpoint=/c", "model.base=/m"] if words[0] == "recipe=demo" else []
    assert run(*words, *given, "--in-job", "pretrain") == code
    out, err = capsys.readouterr()
    assert told in err and out == "" and not (elsewhere / "runs").exists()


def slurm_stand_in(folder: Path) -> Path:
    """A folder with an sbatch that must not be called: what is refused here is refused before."""
    place = folder / "bin"
    place.mkdir()
    for name in ("sbatch", "srun", "squeue"):
        (place / name).write_text("#!/bin/sh\necho called >&2\nexit 1\n")
        (place / name).chmod(0o755)
    return place
