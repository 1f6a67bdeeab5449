"""A dry run of the 70B against what it stands on: `python tests/benchmarks/bench_dry_run.py [--json] [--runs N]`.

Both are started in turn, each N times in a fresh Python; the best of each counts. The bar is a ratio of 2.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BAR = 2.0
COMMANDS = {
    "dry_run": [sys.executable, "-m", "toolkit.launch", "recipe=pretrain_70b", "--dry-run"],
    "peer": [sys.executable, "-c", "import hydra, submitit"],
}


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--runs", type=int, default=9)
    args = parser.parse_args()
    for command in COMMANDS.values():
        seconds(command)  # reads the files and writes their bytecode once
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(args.runs):
        for name, command in COMMANDS.items():
            times[name].append(seconds(command))
    best = {name: min(values) for name, values in times.items()}
    ratio = best["dry_run"] / best["peer"]
    if args.json:
        rounded = {f"{name}_s": round(value, 4) for name, value in best.items()}
        print(json.dumps({**rounded, "ratio": round(ratio, 3), "bar": BAR, "runs": args.runs}))
    else:
        print(f"dry run of pretrain_70b   {best['dry_run']:.3f} s")
        print(f"import hydra, submitit    {best['peer']:.3f} s")
        print(f"ratio                     {ratio:.2f}   (bar: at most {BAR:.1f}; best of {args.runs}, interleaved)")
    return 0 if ratio <= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
