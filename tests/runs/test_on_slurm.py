"""Runs that Slurm works on, as their files tell them, with what Slurm says and without. The answers are written here;
`tests/slurm/test_runs.py` has them from a real Slurm.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.runs.test_overview import finish, metrics, progress, row
from toolkit import cli, files
from toolkit.cluster.slurm import JobState
from toolkit.plan import steps
from toolkit.runs import Run, held
from toolkit.runs import logs as reading
from toolkit.runs.__main__ import main
from toolkit.runs.ask import Answer, ask, seldom
from toolkit.runs.overview import Overview, find_all, overview
from toolkit.runs.show import page

Make = Callable[..., Run]
NOW = time.time()


@pytest.fixture(autouse=True)
def now() -> None:
    """The tests speak of times before and after the files that they write, however long ago this module was read."""
    global NOW
    NOW = time.time()


STAGES = ["corpus", "shards", "pretrain"]
AWAY = Answer(note="Slurm cannot be asked: gone; from the files alone")


def submit(run: Run, *, since: float = NOW - 1000, array: str = "", **jobs: list[str]) -> None:
    """jobs.json as whoever submits writes it: each stage's jobs, newest last; that of id `array` has 4 tasks."""
    rows = [
        {"id": stage, "stage": stage, "attempts": [],
         "jobs": [{"id": i, "part_of": None, "array": 4 if i == array else None, "submitted": since} for i in ids]}
        for stage, ids in jobs.items()
    ]  # fmt: skip
    files.write_json(run.path / "jobs.json", {"stages": rows})


def attempts(run: Run, stage: str, *states: str, job: str = "3", **more: Any) -> None:
    """attempts.json as the jobs themselves write it."""
    rows = [
        {"job_id": job, "restart": n, "state": state, "started": NOW - 900 + n, "why": "", "hosts": ["node01"],
         "ended": None if state == "RUNNING" else NOW - 899.5 + n, "logs": {}, "step_from": 5 * n, "step_to": 5 * n + 5,
         **more}
        for n, state in enumerate(states)
    ]  # fmt: skip
    run.stage(stage).mkdir(parents=True, exist_ok=True)
    files.write_json(run.stage(stage) / "attempts.json", {"attempts": rows})


def says(**states: str | tuple[str, str]) -> Answer:
    """Slurm's answer: j3="RUNNING", or with a reason; j3_1 is a task."""
    told = {}
    for name, state in states.items():
        word, reason = (state, "") if isinstance(state, str) else state
        left, nodes = (1800, "node[01-02]") if word == "RUNNING" else (None, "")
        told[name[1:]] = JobState(id=name[1:], state=word, reason=reason, left_s=left, nodes=nodes)
    return Answer(states=told)


def look(run: Run, answer: Answer) -> Overview:
    return overview(run.path, steps, lambda ids: answer if list(ids) else Answer())


@pytest.fixture
def chain(make: Make) -> Run:
    """corpus is done by job 1, shards are by job 2, pretrain is job 3's."""
    run = make(STAGES, "inputs.checkpoint=y")
    submit(run, corpus=["1"], shards=["2"], pretrain=["3"])
    finish(run, "corpus")
    finish(run, "shards")
    return run


STATES: list[tuple[list[str], Answer, str, str]] = [
    ([], says(j3=("PENDING", "Resources")), "queued", "Resources"),
    ([], says(j3="RUNNING"), "running", ""),
    ([], says(j3="CONFIGURING"), "running", "CONFIGURING"),
    (["RUNNING"], says(j3="RUNNING"), "running", ""),
    (["RUNNING"], says(j3="SUSPENDED"), "running", "SUSPENDED"),
    (["STOPPED"], says(j3="COMPLETING"), "queued", "its last attempt is about to end"),
    (["STOPPED"], says(j3=("PENDING", "BeginTime")), "queued", "BeginTime"),
    (["STOPPED", "RUNNING"], says(j3=("PENDING", "BeginTime")), "queued", "BeginTime"),  # its node died
    (["STOPPED"], says(j3=("REQUEUE_HOLD", "JobHoldMaxRequeue")), "queued", "JobHoldMaxRequeue"),
    (["CRASHED"], says(), "interrupted", "Slurm knows its job 3 no longer"),
    (["RUNNING"], says(), "lost", "its job 3 is gone and left no word"),
    (["RUNNING"], says(j3="TIMEOUT"), "failed", "its job 3 ended as TIMEOUT"),
    (["RUNNING"], says(j3="NODE_FAIL"), "failed", "its job 3 ended as NODE_FAIL"),
    ([], says(j3="FAILED"), "failed", "its job 3 ended as FAILED"),
    ([], says(j3="COMPLETED"), "failed", "its job 3 ended as COMPLETED without what the stage should leave"),
    (["STOPPED"], says(j3="CANCELLED"), "cancelled", "job 3 was cancelled"),
    ([], says(j3="CANCELLED"), "interrupted", ""),  # as Slurm does with what waits for one that failed
    ([], says(), "interrupted", ""),
    (["FAILED"], AWAY, "failed", ""),  # settled: nobody is asked
    (["CANCELLED"], AWAY, "cancelled", ""),
    ([], AWAY, "queued", ""),
    (["RUNNING"], AWAY, "running", ""),
    (["STOPPED", "HUNG"], AWAY, "queued", ""),
]  # fmt: skip


def test_states(chain: Run) -> None:
    for tries, said, state, reason in STATES:
        (chain.stage("pretrain") / "attempts.json").unlink(missing_ok=True)
        check_state(chain, tries, said, state, reason)


def check_state(chain: Run, tries: list[str], said: Answer, state: str, reason: str) -> None:
    if tries:
        attempts(chain, "pretrain", *tries)
    seen = look(chain, said)
    stage = seen.stages[2]
    assert (seen.state, seen.stage, stage.reason) == (state, "pretrain", reason), (tries, said)
    assert stage.state == ("waiting" if (tries, state) == ([], "interrupted") else state)
    assert [s.state for s in seen.stages[:2]] == ["done", "done"] and seen.attempts == len(tries)
    settled = tries[-1:] in (["FAILED"], ["CANCELLED"])
    assert seen.note == (AWAY.note if said is AWAY and not settled else "")
    assert seen.limit_s == (1800 if said.states and said.states.get("3", JobState(id="", state="")).left_s else None)


def test_slurm_is_asked_once_and_only_about_what_may_be_at_work(make: Make, chain: Run, runs_root: Path) -> None:
    asked: list[list[str]] = []

    def asking(ids: Iterable[str]) -> Answer:
        asked.append(sorted(ids))
        return says(j3="RUNNING", j7=("PENDING", "Priority"))

    finished, failed, here, other = (make(["corpus"]) for _ in range(4))
    submit(finished, corpus=["4"])
    finish(finished, "corpus")
    submit(failed, corpus=["5"])
    attempts(failed, "corpus", "CRASHED", job="5")  # not a training, so nobody queues it again
    submit(other, corpus=["6", "7"])
    attempts(other, "corpus", "FAILED", job="6")  # and retried
    seen = {o.run: o.state for o in find_all(runs_root, steps, asking)}
    assert asked == [["3", "7"]]
    assert [seen[r.id] for r in (chain, finished, failed, here, other)] == [
        "running", "done", "failed", "not started", "queued",
    ]  # fmt: skip


def test_of_a_whole_chain_the_stage_that_could_begin_is_named(make: Make) -> None:
    run = make(STAGES, "inputs.checkpoint=y")
    submit(run, corpus=["1"], shards=["2"], pretrain=["3"])
    waits = {"j2": ("PENDING", "Dependency"), "j3": ("PENDING", "Dependency")}
    seen = look(run, says(j1=("PENDING", "Priority"), **waits))
    assert (seen.state, seen.stage, seen.why) == ("queued", "corpus", "Priority")
    assert [s.reason for s in seen.stages] == ["Priority", "Dependency", "Dependency"]
    attempts(run, "corpus", "FAILED", job="1", why="no such file")
    for reason in ("Dependency", "DependencyNeverSatisfied"):  # Slurm has not cancelled them yet
        seen = look(run, says(j2=("PENDING", reason), j3=("PENDING", "Dependency")))
        assert (seen.state, seen.stage, seen.why) == ("failed", "corpus", "no such file")
    seen = look(run, AWAY)
    assert (seen.state, [s.state for s in seen.stages]) == ("failed", ["failed", "waiting", "waiting"])
    files.write_json(run.stage("corpus") / "error.json", {"what": "no x", "where": "a:3"})
    assert look(run, says()).why == "a:3: no x"


def test_an_array_and_the_job_that_finishes_it(make: Make) -> None:
    run = make(["corpus"])
    submit(run, array="10", corpus=["10", "11"])
    wait = ("PENDING", "Dependency")
    told = says(j10_0="COMPLETED", j10_1="RUNNING", j10_2="RUNNING", j10_3=("PENDING", "Resources"), j11=wait)
    seen = look(run, told)
    assert (seen.state, seen.at, seen.of, seen.unit) == ("running", 0, 4, "parts")
    assert seen.stages[0].jobs[0].tasks == {"COMPLETED": 1, "RUNNING": 2, "PENDING": 1}
    part = run.stage("corpus") / "parts" / "0"
    part.mkdir(parents=True)
    (part / "log").write_text("x")
    assert look(run, AWAY).state == "running"
    (part / "done.json").write_text("{}")
    assert look(run, told).at == 1
    text = page(seen, title="", layout="", following=[])
    assert "10 (array of 4)  1 COMPLETED, 2 RUNNING, 1 PENDING" in text and "PENDING Dependency" in text
    told = says(j10_0="COMPLETED", j10_1="COMPLETED", j10_2="FAILED", j10_3="COMPLETED", j11="CANCELLED")
    seen = look(run, told)
    assert (seen.state, seen.why) == ("failed", "its job 10 ended as FAILED")
    told = says(j10_0="COMPLETED", j10_1="COMPLETED", j10_2="COMPLETED", j10_3="COMPLETED", j11=("PENDING", "Priority"))
    assert look(run, told).state == "queued"
    files.write_json(run.stage("corpus") / "error-part-2.json", {"what": "bad line"})
    assert look(run, says()).why == "bad line" and look(run, AWAY).state == "failed"
    submit(run, since=NOW + 100, array="12", corpus=["10", "11", "12", "13"])  # that error is an older try's
    assert look(run, AWAY).state == "queued"


def test_a_cancelled_run_says_so(chain: Run) -> None:
    files.write_json(chain.path / "cancelled.json", {"by": "me", "at": NOW})
    for tries in ([], ["RUNNING"], ["STOPPED"]):
        attempts(chain, "pretrain", *tries)
        for answer in (says(), AWAY, says(j3="CANCELLED")):
            assert look(chain, answer).state == "cancelled", (tries, answer)
        assert look(chain, says(j3="COMPLETING")).state == ("queued" if tries == ["STOPPED"] else "running")
    submit(chain, since=NOW + 50, corpus=["1"], shards=["2"], pretrain=["3", "4"])
    for damage in (b"{", b"[]", b'{"at": "x"}'):
        (chain.path / "cancelled.json").write_bytes(damage)
        assert look(chain, AWAY).state == "queued"


def test_a_stage_that_must_run_again_is_not_done_while_its_job_is_to_come(chain: Run) -> None:
    submit(chain, since=NOW + 100, corpus=["1"], shards=["2", "5"], pretrain=["3", "6"])
    seen = look(chain, says(j5=("PENDING", "Priority"), j6=("PENDING", "Dependency")))
    assert (seen.state, seen.stage, seen.stages[1].state) == ("queued", "shards", "queued")
    assert look(chain, AWAY).stages[1].state == "queued" and look(chain, says()).stages[1].state == "done"


def test_figures_of_a_training_that_slurm_runs(chain: Run) -> None:
    attempts(chain, "pretrain", "STOPPED", "RUNNING")
    metrics(chain, "pretrain", *[row(n, 9.0 - n / 100) for n in range(1, 401)])
    progress(chain, "pretrain", done=400, total=1000, unit="steps")
    (chain.stage("pretrain") / "heartbeat").touch()
    seen = look(chain, says(j3="RUNNING"))
    assert (seen.at, seen.of, seen.loss, seen.attempts, seen.limit_s) == (400, 1000, 5.0, 2, 1800)
    assert seen.left_s == pytest.approx(300.0) and (seen.alive_s or 0) < 60
    text = page(seen, title="t", layout="", following=[])
    assert "time limit   30 min left of the job's" in text
    assert "  pretrain  3  RUNNING  on node[01-02]    30 min left" in text


def test_the_page_tells_attempts_and_nodes_in_words(chain: Run) -> None:
    attempts(chain, "pretrain", "STOPPED", "STOPPED", "CRASHED", "RUNNING")
    told = json.loads((chain.stage("pretrain") / "attempts.json").read_text())
    for place, why in ((0, "SIGUSR2"), (1, "SIGUSR2"), (2, "rank 17 on node03 was killed by SIGKILL \x1b[2J")):
        told["attempts"][place]["why"] = why
    files.write_json(chain.stage("pretrain") / "attempts.json", told)
    strikes = {"node03": ["rank 17 was killed", "down"], "node\n09": ["x"]}
    files.write_json(chain.stage("pretrain") / "nodes.json", {"strikes": strikes, "excluded": ["node03", "node07"]})
    text = page(look(chain, AWAY), title="t", layout="", following=[])
    for words in (
        "pretrain: 4 attempts (2 stopped in time, 1 crashed: rank 17 on node03 was killed by SIGKILL \\x1b[2J)",
        "pretrain: node node03, excluded: 2 strikes (rank 17 was killed; down)",
        "pretrain: node node\\x0a09: 1 strike (x)",
        "pretrain: excluded: node07",
        "note         Slurm cannot be asked: gone; from the files alone",
        "on node01",
    ):
        assert words in text, text
    for damage in (b"{", b"[]", b'{"strikes": 3, "excluded": {}}', b'{"strikes": {"a": 7}}', b"\xff"):
        (chain.stage("pretrain") / "nodes.json").write_bytes(damage)
        assert look(chain, AWAY).state == "running"


def test_damaged_attempts_cost_no_more_than_their_history(chain: Run) -> None:
    attempts(chain, "pretrain", "STOPPED", "RUNNING")
    for damage in (b"", b"{", b"[]", b'{"attempts": 3}', b'{"attempts": [7]}', b"\xff\xfe", b"[" * 100_000, b"{}"):
        (chain.stage("pretrain") / "attempts.json").write_bytes(damage)
        seen = look(chain, says(j3="RUNNING"))
        assert seen.state == "running" and seen.attempts == 0 and "attempts.json: damaged" in seen.why
        assert look(chain, AWAY).state == "queued"


def test_odd_values_in_attempts_are_no_surprise(chain: Run) -> None:
    odd = [None, "x", -1, True, 1e999, [], {}, ["a"], "\x1b[2J", "9" * 400]
    keys = ["job_id", "restart", "state", "started", "ended", "why", "hosts", "logs", "step_from", "step_to"]
    for cut in range(len(odd)):
        some = {key: odd[(cut + n) % len(odd)] for n, key in enumerate(keys)}
        attempts(chain, "pretrain", "STOPPED", "RUNNING", **some)
        seen = look(chain, says(j3="RUNNING"))
        assert seen.state == "running"
        assert page(seen, title="", layout="", following=[]).replace("\n", "").isprintable()


def test_damaged_jobs_are_damage(chain: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for jobs in ("7", '{"id": "3"}', "[7]", '[{"id": 7}]', '[{"id": "3;ls"}]', '[{"id": "-1"}]', '[{"array": 3}]',
                 '[{"id": "\u0663"}]'):  # fmt: skip
        text = f'{{"stages": [{{"id": "pretrain", "stage": "pretrain", "attempts": [], "jobs": {jobs}}}]}}'
        (chain.path / "jobs.json").write_text(text)
        seen = look(chain, says(j3="RUNNING"))
        assert seen.state == "damaged" and "jobs.json: damaged" in seen.why
    assert cli.run(main, ["cancel", str(chain.path)]) == 1 and "jobs.json: damaged" in capsys.readouterr().err


def test_a_lock_on_another_host_does_not_matter(chain: Run) -> None:
    attempts(chain, "pretrain", "RUNNING")
    assert look(chain, says(j3="RUNNING")).state == "running"
    with held(chain.stage("pretrain")), held(chain.path):
        seen = look(chain, says())
        assert seen.state == "lost" and seen.holder is not None and seen.holder.pid == os.getpid()


def test_answers_a_few_seconds_old_are_given_once_more() -> None:
    asked: list[int] = []

    def asking(ids: Iterable[str]) -> Answer:
        asked.append(len(list(ids)))
        return says(j3="RUNNING") if len(asked) < 3 else AWAY

    again = seldom(asking, every_s=1000, away_s=0)
    assert [again(["3"]), again(["3"])][1].states and asked == [1]
    assert again(["3", "4"]) and asked == [1, 2]  # another question
    assert again(["3"]).note and again(["3"]).note and asked == [1, 2, 1, 1]
    assert ask([]) == Answer()


# ---- without a Slurm here --------------------------------------------------------------------------------------------


@pytest.fixture
def no_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "gone" / "slurm.conf"))


@pytest.mark.parametrize("where", ["conf", "path"])
def test_without_slurm_the_files_are_told(
    chain: Run, runs_root: Path, where: str, no_slurm: None, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    if where == "path":
        monkeypatch.setenv("PATH", "/nowhere")
    attempts(chain, "pretrain", "STOPPED", "RUNNING")
    assert cli.run(main, ["list", "--root", str(runs_root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and " running " in lines[1]
    assert lines[2].startswith("Slurm cannot be asked: ") and lines[2].endswith("; from the files alone")
    assert cli.run(main, ["show", str(chain.path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["note"] == lines[2] and told["state"] == "running" and told["stages"][2]["jobs"][0]["id"] == "3"
    before = sorted(p.name for p in chain.path.iterdir())
    assert cli.run(main, ["cancel", str(chain.path), "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["error"] == "SlurmAway" and sorted(p.name for p in chain.path.iterdir()) == before


def test_many_runs_are_told_with_one_question(
    chain: Run, runs_root: Path, no_slurm: None, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    attempts(chain, "pretrain", "RUNNING")
    for number in range(200):
        shutil.copytree(chain.path, runs_root / f"demo-{number}")
    assert cli.run(main, ["list", "--root", str(runs_root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 201 + 1 and sum("Slurm cannot be asked" in line for line in lines) == 1


def test_the_right_log_of_the_right_attempt(chain: Run, no_slurm: None, capsys: pytest.CaptureFixture[str]) -> None:
    def logs(*words: str) -> tuple[int, str, str]:
        code = cli.run(main, ["logs", str(chain.path), *words])
        told = capsys.readouterr()
        return code, told.out, told.err

    jobs = chain.path / "jobs"
    jobs.mkdir()
    code, _, err = logs("pretrain")
    assert code == 1 and "stage pretrain has no log yet" in err
    (jobs / "pretrain-3.out").write_text("job 3 said\n")
    code, out, err = logs("pretrain")
    assert (code, out) == (0, "job 3 said\n") and "has no log; this is its job's" in err
    submit(chain, corpus=["1"], shards=["2"], pretrain=["3", "8"])
    assert logs("pretrain")[1] == "job 3 said\n"  # job 8 has said nothing yet
    (jobs / "pretrain-8.out").write_text("job 8 said\n")
    assert logs("pretrain")[1] == "job 8 said\n"

    attempts(chain, "pretrain", "STOPPED", "CRASHED", "RUNNING")
    told = json.loads((chain.stage("pretrain") / "attempts.json").read_text())
    for place, (job, sizes) in enumerate(
        (("3", {}), ("3", {"log": 4, "rank-1.log": 0}), ("8", {"log": 8, "rank-1.log": 4}))
    ):
        told["attempts"][place].update(job_id=job, logs=sizes)
    files.write_json(chain.stage("pretrain") / "attempts.json", told)
    (chain.stage("pretrain") / "log").write_text("one\ntwo\nthree\n")
    (chain.stage("pretrain") / "rank-1.log").write_text("2-1\n3-1\n")
    assert logs()[1] == "three\n" and logs("--attempt", "1")[1] == "one\n" and logs("--attempt", "2")[1] == "two\n"
    assert logs("--rank", "1")[1] == "3-1\n" and logs("--rank", "1", "--attempt", "2")[1] == "2-1\n"
    assert logs("--job")[1] == "job 8 said\n" and logs("--job", "--attempt", "2")[1] == "job 3 said\n"
    for words, said in (
        (["--job", "--attempt", "9"], "Its attempts: 1 to 3"), (["--job", "--rank", "1"], "not of a rank"),
        (["--part", "1", "--attempt", "1"], "neither attempts nor ranks"), (["--part", "1"], "no log of part 1"),
    ):  # fmt: skip
        code, _, err = logs("pretrain", *words)
        assert code == 2 and said in err, err
    assert logs("pretrain", "--part", "1", "--job")[0] == 1


def test_logs_of_parts(make: Make, no_slurm: None, capsys: pytest.CaptureFixture[str]) -> None:
    run = make(["corpus"])
    submit(run, array="10", corpus=["10", "11"])
    for number in (0, 2):
        (run.stage("corpus") / "parts" / str(number)).mkdir(parents=True)
        (run.stage("corpus") / "parts" / str(number) / "log").write_text(f"part {number}\n")
    (run.path / "jobs").mkdir()
    for task in (0, 2):
        (run.path / "jobs" / f"corpus-10_{task}.out").write_text(f"task {task}\n")
        os.utime(run.path / "jobs" / f"corpus-10_{task}.out", (NOW + task, NOW + task))
    for words, said in ((["--part", "2"], "part 2\n"), (["--part", "2", "--job"], "task 2\n"), (["--job"], "task 2\n"),
                        (["--job", "--part", "0"], "task 0\n"), ([], "task 2\n")):  # fmt: skip
        assert cli.run(main, ["logs", str(run.path), "corpus", *words]) == 0
        told = capsys.readouterr()
        assert told.out == said
    assert "--part N" in told.err
    assert cli.run(main, ["logs", str(run.path), "corpus", "--part", "1"]) == 2
    assert "Parts with a log: 0, 2" in capsys.readouterr().err
    (run.path / "jobs" / "corpus-11.out").write_text("finishing\n")
    assert cli.run(main, ["logs", str(run.path), "corpus", "--job"]) == 0
    assert capsys.readouterr().out == "finishing\n"


def test_following_what_is_over_ends_though_slurm_is_away(
    chain: Run, no_slurm: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reading, "_SURE_S", 0.5)
    (chain.stage("pretrain")).mkdir(parents=True)
    (chain.stage("pretrain") / "log").write_text("all\n")
    for word in ("FAILED", "CANCELLED"):
        attempts(chain, "pretrain", word)
        assert cli.run(main, ["logs", str(chain.path), "pretrain", "-f"]) == 0
        assert capsys.readouterr() == ("all\n", "")
    (chain.path / "jobs").mkdir()
    (chain.path / "jobs" / "pretrain-3.out").write_text("said\n")
    assert cli.run(main, ["logs", str(chain.path), "pretrain", "-f", "--job"]) == 0
    told = capsys.readouterr()
    assert told.out == "said\n" and told.err.count("Slurm cannot be asked") == 1
