"""An attention core for packed documents on a CPU: what Transformer Engine's does on a GPU, document by document."""

from __future__ import annotations

import itertools
from typing import Any


def pack() -> None:
    """Let trainings with `data.reset_attention` pack here as they do with Transformer Engine. Call it behind the
    seams.
    """
    import torch

    from toolkit.train import documents, layers

    class PackedAttention(layers.FlashAttention):
        def forward(self, query: Any, key: Any, value: Any, attention_mask: Any, **given: Any) -> Any:
            """query, key, value [tokens, heads or groups, d]."""
            packed = given["packed_seq_params"]
            assert packed.qkv_format == "thd" and attention_mask is None
            starts = packed.cu_seqlens_q.tolist()
            assert packed.max_seqlen_q == max(b - a for a, b in itertools.pairwise(starts))
            assert starts[-1] == len(query)
            attend = super().forward
            cut = [[tensor[a:b, None] for tensor in (query, key, value)] for a, b in itertools.pairwise(starts)]
            return torch.cat([attend(*part, None) for part in cut])

    unfused = layers.unfused

    def spec(config: Any, vp_stage: int | None = None) -> Any:
        made = unfused(config)
        made.submodules.self_attention.submodules.core_attention = PackedAttention
        return made

    layers.unfused = spec
    documents.way = lambda job: "pack"
