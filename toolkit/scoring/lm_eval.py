"""Benchmarks as tasks of lm-evaluation-harness: the same prompts, answers and demonstrations, letter by letter.

Decides the tasks' form (a YAML file and JSON lines for each, which need no network and no code); leaves wording to
`prompts` and scores to that harness, whose numbers can be set beside ours.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit import files
from toolkit.errors import UsageError
from toolkit.scoring import prompts
from toolkit.scoring.benchmarks import Benchmark
from toolkit.scoring.items import Item

PREFIX = "meditron"
MODES = ("letter", "cloze")
"""The modes that this harness decides as we do; a generated answer's extraction is ours alone."""


def export(
    folder: str | Path,
    spec: Benchmark,
    items: Sequence[Item],
    *,
    mode: str = "letter",
    demonstrations: Mapping[str, Sequence[Item]] | None = None,
    seed: int = 0,
    compat: bool = False,
) -> str:
    """Write `items` as tasks into `folder`; returns the name of their group, to be run with `--include_path folder`.

    `demonstrations` is what `demonstrations.by_group` gave: one task for each group that has its own, else one for
    all; the accuracy of the whole is over all items. A task's prompt is description (the instruction), demonstrations
    and question, and equals `prompts.build(...).text`; its answers are the usual form of each. The YAML names the
    data by absolute paths: export again after moving the folder.
    Raises UsageError (a mode that generates), DataError (as `prompts.build`), DiskFull.
    """
    if mode not in MODES:
        why = "only likelihoods are the same computation there"
        raise UsageError(f"mode '{mode}' cannot be exported", why=why, do=f"choose {' or '.join(MODES)}")
    folder = Path(folder).resolve()
    shown = {group: tuple(found) for group, found in (demonstrations or {}).items()}
    counts = {len(found) for found in shown.values()}
    shots = max(counts, default=0)
    name = "_".join(
        [PREFIX, _plain(spec.name), mode, f"{shots}shot", *([f"seed{seed}"] * bool(shots)), *["compat"] * compat]
    )
    groups = sorted({item.group for item in items}) if len(set(shown.values())) > 1 else [None]
    names = []
    for group in groups:
        part = f"{name}_{'all' if group is None else _plain(group)}"
        part += f"_{len(names)}" * (part in names)  # names that differ in blanks alone
        own = [item for item in items if group is None or item.group == group]
        first = next(iter(shown.values()), ()) if group is None else shown[group]
        _task(folder, part, spec, own, first, mode=mode, compat=compat)
        names.append(part)
    mean = [{"metric": metric, "aggregation": "mean", "weight_by_size": True} for metric in _metrics(mode)]
    # A group even of one task: lm-eval before 0.4.10 fails on the name of a task whose file lies outside its package.
    _yaml(folder / f"{name}.yaml", {"group": name, "task": names, "aggregate_metric_list": mean})
    return name


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]", "_", name) or "all"


def _metrics(mode: str) -> tuple[str, ...]:
    return ("acc",) if mode == "letter" else ("acc", "acc_norm")


def _task(
    folder: Path, name: str, spec: Benchmark, items: Sequence[Item], shown: Sequence[Item], *, mode: str, compat: bool
) -> None:
    data = {"test": folder / name / "items.jsonl"}
    rows = [_row(item, spec, shown, mode, compat) for item in items]
    digest = _write(data["test"], rows)
    if shown:
        data["demonstrations"] = folder / name / "demonstrations.jsonl"
        _write(data["demonstrations"], [_row(item, spec, shown, mode, compat) for item in shown])
    task: dict[str, Any] = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {split: str(path) for split, path in data.items()}},
        "output_type": "multiple_choice",
        "test_split": "test",
        # The names of columns, but for the first, which wants a template: nothing in a question is rendered.
        "description": "{{head}}",
        "doc_to_text": "text",
        "doc_to_target": "gold",
        "doc_to_choice": "choices",
        "target_delimiter": "",
        "fewshot_delimiter": "\n\n",
        "num_fewshot": len(shown),
        "metric_list": [{"metric": m, "aggregation": "mean", "higher_is_better": True} for m in _metrics(mode)],
        "metadata": {"version": 1.0, "items_sha256": digest, "title": spec.title},
    }
    if shown:
        task |= {"fewshot_split": "demonstrations", "fewshot_config": {"sampler": "first_n"}}
    _yaml(folder / f"{name}.yaml", task)


def _row(item: Item, spec: Benchmark, shown: Sequence[Item], mode: str, compat: bool) -> dict[str, Any]:
    """The columns of one item or demonstration; `head` + `text` is its prompt where nothing is demonstrated.

    Answers are those behind demonstrations where there are any: in `compat`, a first answer stands on a new line.
    """
    options = {"mode": mode, "instruction": spec.instruction, "compat": compat}
    alone = prompts.build(item, **options)
    whole = prompts.build(item, demonstrations=shown, **options)
    return {
        "id": item.id,
        "group": item.group,
        "head": alone.shared,
        "text": whole.own,
        "choices": [forms[0] for forms in whole.answers],
        "gold": item.gold,
    }


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic_write(path) as handle:
        handle.write(text)
    return hashlib.sha256(text.encode()).hexdigest()


def _yaml(path: Path, value: Mapping[str, Any]) -> None:
    import yaml

    with files.atomic_write(path) as handle:
        yaml.safe_dump(dict(value), handle, sort_keys=False, allow_unicode=True)
