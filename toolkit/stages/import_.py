"""Stage import: the base HF model as a Megatron checkpoint, with rows for the added tokens and the layout's padding."""

from __future__ import annotations

from toolkit import checkpoint
from toolkit.stages.context import Context, Result


def run(context: Context) -> Result:
    out = context.folder / "checkpoint"
    made = checkpoint.import_hf(
        context.hf_base(),
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
