"""Layers without Transformer Engine: norms, and attention by Megatron's own code or by PyTorch's kernels.

Decides which modules a layer is made of; sizes, fusions and where it runs are the configuration's. With Transformer
Engine NeMo's own choice of layers stands, and nothing here is used.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from megatron.core.transformer import transformer_block
from nemo.collections.llm.gpt.model.base import local_layer_spec

OF_OTHERS = ("apply_rope_fusion", "masked_softmax_fusion", "persist_layer_norm", "gradient_accumulation_fusion")
"""Fusions whose kernels come with Transformer Engine or Apex."""


class RMSNorm(torch.nn.RMSNorm):
    """A norm that allows sequence parallelism.

    megatron/core/transformer/torch_norm.py:32 refuses it; all that it needs from a norm is the mark on its weight, by
    which `finalize_model_grads` sums that gradient over the tensor-parallel ranks.
    """

    def __init__(self, config: Any, hidden_size: int, eps: float = 1e-5, **_: Any) -> None:
        super().__init__(hidden_size, eps=eps)
        self.weight.sequence_parallel = config.sequence_parallel


class FlashAttention(torch.nn.Module):
    """The attention core by `scaled_dot_product_attention`: causal, in PyTorch's flash kernel where there is one.

    Takes the place of Megatron's `DotProductAttention`, which writes out all scores. It reads no mask: a sequence is
    one document. `DocumentAttention` is for sequences of several.
    """

    reads_mask = False

    def __init__(self, config: Any, layer_number: int, attn_mask_type: Any, attention_type: str, **given: Any) -> None:
        super().__init__()
        self.config, self.dropout = config, config.attention_dropout
        self.scale = given.get("softmax_scale") or 1.0 / math.sqrt(config.kv_channels)

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **_: Any
    ) -> torch.Tensor:
        """query [s, b, heads, d], key and value [s, b, groups, d] of this rank; returns [s, b, heads x d]."""
        s, b, heads, d = query.shape
        q, k, v = (tensor.permute(1, 2, 0, 3) for tensor in (query, key, value))
        if k.shape[1] != heads:  # repeated by hand: `enable_gqa` is not there in every kernel
            k, v = (tensor.repeat_interleave(heads // tensor.shape[1], dim=1) for tensor in (k, v))
        mask = None if not self.reads_mask or attention_mask is None else attention_mask.logical_not()
        out = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=self.scale,
            dropout_p=self.dropout if self.training else 0.0,
        )  # fmt: skip
        return out.permute(2, 0, 1, 3).reshape(s, b, heads * d)


class DocumentAttention(FlashAttention):
    """The same, within the documents that the batch's mask tells apart: [b, 1, s, s], true where none may look."""

    reads_mask = True


class ParameterCount(FlashAttention):
    """Stands for Transformer Engine's attention where a model is built and never run; like it, it has no weights."""

    def forward(self, *_: Any, **__: Any) -> torch.Tensor:
        raise RuntimeError("this model was built to be counted")


def unfused(config: Any, vp_stage: int | None = None) -> Any:
    """Megatron's own layers, with `RMSNorm`."""
    spec = local_layer_spec(config)
    spec.submodules.input_layernorm = spec.submodules.pre_mlp_layernorm = RMSNorm
    transformer_block.LayerNormImpl = RMSNorm  # the block's final norm
    return spec


def flash(config: Any, vp_stage: int | None = None) -> Any:
    return _with_core(config, FlashAttention)


def flash_within_documents(config: Any, vp_stage: int | None = None) -> Any:
    return _with_core(config, DocumentAttention)


def counted(config: Any, vp_stage: int | None = None) -> Any:
    return _with_core(config, ParameterCount)


def _with_core(config: Any, core: type[torch.nn.Module]) -> Any:
    spec = unfused(config)
    spec.submodules.self_attention.submodules.core_attention = core
    return spec
