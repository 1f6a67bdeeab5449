"""Stages in parts: the outputs are those of a single job whatever was done by whom, killed, damaged or out of date."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from toolkit import cli, files
from toolkit.errors import DataError, RunBusy, RunError, UsageError
from toolkit.plan import steps
from toolkit.runs import Run, done, held, record_done
from toolkit.stages import corpus, parts, score, shards
from toolkit.stages.context import Context, inputs
from toolkit.submit import execute

Make = Callable[..., Run]
MODULES = {"corpus": corpus, "shards": shards, "score": score}


def context_of(run: Run, ident: str) -> Context:
    return Context(run=run, step=next(step for step in steps(run.recipe) if step.id == ident))


def finish(context: Context) -> dict[str, str]:
    """What the last job of a stage does; returns the outputs' hashes."""
    module = MODULES[context.step.stage]
    made = module.run(context)
    ident, read = context.step.id, inputs(context.run, context.step)
    record_done(
        context.run, ident, stage=ident, started=0.0, inputs=read, outputs=made.outputs, result=made.figures
    )  # fmt: skip
    record = done(context.run, ident)
    assert record is not None
    return {**record["outputs"], "figures": json.dumps(record["result"])}


@pytest.fixture
def three(make: Make, notes: Path, tmp_path: Path) -> Callable[[], Context]:
    """A corpus of three units: the notes, more of them with bad rows, and a small world."""
    more = tmp_path / "more.jsonl"
    rows = [*notes.read_text().replace("Note", "Sheet").splitlines(), *["not json"] * 5]
    more.write_text("".join(f"{row}\n" for row in rows))
    sources = f"+corpus.sources.more={{kind: jsonl, path: '{more}'}}"
    world = "+corpus.sources.world={kind: world, options: {documents_per_entity: 1}}"
    given = [sources, world, "corpus.max_bad_fraction=0.1", "corpus.tasks=3"]
    return lambda: context_of(make(["corpus"], *given), "corpus")


@pytest.fixture(scope="session")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer of 300 pieces, where a base model would be."""
    from toolkit import tokenizer

    pytest.importorskip("sentencepiece")
    texts = [f"Note {n}: fever cough dose daily child adult renal liver {n * 31}." for n in range(200)]
    return tokenizer.train(texts, tmp_path_factory.mktemp("words") / "base", vocab_size=300).folder


@pytest.fixture
def texts(notes: Path, tmp_path: Path) -> Path:
    """A corpus folder from outside: five parts to train on, of which the fourth has a bad row, and one to validate."""
    folder = tmp_path / "texts"
    rows = notes.read_text().splitlines()
    parts = {"valid/notes-00000": rows[:9], **{f"train/notes-0000{n}": rows[9 + n :: 5] for n in range(4)}}
    parts["train/other-00000"] = rows[13::5]
    parts["train/notes-00003"].insert(7, "not json")
    for name, lines in parts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.jsonl").write_text("".join(f"{row}\n" for row in lines))
    return folder


@pytest.fixture
def shares(make: Make, words: Path, texts: Path) -> Callable[[], Context]:
    """Shards of that corpus in four parts."""
    given = [f"inputs.corpus='{texts}'", f"model.base='{words}'", "data.shard_parts=4", "corpus.max_bad_fraction=0.1"]
    return lambda: context_of(make(["shards"], *given), "shards")


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


CALL = "import sys; from pathlib import Path; from tests.stages.test_parts import part_of; part_of(*sys.argv[1:])"


def part_of(run: str, ident: str, number: str) -> None:
    from toolkit.runs import find

    parts.run_part(context_of(find(run), ident), number)


def start(context: Context, number: int) -> subprocess.Popen[str]:
    """A part in a process of its own, as its job runs it."""
    root = Path(__file__).resolve().parents[2]
    words = [sys.executable, "-c", CALL, str(context.run.path), context.step.id, str(number)]
    env = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.Popen(words, cwd=root, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def kill_when(process: subprocess.Popen[str], begun: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not begun():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    process.communicate()


@pytest.mark.parametrize("beforehand", [[0], [2, 1], [0, 1, 2]], ids=str)
def test_a_corpus_in_parts(three: Callable[[], Context], beforehand: list[int]) -> None:
    alone, shared = three(), three()
    assert shared.step.parts == 3 and parts.finished(alone) == {}
    expected = finish(alone)
    for number in beforehand:
        parts.run_part(shared, number)
    assert list(parts.finished(shared)) == sorted(beforehand)
    assert finish(shared) == expected and "corpus" in expected and "tasks" in expected
    assert tree(shared.folder / "corpus") == tree(alone.folder / "corpus")
    parts.clear(shared)
    assert sorted(path.name for path in shared.folder.iterdir()) == ["corpus", "done.json", "tasks"]


def test_a_source_is_read_by_its_part_alone(three: Callable[[], Context], notes: Path) -> None:
    alone, shared = three(), three()
    expected = finish(alone)
    parts.run_part(shared, 0)
    before = notes.stat()
    notes.write_bytes(b"?" * before.st_size)  # unreadable, and nobody sees that it changed
    os.utime(notes, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DataError, match="cannot be read"):
        finish(three())
    assert finish(shared) == expected


@pytest.mark.parametrize("beforehand", [[0], [3, 1], [0, 1, 2, 3]], ids=str)
def test_shards_in_parts(shares: Callable[[], Context], beforehand: list[int]) -> None:
    alone, shared = shares(), shares()
    expected = finish(alone)
    assert not (alone.folder / "parts").exists()  # one job writes nothing twice
    for number in beforehand:
        parts.run_part(shared, number)
    found = finish(shared)
    name = f"{alone.folder}", f"{shared.folder}"
    assert found == expected
    for path, data in tree(alone.folder / "shards").items():
        assert (shared.folder / "shards" / path).read_bytes() == data.replace(name[0].encode(), name[1].encode())
    bad = json.loads((shared.folder / "shards" / "train" / "notes-00003.bad.jsonl").read_text())
    assert bad["line"] == 8 and json.loads(found["figures"])["train_bad_rows"] == 1
    blend = files.read_json(shared.folder / "shards" / "blend.json")
    assert [row["subset"] for row in blend["train"]] == ["notes"] * 4 + ["other"]
    assert len(parts.finished(shared)) == 4  # those that nobody had done are there as well
    parts.clear(shared)
    assert sorted(path.name for path in shared.folder.iterdir()) == ["done.json", "shards"]


def test_a_part_that_is_done_is_not_done_again(
    three: Callable[[], Context], capsys: pytest.CaptureFixture[str]
) -> None:
    context = three()
    out = parts.run_part(context, "1")
    before = {path: path.stat().st_mtime_ns for path in (context.part(1)).rglob("*") if path.name != "lock"}
    assert out == context.part(1) / "out" and "part 1" not in capsys.readouterr().out
    assert parts.run_part(context, 1) == out
    assert "part 1 of corpus is done" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (context.part(1)).rglob("*") if path.name != "lock"} == before
    record = files.read_json(context.part(1) / "done.json")
    assert record["part"] == 1 and record["result"] == {"units": 1}
    assert record["inputs"] == inputs(context.run, context.step)
    assert record["outputs"] == {"out": files.fingerprint(out)}


@pytest.mark.parametrize("damage", ["{", "[]", "null", "{}", '{"inputs": 3}', "[" * 99_999, b"\xff", "inputs", "out"])
def test_a_damaged_part_is_done_anew(three: Callable[[], Context], damage: str | bytes) -> None:
    context, expected = three(), finish(three())
    parts.run_part(context, 0)
    path = context.part(0) / "done.json"
    if damage == "out":
        (documents,) = (context.part(0) / "out" / "units").glob("*/documents.jsonl.zst")
        with open(documents, "ab") as handle:
            handle.write(b"x")
    elif damage == "inputs":
        files.write_json(path, {**files.read_json(path), "inputs": {}})
    else:
        path.write_bytes(damage if isinstance(damage, bytes) else damage.encode())
    assert parts.finished(context) == {}
    assert finish(context) == expected  # by units that are sound, and by reading what the others read
    parts.run_part(context, 0)
    assert list(parts.finished(context)) == [0] and finish(context) == expected


@pytest.mark.parametrize("gone", ["out", "out/units", "done.json"])
def test_a_part_that_lacks_something_does_not_count(three: Callable[[], Context], gone: str) -> None:
    context, expected = three(), finish(three())
    parts.run_part(context, 0)
    path = context.part(0) / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert parts.finished(context) == {} and finish(context) == expected
    parts.run_part(context, 0)
    assert list(parts.finished(context)) == [0] and finish(context) == expected


def test_parts_of_other_inputs_are_removed_but_for_their_logs(three: Callable[[], Context], notes: Path) -> None:
    context = three()
    parts.run_part(context, 0)
    parts.run_part(context, 2)
    (context.part(0) / "rank-0.log").write_text("kept")
    (context.part(0) / ".out.1234.part").mkdir()
    (context.part(0) / "odd").symlink_to(notes)
    with open(notes, "a", encoding="utf-8") as lines:
        lines.write(json.dumps({"text": "A new note on fever, written later than all the others."}) + "\n")
    assert parts.finished(context) == {}
    expected = finish(three())
    assert finish(context) == expected
    parts.run_part(context, 0)
    assert {path.name for path in context.part(0).iterdir()} == {
        "done.json",
        "inputs.json",
        "lock",
        "out",
        "rank-0.log",
    }
    assert notes.is_file() and list(parts.finished(context)) == [0] and finish(context) == expected


@pytest.mark.parametrize("number", [-1, 3, 99, "-1", "3", "x", "", "1.0", "0x1", "1 ", "٣", "1_0", "9" * 5000, "../0"])
def test_a_number_that_is_no_part(three: Callable[[], Context], number: int | str) -> None:
    context = three()
    with pytest.raises(UsageError, match="stage corpus has no part .*its parts: 0 to 2|Its parts: 0 to 2") as caught:
        parts.run_part(context, number)
    assert caught.value.exit_code == 2 and len(str(caught.value)) < 200
    assert not context.folder.exists()
    assert cli.run(lambda _: parts.run_part(context, number), []) == 2


def test_a_stage_that_has_no_parts(make: Make) -> None:
    with pytest.raises(UsageError, match="stage base has no parts"):
        parts.run_part(context_of(make(["corpus", "base"]), "base"), 0)


def test_a_part_before_its_turn(make: Make) -> None:
    context = context_of(make(["corpus", "base", "shards"], "data.shard_parts=2"), "shards")
    with pytest.raises(RunError, match="stage corpus has left no done.json"):
        parts.run_part(context, 1)
    assert files.read_json(context.folder / "error-part-1.json")["what"] == "stage corpus has left no done.json"


def test_a_part_that_fails_leaves_its_error_and_then_none(three: Callable[[], Context], tmp_path: Path) -> None:
    context, more = three(), tmp_path / "more.jsonl"
    more.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="no such file"):
        parts.run_part(context, 1)
    told = files.read_json(context.folder / "error-part-1.json")
    assert told["error"] == "DataError" and "no such file" in told["what"]
    assert not (context.part(1) / "done.json").exists()
    (tmp_path / "elsewhere").rename(more)
    parts.run_part(context, 1)
    assert not (context.folder / "error-part-1.json").exists() and list(parts.finished(context)) == [1]


def test_one_process_at_a_time_works_on_a_part(
    three: Callable[[], Context], capsys: pytest.CaptureFixture[str]
) -> None:
    context = three()
    context.part(0).mkdir(parents=True)
    with held(context.part(0)):
        with pytest.raises(RunBusy, match="another process"):
            parts.run_part(context, 0, wait_s=0)
        assert parts.run_part(context, 1, wait_s=0)  # the others are free
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with held(context.part(0)):
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(30)
    threading.Timer(0.3, leave.set).start()
    parts.run_part(context, 0, wait_s=60)  # what a node that died held is free some time later
    thread.join()
    assert "waiting for another process" in capsys.readouterr().out
    assert list(parts.finished(context)) == [0, 1] and not list(context.folder.glob("error*"))


def test_nothing_to_clear_is_no_error(three: Callable[[], Context]) -> None:
    context = three()
    parts.clear(context)
    assert parts.finished(context) == {}


@pytest.mark.slow
def test_a_corpus_part_killed_half_way(make: Make, tmp_path: Path) -> None:
    big, small = tmp_path / "big.jsonl", tmp_path / "small.jsonl"
    with open(big, "w", encoding="utf-8") as lines:
        for number in range(50_000):
            lines.write(json.dumps({"id": f"n{number}", "text": f"note {number} " * 5}) + "\n")
    small.write_text(json.dumps({"text": "one"}) + "\n")
    given = [f"+corpus.sources.{path.stem}={{kind: jsonl, path: '{path}'}}" for path in (big, small)]
    given.append("corpus.tasks=3")
    expected = finish(context_of(make(["corpus"], *given), "corpus"))
    context = context_of(make(["corpus"], *given), "corpus")
    assert list(context.recipe.corpus.sources) == ["notes", "big", "small"]
    both = [start(context, 1), start(context, 2)]
    written = lambda: list(context.part(1).glob("out/units/.*.part/documents.jsonl.zst"))  # noqa: E731
    kill_when(both[0], written)
    assert both[1].wait(60) == 0, both[1].communicate()[0]
    both[1].communicate()
    assert list(parts.finished(context)) == [2] and list(context.part(1).glob("out/units/.*.part"))
    assert finish(context) == expected
    again = start(context, 1)  # the scheduler starts it again
    assert again.wait(120) == 0, again.communicate()[0]
    again.communicate()
    assert list(parts.finished(context)) == [1, 2] and not list(context.part(1).glob("out/units/.*"))
    assert finish(context) == expected


@pytest.mark.slow
def test_a_shard_part_killed_half_way(shares: Callable[[], Context], texts: Path) -> None:
    """The first part has two files; it is killed while it writes the second, and the first is not encoded again."""
    for name in ("train/notes-00000", "train/other-00000"):
        path = texts / f"{name}.jsonl"
        path.write_bytes(path.read_bytes() * 4000)
    expected, context = finish(shares()), shares()
    both, out = [start(context, 0), start(context, 3)], context.part(0) / "out" / "train"
    kill_when(both[0], lambda: any(p.stat().st_size for p in out.glob(".other-00000.bin.*.part")))
    kept = (out / "notes-00000.bin").stat().st_mtime_ns
    assert both[1].wait(60) == 0, both[1].communicate()[0]
    both[1].communicate()
    assert list(parts.finished(context)) == [3]
    assert finish(context) == expected and list(parts.finished(context)) == [0, 1, 2, 3]
    assert (out / "notes-00000.bin").stat().st_mtime_ns == kept and not list(out.glob(".*"))
    assert files.read_json(context.part(0) / "done.json")["result"]["kept"] == 1


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums are rounded otherwise on another number of threads: this process takes as many as the parts' processes."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def models(
    make: Make, words: Path, tmp_path: Path, request: pytest.FixtureRequest, one_thread: None
) -> Callable[[], Context]:
    """Two random models, one of them as if exported from a training, and two benchmarks, the second of so many
    items."""
    from toolkit import checkpoint, scoring

    for seed, name in enumerate(("base", "trained")):
        checkpoint.make_random_hf(
            tmp_path / name, layers=2, hidden=32, ffn=64, heads=4, kv_heads=2, vocab_size=300, max_positions=256,
            tokenizer=words, seed=seed, init_std=0.2, rope_theta=10000.0, rms_norm_eps=1e-5,
        )  # fmt: skip
    spec = scoring.benchmarks.get("medqa4")
    files_of = {"medqa4": tmp_path / "medqa4.jsonl", "medmcqa": tmp_path / "medmcqa.json"}
    options = {"A": "fever", "B": "cough", "C": "a dose", "D": "daily"}
    with open(files_of["medqa4"], "w", encoding="utf-8") as lines:
        for n in range(40):
            lines.write(
                json.dumps({"question": f"What is {n}?", "options": options, "answer_idx": "ABCD"[n % 4]}) + "\n"
            )
    with open(files_of["medmcqa"], "w", encoding="utf-8") as lines:
        for n in range(request.param):
            row = {"id": f"i{n}", "question": f"What is {n}? " * (1 + n % 9), "cop": 1 + n % 4}
            row |= {"opa": "fever", "opb": "cough", "opc": "a dose", "opd": "daily", "subject_name": "x"}
            lines.write(json.dumps(row) + "\n")
    assert spec.fields["answer"] == "answer_idx"
    given = [f"score.paths.{name}='{path}'" for name, path in files_of.items()]

    def made() -> Context:
        run = make(["pretrain", "export", "score"], "score.benchmarks=[medqa4,medmcqa]", "score.batch_tokens=2048",
                   f"model.base='{tmp_path / 'base'}'", "inputs.shards=/s", "inputs.checkpoint=/c", *given)  # fmt: skip
        hf = run.stage("export-pretrain") / "hf"
        shutil.copytree(tmp_path / "trained", hf)
        record_done(
            run, "export-pretrain", stage="export", started=0.0, inputs={}, outputs={"hf": hf}, result={}
        )  # fmt: skip
        return context_of(run, "score")

    return made


@pytest.mark.slow
@pytest.mark.parametrize("models", [600], indirect=True)
def test_scores_in_parts_killed_half_way(models: Callable[[], Context]) -> None:
    alone, shared = models(), models()
    assert shared.step.parts == 2 and list(score.models(shared)) == ["base", "pretrained"]
    expected = finish(alone)
    assert len(json.loads((alone.folder / "scores.json").read_text())) == 4
    first, store = start(shared, 1), shared.part(1) / "store"
    kill_when(first, lambda: len(list(store.glob("*.jsonl"))) == 2)
    assert not (shared.part(1) / "done.json").exists() and parts.finished(shared) == {}
    kept = {file.name: file.read_bytes() for file in store.glob("*.jsonl")}
    again = start(shared, 1)  # goes on in the second benchmark
    told = again.communicate(timeout=120)[0]
    assert again.returncode == 0, told
    assert sum(len(raw.splitlines()) for raw in kept.values()) < 640
    for name, raw in kept.items():
        assert (store / name).read_bytes().startswith(raw[: raw.rfind(b"\n") + 1])
    assert list(parts.finished(shared)) == [1]
    assert (
        finish(shared) == expected
        and tree(shared.folder)["predictions.jsonl"] == tree(alone.folder)["predictions.jsonl"]
    )
    parts.clear(shared)
    assert {path.name for path in shared.folder.iterdir()} == {"done.json", "predictions.jsonl", "scores.json"}


@pytest.mark.slow
@pytest.mark.parametrize("models", [40], indirect=True)
def test_damaged_answers_of_a_stopped_part_are_asked_again(models: Callable[[], Context]) -> None:
    context, expected = models(), finish(models())
    parts.run_part(context, 0)
    (context.part(0) / "done.json").unlink()  # as if it had been stopped just before
    first, second = sorted((context.part(0) / "store").glob("*.jsonl"))
    lines = first.read_bytes().splitlines(keepends=True)
    first.write_bytes(b"".join([*lines[:20], b"\xff[{]\n", b"3\n", *lines[21:30], lines[30][:40]]))
    second.write_bytes(b"{}\n" + second.read_bytes()[1:])
    assert finish(context) == expected


def test_a_run_from_end_to_end_takes_the_parts_that_are_there(make: Make, notes: Path) -> None:
    """Through the in-job entry, which keeps its hands off the parts."""
    plain, shared = make(["corpus"], "corpus.tasks=2"), make(["corpus"], "corpus.tasks=2")
    execute(plain, quiet=True)
    context = context_of(shared, "corpus")
    parts.run_part(context, 0)
    before = notes.stat()
    notes.write_bytes(b"?" * before.st_size)
    os.utime(notes, ns=(before.st_atime_ns, before.st_mtime_ns))
    execute(shared, quiet=True)
    records = done(plain, "corpus"), done(shared, "corpus")
    assert records[0] and records[1] and records[0]["outputs"] == records[1]["outputs"]
