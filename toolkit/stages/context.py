"""What a stage is given: its recipe, its folder, what earlier stages made; and the hashes that decide whether it must
run again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit import files
from toolkit.errors import RunError
from toolkit.plan import Layout, Step, layout, steps
from toolkit.recipe import Recipe
from toolkit.recipe.paths import of_corpus
from toolkit.runs import Run, done


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a stage made: named paths below its folder, and the figures worth keeping."""

    outputs: Mapping[str, Path]
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Context:
    run: Run
    step: Step

    @property
    def recipe(self) -> Recipe:
        return self.run.recipe

    @property
    def layout(self) -> Layout:
        return layout(self.recipe)

    @property
    def folder(self) -> Path:
        return self.run.stage(self.step.id)

    def part(self, number: int) -> Path:
        """The folder of a part of this stage, counted from 0."""
        return self.folder / "parts" / str(number)

    @property
    def rank(self) -> int:
        return int(os.environ.get("RANK", "0"))

    def made(self, kind: str, name: str) -> Path | None:
        """Output `name` of the nearest earlier step of stage `kind` (or with that id), if there is one in this run."""
        order = [s for s in steps(self.recipe)]
        before = order[: [s.id for s in order].index(self.step.id)]
        for step in reversed(before):
            if kind in (step.stage, step.id):
                record = done(self.run, step.id)
                if record is None or name not in record["names"]:
                    raise RunError(
                        f"stage {step.id} has not made '{name}'",
                        where=self.run.path,
                        do=f"run it first: run={self.run.path}",
                    )
                return self.run.stage(step.id) / record["names"][name]
        return None

    def hf_base(self) -> Path:
        """The HF folder of the base model, made by this run or given."""
        made = self.made("base", "hf")
        return made if made is not None else Path(str(self.recipe.model.base))

    def shards(self) -> Path:
        made = self.made("shards", "shards")
        return made if made is not None else Path(str(self.recipe.inputs.shards))

    def tokenizer(self) -> Path:
        return self.shards() / "tokenizer"


def inputs(run: Run, step: Step) -> dict[str, str]:
    """Hashes of everything that `step` reads: the recipe, what earlier stages made, files from outside (by size and
    time).
    """
    recipe = (run.path / "recipe.yaml").read_bytes()
    found = {"recipe.yaml": hashlib.sha256(recipe).hexdigest()}
    for need in step.needs:
        record = done(run, need)
        if record is None:
            raise RunError(
                f"stage {need} has left no done.json", where=run.stage(need), do=f"run it again: run={run.path}"
            )
        found.update({f"{need}/{name}": digest for name, digest in record["outputs"].items()})
    for key, path in _external(run.recipe, step.stage).items():
        found[key] = files.stat_fingerprint(path)
    return found


def _external(recipe: Recipe, stage: str) -> dict[str, str]:
    named: dict[str, str | None] = {}
    if stage == "corpus":
        named = {**of_corpus(recipe)}
        if recipe.corpus.decontaminate.mode != "off" and not recipe.corpus.decontaminate.benchmarks:
            named |= {f"score.paths.{name}": path for name, path in recipe.score.paths.items()}
    if stage in ("base", "shards"):
        named["inputs.corpus"] = recipe.inputs.corpus
    if stage in ("shards", "import", "export", "score") and recipe.model.base != "make":
        named["model.base"] = recipe.model.base
    if stage in ("pretrain", "export", "finetune"):
        named |= {"inputs.shards": recipe.inputs.shards, "inputs.checkpoint": recipe.inputs.checkpoint}
    if stage == "finetune" and recipe.finetune:
        named |= {"finetune.path": recipe.finetune.path, "finetune.template": recipe.finetune.template}
        named |= {f"finetune.paths.{name}": path for name, path in recipe.finetune.paths.items()}
    if stage in ("score", "night"):
        named |= {f"score.paths.{name}": path for name, path in recipe.score.paths.items()}
        named |= {f"score.train_paths.{name}": path for name, path in recipe.score.train_paths.items()}
    return {key: path for key, path in named.items() if path is not None and path != "world"}
