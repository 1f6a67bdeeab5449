"""What NeMo's objects hold for a recipe, as JSON: `nemo_values.py RECIPE.yaml FOLDER`."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> None:
    from toolkit.train import seams

    seams.install_nemo()
    from toolkit import train
    from toolkit.plan import layout
    from toolkit.recipe import load
    from toolkit.train.nemo_recipe import pretrain_recipe

    recipe, folder = load(Path(sys.argv[1])), Path(sys.argv[2])
    job = train.PretrainJob(
        folder=folder,
        model=recipe.model,
        parallel=recipe.parallel,
        train=recipe.train,
        data=recipe.data,
        cluster=recipe.cluster,
        vocab_rows=layout(recipe).vocab_padded,
        tokenizer=folder,
        train_shards=(Path("train"),),
        valid_shards=(Path("valid"),),
    )
    made = pretrain_recipe(job)
    config, optim, schedule = made.model.config, made.optim.config, made.optim.lr_scheduler
    trainer, strategy, data = made.trainer, made.trainer.strategy, made.data
    values = {
        "config": config.__fn_or_cls__.__name__,
        "layers": config.num_layers,
        "hidden": config.hidden_size,
        "ffn": config.ffn_hidden_size,
        "heads": config.num_attention_heads,
        "groups": config.num_query_groups,
        "vocab": config.vocab_size,
        "rope": config.rotary_base,
        "eps_norm": config.layernorm_epsilon,
        "seq": config.seq_length,
        "recompute": getattr(config, "recompute_granularity", None),
        "lr": optim.lr,
        "wd": optim.weight_decay,
        "b1": optim.adam_beta1,
        "b2": optim.adam_beta2,
        "eps": optim.adam_eps,
        "clip": optim.clip_grad,
        "bf16": optim.bf16,
        "dist": optim.use_distributed_optimizer,
        "horizon": schedule.horizon_steps,
        "warmup": schedule.warmup_steps,
        "min_lr": schedule.min_lr,
        "tp": strategy.tensor_model_parallel_size,
        "pp": strategy.pipeline_model_parallel_size,
        "sp": strategy.sequence_parallel,
        "reshardable": strategy.ckpt_optim_fully_reshardable,
        "fp32_grads": strategy.ddp.grad_reduce_in_fp32,
        "steps": trainer.max_steps,
        "nodes": trainer.num_nodes,
        "devices": trainer.devices,
        "accelerator": trainer.accelerator,
        "micro": data.micro_batch_size,
        "global": data.global_batch_size,
        "seed": data.seed,
        "callbacks": [c.__fn_or_cls__.__name__ for c in trainer.callbacks],
    }
    print(json.dumps(values))


if __name__ == "__main__":
    main()
