"""`python -m toolkit.checkpoint export|import|inspect|verify|card|diff`: the command line of the conversions."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolkit import checkpoint, cli, files, tokenizer
from toolkit.checkpoint import card, compare, complete, exporting, importing, look, verifying
from toolkit.errors import CheckpointError, StageFailed, UsageError

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_EXAMPLES = """\
examples:
  python -m toolkit.checkpoint export runs/RUN/stages/pretrain/checkpoints models/demo --config BASE --tokenizer BASE
  python -m toolkit.checkpoint export CHECKPOINTS models/first --step 999 --config BASE --dtype bf16 --shard-size 2GB
  python -m toolkit.checkpoint import llama-2-7b imported --vocab-size 32017 --padded-vocab-size 32256
  python -m toolkit.checkpoint inspect CHECKPOINT --json
  python -m toolkit.checkpoint verify models/demo CHECKPOINT     (exit code 1 when they differ)
  python -m toolkit.checkpoint diff models/a models/b            (the same)
  python -m toolkit.checkpoint card models/demo --scores runs/RUN/stages/score/scores.json --model pretrained

A conversion that was interrupted goes on where it stopped when the same command is given again.
"""


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print one JSON document")
    several = argparse.ArgumentParser(add_help=False)
    several.add_argument("--workers", type=int, metavar="N", help="threads that write (default: by the cores)")
    parser = argparse.ArgumentParser(
        prog="python -m toolkit.checkpoint",
        epilog=_EXAMPLES,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    p = verbs.add_parser("export", parents=[common, several], help="Megatron checkpoint -> Hugging Face folder")
    p.add_argument("checkpoint", type=Path, help="a step folder, a bare torch_dist folder, or a folder of step folders")
    p.add_argument("out", type=Path)
    p.add_argument(
        "--config", "--hf-config", type=Path, metavar="FILE",
        help="config.json or a folder with one: the shape (default: what the import or NeMo's context says)",
    )  # fmt: skip
    p.add_argument(
        "--step", type=int, metavar="N", help="of a folder of steps, the one named step=N (default: the newest)"
    )
    p.add_argument(
        "--tokenizer", type=tokenizer.folder_of, metavar="DIR", help="whose files are copied (default: the config's)"
    )
    p.add_argument("--vocab-size", type=int, metavar="N", help="tokens to keep (default: the config's vocab_size)")
    p.add_argument("--dtype", help="float32, bfloat16 or float16 (default: the checkpoint's)")
    p.add_argument("--shard-size", default="5GB", metavar="SIZE", help="largest weight file, such as 5GB or 500MB")
    p = verbs.add_parser("import", parents=[common, several], help="Hugging Face folder -> Megatron checkpoint")
    p.add_argument("hf", type=Path)
    p.add_argument("out", type=Path)
    p.add_argument("--vocab-size", type=int, metavar="N", help="tokens after extension (default: the base's)")
    p.add_argument(
        "--padded-vocab-size", type=int, metavar="N", help="rows to write (default: vocab size rounded up to 128)"
    )
    p.add_argument(
        "--new-rows", choices=["copy_last", "mean"], default="copy_last", help="values of rows beyond the base"
    )
    p = verbs.add_parser("inspect", parents=[common], help="names, shapes, types, bytes, completeness")
    p.add_argument("path", type=Path)
    p = verbs.add_parser("verify", parents=[common], help="is this folder the model of that checkpoint?")
    p.add_argument("hf", type=Path)
    p.add_argument("checkpoint", type=Path)
    p.add_argument(
        "--no-logits", action="store_true", help="bits alone; logits take torch, megatron-core and memory for the model"
    )
    p = verbs.add_parser("card", parents=[common], help="put scores into the README of an exported folder")
    p.add_argument("hf", type=Path)
    p.add_argument("--scores", type=Path, required=True, metavar="FILE", help="scores.json of a scoring")
    p.add_argument("--model", help="of several models in it, the one of this name")
    p = verbs.add_parser("diff", parents=[common], help="compare two models bit by bit")
    p.add_argument("a", type=Path)
    p.add_argument("b", type=Path)
    return parser


def main(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    text, found = _VERBS[args.verb](args)
    if args.json:
        cli.print_json(found)
    else:
        print(text)
    return 0 if found.get("equal", True) else 1


def _export(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    source = _at_step(args.checkpoint, args.step)
    done = exporting.export_hf(
        source,
        args.out,
        config=args.config,
        tokenizer=args.tokenizer,
        vocab_size=args.vocab_size,
        dtype=args.dtype,
        shard_bytes=_bytes(args.shard_size),
        workers=_workers(args),
    )
    words = f"{done.path}: {done.parameters:,} parameters, {done.dtype}, vocabulary {done.vocab_size}"
    return words + ("" if done.tokenizer else ", no tokenizer (--tokenizer gives one)"), exporting.as_dict(done)


def _import(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    new = importing.import_hf(
        args.hf,
        args.out,
        vocab_size=args.vocab_size,
        padded_vocab_size=args.padded_vocab_size,
        new_rows=args.new_rows,
        workers=_workers(args),
    )
    words = f"{new.path}: {new.parameters:,} parameters, vocabulary {new.vocab_size} padded to {new.padded_vocab_size}"
    return words, importing.as_dict(new)


def _inspect(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    seen = look.inspect(args.path)
    return look.as_text(seen), dict(look.as_dict(seen))


def _verify(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    found = checkpoint.verify(args.hf, args.checkpoint, megatron=None if args.no_logits else _megatron)
    return verifying.as_text(found), verifying.as_dict(found)


def _card(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    try:
        rows = files.read_json(args.scores)
        found = [row for row in rows if args.model is None or row["model"] == args.model]
        names = sorted({str(row["model"]) for row in found})
    except (OSError, ValueError, TypeError, KeyError) as err:
        raise CheckpointError("no scores that can be read", where=args.scores, why=str(err)) from None
    if len(names) != 1:
        known = ", ".join(sorted({str(row["model"]) for row in rows})) or "none"
        raise UsageError("--model must name one model of these scores", where=args.scores, do=f"there are: {known}")
    card.add_scores(args.hf, found)
    return f"{args.hf / card.CARD}: {len(found)} scores of {names[0]}", {
        "card": str(args.hf / card.CARD),
        "scores": found,
    }


def _diff(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    gap = compare.diff(args.a, args.b, progress=True)
    return compare.as_text(gap), compare.as_dict(gap)


_VERBS = {"export": _export, "import": _import, "inspect": _inspect, "verify": _verify, "card": _card, "diff": _diff}


def _at_step(path: Path, step: int | None) -> Path:
    if step is None:
        return look.require_checkpoint(path)
    if not path.is_dir():
        raise CheckpointError("no such folder", where=path)
    steps: dict[int, Path] = {}
    for child in sorted(path.iterdir()):
        n = complete.step_of(child) if child.is_dir() else None
        if n is not None and (n not in steps or complete.is_complete(child)):
            steps[n] = child
    if step not in steps:
        there = ", ".join(map(str, sorted(steps))) or "none"
        raise CheckpointError(f"no step {step}", where=path, why=f"there are: {there}", do="NeMo counts from 0")
    return steps[step]


def _bytes(size: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", size.strip())
    unit = _UNITS.get(match[2].upper()) if match else None
    count = int(float(match[1]) * unit) if match and unit else 0
    if count <= 0:
        raise UsageError(f"--shard-size {size} is no size", do="give one such as 5GB, 500MB or 2GiB")
    return count


def _workers(args: argparse.Namespace) -> int | None:
    if args.workers is not None and not 0 < args.workers <= 256:
        raise UsageError(f"--workers {args.workers} is not from 1 to 256")
    return args.workers


def _megatron(weights: Path, config: Path, tokens: Path, out: Path, rows: int) -> None:
    """In a process of its own: it sets itself up as a rank, and its memory is free again when it ends."""
    words = ["-m", "toolkit.train.logits", *map(str, (weights, config, tokens, out)), "--rows", str(rows)]
    done = subprocess.run([sys.executable, "-W", "ignore", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        told = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise StageFailed(
            "Megatron's logits could not be had", where=weights, why=told, do="compare bits alone: --no-logits"
        )


if __name__ == "__main__":
    sys.exit(cli.run(main))
