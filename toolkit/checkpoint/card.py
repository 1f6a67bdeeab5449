"""The README.md of an exported model. Decides its words; leaves every number to the caller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolkit.checkpoint.shape import LlamaShape

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

`conversion.json` lists the SHA-256 of every file here.

## Not for clinical use

This model is for research. Its answers can be wrong, outdated, biased or harmful, and nobody has shown that it is
safe. Do not use it for diagnosis, treatment or advice to patients, nor in any deployed medical product, without
thorough testing for that very use, controlled trials included, and the judgement of qualified clinicians.
"""


def render(facts: Mapping[str, Any], shape: LlamaShape) -> str:
    """`facts` is the body of conversion.json."""
    step = facts["source"]["step"]
    return _CARD.format(
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
    )
