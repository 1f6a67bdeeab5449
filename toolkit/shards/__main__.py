"""`python -m toolkit.shards`: build, verify, info, show, merge and sample from the command line. Leaves all work to the
package.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolkit import cli, shards, tokenizer
from toolkit.errors import UsageError
from toolkit.shards import blend

EXAMPLES = """examples:
  python -m toolkit.shards build corpus -o data/shards --tokenizer tokenizer --workers 8
  python -m toolkit.shards build guidelines.jsonl -o data/guidelines --tokenizer tokenizer --text-field clean_text
  python -m toolkit.shards build pmc.parquet wiki.jsonl.zst -o data/all --tokenizer tokenizer --merge
  python -m toolkit.shards verify data/shards
  python -m toolkit.shards verify data/guidelines --against guidelines.jsonl --tokenizer tokenizer
  python -m toolkit.shards info data/shards --json
  python -m toolkit.shards show data/shards/train/guidelines-00000 0 --tokenizer tokenizer
  python -m toolkit.shards merge data/shards/train/pmc-00000 data/shards/train/pmc-00001 -o data/pmc
  python -m toolkit.shards sample data/shards --seq-length 512 --rows 2
"""


def main(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    return {
        "build": _build,
        "verify": _verify,
        "info": _info,
        "show": _show,
        "merge": _merge,
        "sample": _sample,
    }[args.verb](args)


def _build(args: argparse.Namespace) -> int:
    given = {
        "tokenizer": args.tokenizer,
        "append_eod": args.append_eod,
        "text_field": args.text_field,
        "special_tokens": args.special_tokens,
        "max_bad_fraction": args.max_bad_fraction,
        "workers": args.workers,
    }
    found = shards.sources(args.inputs)
    single = len(found) == 1 and not Path(args.inputs[0]).is_dir()
    if args.merge and any(source.split == "valid" for source in found):
        raise UsageError("--merge would put what is to validate on among the rest", do="merge one side: CORPUS/train")
    if single or args.merge:
        built = shards.build([source.path for source in found], args.output, **given)
        return _tell(args, dataclasses.asdict(built), _lines(built))
    made = shards.build_parts(found, args.output, **given)
    told = {"folder": args.output, "kept": made.kept, **_summary(made.blend), "blend": dataclasses.asdict(made.blend)}
    lines = [f"{args.output}: {len(made.blend.shards)} shards, {made.kept} of them were there", *_table(made.blend)]
    return _tell(args, told, lines + [f"  set aside {row.file}:{row.line}: {row.why}" for row in made.bad])


def _verify(args: argparse.Namespace) -> int:
    place = Path(args.prefix)
    if (place / blend.FILE).is_file():
        found = blend.check(place, everything=True)
        own = place / found.made.tokenizer.folder
        for shard in found.shards:
            shards.verify(place / shard.prefix, vocab_size=found.made.tokenizer.vocab_size)
        if args.against:
            sources = {source.name: source.path for source in shards.sources(args.against)}
            missing = sorted({shard.prefix for shard in found.shards} - set(sources))
            if missing:
                raise UsageError(f"--against gives no input for {', '.join(missing[:5])}", do="give the same inputs")
            for shard in found.shards:
                shards.against(place / shard.prefix, [sources[shard.prefix]], **_settings(args, found.made, own))
        return _tell(args, {"folder": str(place), **_summary(found)}, [f"{place}: whole", *_table(found)])
    if not place.is_dir() and blend.sidecar(place).is_file():
        made, shard = blend.read_pair(place)
        pair = [(f"{place}.bin", shard.bin_sha256), (f"{place}.idx", shard.idx_sha256)]
        shards.verify(place)  # says more of what is wrong than a hash does
        blend.compare([(Path(path), digest) for path, digest in pair])
    else:
        made = None
    size = tokenizer.load(args.tokenizer).vocab_size if args.tokenizer else args.vocab_size
    result = shards.verify(place, vocab_size=size)
    if args.against:
        if not args.tokenizer:
            raise UsageError("--against needs --tokenizer FOLDER", do="give the tokenizer that it was built with")
        inputs = [source.path for source in shards.sources(args.against)]
        shards.against(place, inputs, **_settings(args, made, Path(args.tokenizer)))
    return _tell(args, dataclasses.asdict(result), _lines(result))


def _settings(args: argparse.Namespace, made: blend.Made | None, folder: Path) -> dict[str, object]:
    """How the shards were made: as their manifest says, else as the options do."""
    if made is None:
        own = {"append_eod": args.append_eod, "text_field": args.text_field, "special_tokens": args.special_tokens}
    else:
        own = {"append_eod": made.append_eod, "text_field": made.text_field, "special_tokens": made.tags}
    return {"tokenizer": folder, "workers": args.workers, **own}


def _info(args: argparse.Namespace) -> int:
    place = Path(args.prefix)
    if (place / blend.FILE).is_file():
        found = blend.read(place)
        told = {"folder": str(place), **_summary(found), "blend": dataclasses.asdict(found)}
        return _tell(args, told, [f"{place}:", *_table(found)])
    result = shards.info(place)
    return _tell(args, dataclasses.asdict(result), _lines(result))


def _show(args: argparse.Namespace) -> int:
    text = shards.show(args.prefix, args.n, tokenizer=args.tokenizer or _beside(Path(args.prefix)))
    return _tell(args, {"prefix": args.prefix, "n": args.n, "text": text}, [text])


def _merge(args: argparse.Namespace) -> int:
    result = shards.merge(args.prefixes, args.output)
    return _tell(args, dataclasses.asdict(result), _lines(result))


def _sample(args: argparse.Namespace) -> int:
    place, folder = Path(args.place), args.tokenizer
    if (place / blend.FILE).is_file() or place.is_dir():
        prefixes = shards.given(place).train
        folder = folder or place / blend.TOKENIZER
    else:
        prefixes, folder = (place,), folder or _beside(place)
    found = shards.sample(prefixes, tokenizer=folder, seq_length=args.seq_length, rows=args.rows, seed=args.seed)
    lines: list[str] = []
    for row in found:
        lines.append(f"=== {row.prefix}, row {row.number}: {sum(piece.tokens for piece in row.pieces)} tokens")
        for piece in row.pieces:
            lines += [f"--- document {piece.document}, {piece.tokens} tokens from {piece.first} on", piece.text]
    return _tell(args, {"rows": [dataclasses.asdict(row) for row in found]}, lines)


def _beside(prefix: Path) -> Path:
    """The tokenizer in the folder of shards that a pair is of."""
    for folder in prefix.absolute().parents[:2]:
        if (folder / blend.FILE).is_file():
            return folder / blend.TOKENIZER
    raise UsageError("a pair alone does not say which tokenizer it is of", do="give --tokenizer FOLDER")


def _tell(args: argparse.Namespace, told: dict[str, object], lines: Sequence[str]) -> int:
    if args.json:
        cli.print_json(told)
    else:
        print("\n".join(lines))
    return 0


def _lines(result: shards.ShardInfo) -> list[str]:
    size = f"{result.tokens:,} tokens, {result.dtype}, {result.bytes:,} bytes"
    lines = [f"{result.prefix}: {result.documents:,} documents, {size}"]
    if isinstance(result, shards.Built):
        counts = f"{result.rows:,} rows, {result.empty:,} with an empty text, {result.bad_rows:,} set aside"
        mended = f", {result.replaced:,} with characters that were replaced" if result.replaced else ""
        lines.append(f"  {counts}{mended}")
        lines += [f"  set aside {row.file}:{row.line}: {row.why}" for row in result.bad]
        lines += [f"  all of them in {result.bad_file}"] if result.bad_file else []
    return lines


def _summary(found: blend.Blend) -> dict[str, object]:
    counts = {
        f"{split}_{what}": sum(getattr(shard, what) for shard in getattr(found, split))
        for split in blend.SPLITS
        for what in ("documents", "tokens", "bad_rows")
    }
    return {"dtype": found.made.dtype, "shards": len(found.shards), **counts}


def _table(found: blend.Blend) -> list[str]:
    """Each subset's shards, documents and tokens, and its share of the tokens of its side."""
    lines = [f"  {'':<6} {'subset':<28} {'shards':>6} {'documents':>12} {'tokens':>16} {'share':>7}  set aside"]
    for split in blend.SPLITS:
        side = getattr(found, split)
        total = sum(shard.tokens for shard in side)
        for subset in dict.fromkeys(shard.subset for shard in side):
            own = [shard for shard in side if shard.subset == subset]
            documents, tokens, bad = (sum(getattr(s, n) for s in own) for n in ("documents", "tokens", "bad_rows"))
            share = f"{tokens / total:.2%}"
            lines.append(f"  {split:<6} {subset:<28} {len(own):>6} {documents:>12,} {tokens:>16,} {share:>7}  {bad:,}")
    return lines


def _parser() -> argparse.ArgumentParser:
    parser, verb = cli.verbs(
        "python -m toolkit.shards",
        description="Documents as Megatron .bin/.idx shards.",
        examples=EXAMPLES,
    )

    folder: dict[str, Any] = {"type": tokenizer.folder_of, "metavar": "FOLDER"}

    def making(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--text-field", default="text", metavar="NAME", help="field with the text (%(default)s)")
        sub.add_argument(
            "--special-tokens",
            nargs="*",
            metavar="TOKEN",
            help="that a text may name (default: all but control tokens)",
        )
        sub.add_argument("--workers", type=int, default=1, metavar="N", help="processes (%(default)s)")
        sub.add_argument("--append-eod", action=argparse.BooleanOptionalAction, default=True, help="end each document")

    build = verb("build", "tokenize files: one input is one shard, several are a folder of shards with a blend.json")
    build.add_argument(
        "inputs", nargs="+", metavar="INPUT", help=".jsonl, .gz or .zst of it, .parquet, a folder of them, or a corpus"
    )
    build.add_argument(
        "-o", "--output", required=True, metavar="PREFIX", help="writes PREFIX.bin and .idx, or PREFIX/*.bin and .idx"
    )
    build.add_argument("--tokenizer", required=True, **folder, help="with tokenizer.model or tokenizer.json")
    making(build)
    build.add_argument("--max-bad-fraction", type=float, default=0.01, metavar="F", help="of all rows (%(default)s)")
    build.add_argument("--merge", action="store_true", help="one shard of all inputs")
    verify = verb("verify", "check that a shard, or each of a folder, is whole, consistent and as it was made")
    verify.add_argument("prefix", metavar="PREFIX|FOLDER")
    ids = verify.add_mutually_exclusive_group()
    ids.add_argument("--tokenizer", **folder, help="check every id against this vocabulary")
    ids.add_argument("--vocab-size", type=int, metavar="N", help="check every id against this size")
    verify.add_argument("--against", nargs="+", metavar="INPUT", help="encode these again, and compare every id")
    making(verify)
    verb("info", "say what a shard, or a folder of them, holds").add_argument("prefix", metavar="PREFIX|FOLDER")
    show = verb("show", "print a document as text")
    show.add_argument("prefix")
    show.add_argument("n", type=int, help="number of the document, from 0")
    show.add_argument("--tokenizer", **folder, help="of a shard in a folder: the one beside them")
    merge = verb("merge", "put several shards into one")
    merge.add_argument("prefixes", nargs="+", metavar="PREFIX", help="without .bin and .idx, in their order")
    merge.add_argument("-o", "--output", required=True, metavar="PREFIX")
    sample = verb("sample", "print rows of a training batch as text, with where documents begin and end")
    sample.add_argument("place", metavar="PREFIX|FOLDER")
    sample.add_argument("--tokenizer", **folder, help="of a folder: the one beside its shards")
    sample.add_argument("--seq-length", type=int, default=4096, metavar="N", help="tokens of a row (%(default)s)")
    sample.add_argument("--rows", type=int, default=4, metavar="N", help="how many (%(default)s)")
    sample.add_argument("--seed", type=int, default=0, metavar="N", help="which of them (%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(cli.run(main))
