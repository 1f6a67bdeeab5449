"""`score run`: a model on benchmarks, its scores and every prediction into a folder."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit import cli, files
from toolkit.errors import CheckpointError, UsageError
from toolkit.score import places
from toolkit.scoring import benchmarks

if TYPE_CHECKING:
    from toolkit.scoring import Score
    from toolkit.scoring.engines import Engine

_CACHE = "cache"


def add(verb: cli.Verb) -> None:
    run = verb("run", "score a model")
    run.add_argument("--model", required=True, help="Hugging Face folder, Megatron checkpoint, or a server's model")
    places.add(run)
    run.add_argument("--mode", help=f"{', '.join(benchmarks.MODES)}; several by commas (default: the benchmark's own)")
    run.add_argument("--shots", type=int, default=0, help="demonstrations before each question (default 0)")
    run.add_argument("--seeds", default="0", help="of their draw and of samples, by commas (the paper's: 1234,432,32)")
    run.add_argument("--samples", type=int, help="texts of sc_cot (default 5)")
    run.add_argument("--temperature", type=float, help="of these (default 0.8)")
    run.add_argument("--max-tokens", type=int, default=1024, help="of a text with reasoning (default 1024)")
    run.add_argument("--paper-compat", action="store_true", help="the released code's choices where they differ")
    run.add_argument("--chat", choices=("own", "none"), default="own", help="the model's chat template, or none")
    run.add_argument("--engine", help="transformers (default), vllm, server")
    run.add_argument("--url", help="of an OpenAI-compatible server; its key: OPENAI_API_KEY in the environment")
    run.add_argument("--tokenizer", type=Path, help="folder: of a server's model, or for a Megatron checkpoint")
    run.add_argument("--config", type=Path, help="config.json for a Megatron checkpoint that does not say its shape")
    run.add_argument("--limit", type=int, help="score this many items, drawn at random")
    run.add_argument("--limit-seed", type=int, default=0, help="of that draw (default 0)")
    run.add_argument("--batch-tokens", type=int, default=8192, help="tokens in the model at once (default 8192)")
    run.add_argument("--bos", action="store_true", help="begin prompts with the beginning-of-sequence token")
    run.add_argument("--name", help="the model's name in the results (default: its folder's)")
    run.add_argument("--cache", type=Path, help=f"folder of what models have answered (default: {_CACHE} in --out)")
    run.add_argument("--fresh", action="store_true", help="ask everything again")
    run.add_argument("-o", "--out", required=True, type=Path, help="folder for scores.json and predictions.jsonl")
    run.set_defaults(call=_run)


def _seeds(text: str) -> list[int]:
    try:
        return [int(one) for one in text.split(",")]
    except ValueError:
        raise UsageError(f"--seeds {text} are no whole numbers", do="write them as 1234,432,32") from None


def _run(args: argparse.Namespace) -> None:
    from toolkit import scoring

    specs, seeds = places.specs(args.benchmark), _seeds(args.seeds)
    modes = [mode.strip() for mode in (args.mode or "").split(",") if mode.strip()]
    if len(seeds) > 1 and not args.shots and "sc_cot" not in modes:
        raise UsageError(
            f"--seeds {args.seeds}: nothing is drawn by them", do="give --shots, --mode sc_cot or one seed"
        )
    for what, value in (("--samples", args.samples), ("--temperature", args.temperature)):
        if value is not None and "sc_cot" not in modes:
            raise UsageError(f"{what} is of mode sc_cot", do="give --mode sc_cot, or leave it out")
    if args.train and not args.shots:
        raise UsageError("--train without --shots", do="give --shots N")
    located = places.located(args, specs, shots=args.shots > 0)
    options = {"shots": args.shots, "compat": args.paper_compat}
    made = scoring.series.open_set
    sets = [made(spec, located[spec.name][0], train_path=located[spec.name][1], **options) for spec in specs]
    engine = _engine(args)
    more = {key: getattr(args, key) for key in ("limit", "limit_seed", "bos", "samples", "temperature", "max_tokens")}
    more |= {"compat": args.paper_compat, "chat": None if args.chat == "none" else args.chat}
    store = None if args.fresh else scoring.Store(_cache(args) / "answers")
    scores = list(
        scoring.series.run(engine, sets, modes=modes, seeds=seeds, shots=args.shots, store=store, options=more)
    )
    scoring.write(args.out, scores)
    _show(args, scores)


def _cache(args: argparse.Namespace) -> Path:
    return args.cache or args.out / _CACHE


def _engine(args: argparse.Namespace) -> Engine:
    """The engine that is asked for; a Megatron checkpoint becomes an HF folder in the cache first."""
    from toolkit import checkpoint, scoring, tokenizer

    kind = args.engine or ("server" if args.url else "transformers")
    options = {"engine": kind, "name": args.name, "batch_tokens": args.batch_tokens}
    if kind == "server":
        return scoring.engines.load(args.model, url=args.url, tokenizer=args.tokenizer, **options)
    model = Path(args.model)
    if (model / "weights").is_dir() or (model / ".metadata").is_file():
        if reason := checkpoint.incomplete_reason(model):
            raise CheckpointError("the checkpoint is not complete", where=model, why=reason, do="use another step")
        given = (path for path in (model, args.tokenizer, args.config) if path is not None)
        stamp = hashlib.sha256("".join(map(files.stat_fingerprint, given)).encode()).hexdigest()[:12]
        step = checkpoint.step_of(model)
        name = model.resolve().name if step is None else f"step={step}"
        hf = _cache(args) / "models" / f"{name}-{stamp}"
        if not hf.is_dir():
            # The tokens that its training added are in its tokenizer, and the base's config may not know of them.
            tokens = tokenizer.load(args.tokenizer).vocab_size if args.tokenizer is not None else None
            checkpoint.export_hf(model, hf, config=args.config, tokenizer=args.tokenizer, vocab_size=tokens)
        options["name"] = args.name or name
        return scoring.engines.load(hf, url=args.url, **options)
    for what in ("tokenizer", "config"):
        if getattr(args, what) is not None:
            raise UsageError(f"--{what} belongs to a server or a Megatron checkpoint", where=model, do="leave it out")
    return scoring.engines.load(model, url=args.url, **options)


def _show(args: argparse.Namespace, scores: Sequence[Score]) -> None:
    from toolkit import scoring

    together = scoring.over_seeds([score.as_dict() for score in scores])
    if args.json:
        cli.print_json([*(score.as_dict() | score.work() for score in scores), *together])
        return
    for s in scores:
        low, high = (100 * bound for bound in s.ci95)
        how = f"{s.mode}, {s.shots} shots, seed {s.seed}" if s.shots else s.mode
        macro = f"  macro {100 * s.macro:.1f} %" if s.macro is not None else ""
        print(
            f"{s.model}  {s.benchmark}  {how}  {100 * s.accuracy:.1f} % ({s.correct} of {s.n})  "
            f"95 % {low:.1f} to {high:.1f}  chance {100 * s.chance:.1f} %{macro}"
        )
        for note in s.notes:
            print(f"  note: {note}")
        more = f", {s.tokens} tokens ({s.unique_tokens} different)" if s.model_calls else ""
        print(f"  {s.engine} was asked {s.model_calls} times, {s.kept} answers were known{more}")
    for row in together:
        count = len(row["seeds"])
        print(
            f"{row['model']}  {row['benchmark']}  {row['mode']}, {row['shots']} shots  "
            f"{100 * row['mean']:.1f} +- {100 * row['sd']:.1f} % over {count} seeds"
        )
    if args.paper_compat:
        print("as the released code, where that differs: " + "; ".join(_choices()))
    print(args.out / "scores.json")


def _choices() -> list[str]:
    from toolkit.scoring import paper_compat

    return [f"{choice.name} ({choice.compat})" for choice in paper_compat.CHOICES if choice.compat]
