"""What has been answered is not asked again: warm, stopped, damaged, full, and by two at once."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scoring.conftest import CLOZE, LETTERS, make_items
from toolkit.errors import DiskFull
from toolkit.scoring import Item, Score, Store, engines, over_seeds, score, series
from toolkit.scoring.engines.hf import Transformers

pytest.importorskip("transformers")


def solved(n: int) -> list[Item]:
    """What demonstrations are drawn from: none of them is scored."""
    return [
        dataclasses.replace(i, id=f"s{i.id}", question=f"{n}. {i.question}") for n, i in enumerate(make_items(n, 9))
    ]


def asked(model: Path, folder: Path, **options: object) -> Score:
    """A new engine each time, as a new process has one."""
    given = {"items": make_items(30), "benchmark": LETTERS, "batch_tokens": 300, "store": Store(folder)} | options
    return score(model=engines.load(model, batch_tokens=given.pop("batch_tokens")), **given)


def test_a_second_run_asks_nothing_and_loads_nothing(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = asked(llama, tmp_path)
    assert (first.model_calls, first.kept) == (30, 0) and first.tokens > 0

    def loading(self: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(Transformers, "loaded", property(loading))
    again = asked(llama, tmp_path)
    assert (again.model_calls, again.tokens, again.kept) == (0, 0, 30)
    assert again.as_dict() == first.as_dict() and again.predictions == first.predictions
    few = asked(llama, tmp_path, limit=7)  # and what is less than is known
    assert (few.model_calls, few.n) == (0, 7)


def test_what_decides_the_answers_is_told_apart(llama: Path, llama_copy: Path, tmp_path: Path):
    asked(llama, tmp_path)
    for other in (
        {"mode": "cloze"}, {"bos": True}, {"items": make_items(30, seed=1)}, {"benchmark": CLOZE, "mode": "letter"},
        {"compat": True}, {"shots": 1, "pool": solved(3)},
    ):  # fmt: skip
        assert asked(llama, tmp_path, **other).model_calls == 30, other
    assert asked(llama, tmp_path, seed=5).model_calls == 0, "a seed that decides nothing"
    assert asked(llama, tmp_path, batch_tokens=9).model_calls == 0
    assert asked(llama_copy, tmp_path).model_calls == 0, "the same model elsewhere"
    (llama_copy / "README.md").write_text("a card")
    assert asked(llama_copy, tmp_path).model_calls == 0
    from safetensors.torch import load_file, save_file

    tensors = load_file(llama_copy / "model.safetensors")
    tensors["model.norm.weight"][3] += 0.5
    save_file(tensors, llama_copy / "model.safetensors", {"format": "pt"})
    assert asked(llama_copy, tmp_path).model_calls == 30


def test_a_file_without_its_end_or_with_damage_is_mended(llama: Path, tmp_path: Path):
    first = asked(llama, tmp_path)
    (file,) = tmp_path.glob("*.jsonl")
    whole = file.read_bytes()
    lines = whole.splitlines(keepends=True)
    for damaged, missing in (
        (b"".join(lines[:12]) + lines[12][:30], 20),
        (b"".join([*lines[:9], b"\xff{\n", b"[1]\n", *lines[11:]]), 2),
        (lines[0][: len(lines[0]) // 2], 30),
        (b"", 30),
        (b"{}\n" * 3 + b"".join(lines[1:]), 30),
    ):
        file.write_bytes(damaged)
        again = asked(llama, tmp_path)
        assert again.model_calls == missing
        assert again.as_dict() == first.as_dict() and again.predictions == first.predictions
        assert asked(llama, tmp_path).model_calls == 0


def test_a_full_disk_keeps_what_came(llama: Path, tmp_path: Path):
    """The file may grow to so many bytes: the run ends with one message, and the next goes on from there."""
    limit = (6000, resource.RLIM_INFINITY)
    before, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        with pytest.raises(DiskFull):
            asked(llama, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    (file,) = tmp_path.glob("*.jsonl")
    raw = file.read_bytes()
    assert raw.endswith(b"\n") and all(json.loads(line) for line in raw.splitlines())
    rows = len(raw.splitlines()) - 2  # the key, and what is known about them
    assert 0 < rows < 30
    assert asked(llama, tmp_path).model_calls == 30 - rows
    assert asked(llama, tmp_path).model_calls == 0


KILLED = """if True:
    import os, sys
    from pathlib import Path
    from tests.scoring.conftest import LETTERS, make_items
    from toolkit.scoring import Store, engines, score
    from toolkit.scoring.store import Kept
    add = Kept.add
    def dies(self, row):
        add(self, row)
        if len(self.rows) == int(sys.argv[3]):
            os.kill(os.getpid(), 9)
    Kept.add = dies
    engine = engines.load(sys.argv[1], batch_tokens=300)
    made = score(model=engine, items=make_items(30), benchmark=LETTERS, store=Store(sys.argv[2]))
    print(made.model_calls)
"""


@pytest.mark.slow
def test_killed_runs_go_on_and_end_with_the_same_numbers(llama: Path, tmp_path: Path):
    env = os.environ | {"OMP_NUM_THREADS": "1"}

    def run(stop: int) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-W", "ignore", "-c", KILLED, str(llama), str(tmp_path / "store"), str(stop)]
        return subprocess.run(words, capture_output=True, text=True, env=env)

    assert run(17).returncode == -9
    last = run(99)
    assert last.stdout.strip() == str(30 - 17), last.stderr
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert asked(llama, tmp_path / "store").predictions == asked(llama, tmp_path / "other").predictions
    finally:
        torch.set_num_threads(threads)


def test_two_at_once_add_whole_lines(tmp_path: Path):
    one, two = (Store(tmp_path).open({"a": 1}) for _ in range(2))
    for number in range(5):
        one.add({"id": f"one{number}", "text": "\u2028 böse"})
        two.add({"id": f"two{number}"})
    assert set(Store(tmp_path).open({"a": 1}).rows) == {f"{who}{n}" for who in ("one", "two") for n in range(5)}
    assert Store(tmp_path).open({"a": 2}).rows == {}


def test_seeds_together(llama: Path, tmp_path: Path):
    sets = [series.Set(spec=LETTERS, items=make_items(20), pool=solved(60))]
    options = {"limit": 10}
    engine = engines.load(llama)
    scores = list(series.run(engine, sets, seeds=(1234, 432, 32), shots=1, store=Store(tmp_path), options=options))
    rows = [one.as_dict() for one in scores]
    (together,) = over_seeds(rows)
    accuracies = [row["accuracy"] for row in rows]
    assert together["seeds"] == [1234, 432, 32] and together["mean"] == pytest.approx(sum(accuracies) / 3)
    assert together["sd"] == pytest.approx((sum((a - together["mean"]) ** 2 for a in accuracies) / 2) ** 0.5)
    assert together["shots"] == 1 and "accuracy" not in together
    assert len({one.predictions[0].prompt_sha256 for one in scores}) == 3
    assert len({tuple(p.id for p in one.predictions) for one in scores}) == 1
    alone = list(series.run(engine, sets, seeds=(1, 2), modes=("letter", "cloze"), options=options))
    assert [(one.mode, one.seed) for one in alone] == [("letter", 1), ("cloze", 1)], "nothing is drawn by the second"
    assert over_seeds([one.as_dict() for one in alone]) == []
