"""What `python -m toolkit.train composition` says; that it is what a training reads is `test_order`'s to show."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit import cli
from toolkit.recipe import compose
from toolkit.train import PretrainJob, ShardFacts
from toolkit.train.__main__ import main, table, values
from toolkit.train.composition import Batch


def test_the_table_adds_up() -> None:
    recipe = compose("demo", ["train.global_batch=32"]).recipe
    tokens = {"pmc": 3000, "guidelines": 1000, "short": 0}
    facts = {Path(f"{name}-0"): ShardFacts(subset=name, tokens=count, sha256="") for name, count in tokens.items()}
    job = PretrainJob(
        folder=Path(), model=recipe.model, parallel=recipe.parallel, train=recipe.train, data=recipe.data,
        cluster=recipe.cluster, vocab_rows=1, tokenizer=Path(), train_shards=tuple(facts), valid_shards=(),
        shard_facts=facts,
    )  # fmt: skip
    told = values(recipe, job, [Batch(step=n, rows={"pmc": 24 - n % 2, "guidelines": 8 + n % 2}) for n in range(1, 31)])
    assert told["sources"]["pmc"] == {
        "rows": 705, "tokens": 705 * 128, "share": 705 / 960, "share_of_shards": 0.75,
    }  # fmt: skip
    assert told["sources"]["short"]["rows"] == 0 and told["batches"][0] == {
        "step": 1, "rows": {"pmc": 23, "guidelines": 9},
    }  # fmt: skip
    lines = table(told)
    assert lines[0] == "32 rows of 128 tokens a step, seed 1234"
    assert lines[2].split() == ["step", "guidelines", "pmc", "short"]
    assert lines[3].split() == ["1", "9", "23", "0"] and "and 10 more" in lines[23]
    assert [line.split() for line in lines[24:]] == [
        ["all", "255", "705", "0"],
        ["tokens", "32,640", "90,240", "0"],
        ["share", "26.56%", "73.44%", "0.00%"],
        ["shards", "25.00%", "75.00%", "0.00%"],
    ]


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["recipe=demo"], "inputs.shards is not stated"),
        (["inputs.shards=x"], "give one recipe=NAME or run=RUN"),
        (["recipe=demo", "inputs.shards=x", "--batches", "0"], "--batches 0"),
        (["recipe=demo", "inputs.shards=nowhere"], "holds no shards"),
        (["run=last", "train.lr=1"], "run= stands alone"),
        (["recipe=dem", "inputs.shards=x"], "did you mean 'demo'"),
    ],
)
def test_what_cannot_be_told(words: list[str], fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(main, ["composition", *words]) in (1, 2)
    said = capsys.readouterr()
    assert fault.lower() in said.err.lower() and "Traceback" not in said.err and said.out == ""
