"""Stored generations judged without a model: generations per second of one core, by the verb itself.

    python tests/benchmarks/bench_rescore.py [--items 4000] [--json]

The texts are made: 1 to 2 kB of reasoning and an answer at its end (or at its beginning, with the reasoning as its
explanation), in the forms that models use most: a statement, bold print, JSON, a box, the letter alone. A second file
has the endings of the hand-made key instead, which are hard on purpose. Five generations an item. The time is the whole
command's, its start included; the best of three.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BAR = 20_000  # generations a second, common forms
OPTIONS = ["Nifedipine", "Enoxaparin", "Clopidogrel", "Spironolactone"]
PROSE = [
    "The patient was brought in with chest pain, and the tracing shows depressed segments in three leads.",
    "His blood pressure is well controlled, and he has been taking the same tablets for years.",
    "A stent was placed on the first day, and the function of the left ventricle is normal.",
    "Nifedipine widens the vessels and would mainly make the heart beat faster here.",
    "Enoxaparin belongs to the first hours and is stopped after the procedure in most patients.",
    "Spironolactone is given when the ejection fraction is low, which is not so in this patient.",
    "What remains to be prevented is a clot within the stent during the first months.",
    "Aspirin alone is not enough for that, as several large trials have shown.",
]
COMMON = [
    "{prose}\n\nTherefore, the correct answer is {letter}. {option}.",
    "{prose} The answer is ({letter}).",
    "{prose}\n\n**Answer: {letter}**",
    "{prose}\n\n**Final Answer:** {letter}. {option}",
    '{{"step_by_step_thinking": "{prose}", "answer_choice": "{letter}"}}',
    "The correct answer is {letter}. {option}\n\nExplanation: {prose}",
    "{prose} Thus, the final answer is $\\boxed{{{letter}}}$.",
    "{letter}. {option}\n\n{prose}",
    "{prose}\n\n{letter}",
]


def make(path: Path, items: int, endings: list[str] | None) -> int:
    """A file of `items` items with five generations each; returns how many generations."""
    rng = random.Random(items)
    with path.open("w", encoding="utf-8") as out:
        for i in range(items):
            texts = []
            for _ in range(5):
                prose = " ".join(rng.choice(PROSE) for _ in range(rng.randint(10, 20)))
                k = rng.randrange(4)
                form = (
                    "{prose}\n\n" + rng.choice(endings).replace("{", "{{").replace("}", "}}")
                    if endings
                    else rng.choice(COMMON)
                )
                texts.append(form.format(prose=prose, letter="ABCD"[k], option=OPTIONS[k]))
            row = {"id": i, "question": "Which drug?", "options": OPTIONS, "gold": "C", "generations": texts}
            out.write(json.dumps(row) + "\n")
    return 5 * items


def measure(path: Path, generations: int) -> dict[str, float]:
    command = [sys.executable, "-m", "toolkit.score", "rescore", str(path), "--benchmark", "medqa4", "--json"]
    best, cpu = float("inf"), float("inf")
    for _ in range(3):
        before, start = os.times(), time.perf_counter()
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
        after = os.times()
        best = min(best, time.perf_counter() - start)
        cpu = min(cpu, after.children_user + after.children_system - before.children_user - before.children_system)
    shown = json.loads(done.stdout)
    size = path.stat().st_size / generations
    return {
        "per_s": generations / best,
        "per_cpu_s": generations / cpu,
        "bytes": size,
        "invalid": shown["invalid_generations"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=8000)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    key = [
        json.loads(line)
        for file in sorted((ROOT / "tests/scoring/answers").glob("*.jsonl"))
        for line in file.open(encoding="utf-8")
    ]
    hard = [row["text"] for row in key if row["options"] == OPTIONS]
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, endings in (("common", None), ("hard", hard)):
            path = Path(folder) / f"{name}.jsonl"
            found[name] = measure(path, make(path, args.items, endings))
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        for name, row in found.items():
            rate = f"{row['per_cpu_s']:,.0f} generations a CPU-second ({row['per_s']:,.0f} a second)"
            print(f"rescore, {name:6}: {rate}, {row['bytes']:.0f} bytes each, {row['invalid']} without an answer")
    return 0 if found["common"]["per_cpu_s"] >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
