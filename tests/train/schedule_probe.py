"""The learning rate at each step, by the objects that train: `schedule_probe.py RECIPE.yaml FOLDER OUT.json STEP...`.

OUT: {step: the rate after `step` updates, with which the next one is made}. The scheduler is the one that NeMo's recipe
for RECIPE holds, built and called as NeMo builds and calls it, over an optimizer of PyTorch.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace


def main() -> None:
    from toolkit.train import seams

    seams.install_nemo()
    import fiddle
    import torch

    from toolkit import train
    from toolkit.plan import layout
    from toolkit.recipe import load
    from toolkit.train.nemo_recipe import pretrain_recipe

    recipe, folder, out, wanted = load(Path(sys.argv[1])), Path(sys.argv[2]), sys.argv[3], set(map(int, sys.argv[4:]))
    made = pretrain_recipe(
        train.PretrainJob(
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
    )
    module = fiddle.build(made.optim.lr_scheduler)
    module.max_steps = made.trainer.max_steps  # MegatronStrategy.setup
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([weight], lr=made.optim.config.lr)
    scheduler = module(SimpleNamespace(), optimizer)["lr_scheduler"]["scheduler"]
    rates = {}
    for step in range(max(wanted) + 1):
        if step in wanted:
            rates[step] = optimizer.param_groups[0]["lr"]
        weight.grad = torch.zeros(1)
        optimizer.step()
        scheduler.step()
    Path(out).write_text(json.dumps(rates), encoding="utf-8")


if __name__ == "__main__":
    main()
