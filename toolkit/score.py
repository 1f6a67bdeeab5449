"""`python -m toolkit.score`: score Hugging Face models on benchmarks. Thin; the work is in `toolkit.scoring`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from toolkit import cli
from toolkit.errors import UsageError, nearest
from toolkit.scoring import benchmarks

_EXAMPLES = """examples:
  python -m toolkit.score list
  python -m toolkit.score run --model models/pretrained --benchmark medqa4 --path test.jsonl -o scores/medqa4
  python -m toolkit.score run --model models/pretrained --benchmark pubmedqa,mmlu_medical \\
      --path pubmedqa=pubmedqa/data --path mmlu_medical=mmlu/data -o scores/two"""


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="toolkit.score", description=__doc__, epilog=_EXAMPLES, formatter_class=raw)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="run | list")
    run = verbs.add_parser("run", help="score a model", epilog=_EXAMPLES, formatter_class=raw)
    run.add_argument("--model", required=True, type=Path, help="Hugging Face folder")
    run.add_argument("--benchmark", required=True, help="names or YAML files, separated by commas")
    run.add_argument("--path", action="append", default=[], help="file or folder, or NAME=PATH for each benchmark")
    run.add_argument("--mode", choices=benchmarks.MODES, help="default: the benchmark's own")
    run.add_argument("--limit", type=int, help="score this many items, drawn at random")
    run.add_argument("--seed", type=int, default=0, help="of that draw (default 0)")
    run.add_argument("--batch-tokens", type=int, default=8192, help="prompt tokens in memory at once (default 8192)")
    run.add_argument("--bos", action="store_true", help="begin prompts with the beginning-of-sequence token")
    run.add_argument("--name", help="the model's name in the results (default: its folder's)")
    run.add_argument("-o", "--out", required=True, type=Path, help="folder for scores.json and predictions.jsonl")
    run.add_argument("--json", action="store_true", help="print the scores as JSON")
    listing = verbs.add_parser("list", help="list the benchmarks")
    listing.add_argument("--json", action="store_true", help="print them as JSON")
    return parser


def _paths(given: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """PATH for a single benchmark, NAME=PATH for each of several."""
    paths: dict[str, str] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if equals and name in names:
            paths[name] = path
        elif len(names) == 1 and not paths:
            paths[names[0]] = text
        else:
            do = f"write NAME=PATH; {nearest(name, names)}" if len(names) > 1 else "give --path once"
            raise UsageError(f"--path {text} belongs to no benchmark", do=do)
    return paths


def _run(args: argparse.Namespace) -> None:
    from toolkit import scoring

    specs = [benchmarks.get(name.strip()) for name in args.benchmark.split(",") if name.strip()]
    if not specs:
        raise UsageError("--benchmark names none", do=nearest("", benchmarks.names()))
    paths = _paths(args.path, [spec.name for spec in specs])
    sets = [(spec, benchmarks.load(spec, paths.get(spec.name))) for spec in specs]
    model = scoring.load_model(args.model, name=args.name)
    options = {key: getattr(args, key) for key in ("mode", "limit", "seed", "bos", "batch_tokens")}
    scores = [scoring.score(model=model, items=items, benchmark=spec, **options) for spec, items in sets]
    scoring.write(args.out, scores)
    if args.json:
        cli.print_json([score.as_dict() for score in scores])
        return
    for s in scores:
        low, high = (100 * bound for bound in s.ci95)
        print(
            f"{s.model}  {s.benchmark}  {s.mode}  {100 * s.accuracy:.1f} % ({s.correct} of {s.n})  "
            f"95 % {low:.1f} to {high:.1f}  chance {100 * s.chance:.1f} %"
        )
        for note in s.notes:
            print(f"  note: {note}")
    print(args.out / "scores.json")


def _list(as_json: bool) -> None:
    specs = [benchmarks.get(name) for name in benchmarks.names()]
    if as_json:
        cli.print_json([vars(spec) for spec in specs])
        return
    for s in specs:
        size = "-" if s.size is None else s.size
        print(f"{s.name:24} {s.mode:7} {size:>6}  {s.title}")


def main(argv: Sequence[str]) -> None:
    args = _parser().parse_args(argv)
    _list(args.json) if args.verb == "list" else _run(args)


if __name__ == "__main__":
    sys.exit(cli.run(main))
