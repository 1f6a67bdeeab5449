"""What the built ranks of a recipe must hold by arithmetic, and where what was built differs.

Light: compares plain values. Building them is `toolkit.train.instantiate`'s, and shares no line with the arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from toolkit.plan import parameters
from toolkit.plan.layout import layout, shape
from toolkit.recipe.schema import Recipe


def without_padding(recipe: Recipe, parameters: int) -> int:
    """Of so many parameters those that are no padding rows of embedding and head."""
    facts = layout(recipe)
    return parameters - 2 * (facts.vocab_padded - facts.vocab) * recipe.model.hidden


def stage_layers(recipe: Recipe, stage: int) -> list[list[int]]:
    """Layers of a pipeline rank, counted from 0, by chunk; interleaved chunks go round the ranks in turn."""
    par = recipe.parallel
    chunks = par.vp or 1
    each = recipe.model.layers // (par.pp * chunks)
    starts = ((chunk * par.pp + stage) * each for chunk in range(chunks))
    return [list(range(start, start + each)) for start in starts]


def differences(recipe: Recipe, found: Mapping[str, Any]) -> list[str]:
    """One sentence for each thing that was built otherwise than the recipe's arithmetic has it."""
    return list(_differences(recipe, found))


def _differences(recipe: Recipe, found: Mapping[str, Any]) -> Iterator[str]:
    facts, par = layout(recipe), recipe.parallel
    padded = replace(shape(recipe), vocab=facts.vocab_padded)
    yield from _unlike("ranks", found["world"], facts.world)
    yield from _unlike("micro-batches a step", found["micro_batches"], facts.micro_batches)
    yield from _unlike("parameters of the whole model", found["parameters"], padded.parameters)
    for name, size in (("tp", par.tp), ("pp", par.pp), ("cp", par.cp), ("dp", facts.dp)):
        yield from _unlike(f"ranks in rank 0's {name} group", len(found["groups"][name]), size)
    stages = parameters.of_recipe(recipe)
    for one in found["ranks"]:
        planned, who = stages[one["pp"]], f"rank {one['rank']}"
        yield from _unlike(f"{who}: layers", one["layers"], stage_layers(recipe, one["pp"]))
        yield from _unlike(f"{who}: embedding", one["embedding"], planned.embedding)
        yield from _unlike(f"{who}: head", one["head"], planned.head)
        yield from _unlike(f"{who}: parameters of its own", one["sharded"], planned.sharded)
        yield from _unlike(f"{who}: parameters as on all tensor ranks", one["repeated"], planned.repeated)
    yield from _shards(recipe, found["ranks"])


def _shards(recipe: Recipe, ranks: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What data ranks hold alike is shared out among their optimizers once, or kept by each of them whole."""
    same: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
    for one in ranks:
        same.setdefault((one["pp"], one["tp"]), []).append(one)
    for (pp, tp), group in same.items():
        held = sum(one["optimizer_shard"] for one in group)
        wanted = group[0]["parameters"] * (1 if recipe.parallel.distributed_optimizer else len(group))
        yield from _unlike(f"optimizer elements of stage {pp}, tensor rank {tp}, over its data ranks", held, wanted)


def _unlike(what: str, built: Any, planned: Any) -> Iterator[str]:
    if built != planned:
        yield f"{what}: {_show(built)} built, {_show(planned)} planned"


def _show(value: Any) -> str:
    return f"{value:,}" if type(value) is int else str(value)


def proof_text(recipe: Recipe, found: Mapping[str, Any]) -> str:
    """The built ranks by pipeline stage, for people."""
    ranks, parameters = found["ranks"], found["parameters"]
    bare = without_padding(recipe, parameters)
    facts = layout(recipe)
    lines = [
        f"{recipe.name}: {len(ranks)} of {found['world']} ranks built by NeMo and Megatron-core, on the meta device",
        "",
        "  stage  tensor ranks  data ranks  parameters a rank    optimizer elements a rank  layers",
    ]
    for stage in sorted({one["pp"] for one in ranks}):
        here = [one for one in ranks if one["pp"] == stage]
        counts, shards = {one["parameters"] for one in here}, [one["optimizer_shard"] for one in here]
        layers = " ".join(f"{chunk[0]}-{chunk[-1]}" for chunk in here[0]["layers"])
        holds = "embedding, " * here[0]["embedding"] + layers + ", head" * here[0]["head"]
        span = f"{min(shards):,}" if min(shards) == max(shards) else f"{min(shards):,} to {max(shards):,}"
        tensor, data = len({one["tp"] for one in here}), len({(one["cp"], one["dp"]) for one in here})
        lines.append(f"  {stage:>5}  {tensor:>12}  {data:>10}  {_span(counts):>17}  {span:>27}  {holds}")
    lines += [
        "",
        f"  whole model      {parameters:,} parameters; {bare:,} without the "
        f"{facts.vocab_padded - facts.vocab:,} padding rows",
        f"  a step           {found['micro_batches']} micro-batches",
        *(f"  rank 0's {name}      {_ranks(found['groups'][name])}" for name in ("tp", "pp", "cp", "dp")),
        "",
        "  stood in for what is not on this host",
        *(f"    {name}: {what}" for name, what in found["stood_in"].items()),
        "",
        "as the plan's arithmetic has it",
    ]
    return "\n".join(lines)


def _span(values: set[int]) -> str:
    return f"{min(values):,}" if len(values) == 1 else f"{min(values):,} to {max(values):,}"


def _ranks(ranks: Sequence[int]) -> str:
    step = ranks[1] - ranks[0] if len(ranks) > 1 else 0
    if len(ranks) > 4 and list(ranks) == list(range(ranks[0], ranks[-1] + 1, step)):
        return f"{ranks[0]}, {ranks[1]} ... {ranks[-1]} ({len(ranks)} ranks)"
    return ", ".join(map(str, ranks))
