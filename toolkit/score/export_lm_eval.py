"""`score export-lm-eval`: benchmarks as tasks of lm-evaluation-harness, to cross-check scores there."""

from __future__ import annotations

import argparse
from pathlib import Path

from toolkit import cli
from toolkit.score import places
from toolkit.scoring import lm_eval


def add(verb: cli.Verb) -> None:
    export = verb("export-lm-eval", "write benchmarks as tasks of lm-evaluation-harness")
    places.add(export, required=False)
    export.add_argument("--mode", choices=lm_eval.MODES, default="letter", help="default: letter")
    export.add_argument("--shots", type=int, help="demonstrations before each question (default: the benchmark's own)")
    export.add_argument("--seed", type=int, default=1234, help="of their draw (default 1234)")
    export.add_argument("--paper-compat", action="store_true", help="prompts and draws as the paper's released code")
    export.add_argument("-o", "--out", required=True, type=Path, help="folder for the tasks (lm_eval --include_path)")
    export.set_defaults(call=_export)


def _export(args: argparse.Namespace) -> None:
    from toolkit.scoring import benchmarks, demonstrations, paper_compat

    specs = places.asked(args)
    located = places.located(args, specs, shots=args.shots != 0)
    names = []
    for spec in specs:
        path, train = located[spec.name]
        spec = paper_compat.apply(spec) if args.paper_compat else spec
        how = {"seed": args.seed, "compat": args.paper_compat}
        items = benchmarks.load(spec, path, compat=args.paper_compat)
        shots = spec.shots if args.shots is None else args.shots
        pool = demonstrations.pool(spec, path, train_path=train, compat=args.paper_compat) if shots else []
        shown = demonstrations.by_group(spec, items, pool, shots=shots, mode=args.mode, **how)
        names.append(lm_eval.export(args.out, spec, items, mode=args.mode, demonstrations=shown, **how))
    if args.json:
        cli.print_json({"folder": str(args.out.resolve()), "tasks": names})
        return
    print("\n".join(names))
    # Left to itself that harness begins prompts as the tokenizer says; `score run` does so with --bos alone.
    model = "--model hf --model_args pretrained=MODEL,dtype=float32,add_bos_token=False"
    print(f"lm_eval {model} --tasks {','.join(names)} --include_path {args.out}")
