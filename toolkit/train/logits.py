"""`python -m toolkit.train.logits CHECKPOINT CONFIG TOKENS OUT`: what Megatron itself makes of tokens, in one process.

Decides how megatron-core's own GPTModel is built from a Hugging Face config and filled from a checkpoint of any layout;
leaves to others what the logits are compared with. CPU or GPU; float32, Megatron's own layers.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit import cli
from toolkit.errors import CheckpointError


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m toolkit.train.logits", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="the folder with .metadata")
    parser.add_argument("config", type=Path, help="config.json of the Hugging Face model, in its older spelling")
    parser.add_argument("tokens", type=Path, help="JSON: rows of token ids, all of one length")
    parser.add_argument("out", type=Path, help="a .npy file: rows x tokens x vocabulary, float32")
    parser.add_argument("--rows", type=int, required=True, help="rows of the checkpoint's embedding, padding included")
    args = parser.parse_args(argv)
    _write(args.checkpoint, json.loads(args.config.read_text(encoding="utf-8")), args.tokens, args.out, args.rows)
    return 0


def _write(checkpoint: Path, config: Mapping[str, Any], tokens: Path, out: Path, rows: int) -> None:
    from toolkit.train import seams

    seams.install()
    import numpy as np
    import torch
    from megatron.core import dist_checkpointing, parallel_state
    from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed

    os.environ.update(RANK="0", WORLD_SIZE="1")
    with tempfile.TemporaryDirectory() as folder:
        torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
        parallel_state.initialize_model_parallel(1, 1)
        model_parallel_cuda_manual_seed(1)
        model = llama(config, rows).eval()
        prefix = _prefix(dist_checkpointing.load_tensors_metadata(str(checkpoint)))
        state = model.sharded_state_dict(prefix=prefix)
        loaded = dist_checkpointing.load(state, str(checkpoint))
        model.load_state_dict({k.removeprefix(prefix): v for k, v in loaded.items()}, strict=False)
        unfilled = [name for name, p in model.named_parameters() if bool(torch.isnan(p).any())]
        if unfilled:
            raise CheckpointError(f"does not fill {unfilled[0]}, or fills it with NaN", where=checkpoint)
        ids = torch.tensor(json.loads(tokens.read_text(encoding="utf-8")))
        positions = torch.arange(ids.shape[1]).expand_as(ids)
        mask = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).triu(1)[None, None]
        with torch.no_grad():
            logits = model(ids, positions, mask)
        np.save(out, logits[..., : config["vocab_size"]].float().cpu().numpy())
        torch.distributed.destroy_process_group()


def _prefix(keys: Mapping[str, Any]) -> str:
    """NeMo wraps the model in a module, bare megatron-core does not."""
    tail = "embedding.word_embeddings.weight"
    return next(key.removesuffix(tail) for key in keys if key.endswith(tail) and "optimizer." not in key)


def llama(config: Mapping[str, Any], rows: int, *, tp: int = 1, pp: int = 1) -> Any:
    """This rank's part of megatron-core's GPTModel for a Llama's config.json, in float32, all NaN. `rows` are
    the embedding's, padding included. Raises `CheckpointError` for rotary positions scaled as Megatron cannot.
    """
    import torch
    from megatron.core import parallel_state
    from megatron.core.models.gpt import GPTModel
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
    from megatron.core.transformer.transformer_config import TransformerConfig

    heads, scaling = config["num_attention_heads"], dict(config.get("rope_scaling") or {})
    rope = scaling.pop("rope_type", "default")
    if rope not in ("default", "linear", "llama3"):
        raise CheckpointError(f"Megatron has no rotary positions of type {rope!r}", where="config.json")
    settings = TransformerConfig(
        num_layers=config["num_hidden_layers"],
        hidden_size=config["hidden_size"],
        ffn_hidden_size=config["intermediate_size"],
        num_attention_heads=heads,
        num_query_groups=config.get("num_key_value_heads") or heads,
        kv_channels=config.get("head_dim"),
        normalization="RMSNorm",
        layernorm_epsilon=config["rms_norm_eps"],
        gated_linear_unit=True,
        activation_func=torch.nn.functional.silu,
        add_bias_linear=False,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        params_dtype=torch.float32,
        pipeline_dtype=torch.float32,
        tensor_model_parallel_size=tp,
        pipeline_model_parallel_size=pp,
        use_cpu_initialization=True,
        perform_initialization=False,
        gradient_accumulation_fusion=False,
        masked_softmax_fusion=False,
        bias_dropout_fusion=False,
        bias_activation_fusion=False,
        apply_rope_fusion=False,
        persist_layer_norm=False,
    )
    model = GPTModel(
        settings,
        get_gpt_layer_local_spec(normalization="RMSNorm"),
        vocab_size=rows,
        max_sequence_length=config.get("max_position_embeddings", 2048),
        pre_process=parallel_state.is_pipeline_first_stage(),
        post_process=parallel_state.is_pipeline_last_stage(),
        position_embedding_type="rope",
        rotary_base=config.get("rope_theta") or 10_000.0,
        seq_len_interpolation_factor=scaling["factor"] if rope == "linear" else None,
        share_embeddings_and_output_weights=bool(config.get("tie_word_embeddings", False)),
    )
    if rope == "llama3":  # the constructor takes the factor alone; NeMo sets the rest in this way too
        rotary = model.rotary_pos_emb
        rotary.inv_freq = rotary._apply_scaling(rotary.inv_freq, **scaling)
    with torch.no_grad():  # what the load leaves alone cannot look right
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
    return model


if __name__ == "__main__":
    sys.exit(cli.run(main))
