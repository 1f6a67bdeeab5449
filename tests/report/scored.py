"""Folders of scores as `score run` leaves them, made up from a seed: for the tests of the page of scores."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

from tests.report.sample import MMLU
from toolkit.stats import mean_sd, wilson

LABELS = "ABCD"


def item(rng: random.Random, skill: float, labels: str = LABELS) -> tuple[list[float], int, int]:
    """Log-probabilities, what they say, and the right answer: right with probability `skill`, about that sure."""
    gold = rng.randrange(len(labels))
    said = gold if rng.random() < skill else rng.choice([i for i in range(len(labels)) if i != gold])
    sure = min(0.97, max(0.3, rng.gauss(skill + 0.1, 0.15)))
    share = [sure if i == said else (1 - sure) / (len(labels) - 1) for i in range(len(labels))]
    return [math.log(value) - 1.0 for value in share], said, gold


def folder(path: Path, model: str, skill: float, *, seeds: tuple[int, ...] = (0,), hostile: str = "") -> Path:
    """A model of that skill on MMLU (by subject), MedQA-4 and PubMedQA, with each of the seeds."""
    path.mkdir(parents=True)
    scores: list[dict[str, Any]] = []
    lines: list[dict[str, Any]] = []
    for name, title, paper, groups in (
        ("mmlu_medical", "MMLU-Medical (9 subjects)", "MMLU-Med", MMLU),
        ("medqa4", f"MedQA, 4 options{hostile}", "MedQA-4", {"step1": 320}),
        ("pubmedqa", "PubMedQA", "PubMedQA", {"": 240}),
    ):
        rows = []
        for seed in seeds:
            right: dict[str, int] = {}
            n = 0
            for group, size in groups.items():
                for number in range(size):
                    rng = random.Random(f"{name} {number} {group} {seed}")  # whatever the model: the same question
                    values, said, gold = item(rng, skill)
                    right[group] = right.get(group, 0) + (said == gold)
                    lines.append(
                        {"model": model, "benchmark": name, "mode": "letter", "shots": 3, "seed": seed,
                         "id": f"{name}-{group}-{number}{hostile}", "group": group, "prediction": LABELS[said],
                         "gold": LABELS[gold], "correct": said == gold, "valid": True, "logprobs": values}
                    )  # fmt: skip
                    n += 1
            correct = sum(right.values())
            rows.append(
                {"model": model, "benchmark": name, "title": title, "mode": "letter", "accuracy": correct / n,
                 "correct": correct, "n": n, "chance": 0.25, "ci95": list(wilson(correct, n)), "paper": paper,
                 "groups": {g: {"accuracy": right[g] / s, "correct": right[g], "n": s} for g, s in groups.items()}
                 if len(groups) > 1 else {}, "shots": 3, "seed": seed, "compat": False, "invalid": 3,
                 "engine": "transformers", "engine_version": "4.57.6", "benchmark_sha256": f"{name:0<64}",
                 "notes": [f"a note{hostile}"]}
            )  # fmt: skip
        scores += rows
    for name in dict.fromkeys(row["benchmark"] for row in scores):
        several = [row for row in scores if row["benchmark"] == name and "seeds" not in row]
        if len(several) > 1:
            mean, sd = mean_sd([row["accuracy"] for row in several])
            same = {key: several[0][key] for key in ("model", "benchmark", "mode", "shots", "compat", "title", "paper")}
            scores.append({**same, "seeds": list(seeds), "mean": mean, "sd": sd, "n": several[0]["n"], "invalid": 9})
    (path / "scores.json").write_text(json.dumps(scores), encoding="utf-8")
    with open(path / "predictions.jsonl", "w", encoding="utf-8") as handle:
        handle.writelines(json.dumps(line) + "\n" for line in lines)
    return path
