"""Stage export: the checkpoint of the training before it as an HF model, with the tokenizer it was trained with."""

from __future__ import annotations

from toolkit import checkpoint
from toolkit.stages import training
from toolkit.stages.context import Context, Result


def run(context: Context) -> Result:
    source = training.weights(context, *(need for need in context.step.needs if need in ("pretrain", "finetune")))
    out = context.folder / "hf"
    made = checkpoint.export_hf(
        source, out, config=context.hf_base(), tokenizer=context.tokenizer(), vocab_size=context.layout.vocab
    )
    figures = {"parameters": made.parameters, "dtype": made.dtype, "step": made.step, "bytes": made.nbytes}
    return Result(outputs={"hf": out}, figures=figures)
