"""What a training is given: the prefixes of a folder's shards, which subset each is of, and how much of each to read.

Decides what is taken from `blend.json` and what from a folder without one, which holds `train.bin/.idx` and
`valid.bin/.idx`; leaves mixing to `train`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.errors import ShardError, UsageError, nearest
from toolkit.shards import blend, format
from toolkit.shards.blend import SPLITS, Blend


@dataclass(frozen=True, kw_only=True)
class Given:
    """Prefixes in their order. By prefix: `subset`, `tokens`, and `sha256` of both files together; empty where no
    `blend.json` tells. `weights` are shares of the samples, as many as `train`; empty: each as its tokens make it.
    """

    folder: Path
    train: tuple[Path, ...]
    valid: tuple[Path, ...]
    weights: tuple[float, ...] = ()
    subset: Mapping[Path, str] = field(default_factory=dict)
    tokens: Mapping[Path, int] = field(default_factory=dict)
    sha256: Mapping[Path, str] = field(default_factory=dict)
    blend: Blend | None = None


def given(folder: str | Path, weights: Mapping[str, float] | None = None) -> Given:
    """What the folder holds for a training. `weights` are of subsets, and shared out among a subset's shards by tokens;
    a subset of weight 0 is left out. Nothing is opened but the manifest.

    Raises `ShardError` for a folder without shards, `UsageError` for weights that name no subset, or not all.
    """
    folder = Path(folder)
    if not (folder / blend.FILE).is_file() and all(format.pair(folder / "train")[n].is_file() for n in (0, 1)):
        if weights:
            raise UsageError(
                "its shards have no subsets to weigh", where=folder, do=f"build it anew, with {blend.FILE}"
            )
        return Given(folder=folder, train=(folder / "train",), valid=(folder / "valid",))
    found = blend.read(folder)
    if not found.train:
        raise ShardError("lists no shard to train on", where=folder / blend.FILE, do="build the shards again")
    if not found.valid:
        raise ShardError(
            "lists no shard to validate on", where=folder / blend.FILE, do="build from a corpus with train/ and valid/"
        )
    share = _weights(found, weights or {}, folder)
    kept = [(shard, weight) for shard, weight in zip(found.train, share, strict=True) if weight != 0]
    place = {shard.prefix: folder / shard.prefix for shard in found.shards}
    return Given(
        folder=folder,
        train=tuple(place[shard.prefix] for shard, _ in kept),
        valid=tuple(place[shard.prefix] for shard in found.valid),
        weights=() if any(weight is None for _, weight in kept) else tuple(float(weight) for _, weight in kept),
        subset={place[shard.prefix]: shard.subset for shard in found.shards},
        tokens={place[shard.prefix]: shard.tokens for shard in found.shards},
        sha256={place[shard.prefix]: _both(shard) for shard in found.shards},
        blend=found,
    )


def check(
    folder: str | Path, *, everything: bool = False, vocab_size: int, model: Path | None, say=print
) -> Blend | None:
    """That the folder's shards are what its manifest says (`blend.check`), and of this model's vocabulary. Light.

    None for a folder without a manifest, of which nothing but that its files are there is known. Raises `ShardError`.
    """
    folder = Path(folder)
    if (folder / blend.FILE).is_file():
        found = blend.check(folder, everything=everything, say=say)
        blend.vocabulary(found, vocab_size=vocab_size, model=model, where=folder)
        return found
    for split in SPLITS:
        data, index = format.pair(folder / split)
        if not data.is_file() or not index.is_file():
            blend.read(folder)  # says what is missing
    return None


def _weights(found: Blend, weights: Mapping[str, float], folder: Path) -> list[float | None]:
    """Of each training shard: what the manifest says, or its part of its subset's weight."""
    if not weights:
        own = [shard.weight for shard in found.train]
        return own if all(weight is not None for weight in own) else [None] * len(own)
    tokens: dict[str, int] = {}
    for shard in found.train:
        tokens[shard.subset] = tokens.get(shard.subset, 0) + shard.tokens
    for name in weights:
        if name not in tokens:
            raise UsageError(
                f"data.weights names '{name}', no subset of these shards", where=folder, do=nearest(name, tokens)
            )
    missing = sorted(set(tokens) - set(weights))
    if missing:
        raise UsageError(
            f"data.weights says nothing of {', '.join(missing)}",
            where=folder,
            do="give every subset a weight; 0 leaves it out",
        )
    if not any(weights.values()):
        raise UsageError("data.weights leaves every subset out", where=folder, do="give one of them a weight above 0")
    return [weights[shard.subset] * shard.tokens / tokens[shard.subset] for shard in found.train]


def _both(shard: blend.Shard) -> str:
    return hashlib.sha256(f"{shard.bin_sha256} {shard.idx_sha256}".encode()).hexdigest()
