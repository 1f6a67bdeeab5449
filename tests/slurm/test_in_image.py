"""A training's ranks in a real image on a real Slurm: which image it is, that signals reach them there, and that no
other image takes its place unseen. The image holds nothing: the host's /usr and Python are bound into it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import made_shards
from tests.containers.conftest import apptainer  # noqa: F401  fixture
from tests.slurm.conftest import Slurm, slurm_dev
from tests.slurm.test_keepalive import DONE_NEXT_TIME, PROBE, ended, said, state
from toolkit import files
from toolkit.cluster import attempts
from toolkit.runs import Run, find

pytestmark = pytest.mark.slow
# What the ranks leave for the tests to look at.
TELL = """
import json
seen = {name: os.environ.get(name) for name in ("NCCL_DEBUG", "NCCL_IB_TC", "PYTHONPATH", "APPTAINER_CONTAINER")}
source = pathlib.Path("/opt/toolkit-source")
seen["bound"] = sorted(str(path.relative_to(source)) for path in source.glob("*/*.yaml"))
(folder / f"told-{rank}-{attempt}.json").write_text(json.dumps(seen))
"""


@pytest.fixture
def cluster(slurm_packages: None, short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    own = short_tmp / "s"
    assert slurm_dev("up", "--nodes", "2", "--state", own).returncode == 0
    monkeypatch.setenv("SLURM_CONF", str(own / "etc" / "slurm.conf"))
    yield Slurm(state=own)


@pytest.fixture(scope="module")
def images(apptainer: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:  # noqa: F811
    """Two SIFs that hold folders to bind to; the second is another image."""
    root = tmp_path_factory.mktemp("images")
    skeleton, made = root / "skeleton", []
    for name in ("dev", "etc", "home", "opt", "proc", "root", "run", "sys", "tmp", "usr", "var/tmp", ".singularity.d"):
        (skeleton / name).mkdir(parents=True)
    for name in ("passwd", "group"):
        (skeleton / "etc" / name).touch()
    for name in ("bin", "lib", "lib64", "sbin"):
        (skeleton / name).symlink_to(f"usr/{name}")
    for name in ("first", "second"):
        (skeleton / "etc" / "name").write_text(name)
        built = root / f"{name}.sif"
        words = [apptainer, "build", *(["--fakeroot"] if os.geteuid() == 0 else []), str(built), str(skeleton)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        made.append(built)
    return made[0], made[1]


@pytest.fixture
def words(cluster: Slurm, images: tuple[Path, Path], apptainer: str, tmp_path: Path) -> list[str]:  # noqa: F811
    (tmp_path / "site").mkdir()
    image, probe = tmp_path / "site" / "train.sif", tmp_path / "site" / "probe"
    shutil.copy2(images[0], image)
    probe.write_text(PROBE.format(python=sys.executable, then=TELL + DONE_NEXT_TIME))
    probe.chmod(0o755)
    binds = ",".join(dict.fromkeys(["/usr", sys.base_prefix, sys.prefix, str(probe.parent)]))
    given = ["recipe=demo", "cluster=slurm_dev", "cluster.nodes=2", "parallel=tp1_pp1", "stages=[pretrain]"]
    given += [f"inputs.shards={made_shards.make(tmp_path / 'shards', 4113)}", f"inputs.checkpoint={tmp_path / 'c'}"]
    given += [f"runs={tmp_path / 'runs'}", "container=cpu", f"container.image={image}", f"container.python={probe}"]
    return [*given, f"cluster.apptainer.command={apptainer}", f"cluster.apptainer.binds=[{binds}]"]


def launch(cluster: Slurm, *given: str) -> tuple[Run, str]:
    done = cluster.run(sys.executable, "-m", "toolkit.launch", *given, "--json", check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    return find(told["run"]), told["jobs"][0]["id"]


def image_of(words: list[str]) -> Path:
    return Path(next(w for w in words if w.startswith("container.image=")).partition("=")[2])


def test_ranks_are_asked_to_stop_in_their_nodes_copy_of_the_image(
    cluster: Slurm, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NCCL_DEBUG", "WARN")
    local = tmp_path / "local"
    run, job = launch(cluster, *words, f"cluster.apptainer.local={local}")
    logs = [run.stage("pretrain") / name for name in ("log", "rank-1.log")]
    cluster.wait(lambda: all(p.is_file() and "of 2" in p.read_text() for p in logs) or state(cluster, job) == "FAILED")
    cluster.run("scancel", "--batch", "--signal=USR2", job)
    assert ended(cluster, job) == "COMPLETED", said(run, job)
    assert [a.state for a in attempts.read(run.stage("pretrain"))] == ["STOPPED", "COMPLETED"]
    told = [json.loads(path.read_text()) for path in sorted(run.stage("pretrain").glob("told-*.json"))]
    (copy,) = local.glob("*.sif")
    digest = files.sha256_file(image_of(words))
    assert len(told) == 4 and {one["APPTAINER_CONTAINER"] for one in told} == {str(copy)}
    assert digest[:16] in copy.name and files.sha256_file(copy) == digest
    assert told[0]["PYTHONPATH"].split(":")[0] == "/opt/toolkit-source" and told[0]["NCCL_DEBUG"] == "WARN"
    assert "recipes/demo.yaml" in told[0]["bound"] and "env/versions.yaml" in told[0]["bound"]
    manifest = json.loads((run.path / "manifest.json").read_text())
    assert manifest["image"]["sha256"] == digest and manifest["image"]["path"] == str(image_of(words))


def test_another_image_is_refused_until_it_is_accepted(
    cluster: Slurm, words: list[str], images: tuple[Path, Path]
) -> None:
    run, job = launch(cluster, *words, "cluster.sbatch={begin: now+4}")
    first = files.sha256_file(image_of(words))
    shutil.copy2(images[1], image_of(words))
    assert ended(cluster, job) == "FAILED"
    (only,) = attempts.read(run.stage("pretrain"))
    assert only.state == "FAILED" and "another image" in only.why
    assert cluster.job(job)["ExitCode"].startswith("3:") and "Traceback" not in said(run, job)
    assert not (run.stage("pretrain") / "log").exists(), "nothing has begun"

    again = cluster.run(sys.executable, "-m", "toolkit.launch", f"run={run.path}", check=False)
    assert again.returncode == 3 and again.stdout == "", again.stdout
    assert "another image" in again.stderr and "--new-image" in again.stderr and first[:16] in again.stderr
    _, job = launch(cluster, f"run={run.path}", "--new-image")
    manifest = json.loads((run.path / "manifest.json").read_text())
    assert manifest["image"]["sha256"] == files.sha256_file(images[1])
    assert [one["sha256"] for one in manifest["earlier_images"]] == [first]
    begun = run.stage("pretrain") / "told-0-0.json"
    cluster.wait(lambda: begun.exists() or state(cluster, job) == "FAILED")
    assert begun.exists(), said(run, job)
    cluster.run("scancel", job)


def test_an_image_that_was_cut_off_is_refused_before_anything_is_submitted(cluster: Slurm, words: list[str]) -> None:
    os.truncate(image_of(words), 100_000 if image_of(words).stat().st_size > 100_000 else 20_000)
    done = cluster.run(sys.executable, "-m", "toolkit.launch", *words, check=False)
    assert done.returncode == 3 and "truncated" in done.stderr and "Traceback" not in done.stderr
    runs = Path(next(w for w in words if w.startswith("runs=")).partition("=")[2])
    assert not runs.exists() or not any(runs.iterdir())


def test_without_slurm_the_stages_run_in_the_image_too(
    images: tuple[Path, Path],
    apptainer: str,  # noqa: F811
    tmp_path: Path,
) -> None:
    (tmp_path / "site").mkdir()
    python, seen = tmp_path / "site" / "python", tmp_path / "site" / "seen"
    python.write_text(f'#!/bin/sh\necho "$APPTAINER_CONTAINER" >>{seen}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    binds = ",".join(dict.fromkeys(["/usr", sys.base_prefix, sys.prefix, str(python.parent)]))
    given = ["recipe=demo", "stages=[corpus]", f"runs={tmp_path / 'runs'}", "container=cpu"]
    given += [f"container.image={images[0]}", f"container.python={python}"]
    given += [f"cluster.apptainer.command={apptainer}", f"cluster.apptainer.binds=[{binds}]"]
    done = subprocess.run(
        [sys.executable, "-m", "toolkit.launch", *given, "--json"], capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    run = find(json.loads(done.stdout)["run"])
    assert list((run.stage("corpus") / "corpus" / "train").glob("world-*.jsonl.zst"))
    assert seen.read_text().split() == [str(images[0])]
    manifest = json.loads((run.path / "manifest.json").read_text())
    assert manifest["image"]["sha256"] == files.sha256_file(images[0])
