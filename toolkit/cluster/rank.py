"""`python -m toolkit.cluster.rank [options] -- COMMAND...`: one task of a training, on its host, before the payload.

Decides what a rank is told by environment and where its log goes, then becomes the payload; Slurm has started it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from toolkit import cli
from toolkit.errors import UsageError
from toolkit.progress import ENV as PROGRESS

_FACTS = (
    *("SLURM_CONF", "SLURM_CLUSTER_NAME", "SLURM_JOB_ID", "SLURM_JOB_NODELIST", "SLURM_JOB_NUM_NODES"),
    *("SLURM_NODELIST", "SLURM_RESTART_COUNT", "SLURMD_NODENAME"),
)


def environment(
    slurm: Mapping[str, str], *, master: str, port: int, per_node: int, folder: Path, threads: int | None
) -> dict[str, str]:
    """What torch.distributed and the payload read, from what Slurm says of this task. Raises `UsageError`."""
    try:
        rank, world = int(slurm["SLURM_PROCID"]), int(slurm["SLURM_STEP_NUM_TASKS"])
        local, node = int(slurm["SLURM_LOCALID"]), int(slurm["SLURM_NODEID"])
    except (KeyError, ValueError) as err:
        raise UsageError("not started by srun", why=f"its environment lacks {err}") from None
    told = {"RANK": rank, "LOCAL_RANK": local, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": per_node, "NODE_RANK": node}
    values = {name: str(value) for name, value in told.items()}
    values |= {"MASTER_ADDR": master, "MASTER_PORT": str(port), "PYTHONUNBUFFERED": "1"}
    if threads is not None:
        values["OMP_NUM_THREADS"] = str(threads)
    if rank == 0:
        values[PROGRESS] = str(folder / "progress.json")
    return values


def for_image(values: Mapping[str, str]) -> dict[str, str]:
    """In the form that reaches into an image: it beats what the image's own %environment says."""
    return {f"APPTAINERENV_{name}": value for name, value in values.items()}  # Singularity's forks read it too


def _misleads(name: str) -> bool:
    """Lightning, where it sees tasks of Slurm, takes ranks and signals into its own hands; the job's facts may stay."""
    return name.startswith(("SLURM_", "SLURMD_", "SRUN_", "PMI_", "PMIX_")) and name not in _FACTS


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m toolkit.cluster.rank", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the rank's log goes: the stage's folder")
    parser.add_argument("--master", required=True, help="host of rank 0")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--per-node", type=int, required=True, help="ranks on each node")
    parser.add_argument("--threads", type=int, help="CPU threads of a rank")
    parser.add_argument("--apptainer", action="store_true", help="COMMAND is apptainer: hand the values into the image")
    parser.add_argument("command", nargs="+", metavar="COMMAND")
    args = parser.parse_args(argv)
    values = environment(
        os.environ, master=args.master, port=args.port, per_node=args.per_node, folder=args.folder, threads=args.threads
    )
    env = {name: value for name, value in os.environ.items() if name != PROGRESS and not _misleads(name)} | values
    if args.apptainer:  # an image's own %environment would win over plain variables
        env |= for_image(values)
    if scratch := os.environ.get("TMPDIR"):  # node-local; the job's script has made it on the first node alone
        with contextlib.suppress(OSError):
            os.makedirs(scratch, exist_ok=True)
    rank = values["RANK"]
    log = os.open(
        args.folder / ("log" if rank == "0" else f"rank-{rank}.log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644
    )
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    # Asked to stop while it is still importing, the payload would die of this signal; it is sent again until it ends.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    os.execvpe(args.command[0], args.command, env)


if __name__ == "__main__":
    sys.exit(cli.run(main))
