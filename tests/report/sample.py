"""A run folder like a real one, for the report's tests: made from a seed, so that two calls give the same files."""

from __future__ import annotations

import json
import math
import random
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

RECIPE = """\
name: demo
title: The whole pipeline on this machine's CPU in minutes, with real Megatron training at TP=2, PP=2
stages: [corpus, base, shards, import, pretrain, export, finetune, export, score, report]
model: {name: llama_demo, base: make, layers: 4, hidden: 128, ffn: 384, heads: 8, kv_heads: 4,
  base_vocab: 4096, extra_tokens: meditron}
parallel: {tp: 2, pp: 2, cp: 1, sequence: true, recompute: none}
train: {steps: 300, seq_length: 256, micro_batch: 4, global_batch: 16, lr: 0.003, min_lr: 0.0003, warmup_steps: 20,
  weight_decay: 0.1, clip_grad: 1.0, precision: fp32, seed: 1234}
finetune: {benchmark: demo_letters_trained, epochs: 3, lr: 0.0005, min_lr: 0.00005, global_batch: 32, seq_length: 128}
cluster: {name: local, executor: local, device: cpu, nodes: 1, devices_per_node: 4}
"""
STAGES = [
    ("corpus", "corpus", 2.1, {"documents": 412, "train_documents": 400, "valid_documents": 12}),
    ("base", "base", 3.4, {"parameters": 1681408, "vocab": 4113}),
    ("shards", "shards", 1.8, {"train_tokens": 1204331, "valid_tokens": 36110}),
    ("import", "import", 21.5, {"tensors": 38}),
    ("pretrain", "pretrain", 251.0, {"steps": 300, "final_loss": 1.4412}),
    ("export", "export", 9.2, {"tensors": 38}),
    ("finetune", "finetune", 71.3, {"steps": 90, "final_loss": 0.61}),
    ("export-finetune", "export", 9.4, {"tensors": 38}),
    ("score", "score", 38.0, {"benchmarks": 4, "questions": 1628}),
]
START = datetime(2026, 3, 14, 9, 26, 53, tzinfo=timezone.utc)
MMLU = {
    "anatomy": 135,
    "clinical_knowledge": 265,
    "college_biology": 144,
    "college_medicine": 173,
    "medical_genetics": 100,
    "professional_medicine": 272,
    "virology": 166,
    "nutrition": 306,
    "high_school_biology": 310,
}


def curve(
    steps: int, first: float, last: float, peak: float, seed: int, rate: float, every: int
) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        loss = last + (first - last) * math.exp(-4.2 * step / steps) + rng.gauss(0, 0.04)
        warm = max(1, steps // 15)
        lr = peak * min(step / warm, 0.1 + 0.45 * (1 + math.cos(math.pi * max(0, step - warm) / (steps - warm))))
        speed = rate * (0.55 if step == 1 else rng.uniform(0.93, 1.04))
        rows.append(
            {
                "step": step,
                "loss": round(loss, 5),
                "lr": lr,
                "grad_norm": round(0.4 + 3 * math.exp(-step / 12) + rng.random() * 0.15, 4),
                "tokens": step * 4096,
                "step_s": round(4096 / speed, 4),
                "data_s": round(0.02 * rng.random(), 4),
                "tokens_per_s": round(speed, 1),
                "rss_gib": round(0.9 + 0.2 * step / steps, 3),
                "elapsed_s": round(step * 4096 / rate, 1),
            }
        )
        if step % every == 0:
            rows.append({"step": step, "valid_loss": round(loss + 0.12 * step / steps, 5)})
    return rows


def score(
    model: str, benchmark: str, title: str, mode: str, correct: int, n: int, chance: float, **more: Any
) -> dict[str, Any]:
    from toolkit.stats import wilson

    bounds = [round(bound, 4) for bound in wilson(correct, n)]
    return {
        "model": model,
        "benchmark": benchmark,
        "title": title,
        "mode": mode,
        "accuracy": correct / n,
        "correct": correct,
        "n": n,
        "chance": chance,
        "ci95": bounds,
        "groups": {},
        "paper": None,
        "notes": [],
        **more,
    }


def scores() -> list[dict[str, Any]]:
    rows = []
    for model, right in (("base", 63), ("pretrained", 234), ("finetuned", 228)):
        groups = {
            "dose": {"accuracy": right / 256, "n": 64},
            "contraindication": {"accuracy": max(0.0, right / 256 - 0.03), "n": 192},
        }
        rows.append(score(model, "demo_cloze", "Invented facts, cloze", "cloze", right, 256, 0.25, groups=groups))
    for model, right in (("base", 31), ("pretrained", 30), ("finetuned", 81)):
        rows.append(
            score(
                model, "demo_letters_trained", "Invented facts, letters, trained entities", "letter", right, 120, 0.25
            )
        )
    for model, right in (("base", 168), ("pretrained", 181), ("finetuned", 189)):
        note = "'yes', 'no' and 'maybe' are scored as words"
        rows.append(score(model, "pubmedqa", "PubMedQA", "letter", right, 500, 1 / 3, paper="PubMedQA", notes=[note]))
    for model, right in (("base", 455), ("pretrained", 470), ("finetuned", 481)):
        groups = {name: {"accuracy": 0.2 + 0.1 * ((right + size) % 7) / 7, "n": size} for name, size in MMLU.items()}
        rows.append(
            score(
                model,
                "mmlu_medical",
                "MMLU-Medical (9 subjects)",
                "letter",
                right,
                1871,
                0.25,
                paper="MMLU-Med",
                groups=groups,
            )
        )
    return rows


def lines(path: Path, rows: list[dict[str, Any]], end: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + end, encoding="utf-8")


def put(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def make(root: Path) -> Path:
    """Write a finished demo run, resumed once after step 180, into `root`."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    put(
        root / "manifest.json",
        {
            "run": root.name,
            "created": START.isoformat(),
            "command": ["python", "-m", "toolkit.launch", "recipe=demo", "score.benchmarks=[demo_cloze,pubmedqa]"],
            "git": {"commit": "3f5c1e9a7b2d4c6e8f0a1b2c3d4e5f60718293a4", "dirty": True},
            "versions": {
                "torch": "2.13.0",
                "nemo-toolkit": "2.6.0",
                "megatron-core": "0.15.0",
                "transformers": "4.57.6",
            },
            "host": "login01",
            "python": "3.11.9",
            "data": {"corpus/train.jsonl": "9e55" * 16, "pubmedqa": "a1b2" * 16},
        },
    )
    jobs, begin = [], START
    for name, kind, seconds, result in STAGES:
        end = begin + timedelta(seconds=seconds)
        attempts = [{"job_id": "41", "started": begin.isoformat(), "ended": end.isoformat(), "state": "done"}]
        if name == "pretrain":
            attempts.insert(0, {**attempts[0], "job_id": "40", "state": "failed"})
        jobs.append({"id": name, "stage": kind, "attempts": attempts})
        put(
            root / "stages" / name / "done.json",
            {
                "stage": kind,
                "started": begin.isoformat(),
                "ended": end.isoformat(),
                "elapsed_s": seconds,
                "outputs": {f"stages/{name}/out.bin": "0f1e" * 16},
                "result": result,
            },
        )
        begin = end + timedelta(seconds=1.5)
    put(root / "jobs.json", {"stages": jobs})
    rows = curve(300, 8.32, 1.41, 3e-3, 1, 5200, 25)
    cut = next(index for index, row in enumerate(rows) if row["step"] == 187)
    again = next(index for index, row in enumerate(rows) if row["step"] == 176)
    lost = [{**row, "loss": 99.0} if "loss" in row else row for row in rows[again:cut]]
    told = [
        {"step": 120, "event": "spike", "loss": 6.2, "median": 2.4, "limit": 4.1},
        {"step": 241, "event": "skipped", "why": "its gradients are no numbers", "loss": 1.6, "in_a_row": 1},
        {"step": 260, "event": "straggler", "rank": 3, "host": "node07", "own_s": 0.81, "ratio": 1.62},
    ]
    lines(root / "stages/pretrain/metrics.jsonl", rows[:again] + lost + rows[again:] + told)
    lines(root / "stages/finetune/metrics.jsonl", curve(90, 1.38, 0.6, 5e-4, 2, 3900, 30))
    put(root / "stages/score/scores.json", scores())
    return root


HOSTILE = [
    "<script>document.title='owned'</script>",
    "\"'><img src=x onerror=alert(1)>",
    "</style></pre></textarea></svg><svg onload=alert(1)>",
    "W" * 5000,
    "{{ 7 * 7 }}{% for x in y %}",
    "\u202egnirts sdrawkcab\u202c \x00\x1b[31m\ud800",
    "Z\u0351\u0352\u0353\u0354\u0355\u0356\u0357\u0358\u0359" * 20,
    "\u7535\u8def" * 300,
    "javascript:alert(1)",
]


def hostile(root: Path) -> Path:
    """A run whose every text is hostile and whose numbers are absurd, of the right JSON types and of wrong ones."""
    root.mkdir(parents=True, exist_ok=True)
    bad = HOSTILE
    recipe = {
        "name": bad[0],
        "title": bad[2],
        "stages": ["pretrain", bad[1], bad[3], 7, None, "score"],
        "model": {"name": bad[3], "layers": bad[0], "hidden": 10**300, "heads": [1]},
        "parallel": {"tp": bad[1], "pp": -1},
        "train": {"steps": bad[7], "lr": float("nan"), "seq_length": 0, "global_batch": bad[0]},
        "cluster": bad[4],
        "finetune": None,
    }
    (root / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    put(
        root / "manifest.json",
        {
            "run": bad[0],
            "created": bad[5],
            "command": bad[:7],
            "git": {"commit": bad[1], "dirty": bad[0]},
            "host": bad[5],
            "python": bad[6],
            "versions": {bad[0]: bad[3], bad[6]: None},
            "data": {bad[3]: bad[7]},
        },
    )
    attempts = [{"job_id": bad[0], "started": 1e300, "ended": "never", "state": text} for text in bad]
    put(root / "jobs.json", {"stages": [{"id": bad[0], "stage": bad[3], "attempts": attempts}, {"id": 3}, bad[1]]})
    put(
        root / "stages/pretrain/done.json",
        {
            "stage": bad[2],
            "elapsed_s": float("inf"),
            "outputs": {bad[0]: bad[3]},
            "result": {bad[0]: bad[5], bad[3]: [1], "x": float("nan")},
        },
    )
    numbers: list[Any] = [8.0, float("nan"), float("inf"), 1e308, -1e308, "8", None, True, [1], 10**400, 5.0, 4.0]
    body = "".join(
        json.dumps({"step": step, "loss": value, "lr": value, "tokens_per_s": value, bad[0]: 1}) + "\n"
        for step, value in enumerate(numbers)
    )
    path = root / "stages/pretrain/metrics.jsonl"
    path.write_text(
        body + 'null\n[1]\n{"step": -1}\n{"step": 1e9}\n' + "[" * 5000 + '\n{"step": 12, "lo', encoding="utf-8"
    )
    row = score(
        "base", "b", bad[0], bad[1], 1, 4, 0.25, notes=bad, groups={text: {"accuracy": 0.5, "n": 2} for text in bad}
    )
    put(
        root / "stages/score/scores.json",
        [
            {**row, "title": bad[3], "paper": bad[0]},
            {**row, "model": "pretrained", "ci95": [float("nan"), 9], "correct": 3, "accuracy": 0.75},
            {**row, "model": bad[1], "paper": bad[2]},
            {**row, "model": bad[7], "accuracy": 7},
            {"model": bad[0]},
            bad[0],
            None,
            {**row, "model": "base", "benchmark": bad[7], "title": bad[7], "mode": bad[6], "chance": float("inf")},
        ],
    )
    return root
