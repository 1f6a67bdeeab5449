"""The command as people and programs use it, on this machine and beside packages that are broken on purpose."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.doctor.conftest import Plant

HEAVY = "torch nemo nemo_run megatron lightning transformers pandas numpy rich"


def doctor(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "toolkit.doctor", *words], capture_output=True, text=True, stdin=subprocess.DEVNULL,
        timeout=600, env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip


def test_a_login_node(tmp_path: Path) -> None:
    done = doctor("--profile", "login", "--runs", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no fault found" in done.stdout and done.stderr == ""
    assert f"{tmp_path}:" in done.stdout and "hydra-core" in done.stdout
    assert "cluster.executor=slurm" in done.stdout


def test_faults_are_told_in_json_with_their_remedies(plant: Plant, tmp_path: Path) -> None:
    plant("rich", "", name="rich", version="1.4.1")
    plant("jinja2", "import os; os.abort()")
    plant("submitit", "import time; time.sleep(600)")
    blocked = tmp_path / "file"
    blocked.touch()
    done = doctor("--profile", "login", "--json", "--limit", "3", "--runs", str(blocked / "runs"))
    assert done.returncode == 1
    said = json.loads(done.stdout)
    found = {finding["key"]: finding for finding in said["findings"]}
    faults = {key for key, finding in found.items() if finding["state"] == "fault"}
    assert faults == {"rich", "jinja2", "submitit", "runs"} and said["faults"] == 4 and said["ok"] is False
    assert all(found[key]["remedy"] for key in faults)
    assert "1.4.1 instead of" in found["rich"]["remedy"]
    assert "SIGABRT" in found["jinja2"]["found"] and "hangs" in found["submitit"]["found"]
    assert found["cloudpickle"]["state"] == "ok"  # what comes after a broken one is asked all the same


def test_secrets_are_told_to_nobody(plant: Plant) -> None:
    plant("jinja2", "import os\nraise ImportError('no https://me:pa55@host/x with ' + os.environ['WANDB_API_KEY'] +"
                    " '\\x1b[2J\\n')\n")  # fmt: skip
    for words in ([], ["--json"]):
        said = doctor("--profile", "login", *words, WANDB_API_KEY="0123456789abcdef").stdout
        assert "0123456789abcdef" not in said and "pa55" not in said and "\x1b" not in said
        assert "***@host/x with ***" in said


@pytest.mark.parametrize("words", [["--profile", "none"], ["--limit", "0"], ["--limit", "nan"], ["--without", "all"]])
def test_words_that_make_no_sense(words: list[str]) -> None:
    done = doctor(*words)
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr


def test_without_pyyaml_it_says_so(plant: Plant) -> None:
    """The one package that it needs itself."""
    plant("yaml", "raise ImportError('no yaml')")
    done = doctor("--profile", "login")
    assert done.returncode == 1 and "PyYAML is not installed" in done.stderr and "Traceback" not in done.stderr


def test_ctrl_c_leaves_nothing_behind(plant: Plant, tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    plant("jinja2", f"import os, time\nopen({str(mark)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "toolkit.doctor", "--profile", "login"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 60
    while not (mark.exists() and mark.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130 and stderr.decode().strip() == "interrupted"
    assert not Path(f"/proc/{mark.read_text()}").exists()


def test_its_own_process_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom toolkit.doctor import diagnose\n"
        f"diagnose('login', runs=Path({str(tmp_path)!r}))\nprint(*sorted(set({HEAVY!r}.split()) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


@pytest.mark.slow
def test_the_whole_environment_of_the_cpu_lock() -> None:
    """Every pin is there and can be imported, Megatron and NeMo included, and two ranks meet."""
    said = json.loads(doctor("--profile", "cpu", "--json").stdout)
    assert [finding for finding in said["findings"] if finding["state"] == "fault"] == []
    found = {finding["key"]: finding for finding in said["findings"]}
    assert found["nemo-toolkit"]["detail"]["module"] == "nemo.collections.llm"
    assert found["allreduce"]["state"] == found["matmul"]["state"] == "ok"
    enabled = {option["name"]: option["enabled"] for option in said["options"]}
    assert enabled["cluster=local"] and enabled["train.layers=local"] and not enabled["train.layers=te"]


@pytest.mark.slow
def test_kernels_packages_that_break_what_imports_them(plant: Plant) -> None:
    """The wrong apex, the empty Transformer Engine and a flash-attn that ends its process, beside the real stack."""
    plant("apex", "import pyramid", name="apex", version="0.9.10.dev0", summary="Pyramid toolkit")
    plant("transformer_engine", "raise RuntimeError('empty')", name="transformer-engine", version="2.9.0")
    plant("flash_attn", "import os; os.abort()", name="flash-attn", version="2.8.3")
    done = doctor("--profile", "train", "--without", "cuda", "--limit", "120")
    assert done.returncode == 1
    faults = done.stdout.split("Faults:")[1].split("Options of")[0].splitlines()
    assert [line.strip().split(":")[0] for line in faults if line.strip()][:3] == [
        "transformer-engine", "flash-attn", "apex",
    ]  # fmt: skip
    assert "pip uninstall apex" in done.stdout and "meta package alone" in done.stdout and "SIGABRT" in done.stdout
    options = dict(line.split()[1::-1] for line in done.stdout.split("Options of a recipe here:")[1].splitlines()
                   if line.startswith("  "))  # fmt: skip
    assert options["train.layers=local"] == "no"  # importing Megatron imports them
