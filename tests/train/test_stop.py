"""A training that is asked to stop saves the step it is at and ends; what goes on from there differs in nothing from
one that was never asked.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.train.conftest import SMALL, STEPS, Start, Trained
from tests.train.forks import Forks
from tests.train.test_faults import ranks_of
from toolkit import checkpoint, tokenizer
from toolkit.cluster.ranks import run_ranks
from toolkit.errors import Stopped
from toolkit.recipe import compose
from toolkit.runs import Run, create
from toolkit.train import answers, heartbeat

pytestmark = pytest.mark.slow
STOPPED = Stopped.exit_code
BOTH_TWICE = ("SIGTERM", "SIGUSR2", "SIGUSR2", "SIGTERM")


class Stage:
    """The stage pretrain of a run of its own, four ranks, signals from outside. Data is read by processes of their
    own, so that a signal to a whole process group reaches those too.
    """

    def __init__(self, prepared: Run, root: Path, forks: Forks) -> None:
        self.forks = forks
        given = [
            "stages=[pretrain]",
            "data.workers=1",
            f"inputs.shards={prepared.stage('shards') / 'shards'}",
            f"inputs.checkpoint={prepared.stage('import') / 'checkpoint'}",
        ]
        self.run = create(compose("demo", [f"runs={root}", *SMALL, *given]).recipe, command=["pytest"], plan={})
        self.folder = self.run.stage("pretrain")
        self.trained = Trained(folder=self.folder)
        self.asked = self.took = 0.0

    def attempt(self, disturb: Callable[[], None] | None = None, *, fresh: bool = False) -> int:
        """Run it to its end while `disturb` runs beside it; `took` is the time from its return to that end. With
        `fresh` each rank is a process that imports everything itself.
        """
        self.fresh = fresh
        failed: list[BaseException] = []

        def beside() -> None:
            try:
                if disturb is not None:
                    disturb()
            except BaseException as err:
                failed.append(err)
                for pid in self.pids().values():
                    os.kill(pid, signal.SIGKILL)
            self.asked = time.monotonic()

        thread = threading.Thread(target=beside)
        thread.start()
        command = [sys.executable, "-m", "toolkit.stages", str(self.run.path), "pretrain"]
        code = (run_ranks if fresh else self.forks.run_ranks)(command, processes=4, folder=self.folder, threads=1)
        self.took = time.monotonic() - self.asked
        thread.join()
        if failed:
            raise failed[0]
        return code

    def pids(self) -> dict[int, int]:
        return ranks_of(self.run) if self.fresh else self.forks.pids

    def until(self, true: Callable[[], Any]) -> None:
        deadline = time.monotonic() + 300
        while not true():
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.02)

    def at_step(self, step: int) -> None:
        metrics = self.folder / "metrics.jsonl"
        self.until(lambda: metrics.is_file() and f'"step": {step},' in metrics.read_text(encoding="utf-8"))

    def send(self, *names: str, rank: int | None = None, group: bool = False) -> None:
        pids = self.pids()
        for name in names:
            for one in (rank,) if rank is not None else pids:
                (os.killpg if group else os.kill)(pids[one], signal.Signals[name])

    @property
    def logs(self) -> list[str]:
        files = [self.folder / "log", *(self.folder / f"rank-{rank}.log" for rank in (1, 2, 3))]
        return [path.read_text(encoding="utf-8", errors="replace") for path in files]

    @property
    def steps_saved(self) -> list[int]:
        folder = self.folder / "checkpoints"
        return sorted((checkpoint.step_of(p) or 0) + 1 for p in folder.iterdir()) if folder.is_dir() else []

    def left_no_trace_of_failure(self) -> bool:
        names = [p.name for p in (*self.folder.iterdir(), *(self.folder / "checkpoints").glob("*"))]
        return not [n for n in names if n.startswith("error") or n == "done.json" or n.endswith("-unfinished")]


def hears(pid: int) -> bool:
    """Whether the process catches SIGUSR2."""
    with contextlib.suppress(OSError):
        caught = Path(f"/proc/{pid}/status").read_text().split("SigCgt:")[1].split()[0]
        return bool(int(caught, 16) >> (signal.SIGUSR2 - 1) & 1)
    return False


def test_a_stage_that_is_asked_again_and_again(prepared: Run, parallel: Trained, forks: Forks, tmp_path: Path) -> None:
    stage = Stage(prepared, tmp_path, forks)

    def during_the_start() -> None:
        stage.until(lambda: len(found := stage.pids()) == 4 and all(hears(pid) for pid in found.values()))
        stage.send(*BOTH_TWICE)

    assert stage.attempt(during_the_start, fresh=True) == STOPPED, stage.logs[0][-3000:]
    assert stage.steps_saved == [] and stage.left_no_trace_of_failure()
    assert all("stopped: asked to stop before the first step" in log for log in stage.logs)

    def one_rank_after_a_look_at_all() -> None:
        stage.at_step(2)
        stage.send("SIGQUIT")
        first = (stage.folder / heartbeat.NAME).stat().st_mtime_ns
        stage.at_step(5)
        assert (stage.folder / heartbeat.NAME).stat().st_mtime_ns > first
        stage.send("SIGUSR2", rank=2)

    assert stage.attempt(one_rank_after_a_look_at_all) == STOPPED, stage.logs[0][-3000:]
    (first,) = stage.steps_saved
    assert 5 <= first < 10 and stage.left_no_trace_of_failure()
    assert checkpoint.is_complete(stage.trained.checkpoint(first))
    assert list(stage.trained.losses) == list(range(1, first + 1))
    for log in stage.logs:
        assert "most recent call first" in log and "toolkit/stages/__main__.py" in log
        assert f"stopped: asked to stop; step {first} of {STEPS} is saved" in log

    def all_that_runs() -> None:
        stage.at_step(11)
        stage.send(*BOTH_TWICE, group=True)

    assert stage.attempt(all_that_runs) == STOPPED, stage.logs[0][-3000:]
    second = max(stage.steps_saved)
    assert stage.steps_saved == sorted({first, 10, second}) and second >= 11 and stage.left_no_trace_of_failure()
    print(f"from the signals to the end of all ranks: {stage.took:.1f} s")

    assert stage.attempt() == 0, stage.logs[0][-3000:]
    assert (stage.folder / "done.json").is_file()
    assert [row["step"] for row in stage.trained.rows if "loss" in row] == list(range(1, STEPS + 1))
    assert stage.trained.losses == parallel.losses
    validated = [(row["step"], row.get("full", False)) for row in stage.trained.rows if "valid_loss" in row]
    assert validated == [(15, False), (30, False), (30, True)]
    assert stage.trained.valid_losses == parallel.valid_losses


EDGES = {"steps": 9, "save_every": 4, "valid_every": 3, "warmup_steps": 2, "keep": 10, "valid_full": False}
FORKED = {"background": True, "workers": 1}  # with processes that read data and that write checkpoints


@pytest.mark.parametrize(
    ("stops", "beside"), [((3, 4, 8), {}), ((6,), FORKED)], ids=["alone", "with processes of its own"]
)
def test_wherever_it_stops_the_curve_is_the_same(
    start: Start, tmp_path: Path, stops: tuple[int, ...], beside: dict[str, Any]
) -> None:
    """Before a validation, after one, at a step that was saved anyway, with all signals at once, and at the last."""
    common = {"dp": 2, "train": EDGES}
    whole = start(tmp_path / "whole", **common)
    assert list(whole.valid_losses) == [3, 6, 9]
    broken = Trained(folder=tmp_path / "broken")
    resume: dict[str, Any] = {}
    saved = set()
    for step in stops:
        ask = {"step": step, "rank": step % 2, "signals": BOTH_TWICE, "group": bool(beside)}
        start(broken.folder, **common, **beside, **resume, ask=ask, code=STOPPED)
        saved |= {step, *range(4, step, 4)}
        resume = {"resume": checkpoint.latest(broken.folder / "checkpoints")}
        assert resume["resume"] == broken.checkpoint(step)
        assert {p.name for p in (broken.folder / "checkpoints").iterdir()} == {f"step={s - 1}" for s in saved}
        assert list(broken.losses) == list(range(1, step + 1))
    last = {"step": EDGES["steps"], "rank": 0, "signals": BOTH_TWICE, "group": bool(beside)}
    start(broken.folder, **common, **beside, **resume, ask=last)
    assert [sorted(row) for row in broken.rows] == [sorted(row) for row in whole.rows]
    assert broken.losses == whole.losses
    assert broken.valid_losses == whole.valid_losses


def question_rows(prepared: Run, folder: Path, training: int) -> Path:
    words = tokenizer.load(prepared.stage("shards") / "shards" / "tokenizer")
    for name, count in (("training", training), ("validation", 8)):
        asked = [words.encode(f"Question: which number comes after {i}?\nAnswer:") for i in range(count)]
        said = [[*words.encode(str(i + 1)), words.eos_id] for i in range(count)]
        answers.write(folder / name, [(a + s, len(a)) for a, s in zip(asked, said, strict=True)])
    return folder


def test_finetuning_that_stops_in_a_later_epoch(prepared: Run, start: Start, parallel: Trained, tmp_path: Path) -> None:
    """Five steps pass over the rows once: it stops in the second epoch, and goes on into the third."""
    rows = question_rows(prepared, tmp_path / "rows", 40)
    settings = {"steps": 12, "save_every": 20, "valid_every": 4, "valid_batches": 1, "micro_batch": 4}
    common = {
        "rows": str(rows),
        "weights": str(parallel.checkpoint(STEPS)),
        "train": {**settings, "global_batch": 8, "warmup_steps": 0},
    }
    whole = start(tmp_path / "whole", **common)
    broken = start(tmp_path / "broken", **common, ask={"step": 7, "rank": 0, "signals": ["SIGUSR2"]}, code=STOPPED)
    assert list(broken.losses) == list(range(1, 8))
    start(tmp_path / "broken", **common, resume=broken.checkpoint(7))
    assert broken.losses == whole.losses
    assert broken.valid_losses == whole.valid_losses
