"""The shape of a Llama model as its Hugging Face `config.json` states it, checked once and for all.

Decides what a valid shape is; leaves to `mapping` what tensors follow from it and to the config what else is in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from toolkit.errors import CheckpointError
from toolkit.hf_folder import CONFIG, config_file, read_json_object

_LIMIT = {
    "num_hidden_layers": 10_000
}  # a config that asks for more is damaged, and would make an endless list of names
_LIMIT_ELSE = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class LlamaShape:
    """Sizes in elements. `rope_scaling` is kept as the config has it; `dtype` is the config's own word or ''."""

    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    max_positions: int
    rope_theta: float
    rope_scaling: Mapping[str, Any] | None
    rms_norm_eps: float
    tied: bool
    dtype: str

    @property
    def scaling(self) -> dict[str, Any] | None:
        """How rotary positions are stretched, in one spelling (`rope_type` first); None: not at all."""
        told = dict(self.rope_scaling or {})
        kind = told.pop("rope_type", None) or told.pop("type", None) or "default"
        told.pop("type", None)
        told.pop("rope_theta", None)
        return None if kind == "default" else {"rope_type": kind, **dict(sorted(told.items()))}

    @property
    def queries_per_group(self) -> int:
        return self.heads // self.kv_heads


def read_shape(path: Path) -> LlamaShape:
    """The shape in a `config.json` (or a folder with one). Raises `CheckpointError` that names the key at fault."""
    file = config_file(path)
    return shape_of(read_json_object(file), where=file)


def shape_of(config: Mapping[str, Any], *, where: object = CONFIG) -> LlamaShape:
    """The shape in a config that has been read already; `where` is what errors name."""

    def bad(what: str, why: str = "") -> CheckpointError:
        return CheckpointError(what, where=where, why=why, do="use the config.json that belongs to this model")

    def size(key: str, default: int | None = None) -> int:
        value = config.get(key, default)
        if value is None:
            value = default
        if value is None:
            raise bad(f"'{key}' is missing")
        limit = _LIMIT.get(key, _LIMIT_ELSE)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= limit:
            raise bad(f"'{key}' is {value!r}, not a whole number from 1 to {limit}")
        return value

    def number(key: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise bad(f"'{key}' is {value!r}, not a number above 0")
        return float(value)

    if (kind := config.get("model_type")) != "llama":
        raise bad(f"'model_type' is {kind!r}", "only 'llama' models are converted")
    for key, plain in (("attention_bias", False), ("mlp_bias", False), ("hidden_act", "silu")):
        if config.get(key, plain) not in (plain, None):
            raise bad(f"'{key}' is {config[key]!r}", f"only {plain!r} is converted")
    if config.get("quantization_config"):
        raise bad("'quantization_config' is set", "quantised weights cannot be converted")
    hidden, heads = size("hidden_size"), size("num_attention_heads")
    kv_heads = size("num_key_value_heads", heads)
    if heads % kv_heads:
        raise bad(f"'num_attention_heads' {heads} is not a multiple of 'num_key_value_heads' {kv_heads}")
    if config.get("head_dim") is None and hidden % heads:
        raise bad(f"'hidden_size' {hidden} is not a multiple of 'num_attention_heads' {heads}")
    rope = config.get("rope_parameters") or {}  # transformers 5 keeps theta and scaling in this one object
    scaling = config.get("rope_scaling")
    if not isinstance(rope, Mapping) or not isinstance(scaling, Mapping | None):
        raise bad("'rope_scaling' or 'rope_parameters' is not an object")
    if scaling is None and rope.get("rope_type", "default") != "default":
        scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
    tied = config.get("tie_word_embeddings", False)
    if not isinstance(tied, bool):
        raise bad(f"'tie_word_embeddings' is {tied!r}, not true or false")
    return LlamaShape(
        layers=size("num_hidden_layers"),
        hidden=hidden,
        ffn=size("intermediate_size"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=size("head_dim", max(hidden // heads, 1)),
        vocab_size=size("vocab_size"),
        max_positions=size("max_position_embeddings", 2048),
        rope_theta=number("rope_theta", config.get("rope_theta", rope.get("rope_theta", 10_000.0))),
        rope_scaling=None if scaling is None else MappingProxyType(dict(scaling)),
        rms_norm_eps=number("rms_norm_eps", config.get("rms_norm_eps", 1e-6)),
        tied=tied,
        dtype=str(config.get("dtype") or config.get("torch_dtype") or ""),
    )
