"""One word for what a finetuning is on."""

from __future__ import annotations

import pytest

from toolkit import mixture
from toolkit.errors import RecipeError
from toolkit.recipe import compose


def test_one_and_several() -> None:
    assert mixture.parse("medqa") == {"medqa": 1.0}
    assert list(mixture.parse("medqa*2 + medmcqa*0.5+pubmedqa").items()) == [
        ("medqa", 2.0), ("medmcqa", 0.5), ("pubmedqa", 1.0)]  # fmt: skip
    assert mixture.parse("mixedmed") == dict.fromkeys(("medqa", "medmcqa", "pubmedqa"), 1.0)


@pytest.mark.parametrize("word", ["", "+", "medqa+", "medqa*", "medqa*0", "medqa*-1", "medqa*nan", "medqa*inf", "*2"])
def test_a_word_that_names_nothing_is_refused(word: str) -> None:
    with pytest.raises(RecipeError, match="is no benchmark, nor one with a weight above 0"):
        mixture.parse(word)


def test_a_name_stands_once() -> None:
    with pytest.raises(RecipeError, match="'medqa' stands twice"):
        mixture.parse("medqa+medqa")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["finetune.benchmark=medqa+medqb"], "unknown benchmark 'medqb' in finetune.benchmark"),
        (["finetune.benchmark=mixedmed", "finetune.path=rows.jsonl"], "finetune.path is one file, and"),
        (["+finetune.paths={pubmedqa: x}"], "finetune.paths.pubmedqa: finetune.benchmark does not name it"),
        (["finetune.format=template"], "finetune.template=None does not go with finetune.format=template"),
        (["finetune.template=folder"], "does not go with finetune.format=plain"),
        (["finetune.system=Be brief."], "finetune.system needs a format with messages"),
        (["finetune.peft=lora", "finetune.lora.rank=0"], "finetune.lora.rank is 0"),
        (["finetune.lora.dropout=1"], "finetune.lora.dropout=1.0 must be at least 0 and below 1"),
        (["finetune.lora.modules=[]"], "finetune.lora.modules is empty"),
        (["finetune.lora.modules=[linear_kqv]"], "linear_qkv"),
        (["finetune.held_out=-1"], "finetune.held_out=-1 must be at least 0"),
        (["finetune.steps_multiple=0"], "finetune.steps_multiple is 0"),
        (["finetune.format=chatml"], "finetune.format"),
    ],
)
def test_a_finetuning_that_cannot_be_is_refused(given: list[str], says: str) -> None:
    with pytest.raises(RecipeError) as found:
        compose("demo", given)
    assert says in str(found.value)


def test_packing_is_refused_where_nothing_can_pack() -> None:
    for given in (["parallel.cp=2", "parallel.pp=2"], ["train.attention=unfused"]):
        with pytest.raises(RecipeError, match="finetune.pack=true does not go with"):
            compose("finetune_70b", given)


@pytest.mark.parametrize("name", ["finetune_7b", "finetune_70b"])
def test_the_paper_s_hyperparameters(name: str) -> None:
    """Section 4.2 of the paper and its released finetuning code."""
    recipe = compose(name).recipe
    asked, train = recipe.finetune, recipe.train
    assert asked is not None
    assert (asked.lr, asked.min_lr, asked.warmup_fraction) == (2e-5, 2e-6, 0.1)
    assert (asked.global_batch, asked.epochs, asked.save_every, asked.valid_every) == (64, 3, 800, 100)
    assert (train.beta1, train.beta2, train.eps, train.weight_decay, train.clip_grad) == (0.9, 0.95, 1e-5, 0.1, 1.0)
    assert (asked.format, asked.target, asked.seq_length, recipe.parallel.tp) == (
        "messages", "letter", 2048, 4 if name == "finetune_7b" else 8)  # fmt: skip
    assert recipe.parallel.pp == (1 if name == "finetune_7b" else 4)
