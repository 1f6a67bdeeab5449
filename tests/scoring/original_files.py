"""Files of each benchmark's own format and true size, with invented questions."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.scoring import benchmarks

LETTERS = "ABCDE"
OTHERS = {"Misconceptions": 400, "Law": 200, "Fiction": 118}  # categories of the other 718 questions, roughly


def golds(name: str) -> list[str]:
    """Right answers as often as the benchmark's file says, in a shuffled order."""
    counts = benchmarks.get(name).gold_counts
    found = [label for label, n in counts.items() for _ in range(n)]
    random.Random(name).shuffle(found)
    return found


def lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def medqa(path: Path, right: Sequence[str], options: int) -> Path:
    def row(i: int, letter: str) -> dict[str, Any]:
        texts = {key: f"drug {i} {key}" for key in LETTERS[:options]}
        return {
            "question": f"Case {i}?",
            "answer": texts[letter],
            "options": texts,
            "meta_info": "step1",
            "answer_idx": letter,
        }

    return lines(path, [row(i, letter) for i, letter in enumerate(right)])


def medmcqa_rows(right: Sequence[str], first: int) -> list[dict[str, Any]]:
    options = {f"op{key}": f"organ {key}" for key in "abcd"}
    common = {"subject_name": "Anatomy", "topic_name": None, "choice_type": "single"}
    return [
        {
            "id": f"id-{i}",
            "question": f"Which {i}?",
            "cop": "ABCD".index(letter) + first,
            "exp": None,
            **options,
            **common,
        }
        for i, letter in enumerate(right)
    ]


def pubmedqa(folder: Path) -> Path:
    """The 1,000 labelled questions, the test fold's ids, and the training part of fold 0."""
    right = golds("pubmedqa") + ["yes"] * 276 + ["no"] * 169 + ["maybe"] * 55
    rows = {
        str(1000 + i): {
            "QUESTION": f"Does {i}?",
            "CONTEXTS": [f"We saw {i}.", "It was."],
            "LONG_ANSWER": f"Because {i}.",
            "final_decision": word,
        }
        for i, word in enumerate(right)
    }
    ids = list(rows)
    (folder / "pqal_fold0").mkdir(parents=True)
    (folder / "ori_pqal.json").write_text(json.dumps(rows))
    (folder / "test_ground_truth.json").write_text(json.dumps({key: rows[key]["final_decision"] for key in ids[:500]}))
    (folder / "pqal_fold0" / "train_set.json").write_text(json.dumps({key: rows[key] for key in ids[500:950]}))
    return folder


def table(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows(rows)
    return path


def mmlu(folder: Path, extra: Sequence[str] = ()) -> Path:
    """The nine subjects' test files and five demonstrations each, as hendrycks/test has them."""
    for group, n in benchmarks.get("mmlu_medical").groups.items():
        rows = [[f"{group}, question {i}", "w", "x, y", "z", '"q"', "ABCD"[i % 4]] for i in range(n)]
        table(folder / "test" / f"{group}_test.csv", rows)
    for group in (*benchmarks.get("mmlu_medical").groups, *extra):
        table(
            folder / "dev" / f"{group}_dev.csv",
            [[f"{group} dev {i}", "w", "x", "y", "z", "ABCD"[i % 4]] for i in range(5)],
        )
    return folder


def truthfulqa_rows() -> list[dict[str, Any]]:
    """817 rows, 99 of them medical; the first nine of these have two wrong answers, the others four."""
    categories = [c for c, n in {**benchmarks.get("truthfulqa_medical").groups, **OTHERS}.items() for _ in range(n)]
    rows = []
    for i, category in enumerate(categories):
        wrong = [f"wrong {i} {k}" for k in range(2 if i < 9 else 4)]
        rows.append({"Category": category, "Question": f"What of {i}?", "Best Answer": f"right {i}", "wrong": wrong})
    random.Random(0).shuffle(rows)
    return rows


def truthfulqa(path: Path) -> Path:
    header = ["Type", "Category", "Question", "Best Answer", "Correct Answers", "Incorrect Answers", "Source"]
    body = [
        [
            "Adversarial",
            r["Category"],
            r["Question"],
            r["Best Answer"],
            f"{r['Best Answer']}; so",
            "; ".join(r["wrong"]),
            "https://x",
        ]
        for r in truthfulqa_rows()
    ]
    return table(path, [header, *body])


def parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    import pyarrow
    from pyarrow import parquet as files

    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    return path
