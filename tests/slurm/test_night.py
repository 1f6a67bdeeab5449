"""Nights on a real Slurm: an array that scores, a job that judges, and an exit code that says worse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.night.conftest import models, watched, words  # noqa: F401
from tests.slurm.conftest import Slurm
from toolkit import cli
from toolkit.night import History
from toolkit.night import __main__ as verb

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).resolve().parents[2] / "slurm" / "nightly.sh"
Put = Callable[[str, int], Path]


@pytest.fixture
def nights(slurm: Slurm, words: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:  # noqa: F811
    monkeypatch.setenv("SLURM_CONF", str(slurm.conf))
    yield ["cluster=slurm_dev", *words[1:]]
    slurm.run("scancel", "--quiet", f"--user={os.getuid()}", check=False)
    slurm.wait(lambda: not slurm.out("squeue", "--noheader"))


def jobs_of(root: Path) -> dict[str, list[dict]]:
    runs = sorted((root / "runs").iterdir(), key=lambda path: path.stat().st_mtime)
    return {row["id"]: row["jobs"] for row in json.loads((runs[-1] / "jobs.json").read_text())["stages"]}


def test_an_array_scores_two_then_none_then_the_script_finds_a_worse_one(
    slurm: Slurm, nights: list[str], watched: Put, tmp_path: Path, capsys: pytest.CaptureFixture[str],  # noqa: F811
) -> None:  # fmt: skip
    watched("good", 9), watched("same", 19)
    assert cli.run(verb.main, ["run", *nights, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["state"] == "submitted" and len(told["jobs"]) == 2
    assert cli.run(verb.main, ["run", *nights]) == 1  # its jobs are there: two nights never overlap
    assert "another night is at work" in capsys.readouterr().err
    slurm.wait(lambda: not slurm.out("squeue", "--noheader"), seconds=120)
    array, whole = jobs_of(tmp_path)["night"]
    assert (array["array"], whole["array"]) == (2, None) and slurm.job(whole["id"])["ExitCode"] == "0:0"
    history = History(tmp_path / "nights")
    (series,) = history.series()
    assert [one.verdict["state"] for one in history.scored(series)] == ["first", "good"]

    before = slurm.out("scontrol", "show", "config")
    before = next(line for line in before.splitlines() if line.startswith("NEXT_JOB_ID"))
    assert cli.run(verb.main, ["run", *nights, "--wait"]) == 0
    assert "nothing new" in capsys.readouterr().out
    assert before in slurm.out("scontrol", "show", "config"), "a job was submitted for nothing"

    watched("worse", 29)
    mail = tmp_path / "sendmail"
    mail.write_text(f'#!/bin/sh\ncat >"{tmp_path}/mail"\n')
    mail.chmod(0o755)
    hooks = [f"night.hooks={{mail: [team@example.org], sendmail: '{mail}'}}"]
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "MEDITRON_"))}
    environment = {"SLURM_CONF": str(slurm.conf), "MEDITRON_PYTHON": sys.executable, "NIGHTLY_AGAIN": "no"}
    done = subprocess.run(
        ["sbatch", "--parsable", f"--output={tmp_path}/out", str(SCRIPT), *nights, *hooks, "--wait"],
        capture_output=True, text=True, timeout=60, cwd=tmp_path,
        env={**clean, **environment, "MEDITRON_ROOT": str(SCRIPT.parents[1])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    job = done.stdout.strip()
    slurm.wait(lambda: slurm.job(job)["JobState"] not in ("PENDING", "RUNNING", "COMPLETING"), seconds=120)
    said = (tmp_path / "out").read_text()
    assert slurm.job(job)["ExitCode"] == "5:0", said
    assert slurm.job(jobs_of(tmp_path)["night"][-1]["id"])["ExitCode"] == "5:0"
    page = (history.place(series) / "page.html").read_text()
    items = history.scored(series)[-1].verdict["items"]
    assert items and all(f">{item['id']}<" in page for item in items)
    letter = (tmp_path / "mail").read_text()
    assert "Subject: nightly: scores are worse" in letter and "step 29: worse" in letter
    assert history.nights()[-1]["told"] == ["mail to team@example.org: handed over"]
