"""What the answers of a job's nodes amount to: the values that NCCL is told, and which nodes are not like the others.

Decides when nodes are left out and when all of them have the same fault, which no other node would mend; leaves asking
to `nodes`, and what a difference is to `fabric`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit import errors, fabric, files
from toolkit.cluster.srun import say
from toolkit.errors import StageFailed, ToolkitError
from toolkit.fabric import Difference, Fabric, Value
from toolkit.plan import Step
from toolkit.runs import Run

VALUES, FACTS = "nccl.env", "fabric.json"
_MOST_NAMED = 8


@dataclass(frozen=True, kw_only=True)
class Alike:
    """`image` is what every node is to start, None where there is none; `unfit` are (node, why)."""

    image: Path | None
    unfit: tuple[tuple[str, str], ...] = ()


def merge(
    run: Run,
    step: Step,
    answers: Mapping[str, dict[str, Any]],
    caller: Mapping[str, str],
    *,
    judged_later: bool = False,
) -> Alike:
    """Write `fabric.json` and `nccl.env` into the run's folder, and say which nodes are unfit.

    `answers` are by node, as `nodes.ask` returns them; a value in `caller`, the job's environment, wins over one that
    was found. Raises what most of the nodes say is wrong: other nodes would not mend it. With `judged_later`, as in a
    preflight, nothing is raised: what is found is added to the nodes' own files, and rank 0 of the stage says it.
    """
    site = run.recipe.cluster
    found = {name: fabric.from_dict(told.get("fabric")) for name, told in answers.items()}
    whole = {name: seen for name, seen in found.items() if seen is not None}
    faults: dict[str, list[str]] = {n: [str(told["error"])] for n, told in answers.items() if told.get("error")}
    causes = {name: error for name, told in answers.items() if (error := _cause(told)) is not None}
    if site.fabric != "none":
        for name in answers:
            if name not in whole and name not in faults:
                faults[name] = ["it said nothing of its fabric"]
        odd = fabric.differences(whole, site.fabric, site.nccl.hca, pinned=fabric.pinned(site.nccl))
        try:
            values = _values(run, whole, caller)
        except ToolkitError as err:  # what no node has, not one
            values = ()
            for name in whole:
                faults.setdefault(name, []).append(str(err))
                causes.setdefault(name, err)
        _tell(run, step, whole, values, odd)
        for one in odd if not judged_later else ():
            if one.level == "fault":
                faults.setdefault(one.node, []).append(str(one).removeprefix(f"{one.node}: "))
    if judged_later:
        _add(run, step, answers, faults)
    elif faults and 2 * len(faults) >= len(answers):
        raise _common(run, step, answers, faults, causes)
    unfit = tuple((name, "; ".join(said)) for name, said in faults.items())
    return Alike(image=_image(answers, faults), unfit=() if judged_later else unfit)


def told(path: Path) -> dict[str, str]:
    """NCCL's values of a run, for ranks that no image is given them for; none before they were found."""
    try:
        return dict(fabric.parse((path / VALUES).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}


def _values(run: Run, whole: Mapping[str, Fabric], caller: Mapping[str, str]) -> tuple[Value, ...]:
    site, every = run.recipe.cluster, tuple(whole.values())
    if not every:
        return ()
    found = fabric.values(every[0], kind=site.fabric, policy=site.nccl, nodes=every)
    values = fabric.with_caller(found, caller)
    files.write_text(run.path / VALUES, fabric.text(values))
    return values


def _tell(
    run: Run, step: Step, whole: Mapping[str, Fabric], values: Sequence[Value], odd: Sequence[Difference]
) -> None:
    body = {
        "kind": run.recipe.cluster.fabric,
        "stage": step.id,
        "job": os.environ.get("SLURM_JOB_ID", ""),
        "differences": [dataclasses.asdict(one) for one in odd],
        "values": [dataclasses.asdict(value) for value in values],
        "nodes": {name: seen.as_dict() for name, seen in whole.items()},
    }
    files.write_json(run.path / FACTS, body)
    for one in odd:
        say(f"{one}{'' if one.level == 'fault' else ' (only worth a word)'}")


def _add(run: Run, step: Step, answers: Mapping[str, dict[str, Any]], faults: Mapping[str, list[str]]) -> None:
    for name, said in faults.items():
        if said != [answers[name].get("error")]:
            files.write_json(run.stage(step.id) / "nodes" / f"{name}.json", {**answers[name], "error": "; ".join(said)})


def _common(
    run: Run,
    step: Step,
    answers: Mapping[str, Any],
    faults: Mapping[str, list[str]],
    causes: Mapping[str, ToolkitError],
) -> ToolkitError:
    """What so many nodes say that it must be the site's or the recipe's."""
    first = next((causes[name] for name in faults if name in causes), None)
    if first is not None and len(faults) == len(answers):
        return type(first)(first.what, where=first.where, why=first.why, do=first.do)
    named = "; ".join(f"{name}: {' '.join(said)}" for name, said in list(faults.items())[:_MOST_NAMED])
    more = f"; and {len(faults) - _MOST_NAMED} more" if len(faults) > _MOST_NAMED else ""
    return StageFailed(
        f"{len(faults)} of {len(answers)} nodes are not fit, which is too many to leave out",
        where=run.stage(step.id) / "nodes",
        why=named + more,
        do="mend what is named, or state the cluster as it is (cluster.fabric, cluster.nccl, cluster.apptainer.local)",
    )


def _image(answers: Mapping[str, dict[str, Any]], faults: Mapping[str, list[str]]) -> Path | None:
    paths = [told.get("image") for name, told in answers.items() if name not in faults]
    return Path(paths[0]) if paths and isinstance(paths[0], str) else None


def _cause(told: Mapping[str, Any]) -> ToolkitError | None:
    """The error that a node has met, as it was there."""
    said = told.get("cause")
    if not isinstance(said, dict):
        return None
    cls = getattr(errors, str(said.get("error")), None)
    kind = cls if isinstance(cls, type) and issubclass(cls, ToolkitError) else ToolkitError
    return kind(str(said.get("what")), where=said.get("where") or "", why=str(said.get("why") or ""),
                do=str(said.get("do") or ""))  # fmt: skip
