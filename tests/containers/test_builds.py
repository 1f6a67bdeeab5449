"""The images for real: the CPU image as it is, and the three for GPUs on a local base, as far as that goes here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.containers.conftest import ROOT
from tests.images.conftest import base as tiny  # noqa: F401  a fixture
from toolkit import pins

pytestmark = pytest.mark.slow


def run(*command: object, timeout: float = 900) -> subprocess.CompletedProcess[str]:
    # OMP_NUM_THREADS: two test files run at a time.
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd="/",
        timeout=timeout, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def inspect(apptainer: str, image: Path) -> dict[str, str]:
    done = run(apptainer, "inspect", "--json", image)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["data"]["attributes"]["labels"]


def test_the_cpu_image_passes_its_own_test(apptainer: str, options: list[str], cpu_image: Path) -> None:
    done = run(apptainer, "test", *options, cpu_image)
    assert done.returncode == 0 and "no fault found" in done.stdout, done.stdout + done.stderr
    assert "gloo all-reduce, ranks: 2" in done.stdout
    labels = inspect(apptainer, cpu_image)
    known = json.loads(cpu_image.with_suffix(".json").read_text())
    assert (labels["meditron.profile"], labels["meditron.cuda"]) == ("cpu", "no")
    assert (labels["meditron.inputs"], labels["meditron.pins"]) == (known["inputs"], known["pins"])


def test_the_cpu_image_holds_what_the_lock_names_and_nothing_of_the_machine_that_built_it(
    apptainer: str, options: list[str], cpu_image: Path
) -> None:
    code = (
        "import importlib.metadata as m, json, os, sys; print(json.dumps({"
        "'python': '%d.%d' % sys.version_info[:2], 'prefix': sys.prefix, 'mnt': os.listdir('/mnt'), "
        "'pip': [p for p in ('/etc/pip.conf', '/root/.config/pip') if os.path.exists(p)], "
        "'apt': open('/etc/apt/sources.list').read(), "
        "'packages': {d.metadata['Name']: d.version "
        "for d in m.distributions(path=[p for p in sys.path if 'venv' in p])}}))"
    )
    done = run(apptainer, "exec", *options, "--contain", cpu_image, "python3", "-c", code)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["python"] == pins.table().python_cpu and found["prefix"] == "/opt/venv"
    assert found["mnt"] == [] and found["pip"] == []
    assert found["apt"].split()[:2] == ["deb", "http://deb.debian.org/debian"]
    have = {pins.canonical(name): version for name, version in found["packages"].items()}
    lines = (ROOT / "env" / "cpu.lock").read_text().splitlines()
    want = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    missing = {name: version for name, version in want.items() if have.get(pins.canonical(name)) != version}
    assert not missing


def test_the_cpu_image_is_run_by_a_word(apptainer: str, options: list[str], cpu_image: Path, tmp_path: Path) -> None:
    at = ["run", *options, "--pwd", tmp_path, "--bind", tmp_path, cpu_image]
    done = run(apptainer, *at, "launch", "recipe=demo", "--dry-run")
    assert done.returncode == 0 and "pretrain" in done.stdout, done.stdout + done.stderr
    assert run(apptainer, *at, "no_such_verb").returncode == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["train", "train-from-wheels", "score"])
def test_the_images_for_gpus_are_built_on_a_local_base(
    apptainer: str,
    options: list[str],
    cpu_image: Path,
    tiny: Path,  # noqa: F811
    tmp_path: Path,
    name: str,
) -> None:
    """With the CPU image in the place of the vendor's. What nvcc compiles is left out, and the image says so."""
    arguments = ["--bootstrap", "localimage", "--base", cpu_image, "--build-arg", "CUDA=no"]
    if name == "train-from-wheels":  # its first stage, without nvcc, needs no more than a shell
        arguments[3:4] = [tiny, "--build-arg", f"RUNTIME={cpu_image}"]
    out = tmp_path / "images"
    try:
        done = run(
            sys.executable, "-m", "toolkit.images", "build", ROOT / "containers" / f"{name}.def", "--sandbox",
            "-o", out, "--tmp", tmp_path, "--apptainer", apptainer, *arguments,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]  # its %test, the doctor, among it
        image, log = out / f"{name}.sandbox", (out / f"{name}.log").read_text()
        assert "CUDA=no: left out:" in log
        labels = inspect(apptainer, image)
        assert (labels["meditron.profile"], labels["meditron.cuda"]) == (name, "no")
        assert (image / "opt/meditron/env/versions.yaml").read_bytes() == (ROOT / "env/versions.yaml").read_bytes()
        assert not (image / "opt/meditron/toolkit/toolkit").exists() and not (image / "opt/built").exists()
        assert not list((image / "mnt").iterdir())
        assert "/opt/venv/bin" in (image / ".singularity.d/env/90-environment.sh").read_text()
        code = "import importlib.metadata as m; print(m.version('torch'), m.version('submitit'))"
        done = run(apptainer, "exec", *options, image, "python3", "-c", code)
        assert done.stdout.split() == [pins.table().torch_cpu, pins.table().packages["submitit"].version], done.stderr
        if name == "score":
            versions = pins.table().raw["score_image"]["packages"]
            done = run(apptainer, "exec", *options, image, "lm_eval", "--help")
            assert done.returncode == 0 and "Language Model Evaluation Harness" in done.stdout, done.stderr
            assert list(
                image.glob(f"opt/venv/lib/python3*/site-packages/lm_eval-{versions['lm-eval']['version']}.dist-info")
            )
        else:  # the user space of RDMA, whole: NCCL loads the verbs, and they the driver of the NIC
            assert list(image.glob("usr/lib/*/libibverbs.so.1")) and list(
                image.glob("usr/lib/*/libibverbs/libmlx5*.so")
            )
    finally:
        shutil.rmtree(out, ignore_errors=True)  # 1.7 GB each
