"""Laws of the layout: ranks multiply to the world, micro-batches to the batch, padding is the least that will do."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import RecipeError
from toolkit.models import padded_vocab
from toolkit.plan import layout, missing_inputs, steps
from toolkit.recipe import Recipe, compose, rules

SIZES = st.sampled_from([1, 2, 4, 8])


@pytest.fixture(scope="module")
def base() -> Recipe:
    # Without the finetuning, whose batch would have to fit every layout as well.
    return compose("pretrain_70b", ["stages=[corpus,shards,import,pretrain]", "~finetune"]).recipe


@given(
    tp=SIZES, pp=SIZES, cp=SIZES, dp=st.integers(1, 6), micro=st.integers(1, 4), accumulate=st.integers(1, 5),
    vocab=st.integers(1, 300_000), extra=st.sampled_from(["meditron", "none"]),
)  # fmt: skip
@settings(deadline=None)
def test_laws(
    base: Recipe, tp: int, pp: int, cp: int, dp: int, micro: int, accumulate: int, vocab: int, extra: str
) -> None:
    recipe = dataclasses.replace(
        base,
        model=dataclasses.replace(base.model, base_vocab=vocab, extra_tokens=extra),
        parallel=dataclasses.replace(base.parallel, tp=tp, pp=pp, cp=cp, sequence=tp > 1),
        train=dataclasses.replace(base.train, micro_batch=micro, global_batch=micro * dp * accumulate),
        cluster=dataclasses.replace(base.cluster, nodes=pp * cp * dp, devices_per_node=tp),
    )
    rules.check(recipe)
    facts = layout(recipe)
    assert facts.world == facts.tp * facts.pp * facts.cp * facts.dp == recipe.cluster.nodes * tp
    assert facts.dp == dp
    assert facts.micro_batches * micro * facts.dp == recipe.train.global_batch
    assert facts.tokens_per_step == recipe.train.global_batch * recipe.train.seq_length
    assert facts.total_tokens == facts.tokens_per_step * recipe.train.steps
    assert facts.layers_per_stage * facts.pp == recipe.model.layers
    assert facts.vocab == vocab + (17 if extra == "meditron" else 0)
    assert facts.vocab_padded % (128 * tp) == 0
    assert facts.vocab <= facts.vocab_padded < facts.vocab + 128 * tp


@given(
    tp=st.integers(1, 16), pp=st.integers(1, 16), devices=st.integers(1, 64), batch=st.integers(1, 128),
    micro=st.integers(1, 8),
)  # fmt: skip
@settings(deadline=None)
def test_what_the_rules_let_pass_has_no_remainder(
    base: Recipe, tp: int, pp: int, devices: int, batch: int, micro: int
) -> None:
    recipe = dataclasses.replace(
        base,
        parallel=dataclasses.replace(base.parallel, tp=tp, pp=pp, sequence=False),
        train=dataclasses.replace(base.train, micro_batch=micro, global_batch=batch),
        cluster=dataclasses.replace(base.cluster, nodes=1, devices_per_node=devices),
    )
    fits = (
        base.model.heads % tp == base.model.kv_heads % tp == base.model.ffn % tp == 0
        and base.model.layers % pp == 0
        and devices % (tp * pp) == 0
        and batch % (micro * (devices // (tp * pp))) == 0
    )
    if fits:
        rules.check(recipe)
        facts = layout(recipe)
        assert facts.dp >= 1 and facts.micro_batches >= 1
    else:
        with pytest.raises(RecipeError):
            rules.check(recipe)


@given(vocab=st.integers(1, 10**6), tp=st.integers(1, 64))
def test_padding_is_a_multiple_and_minimal(vocab: int, tp: int) -> None:
    padded = padded_vocab(vocab, tp)
    assert padded % (128 * tp) == 0 and 0 <= padded - vocab < 128 * tp
    assert padded_vocab(padded, tp) == padded


@pytest.mark.parametrize(("tp", "padded"), [(1, 32_128), (4, 32_256), (8, 32_768)])
def test_the_papers_vocabulary_padded(tp: int, padded: int) -> None:
    """32,000 pieces and 17 added tokens, as Megatron-LLM pads them."""
    assert padded_vocab(32_017, tp) == padded


def test_steps_of_the_demo() -> None:
    planned = {step.id: step for step in steps(compose("demo").recipe)}
    assert list(planned) == [
        *("corpus", "base", "shards", "import", "pretrain"),
        *("export-pretrain", "finetune", "export-finetune", "score", "report"),
    ]
    assert planned["pretrain"].processes == planned["finetune"].processes == 4
    assert {step.processes for name, step in planned.items() if name not in ("pretrain", "finetune")} == {1}
    assert planned["pretrain"].needs == ("shards", "import")
    assert planned["finetune"].needs == ("corpus", "shards", "pretrain")
    assert planned["export-pretrain"].needs[0] == "pretrain" and planned["export-finetune"].needs[0] == "finetune"
    assert set(planned["score"].needs) == {"corpus", "base", "export-pretrain", "export-finetune"}
    assert set(planned["report"].needs) == set(planned) - {"report"}
    assert all(step.what for step in planned.values())


@pytest.mark.parametrize(
    ("name", "overrides", "parts"),
    [
        ("demo", [], {"corpus": 1, "shards": 1, "score": 3}),
        ("demo", ["data.shard_parts=12"], {"corpus": 1, "shards": 12, "score": 3}),
        ("demo", ["corpus.tasks=8"], {"corpus": 8, "shards": 1, "score": 3}),
        ("demo", ["stages=[corpus,base,score]"], {"corpus": 1, "score": 1}),
        ("demo", ["stages=[corpus,score]", "~corpus.sources.world", "model.base=null"], {"corpus": 1, "score": 1}),
        ("pretrain_70b", ["stages=[pretrain,export,score]", "model.base=null"], {"score": 1}),
        ("pretrain_70b", ["stages=[pretrain,export,score]", "model.base=/b"], {"score": 2}),
    ],
)
def test_parts(name: str, overrides: list[str], parts: dict[str, int]) -> None:
    planned = steps(compose(name, overrides).recipe)
    assert {step.id: step.parts for step in planned if step.stage in ("corpus", "shards", "score")} == parts
    assert {step.parts for step in planned if step.id not in parts} <= {1}


@pytest.mark.parametrize("value", ["0", "-2", "x", "1.5"])
def test_a_number_of_parts_that_is_none(value: str) -> None:
    with pytest.raises(RecipeError, match="data.shard_parts"):
        compose("demo", [f"data.shard_parts={value}"])


def test_a_stage_needs_only_earlier_ones() -> None:
    for name in ("demo", "pretrain_7b", "pretrain_70b"):
        seen: set[str] = set()
        for step in steps(compose(name).recipe):
            assert set(step.needs) <= seen
            seen.add(step.id)


@pytest.mark.parametrize(
    ("overrides", "missing"),
    [
        (["stages=[shards]"], {"stages", "inputs.corpus"}),
        (["stages=[shards]", "model.base=/m", "inputs.corpus=/c"], set()),
        (["stages=[pretrain]"], {"inputs.shards", "inputs.checkpoint"}),
        (["stages=[pretrain]", "inputs.shards=/s", "inputs.checkpoint=/c"], set()),
        (["corpus=jats"], {"corpus.sources.papers.path"}),
        (["stages=[corpus]", "~corpus.sources.world"], {"corpus.sources"}),
        (["~finetune.path"], {"finetune.path"}),
        (["score.benchmarks=[medqa4]"], {"score.paths.medqa4"}),
    ],
)
def test_what_is_missing(overrides: list[str], missing: set[str]) -> None:
    assert {key for key, _ in missing_inputs(compose("demo", overrides).recipe)} == missing
