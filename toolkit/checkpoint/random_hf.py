"""A small random HF Llama folder: the base that the demo and the tests train on.

Decides the initial values (those of a fresh pretraining); leaves the shape to the caller and the tokenizer to its
folder.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from toolkit import files
from toolkit.checkpoint import hf, mapping, output, tensorfile
from toolkit.checkpoint.shape import LlamaShape, shape_of
from toolkit.hf_folder import CONFIG

_RESIDUAL = ("o_proj.weight", "down_proj.weight")


def make_random_hf(
    out: Path,
    *,
    layers: int,
    hidden: int,
    ffn: int,
    heads: int,
    kv_heads: int,
    vocab_size: int,
    max_positions: int,
    tokenizer: Path | None,
    seed: int,
    init_std: float = 0.02,
    rope_theta: float = 10_000.0,
    rms_norm_eps: float = 1e-5,
    tied: bool = False,
    bos_token_id: int | None = 1,
    eos_token_id: int | None = 2,
) -> LlamaShape:
    """Write config.json, float32 safetensors and the files of the tokenizer folder; the same seed gives the same bytes.

    Values are normal with `init_std`, those that write into the residual stream (o_proj, down_proj) with
    init_std / sqrt(2 * layers), norms are one. Raises `CheckpointError` for an impossible shape, `DiskFull`.
    """
    import torch

    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab_size,
        "max_position_embeddings": max_positions,
        "rope_theta": rope_theta,
        "rope_scaling": None,
        "rms_norm_eps": rms_norm_eps,
        "tie_word_embeddings": tied,
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": init_std,
        "use_cache": True,
        "torch_dtype": "float32",
        "bos_token_id": bos_token_id,
        "eos_token_id": eos_token_id,
    }
    shape = shape_of(config, where="the random model")
    specs = [tensorfile.Spec(name=name, dtype="float32", dims=dims) for name, dims in mapping.hf_tensors(shape).items()]
    generator = torch.Generator().manual_seed(seed)
    sources = (Path(tokenizer),) if tokenizer is not None else ()
    with output.new_folder(out, sources=sources, nbytes=sum(spec.nbytes for spec in specs)) as part:
        files.write_json(part / CONFIG, config)
        hf.write_generation_config(config, part)
        if tokenizer is not None:
            hf.copy_tokenizer(Path(tokenizer), part)
        with hf.ShardedWriter(part, specs, 5 * 10**9) as writer:
            for spec in specs:
                if len(spec.dims) == 1:
                    tensor = torch.ones(spec.dims)
                else:
                    std = init_std / math.sqrt(2 * layers) if spec.name.endswith(_RESIDUAL) else init_std
                    tensor = torch.empty(spec.dims).normal_(0.0, std, generator=generator)
                writer.write(spec.name, tensor)
        record = {
            "seed": seed,
            "init_std": init_std,
            "config": json.loads(json.dumps(config)),
            "files": output.hashes(part),
        }
        files.write_json(part / output.RANDOM_RECORD, record)
    return shape
