"""Logits of a Megatron checkpoint by Megatron itself: `megatron_logits.py RECIPE CHECKPOINT TOKENIZER TOKENS OUT`."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path


def main() -> None:
    recipe_path, checkpoint, tokenizer, tokens_path, out = (Path(a) for a in sys.argv[1:])
    from toolkit.train import seams

    seams.install_nemo()
    import fiddle
    import numpy as np
    import torch
    from megatron.core import dist_checkpointing, parallel_state
    from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed

    from toolkit import train
    from toolkit.recipe import load
    from toolkit.stages import training
    from toolkit.train.nemo_recipe import pretrain_recipe

    recipe = load(recipe_path)
    os.environ.update(RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    torch.distributed.init_process_group("gloo", init_method=f"file://{out}.store", rank=0, world_size=1)
    parallel_state.initialize_model_parallel(1, 1)
    model_parallel_cuda_manual_seed(1)
    job = train.PretrainJob(
        folder=out.parent,
        model=recipe.model,
        parallel=dataclasses.replace(recipe.parallel, tp=1, pp=1),
        train=recipe.train,
        data=recipe.data,
        cluster=dataclasses.replace(recipe.cluster, devices_per_node=1),
        vocab_rows=training.vocab_rows(checkpoint),
        tokenizer=tokenizer,
        train_shards=(),
        valid_shards=(),
    )
    config = fiddle.build(pretrain_recipe(job).model.config)
    model = config.configure_model(tokenizer=None, pre_process=True, post_process=True).eval()
    state = model.sharded_state_dict(prefix="module.")
    loaded = dist_checkpointing.load(state, str(checkpoint / "weights"))
    model.load_state_dict({k.removeprefix("module."): v for k, v in loaded.items()}, strict=False)
    tokens = torch.tensor(json.loads(tokens_path.read_text()))
    positions = torch.arange(tokens.shape[1]).expand_as(tokens)
    with torch.no_grad():
        logits = model(tokens, positions, attention_mask=None)
    np.save(out, logits.float().numpy())


if __name__ == "__main__":
    main()
