"""The list of unfit nodes over all runs: who is on it, and that neither damage nor two writers at once harm it."""

from __future__ import annotations

import resource
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.cluster import excluded
from toolkit.cluster.sbatch import jobs
from toolkit.cluster.submission import text
from toolkit.errors import RunError
from toolkit.plan import steps
from toolkit.recipe import compose


def test_what_is_noted_is_kept_away_from_until_it_is_cleared(tmp_path: Path) -> None:
    excluded.note(tmp_path, "alps", {"node07": "half the rate", "node03": "no answer"}, "preflight-1")
    first = excluded.read(tmp_path)["alps"]["node07"]
    excluded.note(tmp_path, "alps", {"node07": "still half the rate"}, "preflight-2")
    excluded.note(tmp_path, "other", {"node07": "a port is down"}, "preflight-3")
    assert excluded.names(tmp_path, "alps") == ("node03", "node07")
    again = excluded.read(tmp_path)["alps"]["node07"]
    assert (again.why, again.run, again.since) == ("still half the rate", "preflight-2", first.since)
    assert excluded.clear(tmp_path, "alps", ["node07", "node99"]) == ("node07",)
    assert excluded.names(tmp_path, "alps") == ("node03",) and excluded.names(tmp_path, "other") == ("node07",)


@pytest.mark.parametrize("node", ["--export=ALL", "a,b", "node[01-99]", "", "n\n--wrap=id", "ü", "x" * 300])
def test_a_name_that_is_none_becomes_no_word_of_sbatch(tmp_path: Path, node: str) -> None:
    excluded.note(tmp_path, "alps", {node: "x"}, "r")
    assert excluded.names(tmp_path, "alps") == ()
    (tmp_path / excluded.NAME).write_text(f'{{"alps": {{{node!a}: {{}}}}}}'.replace("'", '"'))
    assert excluded.names(tmp_path, "alps") == ()


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", "null", "3", '{"alps": 3}', '{"alps": {"n": null}}', "\x00", "[" * 9999, '{"alps": []}']
)
def test_a_damaged_list_is_none(tmp_path: Path, damage: str) -> None:
    (tmp_path / excluded.NAME).write_text(damage)
    assert excluded.read(tmp_path) == {}
    excluded.note(tmp_path, "alps", {"node01": "x"}, "r")
    assert excluded.names(tmp_path, "alps") == ("node01",)


def test_odd_values_are_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / excluded.NAME).write_text('{"a": {"n1": {"since": "x", "why": 3}, "n2": {"since": NaN, "run": []}}}')
    assert [(u.why, u.since, u.run) for u in excluded.read(tmp_path)["a"].values()] == [("", 0.0, "")] * 2


def test_writers_at_once_lose_nothing(tmp_path: Path, repo_root: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from toolkit.cluster import excluded\n"
        "for i in range(12): excluded.note(Path(sys.argv[1]), 'c', {f'{sys.argv[2]}{i}': 'x'}, 'r')"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name], cwd=repo_root) for name in "abc"]
    assert [one.wait() for one in writers] == [0, 0, 0]
    assert len(excluded.names(tmp_path, "c")) == 36


def test_a_folder_that_cannot_be_written_to_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written"):
        excluded.note(tmp_path / "file", "c", {"n": "x"}, "r")


def test_a_full_disk_leaves_the_list_as_it_was(tmp_path: Path, repo_root: Path) -> None:
    excluded.note(tmp_path, "c", {"node01": "x"}, "r")
    before = (tmp_path / excluded.NAME).read_bytes()
    code = (
        "import resource, signal, sys; from pathlib import Path; from toolkit.cluster import excluded\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (64, {resource.RLIM_INFINITY}))\n"
        "excluded.note(Path(sys.argv[1]), 'c', {f'node{i:03d}': 'x' * 200 for i in range(50)}, 'r')"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=repo_root, capture_output=True, text=True)
    assert "DiskFull" in done.stderr and (tmp_path / excluded.NAME).read_bytes() == before
    assert not list(tmp_path.glob("*.part"))


def test_new_jobs_keep_away_and_a_hostlist_of_the_site_stays_whole(tmp_path: Path) -> None:
    words = ["cluster=slurm_dev", "cluster.sbatch={exclude: 'gpu[01,03]'}", "stages=[corpus]"]
    recipe = compose("demo", words).recipe
    (step,) = steps(recipe)
    excluded.note(tmp_path, "slurm_dev", {"node07": "x", "node02": "y"}, "r")
    excluded.note(tmp_path, "elsewhere", {"node01": "x"}, "r")
    (job,) = jobs(recipe, step, tmp_path / "demo-1")
    assert job.exclude == ("node02", "node07")
    line = next(line for line in text(job).splitlines() if line.startswith("#SBATCH --exclude="))
    assert shlex.split(line.removeprefix("#SBATCH ")) == ["--exclude=node02,node07,gpu[01,03]"]
