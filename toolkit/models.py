"""Shapes of dense Llama models and what follows from them by arithmetic. Knows no framework."""

from __future__ import annotations

from dataclasses import dataclass

EXTRA_TOKENS = {"meditron": 17, "none": 0}  # rows that model.extra_tokens adds to the base vocabulary


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Layers, widths and heads; `vocab` counts the rows of the embedding and of the (untied) output head."""

    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    vocab: int

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    @property
    def layer_parameters(self) -> int:
        """Q, K, V, O; gate, up, down; two RMSNorms."""
        attention = 2 * self.hidden * self.hidden + 2 * self.hidden * self.kv_heads * self.head_dim
        return attention + 3 * self.hidden * self.ffn + 2 * self.hidden

    @property
    def parameters(self) -> int:
        """Llama-2-70B at its 32,000 rows: 68,976,648,192."""
        return self.layers * self.layer_parameters + 2 * self.vocab * self.hidden + self.hidden


def padded_vocab(vocab: int, tp: int, multiple: int = 128) -> int:
    """Rows after Megatron's padding to a multiple of 128 x tp: 32,017 at tp=8 becomes 32,768."""
    unit = multiple * tp
    return -(-vocab // unit) * unit
