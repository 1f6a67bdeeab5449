"""`score list`: the benchmarks that there are, how they are asked, and what their files must be."""

from __future__ import annotations

import argparse
import dataclasses

from toolkit import cli
from toolkit.scoring import benchmarks


def add(verb: cli.Verb) -> None:
    listed = verb("list", "list the benchmarks")
    listed.add_argument("--benchmark", help="say everything of these alone: names or YAML files, separated by commas")
    listed.set_defaults(call=_list)


def _list(args: argparse.Namespace) -> None:
    asked = [name.strip() for name in (args.benchmark or "").split(",") if name.strip()]
    specs = [benchmarks.get(name) for name in asked or benchmarks.names()]
    if args.json:
        cli.print_json([dataclasses.asdict(spec) for spec in specs])
        return
    if asked:
        print("\n\n".join(_all(spec) for spec in specs))
        return
    table = [("benchmark", "split", "size", "train", "answers", "shots", "modes", "licence", "title")]
    for s in specs:
        answers = f"{s.answers[0]}-{s.answers[-1]}" if s.listed else "/".join(s.answers)
        counts = [str(n) if n is not None else "-" for n in (s.size, s.train_size)]
        modes = " ".join(f"{mode}*" if mode == s.mode else mode for mode in s.modes)
        table.append((s.name, s.split, *counts, answers, str(s.shots), modes, s.license or "-", s.title))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    right = {2, 3, 5}
    for row in table:
        cells = [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        print("  ".join(cells).rstrip())
    print("* the usual mode. `score list --benchmark NAME` says what a benchmark's files must be.")


def _all(spec: benchmarks.Benchmark) -> str:
    hub = spec.hub
    lines = {
        "title": spec.title,
        "files": ", ".join(spec.files),
        "training files": ", ".join(spec.train),
        "demonstrations": ", ".join(spec.demonstrations or spec.train),
        "on the hub": f"{hub.path} at {hub.revision} (only with --hub)" if hub else "",
        "groups": ", ".join(f"{name} {n}" for name, n in spec.groups.items()),
        "right answers": ", ".join(f"{name} {n}" for name, n in spec.gold_counts.items()),
        "instruction": spec.instruction,
        "compatible with": spec.compatible_with,
        "licence": spec.license,
        "notes": spec.notes,
    }
    return "\n".join([spec.name, *(f"  {key}: {text}" for key, text in lines.items() if text)])
