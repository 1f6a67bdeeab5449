"""The ranks of megatron-core itself (gloo, CPU): load a checkpoint strictly and save it.

`core_job.py CHECKPOINT CONFIG OUT --tp TP --pp PP --rows ROWS`; what is imported once is forked for each rank.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path

from toolkit.train import seams

seams.install()

import torch  # noqa: E402 - the seams come first
from megatron.core import dist_checkpointing, parallel_state  # noqa: E402
from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed  # noqa: E402

from toolkit.train.logits import llama  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("config", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tp", type=int, default=1)
    parser.add_argument("--pp", type=int, default=1)
    parser.add_argument("--rows", type=int, required=True)
    args = parser.parse_args()
    world = args.tp * args.pp
    pids = [fork(args, rank, world) for rank in range(world)]
    for _ in pids:
        _, status = os.wait()
        if status:  # the others wait for it in vain
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return 1
    return 0


def fork(args: argparse.Namespace, rank: int, world: int) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            run(args, rank, world)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        atexit._run_exitfuncs()  # what writes checkpoints has started processes that would stay
        sys.stdout.flush()
        os._exit(0)
    return pid


def run(args: argparse.Namespace, rank: int, world: int) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
    store = f"file://{args.out.absolute()}.store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
    parallel_state.initialize_model_parallel(args.tp, args.pp)
    model_parallel_cuda_manual_seed(1)
    model = llama(json.loads(args.config.read_text()), args.rows, tp=args.tp, pp=args.pp)
    loaded = dist_checkpointing.load(
        {"state_dict": model.sharded_state_dict(prefix="module.")},
        str(args.checkpoint / "weights"),
        strict="raise_unexpected",
    )
    model.load_state_dict({k.removeprefix("module."): v for k, v in loaded["state_dict"].items()}, strict=True)
    weights = args.out / "weights"
    if torch.distributed.get_rank() == 0:
        weights.mkdir(parents=True)
    torch.distributed.barrier()
    dist_checkpointing.save({"state_dict": model.sharded_state_dict(prefix="module.")}, str(weights))
    torch.distributed.barrier()


if __name__ == "__main__":
    sys.exit(main())
