"""`attention_cores.py OUT.json`: the greatest differences of the attention by PyTorch's kernels to Megatron's own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    from toolkit.train import seams

    seams.install_nemo()
    import torch
    import torch.distributed as dist
    from megatron.core import parallel_state
    from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed
    from megatron.core.transformer.dot_product_attention import DotProductAttention
    from megatron.core.transformer.enums import AttnMaskType
    from megatron.core.transformer.transformer_config import TransformerConfig
    from torch.testing._internal.distributed.fake_pg import FakeStore

    from toolkit.train import layers

    dist.init_process_group("fake", rank=0, world_size=1, store=FakeStore())
    parallel_state.initialize_model_parallel(create_gloo_process_groups=False)
    model_parallel_cuda_manual_seed(1)
    config = TransformerConfig(
        num_layers=1, hidden_size=64, num_attention_heads=8, num_query_groups=2, attention_dropout=0.0,
        masked_softmax_fusion=False,
    )  # fmt: skip
    given = {"layer_number": 1, "attn_mask_type": AttnMaskType.causal, "attention_type": "self"}
    generator = torch.Generator().manual_seed(1)
    heads = (8, 2, 2)
    inputs = [torch.randn(24, 3, number, 8, generator=generator) for number in heads]
    later = torch.ones(24, 24).triu(1).bool()
    document = torch.arange(24) // 9  # three documents, the last cut short
    borders = document[:, None] != document[None, :]
    mask = (later | borders)[None, None].expand(3, 1, 24, 24)

    def run(core: Any, attention_mask: Any) -> list[Any]:
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        out = core(*leaves, attention_mask)
        out.square().sum().backward()
        return [out, *(leaf.grad for leaf in leaves)]

    def apart(one: list[Any], other: list[Any]) -> float:
        assert [a.shape for a in one] == [b.shape for b in other]
        return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))

    own = DotProductAttention(config, **given)
    across, within = run(own, None), run(own, mask)
    found = {
        "across": apart(across, run(layers.FlashAttention(config, **given), None)),
        "across, a mask unread": apart(across, run(layers.FlashAttention(config, **given), mask)),
        "within": apart(within, run(layers.DocumentAttention(config, **given), mask)),
        "without a mask": apart(across, run(layers.DocumentAttention(config, **given), None)),
        "across to within": apart(across, within),
    }
    Path(sys.argv[1]).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
