"""What attention within documents gives on a small model, as JSON: `document_probe.py RECIPE SHARDS ROWS FOLDER`.

ROWS are those of the embedding. One process; the model is that of NeMo's own LlamaModel, with random weights.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any


def main() -> None:
    recipe_path, shards, rows, folder = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    from toolkit.train import seams

    seams.install_nemo()
    import fiddle
    import torch
    from megatron.core import parallel_state
    from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed
    from packed import pack  # beside this file

    from toolkit import train
    from toolkit.recipe import load
    from toolkit.stages.pretrain import shards_of
    from toolkit.train import documents, order
    from toolkit.train.nemo_recipe import pretrain_recipe

    recipe = load(recipe_path)
    os.environ.update(RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
    parallel_state.initialize_model_parallel(1, 1)
    # Attention of some weight: a fresh model hardly looks at other tokens.
    model_parallel_cuda_manual_seed(1)

    def job(reset: bool) -> train.PretrainJob:
        return train.PretrainJob(
            folder=folder,
            model=recipe.model,
            parallel=dataclasses.replace(recipe.parallel, tp=1, pp=1),
            train=dataclasses.replace(recipe.train, steps=4, micro_batch=4, global_batch=4),
            data=dataclasses.replace(recipe.data, reset_attention=reset),
            cluster=dataclasses.replace(recipe.cluster, devices_per_node=1),
            vocab_rows=rows,
            tokenizer=shards / "tokenizer",
            **shards_of(shards, {}),
        )

    def prepared(reset: bool, weights: dict[str, Any] | None) -> Any:
        """The recipe's own module, its data step and forward step, and its training data."""
        torch.manual_seed(1)
        made = pretrain_recipe(job(reset), order.plan(job(reset)))
        module, data = fiddle.build(made.model), fiddle.build(made.data)
        module.configure_model()
        module.eval()
        if weights is not None:
            module.module.load_state_dict(weights, strict=False)
        data.trainer = SimpleNamespace(max_steps=4, val_check_interval=4, limit_val_batches=1, limit_test_batches=1)
        data.setup()
        loader = torch.utils.data.DataLoader(data._train_ds, batch_size=4)
        return module, loader

    ways = {}
    for name, reset, layers in (("pack", True, "te"), ("mask", True, "local"), ("across", False, "te")):
        gpu = dataclasses.replace(recipe.cluster, device="gpu", devices_per_node=1)
        asked = dataclasses.replace(job(reset), cluster=gpu)
        asked = dataclasses.replace(asked, train=dataclasses.replace(asked.train, layers=layers))
        made = pretrain_recipe(asked)
        ways[name] = [
            made.model.config.data_step_fn.__name__,
            made.data.packed,
            made.data.masked,
            made.data.reset_position_ids,
            made.model.config.masked_softmax_fusion,
        ]

    crossing, loader_crossing = prepared(False, None)
    weights = {
        name: value * (4.0 if "linear_qkv" in name else 1.0)
        for name, value in crossing.module.state_dict().items()
        if torch.is_tensor(value)
    }
    crossing.module.load_state_dict(weights, strict=False)
    masked, loader = prepared(True, weights)
    pack()
    packed, _ = prepared(True, weights)

    batch = next(iter(loader))
    tokens, positions = batch["tokens"], batch["position_ids"]
    starts = documents.document_starts(positions).tolist()

    with torch.no_grad():
        alone = torch.cat(
            [
                crossing.module(row[None], torch.arange(len(row))[None], None)[0]
                for row in (tokens.reshape(-1)[a:b] for a, b in itertools.pairwise(starts))
            ]
        )

        def logits(module: Any, source: Any) -> Any:
            step = module.data_step(iter([(source, 0, 0)]))
            return module.forward_step({**step, "labels": None}).reshape(-1, rows), step

        by_mask, step = logits(masked, batch)
        by_pack, packed_step = logits(packed, batch)
        across, step_across = logits(crossing, next(iter(loader_crossing)))

    # The pairs that Megatron's mask allows, and those within the documents that `document_starts` found.
    number = torch.zeros(tokens.numel(), dtype=torch.long)
    number[starts[:-1]] = 1
    number = number.cumsum(0).reshape(tokens.shape)
    same = (number[:, :, None] == number[:, None, :]).tril()
    first = torch.arange(tokens.shape[1]) == 0
    print(
        "PROBE "
        + json.dumps(
            {
                "ways": ways,
                "documents": len(starts) - 1,
                "rows": tokens.shape[0],
                "longest": packed_step["longest"],
                "packed_shape": list(packed_step["tokens"].shape),
                "same_pairs": bool(torch.equal(~batch["attention_mask"][:, 0], same)),
                "pairs": int(same.sum()),
                "positions_restart": bool((positions.reshape(-1)[starts[:-1]] == 0).all()),
                "row_starts": bool((positions[:, first] == 0).all()),
                "has_mask": [step.get("attention_mask") is not None, step_across.get("attention_mask") is not None],
                "mask_is_alone": float((by_mask - alone).abs().max()),
                "pack_is_alone": float((by_pack - alone).abs().max()),
                "across_is_alone": float((across - alone).abs().max()),
                "scale": float(alone.abs().max()),
                "eod_counts": float(batch["loss_mask"].min()),
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main()
