"""`python -m toolkit.shards`: build, verify, info and show from the command line. Leaves all work to the package."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence

from toolkit import cli, shards, tokenizer

EXAMPLES = """examples:
  python -m toolkit.shards build corpus/*.jsonl.zst -o data/train --tokenizer tokenizer --workers 8
  python -m toolkit.shards build guidelines.jsonl -o data/guidelines --tokenizer tokenizer --text-field clean_text
  python -m toolkit.shards verify data/train --tokenizer tokenizer
  python -m toolkit.shards info data/train --json
  python -m toolkit.shards show data/train 0 --tokenizer tokenizer
"""


def main(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    if args.verb == "show":
        text = shards.show(args.prefix, args.n, tokenizer=args.tokenizer)
        if args.json:
            cli.print_json({"prefix": args.prefix, "n": args.n, "text": text})
        else:
            print(text)
        return 0
    if args.verb == "build":
        result = shards.build(
            args.inputs,
            args.output,
            tokenizer=args.tokenizer,
            append_eod=args.append_eod,
            text_field=args.text_field,
            max_bad_fraction=args.max_bad_fraction,
            workers=args.workers,
        )
    elif args.verb == "verify":
        size = tokenizer.load(args.tokenizer).vocab_size if args.tokenizer else args.vocab_size
        result = shards.verify(args.prefix, vocab_size=size)
    else:
        result = shards.info(args.prefix)
    if args.json:
        cli.print_json(dataclasses.asdict(result))
    else:
        _print(result)
    return 0


def _print(result: shards.ShardInfo) -> None:
    size = f"{result.tokens:,} tokens, {result.dtype}, {result.bytes:,} bytes"
    print(f"{result.prefix}: {result.documents:,} documents, {size}")
    if isinstance(result, shards.Built):
        print(f"  {result.rows:,} rows, {result.empty:,} with an empty text, {result.bad_rows:,} set aside")
        for row in result.bad:
            print(f"  set aside {row.file}:{row.line}: {row.why}")
        if result.bad_file:
            print(f"  all of them in {result.bad_file}")


def _parser() -> argparse.ArgumentParser:
    keep = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m toolkit.shards",
        description="JSONL documents as Megatron .bin/.idx shards.",
        epilog=EXAMPLES,
        formatter_class=keep,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, summary: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=summary, description=summary, epilog=EXAMPLES, formatter_class=keep)
        sub.add_argument("--json", action="store_true", help="print one JSON document")
        return sub

    build = verb("build", "tokenize JSONL files into one shard")
    build.add_argument("inputs", nargs="+", metavar="INPUT", help=".jsonl, .jsonl.gz or .jsonl.zst")
    build.add_argument("-o", "--output", required=True, metavar="PREFIX", help="writes PREFIX.bin and PREFIX.idx")
    build.add_argument("--tokenizer", required=True, metavar="FOLDER", help="folder with tokenizer.model or .json")
    build.add_argument("--text-field", default="text", metavar="NAME", help="field with the text (%(default)s)")
    build.add_argument("--workers", type=int, default=1, metavar="N", help="processes (%(default)s)")
    build.add_argument("--append-eod", action=argparse.BooleanOptionalAction, default=True, help="end each document")
    build.add_argument("--max-bad-fraction", type=float, default=0.01, metavar="F", help="of all rows (%(default)s)")
    verify = verb("verify", "check that a shard is whole and consistent")
    verify.add_argument("prefix")
    ids = verify.add_mutually_exclusive_group()
    ids.add_argument("--tokenizer", metavar="FOLDER", help="check every id against this vocabulary")
    ids.add_argument("--vocab-size", type=int, metavar="N", help="check every id against this size")
    verb("info", "say what a shard holds").add_argument("prefix")
    show = verb("show", "print a document as text")
    show.add_argument("prefix")
    show.add_argument("n", type=int, help="number of the document, from 0")
    show.add_argument("--tokenizer", required=True, metavar="FOLDER", help="folder with tokenizer.model or .json")
    return parser


if __name__ == "__main__":
    sys.exit(cli.run(main))
