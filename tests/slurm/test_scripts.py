"""slurm/*.sh: what they say, that they are one with the launcher's jobs, and that they do it on a real Slurm."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml

from tests import made_shards
from tests.containers.conftest import apptainer  # noqa: F401
from tests.fabric import trees
from tests.images.conftest import base  # noqa: F401
from tests.slurm.conftest import Slurm
from toolkit.cluster import sbatch, submission
from toolkit.plan import steps
from toolkit.recipe import compose

SLURM = Path(__file__).resolve().parents[2] / "slurm"
# Script -> (recipe, stage) that it starts.
STARTS = {
    "pretrain_7b": ("pretrain_7b", "pretrain"),
    "pretrain_70b": ("pretrain_70b", "pretrain"),
    "build_corpus": ("gap_replay", "corpus"),
    "shard_data": ("pretrain_70b", "shards"),
    "import_hf": ("pretrain_70b", "import"),
    "convert_hf": ("pretrain_70b", "export"),
    "finetune": ("finetune_70b", "finetune"),
    "score": ("score", "score"),
    "preflight": ("preflight", "preflight"),
}
SCRIPTS = [*STARTS, "build_images", "nightly"]
slow = pytest.mark.slow


def run(script: str, *arguments: str, cwd: Path = SLURM.parent, **environment: str) -> subprocess.CompletedProcess[str]:
    """The script without Slurm, in an environment that knows no job."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "MEDITRON_"))}
    return subprocess.run(
        [str(SLURM / f"{script}.sh"), *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=cwd,
        timeout=60, env={**clean, **environment},
    )  # fmt: skip


def options(text: str) -> dict[str, str | None]:
    """The #SBATCH lines of a script."""
    found = re.finditer(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", text, re.MULTILINE)
    return {match[1]: match[2] for match in found}


# ---- without a cluster -----------------------------------------------------------------------------------------------


def test_these_are_all_scripts() -> None:
    assert sorted(path.stem for path in SLURM.glob("*.sh")) == sorted([*SCRIPTS, "common"])


def test_shellcheck_is_content() -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    files = sorted(f"slurm/{path.name}" for path in SLURM.glob("*.sh"))
    done = subprocess.run(["shellcheck", *files], cwd=SLURM.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_the_header(script: str) -> None:
    done = run(script, "--help", cwd=Path("/"))
    assert done.returncode == 0 and done.stderr == ""
    for part in ("usage:    sbatch ", "example:  ", "needs:    ", "environment:", f"slurm/{script}.sh"):
        assert part in done.stdout
    assert "#" not in done.stdout and "SBATCH" not in done.stdout
    text = (SLURM / f"{script}.sh").read_text()
    assert [f"# {line}".rstrip() for line in done.stdout.splitlines()] == text.partition("#SBATCH")[0].splitlines()[1:]


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_variable_that_is_read_is_in_the_header(script: str) -> None:
    header, _, body = (SLURM / f"{script}.sh").read_text().partition("#SBATCH")
    read = set(re.findall(r"\b((?:MEDITRON|NIGHTLY)_[A-Z_]+)", body + (SLURM / "common.sh").read_text()))
    told = set(re.findall(r"^#   ((?:MEDITRON|NIGHTLY)_[A-Z_]+)  ", header, re.MULTILINE))
    assert read - told == set() and told - read <= {"MEDITRON_PREFLIGHT_LIMIT_S", "MEDITRON_APPTAINER"}


@pytest.mark.parametrize("script", SCRIPTS)
def test_without_slurm_it_says_how_to_submit(script: str, tmp_path: Path) -> None:
    done = run(script, "train.lr=1e-4", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert f"submit it: sbatch slurm/{script}.sh" in done.stderr and "--help" in done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("variable", ["SLURM_SUBMIT_DIR", "MEDITRON_ROOT"])
def test_a_folder_without_the_toolkit_is_refused(script: str, variable: str, tmp_path: Path) -> None:
    done = run(script, SLURM_JOB_ID="1", **{"SLURM_SUBMIT_DIR": "/", variable: str(tmp_path)})
    assert done.returncode == 2 and f"no toolkit in {tmp_path}:" in done.stderr and "MEDITRON_ROOT" in done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_task_of_an_array_is_refused(script: str) -> None:
    done = run(script, SLURM_JOB_ID="1", SLURM_ARRAY_TASK_ID="0")
    assert done.returncode == 2 and "without --array" in done.stderr


def test_a_python_that_is_not_there_is_named() -> None:
    done = run("import_hf", SLURM_JOB_ID="1", MEDITRON_PYTHON="/no/such/python")
    assert done.returncode == 2 and "/no/such/python: no such Python" in done.stderr


@pytest.mark.parametrize("script", STARTS)
def test_the_header_asks_for_what_the_launcher_asks_for(script: str) -> None:
    name, stage = STARTS[script]
    recipe = compose(name, ["cluster=a100_roce"]).recipe
    step = next(step for step in steps(recipe) if step.stage == stage)
    launched = options(submission.text(sbatch.jobs(recipe, step, Path("/runs/one"))[-1]))
    own = options((SLURM / f"{script}.sh").read_text())
    for apart in ("job-name", "output", "chdir", "comment"):
        launched.pop(apart)
        own.pop(apart, None)
    if script == "preflight":  # it is over in minutes, and has nothing to save
        assert own.pop("time") == "45" and launched.pop("time") and "signal" not in launched
    assert own == launched


@pytest.mark.parametrize("script", STARTS)
def test_the_command_is_the_launchers(script: str) -> None:
    name, stage = STARTS[script]
    *_, begin, command = (SLURM / f"{script}.sh").read_text().splitlines()
    launched = sbatch.command(Path("/runs/one"), stage)
    assert command.replace('"$PYTHON"', sys.executable).replace('"$run"', "/runs/one") == launched
    recipe = f'"${{MEDITRON_RECIPE:-{name}}}"' if "MEDITRON_RECIPE" in begin else name
    alone = f" 'stages=[{stage}]'"
    assert begin.replace(alone, "") == f'run=$("$PYTHON" -m toolkit.launch --in-job {stage} recipe={recipe} "$@")'


# ---- images ----------------------------------------------------------------------------------------------------------


def definition(base: Path, rest: str) -> str:  # noqa: F811
    return f"Bootstrap: localimage\nFrom: {base}\n# room: 0.02 GiB while building, 0.01 GiB when built\n\n{rest}\n"


@pytest.fixture
def images(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """build_images.sh in a folder of its own with this toolkit and no definition."""
    root = tmp_path / "a toolkit's $HOME"
    (root / "containers").mkdir(parents=True)
    (root / "toolkit").symlink_to(SLURM.parent / "toolkit")
    shutil.copytree(SLURM, root / "slurm")

    def build(*names: str, **environment: str) -> subprocess.CompletedProcess[str]:
        given = {"MEDITRON_PYTHON": sys.executable, "TMPDIR": str(tmp_path), **environment}
        return run("build_images", *names, SLURM_JOB_ID="7", MEDITRON_ROOT=str(root), **given)

    build.folder = root / "containers"  # type: ignore[attr-defined]
    return build


@slow
def test_images_are_built_whole_or_not_at_all(
    images: Callable[..., subprocess.CompletedProcess[str]], apptainer: str, base: Path  # noqa: F811
) -> None:  # fmt: skip
    folder: Path = images.folder  # type: ignore[attr-defined]
    (folder / "one.def").write_text(definition(base, "%post\n    echo first >/opt/said"))
    (folder / "two.def").write_text(definition(base, "%test\n    cat /opt/said || echo nothing said"))
    done = images(MEDITRON_APPTAINER=apptainer)
    assert done.returncode == 0, done.stderr
    assert [line.split(": ")[1][:5] for line in done.stdout.splitlines()] == ["built", "built"]
    whole = (folder / "one.sif").read_bytes()

    (folder / "one.def").write_text(definition(base, "%post\n    cat /no/such/thing"))
    done = images("one", "two", MEDITRON_APPTAINER=apptainer)
    assert done.returncode == 3 and "/no/such/thing" in done.stderr and "%post of one failed" in done.stderr
    assert (folder / "one.sif").read_bytes() == whole
    made = {f"{name}.{kind}" for name in ("one", "two") for kind in ("def", "json", "log", "sif")}
    assert {path.name for path in folder.iterdir() if not path.name.endswith(".lock")} == made
    assert not list(folder.parents[1].glob("meditron-image*")), "what was unpacked in TMPDIR is still there"

    done = images("two.def", "--force", "--", "--no-such-option", MEDITRON_APPTAINER=apptainer)
    assert done.returncode == 3 and "no-such-option" in done.stderr
    done = images("two", MEDITRON_APPTAINER=apptainer)
    assert done.returncode == 0 and "two.sif: kept" in done.stdout


@pytest.mark.parametrize("name", ["three", "../containers/one", "-x", "$(touch X)", "a b", "one;two", "ü", ""])
def test_an_unknown_image_is_refused_before_any_is_built(
    images: Callable[..., subprocess.CompletedProcess[str]], name: str
) -> None:
    folder: Path = images.folder  # type: ignore[attr-defined]
    (folder / "one.def").write_text("Bootstrap: localimage\nFrom: /nothing\n")
    done = images("one", name)
    assert done.returncode == 2, done.stderr
    if name != "-x":  # which is no name, and no option either
        assert "no definition containers/" in done.stderr and "one" in done.stderr
    assert [path.name for path in folder.iterdir()] == ["one.def"]


def test_nothing_to_build_and_nothing_to_build_with(images: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    folder: Path = images.folder  # type: ignore[attr-defined]
    done = images()
    assert done.returncode == 2 and "no definition to build" in done.stderr
    (folder / "one.def").write_text(definition(folder, ""))
    done = images(MEDITRON_APPTAINER="no-such-program")
    assert done.returncode == 3 and "no no-such-program on" in done.stderr


# ---- on a real Slurm -------------------------------------------------------------------------------------------------


PROBE = """#!/bin/bash
# In the place of the payload's Python: writes what it was given.
folder=$3/stages/$4/probe
mkdir -p "$folder"
{ for name in RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE NODE_RANK MASTER_ADDR MASTER_PORT SLURM_JOB_NODELIST \
      SLURMD_NODENAME CUDA_VISIBLE_DEVICES NCCL_IB_HCA NCCL_NET; do
    echo "$name=${!name}"
done; echo "host=$(hostname)"; echo "words=$*"; } >"$folder/$BASHPID.part"
mv "$folder/$BASHPID.part" "$folder/${RANK:-0}-$SLURMD_NODENAME-$BASHPID"
"""


@pytest.fixture
def probe(tmp_path: Path) -> Path:
    path = tmp_path / "probe"
    path.write_text(PROBE)
    path.chmod(0o755)
    return path


@pytest.fixture
def submit(slurm: Slurm, tmp_path: Path) -> Callable[..., str]:
    """`submit(words...)`: the id of a job submitted from the toolkit's folder, whose output is the file `out`."""

    def submitted(*words: object, out: str = "out", **environment: str) -> str:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "MEDITRON_"))}
        env = {**clean, "SLURM_CONF": str(slurm.conf), "MEDITRON_PYTHON": sys.executable, **environment}
        done = subprocess.run(
            ["sbatch", "--parsable", f"--output={tmp_path / out}", *map(str, words)],
            capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, cwd=SLURM.parent, env=env,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return submitted


def ended(slurm: Slurm, job: str) -> bool:
    return slurm.job(job)["JobState"] not in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING")


@slow
def test_an_image_is_built_on_a_compute_node(
    slurm: Slurm, submit: Callable[..., str], images: Callable[..., object], apptainer: str, base: Path,  # noqa: F811
    tmp_path: Path,
) -> None:  # fmt: skip
    folder: Path = images.folder  # type: ignore[attr-defined]
    text = "%post\n    echo made >/opt/said\n%test\n    cat /opt/said"
    (folder / "one.def").write_text(definition(base, text))
    given = {"MEDITRON_ROOT": str(folder.parent), "MEDITRON_APPTAINER": apptainer, "TMPDIR": str(tmp_path)}
    job = submit("slurm/build_images.sh", "one", **given)
    slurm.wait(lambda: ended(slurm, job), seconds=120)
    said = (tmp_path / "out").read_text()
    assert slurm.job(job)["ExitCode"] == "0:0" and "one.sif: built (there is none yet)" in said, said
    assert (folder / "one.sif").is_file() and "made\n" in (folder / "one.log").read_text()


def only_run(root: Path) -> Path:
    (found,) = root.glob("*/recipe.yaml")
    return found.parent


@pytest.fixture
def dummies(tmp_path: Path) -> list[str]:
    """Overrides that name every input of pretrain_70b and what follows it, as empty files but for the shards."""
    (tmp_path / "in").mkdir()
    for name in ("checkpoint", "base"):
        (tmp_path / "in" / name).mkdir()
    made_shards.make(tmp_path / "in" / "shards", 32_017)
    rows = tmp_path / "in" / "rows.json"
    rows.write_text("{}\n")
    given = {"inputs.shards": "shards", "inputs.checkpoint": "checkpoint", "model.base": "base"}
    scored = [f"score.paths.{name}={rows}" for name in ("medqa4", "medmcqa", "pubmedqa", "mmlu_medical")]
    return [*(f"{key}={tmp_path / 'in' / name}" for key, name in given.items()), f"finetune.path={rows}", *scored]


@slow
def test_pretrain_70b_as_it_stands(
    slurm: Slurm, submit: Callable[..., str], probe: Path, dummies: list[str], tmp_path: Path
) -> None:
    """16 nodes x 8 GPUs: every one of the 128 ranks is told who it is."""
    # The probe trains nothing: once is enough.
    given = [
        f"runs={tmp_path / 'runs'}",
        "container=none",
        f"container.python={probe}",
        "cluster.alive.idle_attempts=1",
    ]
    sysfs = trees.meditron(tmp_path / "tree").sys
    job = submit("slurm/pretrain_70b.sh", *given, *dummies, MEDITRON_SYSFS=str(sysfs))
    slurm.wait(lambda: ended(slurm, job), seconds=240)
    said = (tmp_path / "out").read_text()
    made = only_run(tmp_path / "runs")
    rows = {row["id"]: row["jobs"] for row in json.loads((made / "jobs.json").read_text())["stages"]}
    following = [entry["id"] for row in rows.values() for entry in row if entry["id"] != job]
    try:
        told = slurm.job(job)
        assert told["NumNodes"] == "16" and told["TresPerNode"].endswith("gpu:8"), told
        told_by = [dict(line.split("=", 1) for line in path.read_text().splitlines())
                   for path in (made / "stages/pretrain/probe").iterdir()]  # fmt: skip
        assert len(told_by) == 128, said
        by_rank = {int(rank["RANK"]): rank for rank in told_by}
        assert sorted(by_rank) == list(range(128))
        first = by_rank[0]
        for number, rank in by_rank.items():
            assert rank["WORLD_SIZE"] == "128" and rank["LOCAL_WORLD_SIZE"] == "8"
            assert (int(rank["LOCAL_RANK"]), int(rank["NODE_RANK"])) == (number % 8, number // 8)
            assert rank["SLURMD_NODENAME"] == f"node{number // 8 + 1:02d}"
            assert rank["MASTER_ADDR"] == first["SLURMD_NODENAME"] and rank["MASTER_PORT"] == first["MASTER_PORT"]
            assert rank["SLURM_JOB_NODELIST"] == "node[01-16]"
            assert rank["CUDA_VISIBLE_DEVICES"] == "0,1,2,3,4,5,6,7"
            assert rank["words"] == f"-m toolkit.stages {made} pretrain"
            assert (rank["NCCL_IB_HCA"], rank["NCCL_NET"]) == ("=mlx5_0:1", "IB")
        assert list(rows) == ["pretrain", "export-pretrain", "finetune", "export-finetune", "score", "report"]
        assert [entry["id"] for entry in rows["pretrain"]] == [job]
        assert made.name.endswith(f"-j{job}")
    finally:
        slurm.run("scancel", *following, check=False)


HOSTILE = [
    "/data/$(touch {mark})", "/data/`touch {mark}`", "/data/a b;touch {mark}", "/data/'quoted' \"twice\"",
    "/data/${{HOME}}",
    "/data/ünï–漢字", "/data/--wrap=touch {mark}", "/data/%j%x", "/data/back\\slash", "/data/*?[a]", "/data/new\nline",
]  # fmt: skip


@slow
def test_hostile_words_arrive_unchanged_or_are_refused(
    slurm: Slurm, submit: Callable[..., str], probe: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "MARK"
    paths = [text.format(mark=mark) for text in HOSTILE]
    jobs = {}
    for number, path in enumerate(paths):
        quoted = path.replace('"', '\\"')
        words = [f'model.base="{quoted}"', f"runs={tmp_path / str(number)}", f"container.python={probe}"]
        jobs[number] = submit("slurm/import_hf.sh", "container=none", *words, out=f"out-{number}")
    slurm.wait(lambda: all(ended(slurm, job) for job in jobs.values()), seconds=240)
    arrived = []
    for number, path in enumerate(paths):
        said = (tmp_path / f"out-{number}").read_text()
        assert "Traceback" not in said, said
        found = list((tmp_path / str(number)).glob("*/recipe.yaml"))
        if found:
            assert yaml.safe_load(found[0].read_text())["model"]["base"] == path
            arrived.append(path)
        else:
            assert "error: " in said and slurm.job(jobs[number])["ExitCode"] == "2:0", said
    assert not mark.exists() and not list(SLURM.parent.glob("MARK*"))
    assert [path for path in paths if path not in arrived] == ["/data/${HOME}"]


@slow
def test_what_is_missing_or_does_not_fit_ends_the_job(
    slurm: Slurm, submit: Callable[..., str], dummies: list[str], tmp_path: Path
) -> None:
    root = f"runs={tmp_path / 'runs'}"
    jobs = {
        "missing": submit("slurm/import_hf.sh", root, "container=none", out="missing"),
        "unknown": submit("slurm/import_hf.sh", root, "model.bse=x", out="unknown"),
        "size": submit("--nodes=2", "slurm/pretrain_70b.sh", root, "container=none", *dummies, out="size"),
        "help": submit("slurm/import_hf.sh", "--help", out="help"),
    }
    slurm.wait(lambda: all(ended(slurm, job) for job in jobs.values()), seconds=120)
    said = {name: (tmp_path / name).read_text() for name in jobs}
    codes = {name: slurm.job(job)["ExitCode"] for name, job in jobs.items()}
    assert codes["missing"] == "2:0" and "model.base" in said["missing"]
    assert codes["unknown"] == "2:0" and "'model.base'?" in said["unknown"]
    assert codes["size"] in ("2:0", "3:0") and "--nodes=16" in said["size"]
    assert codes["help"] == "0:0" and "usage:" in said["help"]
    assert not list((tmp_path / "runs").glob("*/recipe.yaml"))


FOUR_BY_TWO = ["--nodes=4", "--ntasks-per-node=2", "--cpus-per-task=1", "--gpus-per-node=2"]


def preflight(slurm: Slurm, submit: Callable[..., str], tmp_path: Path, *more: str) -> tuple[str, str]:
    """(exit code, output) of slurm/preflight.sh on 4 nodes x 2."""
    words = ["cluster.nodes=4", "cluster.devices_per_node=2", "cluster.cpus_per_device=1", "container=none"]
    if not (tmp_path / "tree").exists():
        trees.node(tmp_path / "tree", 1)  # whose interface for sockets is this machine's
    sysfs = {"MEDITRON_SYSFS": str(tmp_path / "tree" / "node01")}
    job = submit(*FOUR_BY_TWO, "slurm/preflight.sh", *words, f"runs={tmp_path / 'runs'}", *more, **sysfs)
    slurm.wait(lambda: ended(slurm, job), seconds=180)
    return slurm.job(job)["ExitCode"], (tmp_path / "out").read_text()


@slow
def test_preflight_on_four_nodes(slurm: Slurm, submit: Callable[..., str], tmp_path: Path) -> None:
    code, said = preflight(slurm, submit, tmp_path, "cluster.device=cpu")
    assert code == "0:0", said
    made = only_run(tmp_path / "runs")
    told = json.loads((made / "stages/preflight/preflight.json").read_text())
    assert [node["ranks"] for node in told["nodes"]] == ["0-1", "2-3", "4-5", "6-7"]
    assert len({node["node"] for node in told["nodes"]}) == 4 and told["faults"] == []
    assert all(node["sees_folder"] and node["nodelist"].startswith("node[") for node in told["nodes"])
    assert (made / "stages/preflight/done.json").is_file()
    # The same script goes on with a run; another recipe's script does not take it.
    code, said = preflight(slurm, submit, tmp_path, f"run={made}")
    assert code == "2:0" and "keeps the recipe it was started with" in said, said
    scripts = ("preflight", "import_hf")
    jobs = [submit(*FOUR_BY_TWO, f"slurm/{script}.sh", f"run={made}", out=script) for script in scripts]
    slurm.wait(lambda: all(ended(slurm, job) for job in jobs), seconds=120)
    said = (tmp_path / "preflight").read_text()
    assert slurm.job(jobs[0])["ExitCode"] == "0:0" and "stage preflight is done already" in said, said
    said = (tmp_path / "import_hf").read_text()
    assert slurm.job(jobs[1])["ExitCode"] == "2:0" and "this is a run of recipe preflight" in said, said
    assert only_run(tmp_path / "runs") == made


@slow
def test_preflight_names_nodes_without_gpus(slurm: Slurm, submit: Callable[..., str], tmp_path: Path) -> None:
    if Path("/dev/nvidia0").exists():
        pytest.skip("this machine has GPUs")
    code, said = preflight(slurm, submit, tmp_path)
    made = only_run(tmp_path / "runs")
    told = json.loads((made / "stages/preflight/preflight.json").read_text())
    blind = [fault for fault in told["faults"] if fault["what"].endswith("0 GPUs in /dev, 2 were asked for")]
    assert len(blind) == 4 and len({fault["node"] for fault in blind}) == 4
    assert told["exclude"] == []  # what all nodes lack is not a node's fault
    error: Mapping[str, object] = json.loads((made / "stages/preflight/error.json").read_text())
    assert error["error"] == "PreflightFailed" and code == "4:0", said


@slow
def test_the_night_comes_again_once(slurm: Slurm, submit: Callable[..., str], tmp_path: Path) -> None:
    """Tonight's work fails, for there is no run; tomorrow is submitted, by one of two nights only."""
    words = ["slurm/nightly.sh", f"night.watch=['{tmp_path}/no run $(touch X)']", "container=none"]
    words += [f"score.paths.{name}=rows" for name in ("medqa4", "medmcqa", "pubmedqa", "mmlu_medical")]
    words += [f"night.history='{tmp_path / 'nights'}'"]
    name = "--job-name=night"
    first = submit(name, "--partition=urgent", *words, out="first")
    slurm.wait(lambda: ended(slurm, first), seconds=60)
    said = (tmp_path / "first").read_text()
    assert slurm.job(first)["ExitCode"] == "2:0" and "night.watch: there is no folder" in said, said
    waiting = slurm.out("squeue", "-h", "-n", "night", "-t", "PENDING", "-o", "%i").split()
    try:
        assert len(waiting) == 1
        tomorrow = slurm.job(waiting[0])
        assert tomorrow["Reason"] == "BeginTime" and tomorrow["Partition"] == "urgent"
        assert tomorrow["TimeLimit"] == slurm.job(first)["TimeLimit"]
        second = submit(name, *words, out="second")
        slurm.wait(lambda: ended(slurm, second), seconds=60)
        last = submit(name, *words, out="last", NIGHTLY_AGAIN="no")
        slurm.wait(lambda: ended(slurm, last), seconds=60)
        assert slurm.out("squeue", "-h", "-n", "night", "-t", "PENDING", "-o", "%i").split() == waiting
    finally:
        slurm.run("scancel", *waiting, check=False)
