"""`saved_activations.py OUT.json`: bytes that PyTorch keeps of one of Megatron's own layers for its backward pass, by
case, for each token and hidden dimension; what views share is counted once, weights are not.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

LLAMA = {"hidden_size": 512, "ffn_hidden_size": 1792, "num_attention_heads": 8, "num_query_groups": 1}
GPT = {"hidden_size": 512, "ffn_hidden_size": 2048, "num_attention_heads": 8}
TOKENS, BATCH = 128, 8


def main() -> None:
    from toolkit.train import seams

    seams.install_nemo()
    import torch
    import torch.distributed as dist
    from megatron.core import parallel_state
    from megatron.core.models.common.embeddings.rotary_pos_embedding import RotaryEmbedding
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
    from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed
    from megatron.core.transformer.spec_utils import build_module
    from megatron.core.transformer.transformer_config import TransformerConfig
    from torch.testing._internal.distributed.fake_pg import FakeStore

    from toolkit.train import layers

    dist.init_process_group("fake", rank=0, world_size=1, store=FakeStore())
    parallel_state.initialize_model_parallel(create_gloo_process_groups=False)
    model_parallel_cuda_manual_seed(1)

    def saved(sizes: dict[str, Any], *, flash: bool, **values: Any) -> float:
        config = TransformerConfig(
            num_layers=1, bf16=True, params_dtype=torch.bfloat16, pipeline_dtype=torch.bfloat16,
            bias_dropout_fusion=False, masked_softmax_fusion=False, **sizes, **values,
        )  # fmt: skip
        spec = get_gpt_layer_local_spec(normalization=config.normalization)
        if flash:
            spec.submodules.self_attention.submodules.core_attention = layers.FlashAttention
        layer = build_module(spec, config=config, layer_number=1).bfloat16()
        turns = RotaryEmbedding(kv_channels=64, rotary_percent=1.0, use_cpu_initialization=True)(TOKENS)
        mask = torch.ones(TOKENS, TOKENS).triu(1).bool()[None, None]
        inputs = torch.randn(TOKENS, BATCH, config.hidden_size, dtype=torch.bfloat16, requires_grad=True)
        known = {tensor.untyped_storage().data_ptr() for tensor in (*layer.parameters(), turns, mask)}
        kept: dict[int, int] = {}
        alive = []

        def note(tensor: Any) -> Any:
            storage = tensor.untyped_storage()
            # The angles' cosines and sines are those of one sequence for the whole batch.
            if storage.data_ptr() not in known and tensor.shape != (TOKENS, 1, 1, 64):
                kept[storage.data_ptr()] = storage.nbytes()
                alive.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            layer(inputs.clone(), attention_mask=None if flash else mask, rotary_pos_emb=turns if flash else None)
        return sum(kept.values()) / inputs.numel()

    llama = {
        **{"normalization": "RMSNorm", "gated_linear_unit": True, "activation_func": torch.nn.functional.silu},
        **{"add_bias_linear": False, "hidden_dropout": 0.0, "attention_dropout": 0.0},
    }
    found = {
        "llama": saved(LLAMA, flash=True, bias_activation_fusion=True, **llama),
        "llama, gates unfused": saved(LLAMA, flash=True, bias_activation_fusion=False, **llama),
        "gpt": saved(GPT, flash=False, bias_activation_fusion=True),
    }
    Path(sys.argv[1]).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
