"""JATS to text beside pubmed_parser, on the same files, in turn: MB of XML per CPU-second after the imports.

    python tests/benchmarks/bench_jats.py [--runs 5] [--passes 8] [--made] [--peers FOLDER] [--json]

Here: `corpus.jats.read` of each file, which gives ids, date, licence, title and the text with formulas, lists, captions
and, between the paper's tokens, citations by title. There: `parse_pubmed_xml` (ids, date, authors, abstract) and
`parse_pubmed_paragraph(all_paragraph=True)` (the paragraphs with the ids they cite), its two functions for the same
end; with `parse_pubmed_references` (titles of what is cited) besides, which is what the paper's tokens need. Each run
is a fresh process that goes over all files once unmeasured and then `--passes` times; the best pass of all runs counts.
The files are the articles of ../shared/data/pmc_jats when they are there, else made ones (`--made`). FOLDER is a
virtual environment with the peers, or where to make it (default: runs/peers, made if missing).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT.parent / "shared" / "data" / "pmc_jats"
BAR = 2.0  # times the peer that gives the same
# What is measured here -> the peer's functions that give the same; tables as text it has nowhere.
PEERS = {
    "here, plain": "pubmed_parser",
    "here, tags": "pubmed_parser, references",
    "here, tags and cells": "pubmed_parser, references",
}

_TIMED = """
import json, sys, time
from pathlib import Path
files, passes, best = sorted(Path(sys.argv[1]).iterdir()), int(sys.argv[2]), 1e9
{setup}
for number in range(passes + 1):
    begun = time.process_time()
    for file in files:
        {work}
    if number:
        best = min(best, time.process_time() - begun)
print(json.dumps({{"s": best, "articles": len(files)}}))
"""
_OURS = _TIMED.format(
    setup="import lxml.etree\nfrom toolkit.corpus import jats, jats_text\noptions = json.loads(sys.argv[3])",
    work="(doc,) = jats.read(file, 'pmc', options)\n        assert len(doc.text) > 1000",
)
_READ = (
    "meta = pubmed_parser.parse_pubmed_xml(str(file))\n"
    "        paragraphs = pubmed_parser.parse_pubmed_paragraph(str(file), all_paragraph=True)\n"
    "        assert meta['pmc'] and len(paragraphs) > 3"
)
_THEIRS = _TIMED.format(setup="import pubmed_parser", work=_READ)
_THEIRS_CITED = _TIMED.format(
    setup="import pubmed_parser",
    work=f"{_READ}\n        assert pubmed_parser.parse_pubmed_references(str(file)) is not None",
)


def make(folder: Path) -> Path:
    from tests.corpus import made_jats

    for seed in range(12):
        (folder / f"{seed}.nxml").write_bytes(made_jats.article(seed, 60_000 + 10_000 * (seed % 6)))
    return folder


def main() -> int:
    import peers

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--passes", type=int, default=8)
    parser.add_argument("--made", action="store_true")
    parser.add_argument("--peers", type=Path, metavar="FOLDER")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    theirs = peers.python(args.peers)
    jobs = {
        "here, plain": (sys.executable, _OURS, {"markup": "plain"}),
        "pubmed_parser": (theirs, _THEIRS, {}),
        "here, tags": (sys.executable, _OURS, {"markup": "tags"}),
        "pubmed_parser, references": (theirs, _THEIRS_CITED, {}),
        "here, tags and cells": (sys.executable, _OURS, {"markup": "tags", "tables": "text"}),
    }
    best = dict.fromkeys(jobs, float("inf"))
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as made:
        files = REAL if REAL.is_dir() and not args.made else make(Path(made))
        mb = sum(file.stat().st_size for file in files.iterdir()) / 1e6
        for _ in range(args.runs):
            for name, (interpreter, code, options) in jobs.items():
                words = [str(interpreter), "-c", code, str(files), str(args.passes), json.dumps(options)]
                done = subprocess.run(words, env=env, cwd=made, check=True, capture_output=True, text=True)
                best[name] = min(best[name], json.loads(done.stdout.splitlines()[-1])["s"])
        real = files == REAL
    rows = {name: {"mb_per_cpu_s": mb / s, "times": best[PEERS.get(name, name)] / s} for name, s in best.items()}
    held = all(rows[name]["times"] >= BAR for name in ("here, plain", "here, tags"))
    if args.json:
        print(json.dumps({"mb": mb, "real": real, "rows": rows, "bar": BAR, "held": held, "runs": args.runs}))
        return 0 if held else 1
    print(f"{'real' if real else 'made'} articles, {mb:.2f} MB; best of {args.runs} x {args.passes} passes, in turn")
    for name, row in rows.items():
        times = f"  {row['times']:5.2f} times {PEERS[name]}" if name in PEERS else ""
        bar = f" (bar: {BAR} times)" if name in ("here, plain", "here, tags") else ""
        print(f"{name:25} {row['mb_per_cpu_s']:6.1f} MB per CPU-s{times}{bar}")
    return 0 if held else 1


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
