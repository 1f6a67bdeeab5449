"""What every stage of a recipe puts on the disk, by arithmetic on the recipe, before anything is there.

Decides what is known exactly (weights, checkpoints) and what is estimated (texts and their shards, from the tokens that
the training reads); whether it fits is told by who knows the disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from toolkit.plan import trainings
from toolkit.plan.layout import layout, shape
from toolkit.plan.room import Room, gb, room
from toolkit.plan.stages import Step, steps
from toolkit.recipe.schema import Recipe

# A token is 6 bytes of a document's line of JSON, of which zstd leaves a third; while a corpus is built, what is
# finished of it stands beside it once more.
_BYTES_A_TOKEN, _PACKED, _TWICE = 6, 3, 2
_TOKENS_A_DOCUMENT = 2200  # GAP-Replay: 46.7e9 tokens in 21.1e6 documents (arXiv 2311.16079, table 1)
_INDEX = 20  # bytes of .idx for each document: int32 length, int64 offset, int64 bound
_TWO_BYTE_IDS = 65_500  # Megatron's ids have two bytes below so many
_WEIGHTS = 2  # bytes a parameter in bf16, as models are published
_SMALL = 50 << 20  # logs, curves, predictions and pages


@dataclass(frozen=True, kw_only=True)
class Use:
    """Bytes at most at once below the folder of stage `id`; `grows_to` where it keeps more for ever by its end."""

    id: str
    bytes: int
    exact: bool
    what: str
    grows_to: int | None = None


def disk(recipe: Recipe) -> tuple[Use, ...]:
    """What each stage of the recipe takes, in order."""
    return tuple(_use(recipe, step) for step in steps(recipe))


def total(uses: Sequence[Use]) -> int:
    """Bytes of all stages together: none clears up after another."""
    return sum(max(use.bytes, use.grows_to or 0) for use in uses)


def checkpoints(recipe: Recipe, stage: str = "pretrain") -> Room:
    """The checkpoints of that training."""
    train = trainings.settings(recipe, stage)
    padded = replace(shape(recipe), vocab=layout(recipe).vocab_padded)
    in_background = train.async_save and recipe.cluster.device == "gpu"
    return room(padded, train, recipe.parallel, recipe.guard, in_background=in_background)


def _use(recipe: Recipe, step: Step) -> Use:
    model, facts = shape(recipe), layout(recipe)
    tokens = facts.total_tokens
    if step.stage == "corpus":
        text = tokens * _BYTES_A_TOKEN // _PACKED * _TWICE
        return Use(id=step.id, bytes=text, exact=False, what="documents, packed, and the same while they are made")
    if step.stage == "shards":
        width = 2 if model.vocab < _TWO_BYTE_IDS else 4
        held = tokens * width + tokens // _TOKENS_A_DOCUMENT * _INDEX
        return Use(id=step.id, bytes=held, exact=False, what=f"{width} bytes a token, {_INDEX} a document")
    if step.stage in ("base", "import", "export"):
        width = 4 if step.stage == "base" else _WEIGHTS
        held = model.parameters * (width if recipe.model.base != "make" else 4)
        return Use(id=step.id, bytes=held, exact=recipe.model.base != "make", what="weights")
    if step.stage in ("pretrain", "finetune"):
        asked = checkpoints(recipe, step.stage)
        ever = asked.for_ever * asked.checkpoint_bytes
        return Use(
            id=step.id,
            bytes=asked.needed_bytes,
            exact=True,
            what=f"{asked.at_once} checkpoints of {gb(asked.checkpoint_bytes)}"
            + (f", and {asked.for_ever} more kept for ever" if ever else ""),
            grows_to=asked.needed_bytes + ever if ever else None,
        )
    return Use(id=step.id, bytes=_SMALL, exact=False, what="logs, figures and pages")
