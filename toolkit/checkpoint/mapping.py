"""Which Hugging Face tensors are which Megatron tensor: one table, one row per kind, read by both directions.

Decides names, shapes and how tensors are fused; leaves reading, writing, stacking by layer and padding to the callers.

Megatron keys are those of a homogeneous decoder (megatron-core 0.15): one key per kind, stacked over layers along a new
first axis. Rotary halves stay in Hugging Face's order (`rotary_interleaved=False` is megatron-core's default).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from toolkit.checkpoint.shape import LlamaShape

Dims = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Span:
    """`rows` rows that begin at row `hf` of a Hugging Face tensor and at row `megatron` of the fused one."""

    hf: int
    megatron: int
    rows: int


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


def spans(row: Row, shape: LlamaShape) -> tuple[tuple[Span, ...], ...]:
    """For each tensor in `row.hf`: where its rows are in the rows of Megatron's one tensor of a layer."""
    dims = row.dims(shape)
    if row.fuse != "qkv":
        starts = [sum(d[0] for d in dims[:n]) for n in range(len(dims))]
        return tuple((Span(hf=0, megatron=at, rows=d[0]),) for at, d in zip(starts, dims, strict=True))
    q, hd = shape.queries_per_group * shape.head_dim, shape.head_dim
    return tuple(
        tuple(Span(hf=n * rows, megatron=n * (q + 2 * hd) + at, rows=rows) for n in range(shape.kv_heads))
        for at, rows in ((0, q), (q, hd), (q + hd, hd))
    )
