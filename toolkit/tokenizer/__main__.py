"""`python -m toolkit.tokenizer`: extend, show and check from the command line. Leaves all work to the package."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolkit import cli
from toolkit import tokenizer as tokenizers
from toolkit.errors import DataError

SETS = {"meditron": tokenizers.MEDITRON_TOKENS, "chat": tokenizers.CHAT_TOKENS}
EXAMPLES = """examples:
  python -m toolkit.tokenizer extend Llama-2-7b-hf tokenizer                  # 32,017: the paper's 17 tokens
  python -m toolkit.tokenizer extend Llama-2-7b-hf chat --tokens meditron chat    # 32,019: and those of finetuning
  python -m toolkit.tokenizer extend Meta-Llama-3-8B tokenizer --tokens '[bib_ref]' '[/bib_ref]'
  python -m toolkit.tokenizer show tokenizer --text 'Dose [bib_ref]1[/bib_ref]'
  python -m toolkit.tokenizer check tokenizer
"""


def main(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    if args.verb == "extend":
        names = [name for given in args.tokens for name in SETS.get(given, (given,))]
        extra = {} if args.max_length is None else {"model_max_length": args.max_length}
        loaded = tokenizers.extend(args.base, args.out, names, **extra)
        told = described(loaded)
    else:
        loaded = tokenizers.load(args.folder)
        told = described(loaded)
        if args.verb == "show" and args.text is not None:
            ids = loaded.encode(args.text)
            told |= {"ids": ids, "pieces": [loaded.piece(number) for number in ids]}
        if args.verb == "check":
            from toolkit.tokenizer.check import faults

            if found := faults(loaded):
                raise DataError(
                    f"{len(found)} of its files' statements contradict each other",
                    where=args.folder,
                    why="; ".join(found[:3]),
                    do="extend the base tokenizer again",
                )
    if args.json:
        cli.print_json(told)
    else:
        print(_text(told))
    return 0


def described(loaded: tokenizers.Tokenizer | tokenizers.JsonTokenizer) -> dict[str, Any]:
    """What there is to know of a tokenizer, as JSON values."""
    added = {
        name: {"id": number, "kind": "tag" if name in loaded.tags.ids else "control"}
        for name, number in loaded.added.items()
    }
    return {
        "folder": str(loaded.folder),
        "file": tokenizers.model_file(loaded.folder).name,
        "vocab_size": loaded.vocab_size,
        "base_size": loaded.base_size,
        **{name: getattr(loaded, name) for name in ("bos_id", "eos_id", "eod_id", "pad_id")},
        "added": added,
        "sha256": tokenizers.ids_sha256(loaded.folder),
    }


def _text(told: dict[str, Any]) -> str:
    lines = [
        f"{told['folder']}: {told['vocab_size']:,} ids, {told['base_size']:,} of {told['file']} and"
        f" {len(told['added'])} added",
        "  ".join(f"{name[:-3]} {told[name]}" for name in ("bos_id", "eos_id", "eod_id", "pad_id")),
    ]
    shown = list(told["added"].items())
    lines += [f"{entry['id']:>7}  {entry['kind']:<8} {name}" for name, entry in shown[:40]]
    lines += [f"         and {len(shown) - 40} more (--json)"] if len(shown) > 40 else []
    if "ids" in told:
        lines.append(" ".join(f"{piece}={number}" for piece, number in zip(told["pieces"], told["ids"], strict=True)))
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser, verb = cli.verbs(
        "python -m toolkit.tokenizer",
        description="Tokenizer folders: a SentencePiece tokenizer.model (Llama 2) or a tokenizer.json (Llama 3).",
        examples=EXAMPLES,
    )

    extend = verb("extend", "write a tokenizer with tokens added behind its vocabulary")
    extend.add_argument(
        "base", type=tokenizers.folder_of, help="folder with tokenizer.model or tokenizer.json; stays as it is"
    )
    extend.add_argument("out", type=Path, help="new folder")
    extend.add_argument(
        *("--tokens", "-t"),
        nargs="+",
        default=["meditron"],
        metavar="NAME",
        help="in their order: tokens, 'meditron' for the paper's 17, 'chat' for finetuning's two (meditron)",
    )
    extend.add_argument("--max-length", type=int, metavar="N", help="model_max_length that transformers is told (4096)")
    show = verb("show", "say what a tokenizer holds")
    show.add_argument("folder", type=tokenizers.folder_of)
    show.add_argument("--text", help="show the ids of this text, too")
    verb("check", "compare a tokenizer's files with each other").add_argument("folder", type=tokenizers.folder_of)
    return parser


if __name__ == "__main__":
    sys.exit(cli.run(main))
