"""A whole corpus from JATS: MB of XML per CPU-second, the share of two cores that two processes use, and peak memory.

    python tests/benchmarks/bench_corpus.py [--mb 200] [--large] [--keep FOLDER] [--json]

The input is made: articles in the structure of PubMed Central's, every tenth of them twice, with a change in its title.
The build does what `corpus=gap_replay` asks of papers: the paper's tokens, mending, language, length, repetition,
licence and cutoff filters (all shares of repetition are looked at, and any is accepted: made text repeats its words),
duplicates by ids, words and MinHash; decontamination against MedQA, MedMCQA and PubMedQA
where ../shared/data is there. Peak memory is the largest sum, over a fifth of a second, of what all processes of the
build hold for themselves alone and of their shares of what they hold together (PSS). `--large` builds from 2 GB too.
`--keep` names a folder for the input, which is taken as it is when it is there.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
BARS = {"mb_per_cpu_s": 5.0, "cores_used": 0.9, "memory_gib": 1.5}
BENCHMARKS = {
    "medqa": "medqa/us_4_options_first150.jsonl",
    "medmcqa": "medmcqa/dev_first150.json",
    "pubmedqa": "pubmedqa/ori_pqal.json",
}

_BUILD = """
import sys
from toolkit.cleaning import Decontamination, Filters, Language, Length, Repetition
from dataclasses import fields
from toolkit.corpus import Settings, Source, build
folder, out, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])
benchmarks = dict(word.split("=", 1) for word in sys.argv[4:])
wide = {each.name: 1.0 for each in fields(Repetition) if each.name != "enabled"}
repetition = Repetition(enabled=True, **wide)
filters = Filters(
    licences=("open", "noncommercial", "no-derivatives", "restricted", "unknown"), cutoff="2023-08-31",
    language=Language(keep=("en",)), length=Length(min_words=20), repetition=repetition,
)
settings = Settings(
    markup="tags", filters=filters, benchmarks=benchmarks,
    decontamination=Decontamination(mode="remove" if benchmarks else "off"),
)
report = build(
    sources=[Source(kind="pmc", paths=(folder,), subset="papers")], out=out, settings=settings, workers=workers
)
print(report.documents_in, report.documents_out, dict(report.removed))
"""


def make(folder: Path, size: int) -> int:
    """About `size` bytes of articles, 1,000 to a folder; returns the exact number."""
    sys.path.insert(0, str(ROOT))
    from tests.corpus import made_jats

    total = seed = 0
    while total < size:
        article = made_jats.article(seed, 60_000 + 10_000 * (seed % 6))
        copies = [article]
        if seed % 10 == 0:  # another id, else it is the same paper
            copies.append(article.replace(b"<article-title>", b"<article-title>Again: ", 1).replace(b"PMC", b"PMC9"))
        for number, data in enumerate(copies):
            path = folder / f"{seed // 1000:04d}" / f"{seed:07d}-{number}.xml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            total += len(data)
        seed += 1
    return total


def build(folder: Path, workers: int) -> dict[str, Any]:
    """CPU and wall seconds, and peak memory in GiB, of one build, in processes of its own."""
    found = [f"{name}={DATA / path}" for name, path in BENCHMARKS.items() if (DATA / path).is_file()]
    with tempfile.TemporaryDirectory(dir=folder.parent) as out:
        command = [sys.executable, "-c", _BUILD, str(folder), f"{out}/corpus", str(workers), *found]
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
        )
        peak, waited = 0, {}
        while process.poll() is None:
            peak = max(peak, _memory(process.pid, waited))
            time.sleep(0.2)
        wall, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
        assert process.returncode == 0 and process.stdout is not None, command
        told = process.stdout.read().strip()
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    waits = sum(waited.values()) / 1e9
    return {
        "workers": workers,
        "cpu_s": cpu,
        "waited_s": waits,
        "wall_s": wall,
        "memory_gib": peak / 2**30,
        "documents": told,
    }


def _memory(pid: int, waited: dict[int, int]) -> int:
    """Bytes of PSS of a process and all that it has started; `waited` takes the ns that each was kept from a CPU."""
    total, waiting = 0, [pid]
    while waiting:
        pid = waiting.pop()
        try:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
            waited[pid] = int(Path(f"/proc/{pid}/schedstat").read_text().split()[1])
            for thread in Path(f"/proc/{pid}/task").iterdir():
                waiting += map(int, (thread / "children").read_text().split())
        except OSError:  # it has ended meanwhile
            continue
    return total


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['input_mb']:.0f} MB, workers={row['workers']}: "
        f"{row['mb_per_cpu_s']:.1f} MB per CPU-second (bar {BARS['mb_per_cpu_s']}), "
        f"{row['cores_used']:.0%} of as many cores (bar {BARS['cores_used']:.0%}; with the time that others had "
        f"them {row['cores_asked']:.0%}), {row['wall_s']:.0f} s, "
        f"{row['memory_gib']:.2f} GiB at most (bar {BARS['memory_gib']}); in, out, removed: {row['documents']}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=200)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = []
    for size in [args.mb, *([2000] if args.large else [])]:
        with tempfile.TemporaryDirectory() as scratch:
            folder = (args.keep or Path(scratch)) / f"made-{size}"
            if folder.is_dir():
                total = sum(path.stat().st_size for path in folder.rglob("*.xml"))
            else:
                total = make(folder, size * 1_000_000)
            for workers in (1, 2):
                row = {"input_mb": round(total / 1e6, 1), **build(folder, workers)}
                row["mb_per_cpu_s"] = total / 1e6 / row["cpu_s"]
                row["cores_used"] = row["cpu_s"] / row["wall_s"] / workers
                row["cores_asked"] = (row["cpu_s"] + row["waited_s"]) / row["wall_s"] / workers
                rows.append(row)
                if not args.json:
                    print(_line(row), flush=True)
    if args.json:
        print(json.dumps({"bars": BARS, "rows": rows}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
