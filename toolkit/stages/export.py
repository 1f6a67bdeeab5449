"""Stage export: the checkpoint of the training before it as an HF model, with the tokenizer it was trained with."""

from __future__ import annotations

import contextlib
from pathlib import Path

from toolkit import checkpoint, files, tokenizer
from toolkit.stages import training
from toolkit.stages.context import Context, Result


def run(context: Context) -> Result:
    source = training.weights(context, *(need for need in context.step.needs if need in ("pretrain", "finetune")))
    # A finetuning may have added tokens, and a chat template.
    words = context.made("finetune", "tokenizer") if "finetune" in context.step.needs else context.tokenizer()
    out = context.folder / "hf"
    made = checkpoint.export_hf(
        source,
        out,
        config=context.hf_base(),
        tokenizer=words,
        vocab_size=tokenizer.load(words).vocab_size,
        origin=_origin(context),
    )
    figures = {"parameters": made.parameters, "dtype": made.dtype, "step": made.step, "bytes": made.nbytes}
    return Result(outputs={"hf": out}, figures=figures)


def _origin(context: Context) -> dict[str, str]:
    """What the card tells of where the model comes from."""
    found = {"recipe": context.recipe.name, "run": context.run.path.name, "base": Path(context.hf_base()).name}
    with contextlib.suppress(OSError, ValueError, AttributeError):
        commit = files.read_json(context.run.path / "manifest.json")["git"].get("commit")
        found |= {"toolkit commit": commit} if commit else {}
    found["training data, fingerprint"] = files.stat_fingerprint(context.shards())
    return found
