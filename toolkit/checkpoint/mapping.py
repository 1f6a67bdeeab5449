"""Which Hugging Face tensors are which Megatron tensor: one table, one row per kind, read by both directions.

Decides names, shapes and how tensors are fused; leaves reading, writing, stacking by layer and padding to the callers.

Megatron keys are those of a homogeneous decoder (megatron-core 0.15): one key per kind, stacked over layers along a new
first axis. Rotary halves stay in Hugging Face's order (`rotary_interleaved=False` is megatron-core's default).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from toolkit.checkpoint.shape import LlamaShape

if TYPE_CHECKING:
    from torch import Tensor

Dims = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One kind of tensor. `dims` gives the shape of each tensor in `hf`; a `{layer}` in the name is its layer.

    `fuse`: "copy" (one tensor, as it is), "rows" (one below the other), "qkv" (per KV group: its queries, its key,
    its value). `vocab`: rows are tokens, so Megatron may hold more of them (padding). `head`: absent when embeddings
    are tied.
    """

    megatron: str
    hf: tuple[str, ...]
    dims: Callable[[LlamaShape], tuple[Dims, ...]]
    fuse: Literal["copy", "rows", "qkv"] = "copy"
    vocab: bool = False
    head: bool = False

    @property
    def per_layer(self) -> bool:
        return "{layer}" in self.hf[0]

    def names(self, layer: int | None) -> tuple[str, ...]:
        return tuple(name.format(layer=layer) for name in self.hf)

    def fused_dims(self, shape: LlamaShape) -> Dims:
        """Shape of one layer's Megatron tensor."""
        dims = self.dims(shape)
        return (sum(d[0] for d in dims), *dims[0][1:])


def _q_rows(s: LlamaShape) -> int:
    return s.heads * s.head_dim


def _kv_rows(s: LlamaShape) -> int:
    return s.kv_heads * s.head_dim


_L = "model.layers.{layer}."
TABLE: tuple[Row, ...] = (
    Row(
        megatron="embedding.word_embeddings.weight",
        hf=("model.embed_tokens.weight",),
        dims=lambda s: ((s.vocab_size, s.hidden),),
        vocab=True,
    ),
    Row(
        megatron="decoder.layers.self_attention.linear_qkv.layer_norm_weight",
        hf=(_L + "input_layernorm.weight",),
        dims=lambda s: ((s.hidden,),),
    ),
    Row(
        megatron="decoder.layers.self_attention.linear_qkv.weight",
        hf=(_L + "self_attn.q_proj.weight", _L + "self_attn.k_proj.weight", _L + "self_attn.v_proj.weight"),
        dims=lambda s: ((_q_rows(s), s.hidden), (_kv_rows(s), s.hidden), (_kv_rows(s), s.hidden)),
        fuse="qkv",
    ),
    Row(
        megatron="decoder.layers.self_attention.linear_proj.weight",
        hf=(_L + "self_attn.o_proj.weight",),
        dims=lambda s: ((s.hidden, _q_rows(s)),),
    ),
    Row(
        megatron="decoder.layers.mlp.linear_fc1.layer_norm_weight",
        hf=(_L + "post_attention_layernorm.weight",),
        dims=lambda s: ((s.hidden,),),
    ),
    Row(
        megatron="decoder.layers.mlp.linear_fc1.weight",
        hf=(_L + "mlp.gate_proj.weight", _L + "mlp.up_proj.weight"),
        dims=lambda s: ((s.ffn, s.hidden), (s.ffn, s.hidden)),
        fuse="rows",
    ),
    Row(
        megatron="decoder.layers.mlp.linear_fc2.weight",
        hf=(_L + "mlp.down_proj.weight",),
        dims=lambda s: ((s.hidden, s.ffn),),
    ),
    Row(
        megatron="decoder.final_layernorm.weight",
        hf=("model.norm.weight",),
        dims=lambda s: ((s.hidden,),),
    ),
    Row(
        megatron="output_layer.weight",
        hf=("lm_head.weight",),
        dims=lambda s: ((s.vocab_size, s.hidden),),
        vocab=True,
        head=True,
    ),
)

LAYERS = "decoder.layers."
# Byte objects that a model asks for on load besides its tensors. Without FP8 they hold nothing, but a strict load wants
# them there; which ones depends on the layer spec (local or Transformer Engine), and one too many does no harm.
EXTRA_STATE_PER_LAYER = tuple(
    f"{LAYERS}{module}._extra_state"
    for module in (
        "self_attention.linear_qkv",
        "self_attention.core_attention",
        "self_attention.linear_proj",
        "mlp.linear_fc1",
        "mlp.linear_fc2",
    )
)
EXTRA_STATE_ONCE = ("decoder.final_layernorm._extra_state",)


def walk(shape: LlamaShape) -> Iterator[tuple[Row, int | None]]:
    """Every (row, layer) of a model in the order in which a Hugging Face file lists them; layer is None outside
    layers.
    """
    stacked = [row for row in TABLE if row.per_layer]
    for row in TABLE:
        if row.head and shape.tied:
            continue
        if not row.per_layer:
            yield row, None
        elif row is stacked[0]:
            for layer in range(shape.layers):
                yield from ((each, layer) for each in stacked)


def hf_tensors(shape: LlamaShape) -> dict[str, Dims]:
    """Name -> shape of every tensor of the Hugging Face model, in walking order."""
    return {
        name: dims for row, layer in walk(shape) for name, dims in zip(row.names(layer), row.dims(shape), strict=True)
    }


def fuse(row: Row, parts: Sequence[Tensor], shape: LlamaShape) -> Tensor:
    """Hugging Face tensors of one layer -> Megatron's one tensor of `row.fused_dims(shape)`."""
    if row.fuse == "copy":
        return parts[0]
    width = parts[0].shape[1]
    fused = parts[0].new_empty((sum(part.shape[0] for part in parts), width))
    for target, part in zip(_views(row, fused, shape), parts, strict=True):
        target.copy_(part.view(target.shape))
    return fused


def split(row: Row, fused: Tensor, shape: LlamaShape) -> list[Tensor]:
    """The other way round: Megatron's tensor of one layer -> the Hugging Face tensors."""
    if row.fuse == "copy":
        return [fused]
    width = fused.shape[1]
    return [view.reshape(-1, width) for view in _views(row, fused, shape)]


def _views(row: Row, fused: Tensor, shape: LlamaShape) -> list[Tensor]:
    """Where in the fused tensor each part lives."""
    if row.fuse == "rows":
        return list(fused.split([dims[0] for dims in row.dims(shape)]))
    q, hd = shape.queries_per_group * shape.head_dim, shape.head_dim
    return list(fused.view(shape.kv_heads, q + 2 * hd, fused.shape[1]).split([q, hd, hd], dim=1))
