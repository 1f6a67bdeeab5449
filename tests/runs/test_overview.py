"""What the files of a run amount to, whatever is in them."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toolkit import files
from toolkit.errors import RunError
from toolkit.plan import steps
from toolkit.runs import Run, held, record_done
from toolkit.runs.lock import holder
from toolkit.runs.overview import find_all, overview
from toolkit.runs.text import harmless, harmless_lines, span

Make = Callable[..., Run]
NOW = time.time()


def finish(run: Run, ident: str, **figures: Any) -> None:
    made = run.stage(ident) / "out"
    made.parent.mkdir(parents=True, exist_ok=True)
    made.write_text("x")
    recipe = files.sha256_file(run.path / "recipe.yaml")
    record_done(
        run,
        ident,
        stage=ident,
        started=time.time() - 4,
        inputs={"recipe.yaml": recipe},
        outputs={"out": made},
        result=figures,
    )


def attempts(run: Run, **states: list[str]) -> None:
    """jobs.json with these attempts, each stage's a minute after those of the stage before."""
    rows = []
    for place, (ident, words) in enumerate(states.items()):
        tries = [
            {"job_id": str(place), "started": NOW - 1000 + 60 * place + n, "state": word,
             "ended": None if word == "RUNNING" else NOW - 1000 + 60 * place + n + 0.5}
            for n, word in enumerate(words)
        ]  # fmt: skip
        rows.append({"id": ident, "stage": ident, "attempts": tries})
    files.write_json(run.path / "jobs.json", {"stages": rows})


def metrics(run: Run, stage: str, *rows: object) -> None:
    run.stage(stage).mkdir(parents=True, exist_ok=True)
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    (run.stage(stage) / "metrics.jsonl").write_text(text)


def progress(run: Run, stage: str, **state: Any) -> None:
    run.stage(stage).mkdir(parents=True, exist_ok=True)
    files.write_json(run.stage(stage) / "progress.json", state)


def row(step: int, loss: float, **more: Any) -> dict[str, Any]:
    return {"step": step, "loss": loss, "step_s": 0.5, "tokens_per_s": 100.0 + step, **more}


def test_a_run_that_has_not_begun(make: Make) -> None:
    seen = overview(make(["corpus", "base"]).path, steps)
    assert (seen.state, seen.stage, seen.attempts, seen.recipe) == ("not started", "corpus", 0, "demo")
    assert [(s.id, s.state) for s in seen.stages] == [("corpus", "waiting"), ("base", "waiting")]
    assert seen.at is None and seen.loss is None and seen.left_s is None and seen.report is None


def test_a_run_that_is_done(make: Make) -> None:
    run = make(["corpus", "base"])
    finish(run, "corpus", documents=90, removed={})
    finish(run, "base")
    attempts(run, corpus=["FAILED", "COMPLETED"], base=["COMPLETED"])
    (run.path / "report.html").write_text("x")
    seen = overview(run.path, steps)
    assert (seen.state, seen.stage, seen.attempts) == ("done", "", 2)
    assert seen.report == str(run.path / "report.html")
    corpus = seen.stages[0]
    assert corpus.figures == {"documents": 90} and corpus.elapsed_s == pytest.approx(4, abs=60)
    assert [a.state for a in corpus.attempts] == ["FAILED", "COMPLETED"]


@pytest.mark.parametrize(
    ("tries", "finished", "state", "stage"),
    [
        ({"corpus": ["FAILED"]}, [], "failed", "corpus"),
        ({"corpus": ["CANCELLED"]}, [], "interrupted", "corpus"),
        ({"corpus": ["RUNNING"]}, [], "interrupted", "corpus"),  # its launcher was killed: nobody holds the lock
        ({"corpus": ["COMPLETED"], "base": ["COMPLETED", "FAILED"]}, ["corpus"], "failed", "base"),
        ({"corpus": ["COMPLETED"]}, ["corpus"], "interrupted", "base"),  # ended between two stages
        ({"corpus": ["RUNNING"]}, ["corpus"], "interrupted", "base"),  # the stage outlived its launcher, and ended well
        ({"corpus": ["RUNNING"], "base": ["COMPLETED"]}, ["corpus", "base"], "done", ""),
        ({}, ["corpus"], "interrupted", "base"),
    ],
)
def test_states(make: Make, tries: dict[str, list[str]], finished: list[str], state: str, stage: str) -> None:
    run = make(["corpus", "base"])
    for ident in finished:
        finish(run, ident)
    attempts(run, **tries)
    seen = overview(run.path, steps)
    assert (seen.state, seen.stage) == (state, stage)


def test_an_earlier_stage_that_had_to_run_again_is_the_one_that_counts(make: Make) -> None:
    run = make(["corpus", "base"])
    finish(run, "base")
    attempts(run, base=["COMPLETED"], corpus=["FAILED"])  # corpus began after base
    seen = overview(run.path, steps)
    assert (seen.state, seen.stage) == ("failed", "corpus")


def test_a_held_lock_is_what_running_means(make: Make) -> None:
    run = make(["corpus", "base"])
    finish(run, "corpus")
    attempts(run, corpus=["COMPLETED"], base=["RUNNING"])
    with held(run.path):
        seen = overview(run.path, steps)
        assert (seen.state, seen.stage) == ("running", "base")
        assert seen.holder is not None and seen.holder.pid == os.getpid()
        assert seen.stages[1].state == "running" and (seen.stages[1].elapsed_s or 0) > 900
    assert overview(run.path, steps).state == "interrupted"
    run.stage("base").mkdir(parents=True)
    with held(run.stage("base")):  # the job of a launcher that was killed
        assert overview(run.path, steps).state == "running"


def test_looking_disturbs_neither_readers_nor_a_start(make: Make) -> None:
    """A probe takes the lock for a moment; a launch that meets one tries again."""
    import fcntl
    import threading

    run = make(["corpus"])
    assert holder(run.path) is None and not (run.path / "lock").exists()  # looking makes no file
    with held(run.path):
        pass
    with open(run.path / "lock") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        assert holder(run.path) is None
        release = threading.Timer(0.03, fcntl.flock, (reader, fcntl.LOCK_UN))
        release.start()
        with held(run.path):
            assert holder(run.path) is not None
        release.join()


def test_training_figures(make: Make) -> None:
    run = make(["corpus", "pretrain"])
    finish(run, "corpus")
    attempts(run, corpus=["COMPLETED"], pretrain=["FAILED", "RUNNING"])
    rows = [row(n, 9.0 - n / 100) for n in range(1, 401)]
    metrics(run, "pretrain", *rows, {"step": 400, "valid_loss": 3.0}, '{"step": 401, "lo')
    # resumed at 390: the clock began then, so done / elapsed would promise an end forty times too early
    progress(run, "pretrain", label="pretrain", done=400, total=1000, unit="steps", note="", elapsed_s=5.0)
    with held(run.path):
        seen = overview(run.path, steps)
    assert (seen.at, seen.of, seen.unit, seen.loss, seen.tokens_per_s) == (400, 1000, "steps", 5.0, 500.0)
    assert seen.left_s == pytest.approx(300.0) and seen.attempts == 2
    seen = overview(run.path, steps)
    assert (seen.at, seen.left_s, seen.state) == (400, None, "interrupted")


def test_progress_of_other_stages(make: Make) -> None:
    run = make(["corpus", "base"])
    attempts(run, corpus=["RUNNING"])
    progress(run, "corpus", label="corpus", done=30, total=120, unit="docs", note="", left_s=30.0)
    with held(run.path):
        seen = overview(run.path, steps)
        assert (seen.at, seen.of, seen.unit, seen.left_s) == (30, 120, "docs", pytest.approx(30.0))
        progress(run, "corpus", label="corpus", done=30, total=None, unit="docs", note="", left_s=None)
        seen = overview(run.path, steps)
        assert (seen.at, seen.of, seen.left_s) == (30, None, None)


def test_a_diverged_loss_is_shown(make: Make) -> None:
    run = make(["pretrain"], "inputs.shards=x", "inputs.checkpoint=y")
    metrics(run, "pretrain", row(1, 2.0), '{"step": 2, "loss": NaN, "step_s": 0.1, "tokens_per_s": 5}')
    seen = overview(run.path, steps)
    assert seen.at == 2 and seen.loss is not None and seen.loss != seen.loss


@pytest.mark.parametrize(
    "line",
    ["[]", "null", '{"step": "x", "loss": 1}', '{"step": 3}', '{"step": -1, "loss": 1}', '{"step": 1e999, "loss": 1}',
     '{"step": true, "loss": 1}', '{"step": 3, "loss": "1"}', "\x00\xff", "[" * 60_000],
)  # fmt: skip
def test_lines_that_are_no_step_are_passed_over(make: Make, line: str) -> None:
    run = make(["pretrain"], "inputs.shards=x", "inputs.checkpoint=y")
    metrics(run, "pretrain", row(1, 2.0), line)
    seen = overview(run.path, steps)
    assert (seen.at, seen.loss, seen.state) == (1, 2.0, "not started")


@pytest.mark.parametrize(
    "state",
    [b"", b"{", b"[1]", b'{"done": "5", "total": "x", "unit": 7}', b'{"done": 1e999, "total": -4, "unit": ["a"]}',
     b'{"done": 3, "total": 2, "unit": "\\u001b[31mred\\nline", "elapsed_s": "9"}', b"\xff\xfe"],
)  # fmt: skip
def test_damaged_progress_is_no_progress(make: Make, state: bytes) -> None:
    run = make(["corpus"])
    attempts(run, corpus=["RUNNING"])
    run.stage("corpus").mkdir(parents=True)
    (run.stage("corpus") / "progress.json").write_bytes(state)
    with held(run.path):
        seen = overview(run.path, steps)
    assert seen.state == "running" and seen.left_s is None and seen.unit.isprintable()


def test_the_failed_stage_says_why(make: Make) -> None:
    run = make(["corpus"])
    attempts(run, corpus=["FAILED"])
    run.stage("corpus").mkdir(parents=True)
    files.write_json(run.stage("corpus") / "error.json", {"what": "no \x1b[2J text", "where": "a.jsonl:3"})
    assert overview(run.path, steps).why == "a.jsonl:3: no \\x1b[2J text"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("recipe.yaml", b"name: [\n", "recipe.yaml: damaged recipe"),
        ("recipe.yaml", None, "recipe.yaml: no resolved recipe"),
        ("recipe.yaml", b"\xff\xfe\x00", "recipe.yaml: damaged recipe"),
        ("recipe.yaml", b"[" * 50_000, "recipe.yaml: damaged recipe"),
        ("jobs.json", b"{", "jobs.json: damaged"),
        ("jobs.json", None, "jobs.json: is missing"),
        ("jobs.json", b"[]", "jobs.json: damaged: not a JSON object"),
        ("jobs.json", b'{"stages": [{"id": "../../x", "attempts": []}]}', "jobs.json: damaged"),
        ("jobs.json", b'{"stages": [{"id": "corpus", "attempts": [7]}]}', "jobs.json: damaged"),
        ("jobs.json", b'{"stages": [{"id": ["corpus"], "attempts": []}]}', "jobs.json: damaged"),
        ("stages/corpus/done.json", b'{"inputs"', "done.json: damaged"),
        ("stages/corpus/done.json", b"\xff", "done.json: damaged"),
        ("stages/corpus/done.json", b"[" * 100_000, "done.json: damaged"),
        ("jobs.json", b'"' + b"x" * (9 << 20) + b'"', "too large"),
    ],
)
def test_damage_is_a_state(make: Make, runs_root: Path, name: str, content: bytes | None, said: str) -> None:
    run = make(["corpus"])
    path = run.path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    good = make(["corpus"])
    seen = {o.run: o for o in find_all(runs_root, steps)}
    assert (seen[run.id].state, seen[good.id].state) == ("damaged", "not started")
    assert said in seen[run.id].why and "\n" not in seen[run.id].why and len(seen[run.id].why) <= 300
    assert seen[run.id].recipe == "demo"


def test_a_recipe_damaged_after_a_stage_has_read_it(make: Make) -> None:
    run = make(["corpus"])
    finish(run, "corpus")
    assert overview(run.path, steps).state == "done"
    with open(run.path / "recipe.yaml", "a") as recipe:
        recipe.write("]")
    assert overview(run.path, steps).state == "damaged"


def test_every_truncation_of_the_recipe_is_damage(make: Make) -> None:
    run = make(["corpus"])
    whole = (run.path / "recipe.yaml").read_bytes()
    for cut in (*range(0, len(whole), 397), len(whole) - 60, len(whole) - 9, len(whole) - 1):
        (run.path / "recipe.yaml").write_bytes(whole[:cut])
        assert overview(run.path, steps).state == "damaged"


@pytest.mark.parametrize("name", ["jobs.json", "plan.json", "recipe.yaml", "lock"])
def test_a_pipe_or_folder_in_place_of_a_file_does_not_block(make: Make, name: str) -> None:
    for make_odd in (os.mkfifo, os.mkdir):
        run = make(["corpus"])
        (run.path / name).unlink(missing_ok=True)
        make_odd(run.path / name)
        seen = overview(run.path, steps)
        assert seen.state == ("damaged" if name in ("jobs.json", "recipe.yaml") else "not started"), seen.why


def test_what_the_plan_promised_is_taken_where_it_is_whole(make: Make) -> None:
    run = make(["corpus", "base"])
    promised = {"recipe": "demo", "stages": [{"id": "corpus", "stage": "corpus"}, {"id": "base", "stage": "base"}]}

    def never(_: object) -> Any:
        raise AssertionError("the recipe is read although the plan says it")

    finish(run, "corpus")
    files.write_json(run.path / "plan.json", promised)
    assert [s.id for s in overview(run.path, never).stages] == ["corpus", "base"]
    promised["stages"][0]["id"] = "../../elsewhere"
    files.write_json(run.path / "plan.json", promised)
    assert [s.id for s in overview(run.path, steps).stages] == ["corpus", "base"]


def test_newest_first_and_nothing_but_runs(make: Make, runs_root: Path) -> None:
    made = [make(["corpus"]) for _ in range(3)]
    for age, run in enumerate(made):
        os.utime(run.path / "recipe.yaml", (NOW - age * 100, NOW - age * 100))
        os.utime(run.path)
    (runs_root / "notes").mkdir()
    (runs_root / "file").write_text("x")
    shutil.copytree(made[0].path, runs_root / ".demo.part")
    assert [o.run for o in find_all(runs_root, steps)] == [run.id for run in made]
    with pytest.raises(RunError, match="cannot be read: Not a directory"):
        find_all(runs_root / "file", steps)


def test_hostile_names_of_folders_are_one_harmless_line(make: Make, runs_root: Path) -> None:
    names = ["x\x1b[2J\ny", "[bold]x", "a b 'c' $(d)", "\u202eevil", os.fsdecode(b"caf\xe9"), "e" * 250]
    for name in names:
        shutil.copytree(make(["corpus"]).path, runs_root / name)
    seen = [o for o in find_all(runs_root, steps) if not o.run.startswith("demo-")]
    assert len(seen) == len(names)
    for one in seen:
        assert one.state == "not started" and one.run.isprintable() and one.path.isprintable()
        json.dumps(one.run, ensure_ascii=False).encode("utf-8")


def test_text_that_cannot_steer_a_terminal() -> None:
    assert harmless("a\x1bb\n\u202ec\ud800") == "a\\x1bb\\x0a\\u202ec\\ud800"
    assert harmless("x" * 300) == "x" * 197 + "..." and harmless("x" * 300, None) == "x" * 300
    assert harmless("caf\u00e9 \u836f") == "caf\u00e9 \u836f"
    log = "\x1b[31mred\x1b[0m\tx\r\n10%\r20%\n\x1b]0;title\x07\x07"
    assert harmless_lines(log) == ["red\tx", "10%", "20%", "\\x07"]


def test_spans() -> None:
    told = {None: "-", 0.0: "0.0 s", 9.94: "9.9 s", 61: "61 s", 200: "3 min", 12_000: "3 h 20 min", 190_000: "2 d 4 h"}
    assert {seconds: span(seconds) for seconds in told} == told
