"""The README.md of an exported model. Decides its words; leaves every number to the caller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit import files
from toolkit.checkpoint.output import EXPORT_RECORD
from toolkit.checkpoint.shape import LlamaShape, read_shape
from toolkit.errors import CheckpointError
from toolkit.hf_folder import read_json_object

CARD = "README.md"

_CARD = """\
---
library_name: transformers
pipeline_tag: text-generation
tags: [medical, llama, meditron]
---
# {title}

A Llama model after continued pretraining or finetuning on medical text, converted from a Megatron distributed
checkpoint.

| | |
| --- | --- |
| parameters | {parameters:,} |
| layers / hidden / FFN | {layers} / {hidden} / {ffn} |
| heads / KV heads / head size | {heads} / {kv_heads} / {head_dim} |
| vocabulary | {vocab_size:,} tokens ({padding:,} padding rows were cut) |
| context | {max_positions:,} tokens |
| type | {dtype} |
| checkpoint | {source}{step} |
| checkpoint metadata SHA-256 | `{metadata_sha256}` |
{origin}
`conversion.json` lists the SHA-256 of every file here.

## Not for clinical use

This model is for research. Its answers can be wrong, outdated, biased or harmful, and nobody has shown that it is
safe. Do not use it for diagnosis, treatment or advice to patients, nor in any deployed medical product, without
thorough testing for that very use, controlled trials included, and the judgement of qualified clinicians.
"""


_SCORES = """
## Scores

| benchmark | how | accuracy | 95 % interval | items |
| --- | --- | --- | --- | --- |
{rows}
"""


def render(facts: Mapping[str, Any], shape: LlamaShape) -> str:
    """`facts` is the body of conversion.json."""
    step = facts["source"]["step"]
    text = _CARD.format(
        title=facts["source"]["name"],
        parameters=facts["parameters"],
        layers=shape.layers,
        hidden=shape.hidden,
        ffn=shape.ffn,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        vocab_size=facts["vocab_size"],
        padding=facts["padded_vocab_size"] - facts["vocab_size"],
        max_positions=shape.max_positions,
        dtype=facts["dtype"],
        source=facts["source"]["name"],
        step="" if step is None else f" (step {step})",
        metadata_sha256=facts["source"]["metadata_sha256"],
        origin="".join(f"| {_cell(key)} | {_cell(value)} |\n" for key, value in (facts.get("origin") or {}).items()),
    )
    return text + (_SCORES.format(rows="\n".join(map(_score, facts["scores"]))) if facts.get("scores") else "")


def _score(row: Mapping[str, Any]) -> str:
    low, high = row["ci95"]
    told = [row["benchmark"], row["mode"], f"{100 * row['accuracy']:.1f} %", f"{100 * low:.1f} to {100 * high:.1f}"]
    return f"| {' | '.join(map(_cell, [*told, row['n']]))} |"


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def add_scores(folder: Path, scores: Sequence[Mapping[str, Any]]) -> None:
    """Put scores into the card of an exported folder, and into its conversion.json.

    scores: as scores.json has them. Raises `CheckpointError` for a folder that was not exported, or scores of another
    form.
    """
    record = Path(folder) / EXPORT_RECORD
    facts = read_json_object(record) if record.is_file() else {}
    if not {"source", "parameters", "files"} <= set(facts):
        raise CheckpointError(f"no {EXPORT_RECORD} of an export", where=folder, do="give a folder that export made")
    # A row of several seeds together has no interval; the seeds' own rows are there too.
    facts["scores"] = [dict(row) for row in scores if "seeds" not in row]
    try:
        text = render(facts, read_shape(Path(folder)))
    except (KeyError, TypeError, ValueError) as err:
        raise CheckpointError(
            "the scores have another form", where=folder, why=f"{type(err).__name__}: {err}"
        ) from None
    files.write_text(Path(folder) / CARD, text)
    sha256 = files.sha256_file(Path(folder) / CARD)
    facts["files"][CARD] = {"bytes": (Path(folder) / CARD).stat().st_size, "sha256": sha256}
    files.write_json(record, facts)
