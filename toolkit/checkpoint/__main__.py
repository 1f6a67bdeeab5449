"""`python -m toolkit.checkpoint export|import|inspect|diff`: the command line of the conversions, and nothing else."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from toolkit import cli
from toolkit.checkpoint import compare, exporting, importing, look

_EXAMPLES = """\
examples:
  python -m toolkit.checkpoint export runs/demo/checkpoints/step=99 models/demo --config base --tokenizer base
  python -m toolkit.checkpoint export runs/demo/checkpoints models/demo --config base      (the newest complete step)
  python -m toolkit.checkpoint import llama-2-7b imported --vocab-size 32017 --padded-vocab-size 32256
  python -m toolkit.checkpoint inspect runs/demo/checkpoints/step=99 --json
  python -m toolkit.checkpoint diff models/a models/b      (exit code 1 when they differ)
"""


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print one JSON document")
    parser = argparse.ArgumentParser(
        prog="python -m toolkit.checkpoint",
        epilog=_EXAMPLES,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    p = verbs.add_parser("export", parents=[common], help="Megatron checkpoint -> Hugging Face folder")
    p.add_argument("checkpoint", type=Path, help="a step folder, a bare torch_dist folder, or a folder of step folders")
    p.add_argument("out", type=Path)
    p.add_argument(
        "--config", "--hf-config", type=Path, required=True, help="config.json or a folder with one: the shape"
    )
    p.add_argument("--tokenizer", type=Path, help="folder whose tokenizer files are copied")
    p.add_argument("--vocab-size", type=int, help="tokens to keep (default: the config's vocab_size)")
    p.add_argument("--dtype", help="float32, bfloat16 or float16 (default: the checkpoint's)")
    p.add_argument(
        "--shard-gb", type=float, default=5.0, metavar="GB", help="largest weight file, 10^9 bytes (default 5)"
    )
    p = verbs.add_parser("import", parents=[common], help="Hugging Face folder -> Megatron checkpoint")
    p.add_argument("hf", type=Path)
    p.add_argument("out", type=Path)
    p.add_argument("--vocab-size", type=int, help="tokens after extension (default: the base's)")
    p.add_argument("--padded-vocab-size", type=int, help="rows to write (default: vocab size rounded up to 128)")
    p.add_argument(
        "--new-rows", choices=["copy_last", "mean"], default="copy_last", help="values of rows beyond the base"
    )
    p = verbs.add_parser("inspect", parents=[common], help="names, shapes, types, bytes, completeness")
    p.add_argument("path", type=Path)
    p = verbs.add_parser("diff", parents=[common], help="compare two models bit by bit")
    p.add_argument("a", type=Path)
    p.add_argument("b", type=Path)
    return parser


def main(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    if args.verb == "export":
        done = exporting.export_hf(
            look.require_checkpoint(args.checkpoint),
            args.out,
            config=args.config,
            tokenizer=args.tokenizer,
            vocab_size=args.vocab_size,
            dtype=args.dtype,
            shard_bytes=int(args.shard_gb * 1e9),
        )
        text = f"{done.path}: {done.parameters:,} parameters, {done.dtype}, vocabulary {done.vocab_size}"
        found = exporting.as_dict(done)
    elif args.verb == "import":
        new = importing.import_hf(
            args.hf,
            args.out,
            vocab_size=args.vocab_size,
            padded_vocab_size=args.padded_vocab_size,
            new_rows=args.new_rows,
        )
        text = (
            f"{new.path}: {new.parameters:,} parameters, vocabulary {new.vocab_size} padded to {new.padded_vocab_size}"
        )
        found = importing.as_dict(new)
    elif args.verb == "inspect":
        seen = look.inspect(args.path)
        text, found = look.as_text(seen), look.as_dict(seen)
    else:
        gap = compare.diff(args.a, args.b)
        text, found = compare.as_text(gap), compare.as_dict(gap)
    if args.json:
        cli.print_json(found)
    else:
        print(text)
    return 0 if args.verb != "diff" or found["equal"] else 1


if __name__ == "__main__":
    sys.exit(cli.run(main))
