"""Which sample goes to which step and rank: positions in one global stream of samples, a function of sizes and skips.

Decides the positions, and whether a checkpoint's order of data can be gone on with; what sample stands at a position
follows from the seed and the shards, by Megatron's datasets (`stream`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from toolkit import files
from toolkit.errors import CheckpointError, RunError, ShardError
from toolkit.train.job import PretrainJob

FILE = "order.json"  # in every checkpoint of a pretraining
SKIPS = "skips.json"  # in the training's folder
_EDGE = 1 << 20
_FEW = 4  # shards that a message names
_NEW_RUN = "start a new run from this checkpoint's weights: inputs.checkpoint"


@dataclass(frozen=True, kw_only=True)
class Skip:
    """Before the batch of step `step` (steps count from 1), `batches` global batches of the stream are left out."""

    step: int
    batches: int


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A `.bin/.idx` pair by its content: sizes in bytes, and SHA-256 of both files' first and last MiB."""

    name: str
    bin_bytes: int
    idx_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Order:
    """What the order of the data follows from. `samples` is how many the first start asked Megatron for: with several
    epochs its shuffle depends on that. `weights` are the shards' shares, where the recipe states them. `skips` are
    those known so far. `stream` is a hash of what Megatron's datasets made of all this, empty where that is not known
    yet.
    """

    seed: int
    seq_length: int
    global_batch: int
    samples: int
    shards: tuple[Shard, ...] = ()
    weights: tuple[float, ...] = ()
    skips: tuple[Skip, ...] = ()
    stream: str = ""


def first_sample(step: int, global_batch: int, skips: Sequence[Skip] = ()) -> int:
    """The position, in the global stream of samples, of the first sample of `step`; steps count from 1."""
    left_out = sum(skip.batches for skip in skips if skip.step <= step)
    return (step - 1 + left_out) * global_batch


def consumed(steps: int, global_batch: int, skips: Sequence[Skip] = ()) -> int:
    """The position after the last sample of the first `steps` steps; what is left out before the next is not in it."""
    return first_sample(steps, global_batch, skips) + global_batch if steps else 0


def positions(
    step: int, *, rank: int, dp: int, micro_batch: int, global_batch: int, skips: Sequence[Skip] = ()
) -> list[list[int]]:
    """The positions that data-parallel rank `rank` of `dp` reads for `step`, one list a micro-batch, in order.

    Micro-batch after micro-batch, each dealt to the ranks in turn: as NeMo's MegatronPretrainingSampler deals them
    (nemo/lightning/data.py). All ranks together read the global batch, each sample once, at any `dp`.
    """
    if not 0 <= rank < dp or global_batch % (micro_batch * dp):
        raise ValueError(f"rank {rank} of dp={dp}, micro_batch={micro_batch}, global_batch={global_batch}")
    begin = first_sample(step, global_batch, skips) + rank * micro_batch
    dealt = range(begin, begin + global_batch, micro_batch * dp)
    return [list(range(at, at + micro_batch)) for at in dealt]


def describe_batch(trainer: Any, step: int) -> dict[str, Any]:
    """What the batch of `step` was: {"step", "samples": [first, last], "documents": ["shard:number", ...]}.

    On any rank of a training. Samples are positions in the stream, documents are counted from 0 within their shard. A
    finetuning has the step alone.
    """
    from toolkit.train import stream

    return stream.describe(trainer, step)


def read_skips(folder: Path) -> tuple[Skip, ...]:
    """The skips of the training in `folder`, in the order in which they were added. Raises `RunError`."""
    path = Path(folder) / SKIPS
    if not path.exists():
        return ()
    try:
        return tuple(_skip(row) for row in files.read_json(path))
    except (ValueError, TypeError, KeyError) as err:
        raise RunError(f"this list of skipped batches cannot be read: {err}", where=path, do="restore it") from None


def add_skip(folder: Path, step: int, batches: int) -> None:
    """Leave out `batches` global batches before that of `step`, from the next start on. Whole or not at all."""
    new = _skip({"step": step, "batches": batches})
    _write_skips(folder, (*read_skips(folder), new))


def _write_skips(folder: Path, skips: Sequence[Skip]) -> None:
    files.write_json(Path(folder) / SKIPS, [asdict(skip) for skip in skips])


def _skip(row: Mapping[str, Any]) -> Skip:
    step, batches = row["step"], row["batches"]
    if not (type(step) is int and type(batches) is int and step >= 1 and batches >= 1):
        raise ValueError(f"step {step!r} and batches {batches!r} are no counts of 1 or more")
    return Skip(step=step, batches=batches)


def plan(job: PretrainJob) -> Order:
    """The order of a training that begins, by its recipe alone."""
    train = job.train
    return Order(
        seed=train.seed,
        seq_length=train.seq_length,
        global_batch=train.global_batch,
        samples=train.steps * train.global_batch,
        weights=job.shard_weights,
    )


def agree(job: PretrainJob, *, write: bool) -> Order:
    """The order of this training, and of the one it goes on with.

    Raises `CheckpointError` when the checkpoint's was another: another seed, sequence length, global batch or other
    shards. The layout, the micro-batch and the number of steps may change. A checkpoint without `order.json` is
    taken as it is. `write`: this process (one of all ranks) also writes the skips that the folder does not know yet.
    """
    skips = read_skips(job.folder)
    now = replace(plan(job), shards=tuple(_known(prefix, job) for prefix in job.train_shards), skips=skips)
    if job.resume is None:
        return now
    saved = read(job.resume)
    if saved is None:
        if write:
            print(f"{job.resume.name} has no {FILE}: the data's order is taken from the recipe alone", flush=True)
        return now
    _compare(saved, now, where=job.resume)
    known = skips
    if not skips and saved.skips:  # resumed in another folder than the one that it was saved from
        known = saved.skips
        if write:
            _write_skips(job.folder, known)
    if known[: len(saved.skips)] != saved.skips:
        raise CheckpointError(
            f"{SKIPS} does not begin with the skips that the checkpoint was trained with",
            where=job.resume,
            why=f"the checkpoint's: {_shown(saved.skips)}; {job.folder / SKIPS}: {_shown(skips)}",
            do=f"restore {SKIPS}, or remove it to take the checkpoint's",
        )
    return replace(now, samples=saved.samples, skips=known, stream=saved.stream)


def _shown(skips: Sequence[Skip]) -> str:
    return ", ".join(f"{skip.batches} before step {skip.step}" for skip in skips) or "none"


def _compare(saved: Order, now: Order, *, where: Path) -> None:
    for key in ("seed", "seq_length", "global_batch"):
        before, given = getattr(saved, key), getattr(now, key)
        if before != given:
            raise CheckpointError(
                f"train.{key} is {given}, and the checkpoint was trained with {before}",
                where=where,
                why="a resumed training goes on in the same stream of samples, and with another value it is another",
                do=f"give train.{key}={before}, or {_NEW_RUN}",
            )
    if [_content(shard) for shard in saved.shards] != [_content(shard) for shard in now.shards]:
        raise CheckpointError(
            "the training shards are not those that the checkpoint was trained on",
            where=where,
            why=f"the checkpoint's: {_described(saved.shards)}; given: {_described(now.shards)}",
            do=f"give the same shards in the same order (inputs.shards), or {_NEW_RUN}",
        )
    if saved.weights != now.weights:
        raise CheckpointError(
            "data.weights are not those that the checkpoint was trained with",
            where=where,
            why=f"the checkpoint's, by shard: {list(saved.weights)}; given: {list(now.weights)}",
            do=f"give the same weights, or {_NEW_RUN}",
        )


def _known(prefix: Path, job: PretrainJob) -> Shard:
    """The shard by the hashes that its manifest has, which was compared with the files; else by looking into it."""
    facts = job.shard_facts.get(prefix)
    if facts is None:
        return fingerprint(prefix)
    sizes = []
    for path in (Path(f"{prefix}.bin"), Path(f"{prefix}.idx")):
        try:
            sizes.append(path.stat().st_size)
        except OSError as err:
            raise ShardError(f"cannot be read: {err.strerror}", where=path) from None
    return Shard(name=prefix.name, bin_bytes=sizes[0], idx_bytes=sizes[1], sha256=facts.sha256)


def _content(shard: Shard) -> tuple[object, ...]:
    return shard.bin_bytes, shard.idx_bytes, shard.sha256  # a shard may move


def _described(shards: Sequence[Shard]) -> str:
    shown = [f"{s.name} ({s.bin_bytes:,} + {s.idx_bytes:,} bytes, {s.sha256[:12]})" for s in shards[:_FEW]]
    return ", ".join(shown) + (f" and {len(shards) - _FEW} more" if len(shards) > _FEW else "")


def fingerprint(prefix: Path) -> Shard:
    """Of a shard, without reading all of it. Raises `ShardError` when it cannot be read."""
    digest, sizes = hashlib.sha256(), []
    for path in (Path(f"{prefix}.bin"), Path(f"{prefix}.idx")):
        try:
            with open(path, "rb") as handle:
                size = os.fstat(handle.fileno()).st_size
                digest.update(handle.read(_EDGE))
                handle.seek(max(0, size - _EDGE))
                digest.update(handle.read(_EDGE))
        except OSError as err:
            raise ShardError(f"cannot be read: {err.strerror}", where=path) from None
        sizes.append(size)
    return Shard(name=Path(prefix).name, bin_bytes=sizes[0], idx_bytes=sizes[1], sha256=digest.hexdigest())


def write(checkpoint: Path, order: Order, *, steps: int) -> None:
    """Put `order.json` into the folder of a checkpoint after `steps` steps; before it is marked as whole."""
    done = {"steps": steps, "consumed": consumed(steps, order.global_batch, order.skips)}
    files.write_json(Path(checkpoint) / FILE, {**done, **asdict(order)})


def read(checkpoint: Path) -> Order | None:
    """What `write` wrote, None when the checkpoint has none. Raises `CheckpointError` when it is damaged."""
    path = Path(checkpoint) / FILE
    if not path.exists():
        return None
    try:
        given = files.read_json(path)
        shards = tuple(
            Shard(
                name=str(row["name"]),
                bin_bytes=int(row["bin_bytes"]),
                idx_bytes=int(row["idx_bytes"]),
                sha256=str(row["sha256"]),
            )
            for row in given["shards"]
        )
        counts = {name: given[name] for name in ("seed", "seq_length", "global_batch", "samples")}
        if not all(type(value) is int and value >= 1 for value in counts.values()):
            raise ValueError(f"not counts: {json.dumps(counts)}")
        skips = tuple(_skip(row) for row in given["skips"])
        weights = tuple(float(weight) for weight in given.get("weights", ()))
        return Order(**counts, shards=shards, weights=weights, skips=skips, stream=str(given["stream"]))
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as err:
        raise CheckpointError(
            f"its {FILE} cannot be read: {err!r}", where=checkpoint, do="resume from another checkpoint"
        ) from None
