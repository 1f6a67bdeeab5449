"""Stage import: the base HF model as a Megatron checkpoint, with rows for the added tokens and the layout's padding.

Refuses a base that is another model than the recipe's: what a weight's shape does not show would train on wrongly.
"""

from __future__ import annotations

import math
from pathlib import Path

from toolkit import checkpoint
from toolkit.checkpoint.shape import LlamaShape, read_shape
from toolkit.errors import CheckpointError
from toolkit.recipe.schema import Model
from toolkit.stages.context import Context, Result


def run(context: Context) -> Result:
    base, out = context.hf_base(), context.folder / "checkpoint"
    check_base(context.recipe.model, read_shape(base), base)
    made = checkpoint.import_hf(
        base,
        out,
        vocab_size=context.layout.vocab,
        padded_vocab_size=context.layout.vocab_padded,
        new_rows=context.recipe.model.new_rows,
    )
    figures = {
        "parameters": made.parameters,
        "vocabulary": made.vocab_size,
        "padded": made.padded_vocab_size,
        "bytes": made.nbytes,
    }
    return Result(outputs={"checkpoint": out}, figures=figures)


def check_base(model: Model, base: LlamaShape, where: Path) -> None:
    """Raise `CheckpointError` for the first value of the recipe's model that the base's config.json has otherwise."""
    if base.rope_scaling is not None:
        raise CheckpointError(
            "the base scales its rotary positions (rope_scaling)",
            where=where,
            why="it would be trained without, as another model (Llama 3.1 and later scale them, Llama 3 does not)",
        )
    if base.tied:
        raise CheckpointError("the base ties its output head to the embedding", where=where, why="no recipe does")
    for name, key, wanted, found in (
        ("layers", "num_hidden_layers", model.layers, base.layers),
        ("hidden", "hidden_size", model.hidden, base.hidden),
        ("ffn", "intermediate_size", model.ffn, base.ffn),
        ("heads", "num_attention_heads", model.heads, base.heads),
        ("kv_heads", "num_key_value_heads", model.kv_heads, base.kv_heads),
        ("hidden / model.heads", "head_dim", model.hidden // model.heads, base.head_dim),
        ("rope_base", "rope_theta", model.rope_base, base.rope_theta),
        ("norm_eps", "rms_norm_eps", model.norm_eps, base.rms_norm_eps),
    ):
        if not math.isclose(wanted, found, rel_tol=1e-9):
            raise CheckpointError(
                f"the base is another model than the recipe's: {key} is {found:g}, model.{name} {wanted:g}",
                where=where,
                do=f"give the base of model={model.name}, or the recipe of this base",
            )
