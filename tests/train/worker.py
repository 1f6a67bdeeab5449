"""One rank of a training, for tests: `worker.py SPEC.json`. Runs what the stages run, with what a test wants changed.

SPEC: recipe (path of a resolved recipe.yaml), shards, folder, weights or resume, tp, pp, train ({field: value}),
rows (finetuning instead of pretraining).
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from toolkit import train
from toolkit.recipe import load
from toolkit.stages import training


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    recipe, shards = load(Path(spec["recipe"])), Path(spec["shards"])
    start = Path(spec.get("resume") or spec["weights"])
    world = spec["tp"] * spec["pp"] * spec.get("dp", 1)
    common = {
        "folder": Path(spec["folder"]),
        "model": recipe.model,
        "parallel": dataclasses.replace(recipe.parallel, tp=spec["tp"], pp=spec["pp"], **spec.get("parallel", {})),
        "train": dataclasses.replace(recipe.train, **spec.get("train", {})),
        "data": recipe.data,
        "cluster": dataclasses.replace(recipe.cluster, devices_per_node=world),
        "vocab_rows": training.vocab_rows(start),
        "tokenizer": shards / "tokenizer",
        "weights": None if spec.get("resume") else start,
        "resume": start if spec.get("resume") else None,
    }
    if "rows" in spec:
        train.finetune(train.FinetuneJob(**common, rows=Path(spec["rows"])))
    else:
        parts = {f"{part}_shards": (shards / part,) for part in ("train", "valid")}
        train.pretrain(train.PretrainJob(**common, **parts))


if __name__ == "__main__":
    main()
