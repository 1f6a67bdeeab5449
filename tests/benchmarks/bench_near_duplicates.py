"""Near duplicates, shingles and all, beside datasketch and datatrove: CPU seconds, recall at five distances, precision.

Made-up documents, half of an abstract's and half of an article's length; each fourth has a copy somewhere behind it in
which words are exchanged so that the Jaccard similarity of five-word shingles is about 0.95, 0.90, 0.84, 0.70 or 0.50.
What counts as a duplicate is computed exactly: 0.8 or more. Words are of plain letters, so that all three make the same
shingles of them. Each program begins with the texts in memory and ends with the list of documents to remove; counted
is its processor time in between, in a process of its own, imports and a first document aside.

- here: words, shingles, MinHash (20 x 6), sketches, columns on disk, bands sorted, pairs measured, groups.
  At the threshold 0.8, and at 0.75, which gives up precision for recall as datatrove does, that measures no pair.
- datasketch: five-word shingles as Python strings, MinHash of 128 permutations as its documentation makes it, shingle
  by shingle; and as fast as it can be made, by `update_batch`, with SHA-1 (its own) and with xxh32. MinHashLSH at 0.8:
  each document is asked for, then inserted if it is new.
- datatrove: its MinHash as it comes (14 x 8, five words, spaCy's words): signatures, buckets, clusters, on disk.

    python tests/benchmarks/bench_near_duplicates.py [--mb 10] [--repeat 2] [--peers FOLDER] [--json]

FOLDER is a virtual environment with the peers, or where to make it (default: runs/peers, made if missing).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
BARS = {"here": ("datasketch", 12), "here, 0.75": ("datatrove", 15)}  # at recall and precision as good or better
THRESHOLD, SHINGLE = 0.8, 5
RATES = (0.005, 0.0105, 0.0175, 0.036, 0.073)  # of words exchanged: about 0.95, 0.90, 0.84, 0.70 and 0.50 alike
_OURS = """
import json, resource, sys, time
from pathlib import Path
from toolkit.cleaning import Duplicates
from toolkit.corpus import words
from toolkit.corpus.dedup import decide
from toolkit.corpus.document import Document
from toolkit.corpus.fingerprints import Collector
texts, work = json.load(open(sys.argv[1])), Path(sys.argv[2])
docs = [Document(id=str(i), source="s", subset="s", title="", text=text) for i, text in enumerate(texts)]
rules = Duplicates(ids=False, exact=False, near_threshold=float(sys.argv[3]))
def find(docs, folder):
    collector = Collector(folder / "unit", rules)
    for doc in docs:
        collector.add(doc, words.hashes(doc.text))
    collector.close()
    return decide([folder / "unit"], folder / "work", rules).reasons[0].nonzero()[0].tolist()
find(docs[:1], work / "first")
begin = time.process_time()
removed = find(docs, work / "all")
took = time.process_time() - begin
print(json.dumps({"s": took, "removed": removed, "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""
_DATASKETCH = """
import json, resource, sys, time
import xxhash
from datasketch import MinHash, MinHashLSH
texts = json.load(open(sys.argv[1]))
options = {"hashfunc": xxhash.xxh32_intdigest} if sys.argv[3] == "xxh32" else {}
def find(texts):
    lsh, removed = MinHashLSH(threshold=0.8, num_perm=128), []
    for i, text in enumerate(texts):
        words = text.lower().split()
        shingles = {" ".join(words[k : k + 5]).encode() for k in range(len(words) - 4)}
        minhash = MinHash(num_perm=128, **options)
        if sys.argv[3] == "one by one":
            for shingle in shingles:
                minhash.update(shingle)
        else:
            minhash.update_batch(list(shingles))
        if lsh.query(minhash):
            removed.append(i)
        else:
            lsh.insert(i, minhash)
    return removed
find(texts[:1])
begin = time.process_time()
removed = find(texts)
took = time.process_time() - begin
print(json.dumps({"s": took, "removed": removed, "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""
_DATATROVE = """
import json, resource, sys, time
from loguru import logger
logger.remove()
from datatrove.data import Document
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig, MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupSignature
)
import numpy as np
texts, work = json.load(open(sys.argv[1])), sys.argv[2]
docs = [Document(text=text, id=str(i)) for i, text in enumerate(texts)]
config = MinhashConfig()
def find(docs, folder):
    MinhashDedupSignature(f"{folder}/signatures", config=config).run(iter(docs), 0, 1)
    buckets = MinhashDedupBuckets(f"{folder}/signatures", f"{folder}/buckets", config=config)
    for rank in range(config.num_buckets):
        buckets.run(None, rank, config.num_buckets)
    MinhashDedupCluster(f"{folder}/buckets", f"{folder}/removed", config=config).run(None, 0, 1)
    return np.fromfile(f"{folder}/removed/000000.remove", "<u4").tolist()
try:
    find(docs[:2] + docs[:1], work + "/first")
except FileNotFoundError:
    pass
begin = time.process_time()
removed = find(docs, work + "/all")
took = time.process_time() - begin
print(json.dumps({"s": took, "removed": removed, "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


def generate(mb: float) -> tuple[list[str], list[tuple[int, int, float, int]]]:
    """Texts, and (number of the first, of its copy, their similarity, which distance) of what is planted."""
    rng = random.Random(7)
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = ["".join(rng.choices(letters, k=rng.randint(2, 10))) for _ in range(60_000)]
    texts: list[str] = []
    waiting: list[tuple[int, list[str], int]] = []
    planted: list[tuple[int, int, float, int]] = []
    size, number = 0, 0
    while size < mb * 1e6:
        base = [vocabulary[int(rng.paretovariate(0.5)) % len(vocabulary)] for _ in range((220, 3000)[number % 8 == 0])]
        if number % 4 == 0:
            waiting.append((len(texts), base, number // 4 % len(RATES)))
        number += 1
        texts.append(" ".join(base))
        size += len(texts[-1])
        if len(waiting) > 50:
            first, original, distance = waiting.pop(0)
            copy = [rng.choice(vocabulary) if rng.random() < RATES[distance] else word for word in original]
            planted.append((first, len(texts), similarity(original, copy), distance))
            texts.append(" ".join(copy))
            size += len(texts[-1])
    return texts, planted


def similarity(first: list[str], second: list[str]) -> float:
    sides = [{tuple(side[i : i + SHINGLE]) for i in range(len(side) - SHINGLE + 1)} for side in (first, second)]
    return len(sides[0] & sides[1]) / len(sides[0] | sides[1])


def judge(removed: list[int], planted: list[tuple[int, int, float, int]]) -> dict[str, Any]:
    """Recall over what is 0.8 or more alike, precision over all removed, and the share found at each distance."""
    gone = set(removed)
    found = {pair: pair[0] in gone or pair[1] in gone for pair in planted}
    true = [pair for pair in planted if pair[2] >= THRESHOLD]
    right = sum(found[pair] for pair in true)
    distances = []
    for distance in range(len(RATES)):
        pairs = [pair for pair in planted if pair[3] == distance]
        alike = sum(pair[2] for pair in pairs) / len(pairs)
        distances.append({"similarity": round(alike, 3), "found": sum(found[pair] for pair in pairs) / len(pairs)})
    return {"recall": right / len(true), "precision": right / max(1, len(gone)), "distances": distances}


def main() -> int:
    import peers

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=float, default=10)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--peers", type=Path, metavar="FOLDER")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    theirs = peers.python(args.peers)
    texts, planted = generate(args.mb)
    mb = sum(map(len, texts)) / 1e6
    jobs = {
        "here": (sys.executable, _OURS, "0.8"),
        "here, 0.75": (sys.executable, _OURS, "0.75"),
        "datasketch": (theirs, _DATASKETCH, "one by one"),
        "datasketch, batch": (theirs, _DATASKETCH, "batch"),
        "datasketch, xxh32": (theirs, _DATASKETCH, "xxh32"),
        "datatrove": (theirs, _DATATROVE, ""),
    }
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in jobs}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "texts.json")
        path.write_text(json.dumps(texts))
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        for turn in range(args.repeat):
            for number, (name, (interpreter, code, more)) in enumerate(jobs.items()):
                words = [str(interpreter), "-c", code, str(path), f"{folder}/{turn}-{number}", more]
                done = subprocess.run(words, env=env, check=True, capture_output=True, text=True)
                runs[name].append(json.loads(done.stdout.splitlines()[-1]))
    rows = {}
    for name, seen in runs.items():
        best = min(each["s"] for each in seen)
        rows[name] = {"cpu_s": best, "mb_per_cpu_s": mb / best, "mib": max(each["mib"] for each in seen)}
        rows[name].update(judge(seen[0]["removed"], planted))
        assert all(each["removed"] == seen[0]["removed"] for each in seen), f"{name}: other documents the second time"
    held = True
    for name, (peer, bar) in BARS.items():
        ours, row = rows[name], rows[peer]
        row["times"], row["bar"] = row["cpu_s"] / ours["cpu_s"], bar
        held &= row["times"] >= bar and ours["recall"] >= row["recall"] and ours["precision"] >= row["precision"]
    for row in rows.values():
        row.setdefault("times", row["cpu_s"] / rows["here"]["cpu_s"])
    result = {"mb": mb, "documents": len(texts), "planted": len(planted), "rows": rows, "held": held}
    print(json.dumps(result) if args.json else table(result))
    return 0 if held else 1


def table(result: dict[str, Any]) -> str:
    lines = [f"{result['documents']} documents, {result['mb']:.1f} MB, {result['planted']} of them copies"]
    lines.append(f"{'':18}  CPU s  MB/CPU-s  here is  recall  precision  MiB   found at similarity")
    for name, row in result["rows"].items():
        bar = f" (bar {row['bar']})" if "bar" in row else ""
        found = "  ".join(f"{each['similarity']:.2f}: {each['found']:4.0%}" for each in row["distances"])
        lines.append(
            f"{name:18} {row['cpu_s']:6.2f}  {row['mb_per_cpu_s']:8.2f}  {row['times']:6.1f}x {row['recall']:7.1%}"
            f"  {row['precision']:9.1%}  {row['mib']:4.0f}  {found}{bar}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
