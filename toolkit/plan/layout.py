"""Ranks, batches and sizes that follow from a recipe's model, parallel sizes and cluster."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.models import EXTRA_TOKENS, Shape, padded_vocab
from toolkit.recipe.schema import Recipe


@dataclass(frozen=True, kw_only=True)
class Layout:
    """`world` = tp x pp x cp x dp ranks; batches in sequences; `vocab` is true, `vocab_padded` what Megatron holds.

    Of a recipe without a training, which needs to fit no site, `world` is the site's, and `dp` at least 1.
    """

    world: int
    nodes: int
    tp: int
    pp: int
    cp: int
    dp: int
    micro_batches: int
    tokens_per_step: int
    total_tokens: int
    vocab: int
    vocab_padded: int
    parameters: int
    layers_per_stage: int


def shape(recipe: Recipe) -> Shape:
    """The model with its added tokens, without padding."""
    m = recipe.model
    vocab = m.base_vocab + EXTRA_TOKENS[m.extra_tokens]
    return Shape(layers=m.layers, hidden=m.hidden, ffn=m.ffn, heads=m.heads, kv_heads=m.kv_heads, vocab=vocab)


def layout(recipe: Recipe) -> Layout:
    par, train, cluster, model = recipe.parallel, recipe.train, recipe.cluster, shape(recipe)
    world = cluster.nodes * cluster.devices_per_node
    dp = max(1, world // (par.tp * par.pp * par.cp))
    tokens = train.global_batch * train.seq_length
    return Layout(
        world=world,
        nodes=cluster.nodes,
        tp=par.tp,
        pp=par.pp,
        cp=par.cp,
        dp=dp,
        micro_batches=train.global_batch // (train.micro_batch * dp),
        tokens_per_step=tokens,
        total_tokens=tokens * train.steps,
        vocab=model.vocab,
        vocab_padded=padded_vocab(model.vocab, par.tp),
        parameters=model.parameters,
        layers_per_stage=model.layers // par.pp,
    )
