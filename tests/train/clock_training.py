"""A training in plain Lightning with the metrics callback, by a clock that stands still unless it is told what a thing
takes: `clock_training.py FOLDER`.
"""

from __future__ import annotations

import itertools
import sys
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from toolkit.train import metrics

FETCH_S, STEP_S, AFTER_S, VALID_S, SAVE_S = 1.0, 10.0, 3.0, 100.0, 1000.0


class Clock:
    now = 0.0

    def perf_counter(self) -> float:
        return self.now

    monotonic = perf_counter


def main(folder: str) -> None:
    clock = Clock()
    metrics.time = clock

    class Rows(torch.utils.data.IterableDataset):
        def __iter__(self) -> Any:
            for value in itertools.count():
                clock.now += FETCH_S
                yield torch.tensor([float(value % 7)])

    class Model(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def training_step(self, dataloader_iter: Any) -> torch.Tensor:
            """Takes two micro-batches in the midst of the step, as Megatron's schedule does."""
            losses = [self.layer(next(dataloader_iter)[0]).square().mean() for _ in range(2)]
            clock.now += STEP_S
            loss = sum(losses)
            self.log("reduced_train_loss", loss, batch_size=1)
            self.log("grad_norm", torch.tensor(1.0), batch_size=1)
            return loss

        def validation_step(self, dataloader_iter: Any) -> None:
            next(dataloader_iter)
            clock.now += VALID_S
            self.log("val_loss", torch.tensor(2.0), batch_size=1)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

        def train_dataloader(self) -> Any:
            return torch.utils.data.DataLoader(Rows(), batch_size=1)

        val_dataloader = train_dataloader

    class After(pl.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            clock.now += AFTER_S

        def on_save_checkpoint(self, *_: Any) -> None:
            clock.now += SAVE_S

    # 1,200 tokens a step on 2 devices of 2,000 FLOP/s: 12 s are 100 tokens/s, which need 2,000 FLOP/s of 4,000.
    watched = metrics.Metrics(
        folder, steps=8, tokens_per_step=1200, label="clock", devices=2, flops_per_token=20.0, peak_tflops=2000.0e-12
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=8,
        limit_val_batches=1,
        num_sanity_val_steps=0,
        val_check_interval=3,
        check_val_every_n_epoch=None,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[watched, After(), ModelCheckpoint(dirpath=f"{folder}/saved", every_n_train_steps=4)],
    )
    trainer.fit(Model())


if __name__ == "__main__":
    main(sys.argv[1])
