"""What stands at the positions of the stream, by NeMo's data module on real shards: `stream_probe.py SHARDS FOLDER
SEVERAL`.

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
    shards, folder, several = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    from toolkit.train import seams

    seams.install_nemo()
    import numpy as np
    import torch
    from megatron.core.datasets.indexed_dataset import IndexedDataset
    from nemo.lightning.data import MegatronPretrainingSampler

    from toolkit.errors import CheckpointError
    from toolkit.shards import given, read
    from toolkit.stages.pretrain import shards_of
    from toolkit.train import blending, order, stream
    from toolkit.train.blending import Asked
    from toolkit.train.order import Order, Skip
    from toolkit.train.tokenizer import NemoTokenizer

    os.environ.update(RANK="0", WORLD_SIZE="1")
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
    begun = Order(seed=1234, seq_length=LENGTH, global_batch=BATCH, samples=STEPS * BATCH)

    own, others = given(shards), given(several)

    def data(plan: Order, *, steps: int = STEPS, several: Asked | None = None, index: str = "index") -> Any:
        made = stream.OrderedData(
            plan=plan,
            steps=steps,
            paths={
                "train": list(several.paths) if several else [str(own.train[0])],
                "validation": [str(own.valid[0])],
                "test": [str(own.valid[0])],
            },
            num_train_samples=several.samples if several else None,
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
    source = IndexedDataset(str(own.train[0]))
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

    two = data(begun, several=Asked(paths=tuple(str(prefix) for prefix in others.train if "papers" in prefix.name)))
    described = order.describe_batch(SimpleNamespace(datamodule=two), 1)
    wrapped = stream.StepBatches(
        plan=two.plan, done=0, steps=STEPS, micro_batch=4, rank=0, dp=1, length=len(two._train_ds)
    )

    # Of several shards, one epoch and more, by the paths that a training's recipe is given.
    job = SimpleNamespace(**shards_of(several, {}), train=SimpleNamespace(seq_length=LENGTH, global_batch=BATCH))
    tokens = [job.shard_facts[prefix].tokens for prefix in job.train_shards]
    rows = [(count - 1) // LENGTH for count in tokens]
    epoch, epochs = (
        data(dataclasses.replace(begun, samples=samples), several=blending.training(job, samples))._train_ds
        for samples in (sum(rows) // 2 // BATCH * BATCH, 5 * sum(rows) // 2 // BATCH * BATCH)
    )
    for dataset in epoch.datasets:  # every shard, by Megatron and by the toolkit
        stored, count = dataset.dataset, len(dataset.dataset)
        assert [stored[n].tolist() for n in range(count)] == [read(dataset.dataset_path, n) for n in range(count)]
        stream_of = np.concatenate([stored[n] for n in dataset.document_index])
        for at in range(len(dataset)):
            begin = int(dataset.shuffle_index[at]) * LENGTH
            sample = dataset[at]
            assert sample["tokens"].tolist() == stream_of[begin : begin + LENGTH].tolist()
            assert sample["labels"].tolist() == stream_of[begin + 1 : begin + LENGTH + 1].tolist()
    pairs = set(zip(epoch.dataset_index.tolist(), epoch.dataset_sample_index.tolist(), strict=True))
    shares = (np.array(tokens) / sum(tokens)).tolist()

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
                "epoch": {
                    "size": len(epoch),
                    "distinct": len(pairs),
                    "rows": [count for count in rows if count],
                    "order": epoch.dataset_index.tolist(),
                },
                "epochs": {
                    "size": len(epochs),
                    "asked": 5 * sum(rows) // 2,
                    "order": epochs.dataset_index.tolist(),
                    "shares": shares,
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
