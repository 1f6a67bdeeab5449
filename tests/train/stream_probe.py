"""What stands at the positions of the stream, by NeMo's data module on real shards: `stream_probe.py SHARDS FOLDER`.

Writes FOLDER/probe.json. No training; one process, which plays every rank's part.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

STEPS, BATCH, LENGTH = 80, 32, 128  # two epochs of the small corpus, nearly


def main() -> None:
    shards, folder = Path(sys.argv[1]), Path(sys.argv[2])
    from toolkit.train import seams

    seams.install_nemo()
    import torch
    from megatron.core.datasets.indexed_dataset import IndexedDataset
    from nemo.lightning.data import MegatronPretrainingSampler

    from toolkit.errors import CheckpointError
    from toolkit.train import order, stream
    from toolkit.train.order import Order, Skip
    from toolkit.train.tokenizer import NemoTokenizer

    os.environ.update(RANK="0", WORLD_SIZE="1")
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
    begun = Order(seed=1234, seq_length=LENGTH, global_batch=BATCH, samples=STEPS * BATCH)

    def data(plan: Order, *, steps: int = STEPS, train: tuple[str, ...] = ("train",), index: str = "index") -> Any:
        made = stream.OrderedData(
            plan=plan,
            steps=steps,
            paths={
                "train": [str(shards / name) for name in train],
                "validation": [str(shards / "valid")],
                "test": [str(shards / "valid")],
            },
            split=None,
            seed=plan.seed,
            seq_length=plan.seq_length,
            micro_batch_size=4,
            global_batch_size=plan.global_batch,
            num_workers=0,
            index_mapping_dir=str(folder / index),
            tokenizer=NemoTokenizer(str(shards / "tokenizer")),
        )
        made.trainer = SimpleNamespace(
            max_steps=steps, val_check_interval=40, limit_val_batches=2, limit_test_batches=1, global_step=0
        )
        made.setup()
        return made

    def text(made: Any, index: int) -> str:
        return hashlib.sha256(made._train_ds[index]["tokens"].numpy().tobytes()).hexdigest()[:12]

    def texts(made: Any, first: int, last: int, *, dp: int = 1, done: int | None = None) -> list[list[str]]:
        """Of each step from `first` to `last`: the samples that all ranks read, by position."""
        found = []
        ranks = [
            iter(
                stream.StepBatches(
                    plan=made.plan, done=first - 1, steps=last, micro_batch=4, rank=r, dp=dp, length=len(made._train_ds)
                )
            )
            for r in range(dp)
        ]
        for _ in range(first, last + 1):
            read = []
            for _ in range(BATCH // (4 * dp)):
                read += [text(made, index) for rank in ranks for index in next(rank)]
            found.append(read)
        return found

    whole = data(begun)
    size = len(whole._train_ds)
    everything = texts(whole, 1, STEPS)
    flat = [t for step in everything for t in step]

    # NeMo's own sampler, from some way into the stream.
    samplers = {}
    for dp, micro in ((1, 4), (2, 4), (4, 2), (2, 16)):
        for rank in range(dp):
            theirs = MegatronPretrainingSampler(
                total_samples=size,
                consumed_samples=5 * BATCH,
                micro_batch_size=micro,
                global_batch_size=BATCH,
                data_parallel_rank=rank,
                data_parallel_size=dp,
            )
            place = {"rank": rank, "dp": dp, "micro_batch": micro, "global_batch": BATCH}
            ours = [batch for step in range(6, 26) for batch in order.positions(step, **place)]
            samplers[f"dp={dp} micro={micro} rank={rank}"] = ours == list(theirs)[: len(ours)]

    longer = data(begun, steps=2 * STEPS)  # the same plan in a training of twice the steps
    replanned = data(dataclasses.replace(begun, samples=2 * STEPS * BATCH), steps=2 * STEPS)
    other_seed = data(dataclasses.replace(begun, seed=4321))
    again = data(begun, index="again")
    try:
        data(dataclasses.replace(begun, stream="of another version"))
        refused = ""
    except CheckpointError as err:
        refused = str(err)
    begins: list[object] = []
    for loaded in (None, 10 * BATCH, 10 * BATCH // 2):
        sampler = stream.StepSampler(plan=begun, steps=STEPS, micro_batch=4)
        sampler.init_global_step, sampler.loaded = 10, loaded
        try:
            begins.append(sampler._begin())
        except CheckpointError as err:
            begins.append(str(err))
    skipped = data(dataclasses.replace(begun, skips=(Skip(step=3, batches=2), Skip(step=70, batches=20))))

    # An index that a killed rank 0 left cut short.
    cut = data(begun, index="cut")
    broken = next((folder / "cut").glob("*-GPTDataset-train-shuffle_index.npy"))
    length = broken.stat().st_size
    before = texts(cut, 1, 5)
    os.truncate(broken, length // 2)
    mended = data(begun, index="cut")

    # Documents of a batch, checked by their tokens.
    trainer = SimpleNamespace(datamodule=skipped, global_step=3)
    said = order.describe_batch(trainer, 3)
    source = IndexedDataset(str(shards / "train"))
    missing = 0
    known = {name: source[int(name.partition(":")[2])].tolist() for name in said["documents"]}
    eod = skipped.tokenizer.eod
    for at in range(said["samples"][0], said["samples"][1] + 1):
        pieces, piece = [], []
        for token in skipped._train_ds[at]["tokens"].tolist():
            piece.append(token)
            if token == eod:
                pieces.append(piece)
                piece = []
        pieces += [piece] if piece else []
        missing += sum(not any(_inside(p, document) for document in known.values()) for p in pieces)

    two = data(begun, train=("train", "valid"))
    described = order.describe_batch(SimpleNamespace(datamodule=two), 1)
    wrapped = stream.StepBatches(
        plan=two.plan, done=0, steps=STEPS, micro_batch=4, rank=0, dp=1, length=len(two._train_ds)
    )

    (folder / "probe.json").write_text(
        json.dumps(
            {
                "size": size,
                "flat": flat,
                "samplers": samplers,
                "resumed": [texts(whole, 41, STEPS, dp=dp) == everything[40:] for dp in (1, 2, 4, 8)],
                "again": texts(again, 1, STEPS) == everything,
                "streams": [made.plan.stream for made in (whole, again, other_seed)],
                "refused": refused,
                "begins": begins,
                "other_seed": [t for step in texts(other_seed, 1, STEPS) for t in step],
                "longer": texts(longer, 1, STEPS) == everything,
                "replanned": texts(replanned, 1, STEPS) == everything,
                "skipped": texts(skipped, 1, STEPS),
                "mended": before == texts(mended, 1, 5) == everything[:5] and broken.stat().st_size == length,
                "said": said,
                "missing": missing,
                "two": {
                    "size": len(two._train_ds),
                    "names": sorted({d.partition(":")[0] for d in described["documents"]}),
                },
                "wrapped": [wrapped.of(step) for step in range(1, STEPS + 1)],
                "batches": len(wrapped),
                "finetuning": order.describe_batch(SimpleNamespace(datamodule=object()), 7),
            }
        )
    )


def _inside(piece: list[int], document: list[int]) -> bool:
    return any(document[at : at + len(piece)] == piece for at in range(len(document) - len(piece) + 1))


if __name__ == "__main__":
    main()
