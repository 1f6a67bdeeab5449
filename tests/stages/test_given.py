"""Shards from outside that a training could not take are refused before anything is submitted or written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.stages.conftest import WORDS
from toolkit import cli, launch, shards, tokenizer

pytest.importorskip("sentencepiece")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of two subsets, in the demo's form but for a vocabulary of 317."""
    root = tmp_path_factory.mktemp("given")
    texts = [f"Note {n}: {' '.join(WORDS[(n * 7 + k) % len(WORDS)] for k in range(40))} {n * 31}." for n in range(200)]
    words = tokenizer.extend(tokenizer.train(texts, root / "base", vocab_size=300).folder, root / "words").folder
    for side in ("train", "valid"):
        (root / "corpus" / side).mkdir(parents=True)
        for n, subset in enumerate(("notes", "sheets")):
            rows = "".join(json.dumps({"text": text}) + "\n" for text in texts[n::2])
            (root / "corpus" / side / f"{subset}-00000.jsonl").write_text(rows)
    shards.build_parts(shards.corpus(root / "corpus"), root / "shards", tokenizer=words)
    return root


@pytest.fixture
def go(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.chdir(tmp_path)

    def launched(*more: str, stages: str = "pretrain") -> int:
        words = ["recipe=demo", f"runs={tmp_path / 'runs'}", f"stages=[{stages}]", "model.base_vocab=300"]
        words += [f"inputs.shards={tmp_path / 'shards'}", "inputs.checkpoint=/nowhere", f"model.base={made / 'base'}"]
        return cli.run(launch.main, [*words, *more])

    return launched


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def flip_unseen(path: Path) -> None:
    stamp = path.stat()
    flip(path)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


CASES: dict[str, tuple[Callable[[Path], object], list[str], str]] = {
    "changed": (lambda s: flip(s / "train/notes-00000.bin"), [], "notes-00000.bin: was changed since it was made"),
    "changed unseen": (
        lambda s: flip_unseen(s / "train/notes-00000.bin"), ["data.check_shards=all"], "was changed since"
    ),
    "truncated": (lambda s: os.truncate(s / "train/sheets-00000.bin", 10), [], "found 10"),
    "a file missing": (lambda s: (s / "valid/notes-00000.idx").unlink(), [], "no such file"),
    "no shards": (lambda s: (s / "blend.json").unlink(), [], "holds no shards"),
    "another vocabulary": (lambda s: None, ["model.base_vocab=4096"], "a vocabulary of 317, and the model has 4,113"),
    "another tokenizer": (lambda s: flip(s / "tokenizer/tokenizer.model"), [], "is not the tokenizer"),
    "another base": (lambda s: flip(s.parent / "base/tokenizer.model"), [], "another tokenizer than the model's"),
    "no such subset": (lambda s: None, ["data.weights={note: 1, sheets: 1}"], "did you mean 'notes'"),
    "a subset without weight": (lambda s: None, ["data.weights={notes: 1}"], "says nothing of sheets"),
    "weights that are none": (lambda s: None, ["data.weights={notes: -1, sheets: 1}"], "must be at least 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_trained_on_is_refused_at_launch(
    go: Callable[..., int], made: Path, tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    for name in ("shards", "base"):
        shutil.copytree(made / name, tmp_path / name)
    do, more, fault = CASES[case]
    do(tmp_path / "shards")
    assert go(f"model.base={tmp_path / 'base'}", *more) == 2
    out, err = capsys.readouterr()
    assert err.startswith("error: ") and fault.lower() in err.lower() and err.count("\n") == 1, err
    assert "Traceback" not in err and out == "" and not (tmp_path / "runs").exists()


def test_the_same_in_a_job_that_somebody_submitted(
    go: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "1", "SLURM_NTASKS_PER_NODE": "4"}.items():
        monkeypatch.setenv(name, value)
    assert go("--in-job", "pretrain", "--only") == 2
    assert "inputs.shards: " in capsys.readouterr().err and not (tmp_path / "runs").exists()


def test_good_shards_pass_this_check(
    go: Callable[..., int], made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run is made, and fails at the checkpoint, which is not there."""
    (tmp_path / "shards").symlink_to(made / "shards")
    assert go("data.weights={notes: 1, sheets: 3}", "data.check_shards=all") != 0
    assert "inputs.shards" not in capsys.readouterr().err and list((tmp_path / "runs").iterdir())
