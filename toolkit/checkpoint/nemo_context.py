"""Which Hugging Face model a checkpoint is, told from what NeMo has written beside its weights (`context/model.yaml`).

Decides what of NeMo's config says the shape, and refuses what is no Llama; reads the YAML as data alone: the classes
that it names are never looked up.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit.errors import CheckpointError

FILE = Path("context", "model.yaml")
HF_CONFIG = "hf_config.json"  # what an import keeps of its model
_MOST_BYTES = 1 << 20
# What every Llama has, in NeMo's words; a config that lacks one is of another version, and cannot be judged.
_LLAMA: Mapping[str, Any] = {
    "normalization": "RMSNorm",
    "gated_linear_unit": True,
    "add_bias_linear": False,
    "add_qkv_bias": False,
    "position_embedding_type": "rope",
    "rotary_percent": 1.0,
    "qk_layernorm": False,
    "num_moe_experts": None,
}
_SIZES = {
    "num_hidden_layers": "num_layers",
    "hidden_size": "hidden_size",
    "intermediate_size": "ffn_hidden_size",
    "num_attention_heads": "num_attention_heads",
    "num_key_value_heads": "num_query_groups",
    "max_position_embeddings": "seq_length",
    "rope_theta": "rotary_base",
    "rms_norm_eps": "layernorm_epsilon",
    "tie_word_embeddings": "share_embeddings_and_output_weights",
}
# Llama 3.1 and later stretch their rotary positions; NeMo keeps that in fields of their configs.
_SCALING = {
    "factor": "scale_factor",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "original_max_position_embeddings": "old_context_len",
}


def owner(checkpoint: Path) -> Path:
    """The folder that says what a checkpoint is: around its weights, where these are given."""
    checkpoint = Path(checkpoint)
    return checkpoint.parent if checkpoint.name == "weights" else checkpoint


def config(checkpoint: Path) -> dict[str, Any] | None:
    """The config.json that follows from a checkpoint's NeMo context; None where it has none. `vocab_size` is there only
    where NeMo was told one.

    Raises `CheckpointError` for a file that cannot be read, and for a model that is no Llama.
    """
    file = Path(checkpoint) / FILE
    if not file.is_file():
        return None
    found = _read(file)
    for key, value in _LLAMA.items():
        if key not in found or found[key] != value:
            told = f"{key} is {found[key]!r}, not {value!r}" if key in found else f"{key} is not stated"
            raise CheckpointError("NeMo's context is not that of a Llama", where=file, why=told, do=_DO)
    activation = found.get("activation_func")
    if not isinstance(activation, Mapping) or not str(activation.get("_target_")).endswith(".silu"):
        raise CheckpointError(
            "NeMo's context is not that of a Llama", where=file, why="its activation is not silu", do=_DO
        )
    made: dict[str, Any] = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu"}
    made |= {"attention_bias": False, "mlp_bias": False}
    for ours, theirs in _SIZES.items():
        if found.get(theirs) is None:
            raise CheckpointError("NeMo's context does not say the shape", where=file, why=f"no {theirs}", do=_DO)
        made[ours] = found[theirs]
    if found.get("kv_channels") is not None:
        made["head_dim"] = found["kv_channels"]
    if found.get("scale_factor") is not None:
        made["rope_scaling"] = {"rope_type": "llama3", **{ours: found.get(theirs) for ours, theirs in _SCALING.items()}}
    if found.get("vocab_size") is not None:
        made["vocab_size"] = found["vocab_size"]
    return made


_DO = "give the config.json of the model that was trained: --hf-config FILE"


def _read(file: Path) -> Mapping[str, Any]:
    import yaml

    try:
        if file.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it has {file.stat().st_size:,} bytes")
        whole = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as err:
        why = (str(err).splitlines() or [""])[0]
        raise CheckpointError("NeMo's context cannot be read", where=file, why=why, do=_DO) from None
    found = whole.get("config") if isinstance(whole, dict) else None
    if not isinstance(found, dict):
        raise CheckpointError("NeMo's context cannot be read", where=file, why="it has no config", do=_DO)
    return found
