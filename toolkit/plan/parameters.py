"""How many parameters each rank of a pipeline stage holds, exactly: what tensor ranks share out, and what each of them
has whole. Counts alone; bytes are `memory`'s, and that NeMo builds just these is `proof`'s.
"""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.models import Shape
from toolkit.plan.layout import layout, shape
from toolkit.plan.setup import Setup
from toolkit.recipe.schema import Recipe


@dataclass(frozen=True, kw_only=True)
class StageParameters:
    """Of one rank of pipeline stage `pp_rank`, padding rows of the vocabulary included. `sharded` are this tensor
    rank's own, `repeated` (norms, and biases after a sum over tensor ranks) are on all of them alike.
    """

    pp_rank: int
    layers: int
    embedding: bool
    head: bool
    sharded: int
    repeated: int

    @property
    def total(self) -> int:
        return self.sharded + self.repeated


def of_stage(
    shape: Shape, pp_rank: int, *, rows: int, tp: int, pp: int, layers: int, gated: bool = True, tied: bool = False
) -> StageParameters:
    """Of a stage with so many `layers`; `rows` are those of the padded vocabulary.

    Llama's layers (`gated`) have no biases and RMSNorms, GPT's have biases and LayerNorms. A tied head is a copy of the
    embedding on the last stage, and none where one stage has both.
    """
    hidden, kv = shape.hidden, shape.kv_heads * shape.head_dim
    first, last = pp_rank == 0, pp_rank == pp - 1
    matrices = 2 * hidden * hidden + 2 * hidden * kv + (3 if gated else 2) * hidden * shape.ffn
    repeated, final = 2 * hidden, hidden
    if not gated:
        matrices += hidden + 2 * kv + shape.ffn
        repeated, final = 6 * hidden, 2 * hidden
    tables = first + last - (tied and first and last)
    return StageParameters(
        pp_rank=pp_rank,
        layers=layers,
        embedding=first,
        head=last,
        sharded=layers * matrices // tp + tables * rows * hidden // tp,
        repeated=layers * repeated + last * final,
    )


def of_setup(setup: Setup, pp_rank: int) -> StageParameters:
    return of_stage(
        setup.shape,
        pp_rank,
        rows=setup.vocab_padded,
        tp=setup.tp,
        pp=setup.pp,
        layers=setup.stage_layers[pp_rank],
        gated=setup.gated,
        tied=setup.tied,
    )


def per_stage(setup: Setup) -> list[StageParameters]:
    return [of_setup(setup, rank) for rank in range(setup.pp)]


def of_recipe(recipe: Recipe) -> list[StageParameters]:
    """Of every stage, on whatever device."""
    facts, par = layout(recipe), recipe.parallel
    each = {"rows": facts.vocab_padded, "tp": par.tp, "pp": par.pp, "layers": facts.layers_per_stage}
    return [of_stage(shape(recipe), rank, **each) for rank in range(par.pp)]


def total(setup: Setup) -> int:
    """Of the whole model, padding rows included; a tied head on a stage of its own is counted once."""
    held = sum(stage.sharded * setup.tp + stage.repeated for stage in per_stage(setup))
    copies = setup.vocab_padded * setup.shape.hidden if setup.tied and setup.pp > 1 else 0
    return held - copies
