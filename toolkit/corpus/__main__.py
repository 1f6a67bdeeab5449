"""`python -m toolkit.corpus`: build a corpus, look into one, and see where its sources come from.

Decides how options are named; `builder` does the work.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolkit import cli, files
from toolkit.cleaning import Decontamination, Duplicates, Filters, Language
from toolkit.corpus import downloads, fetch, gather, readers, zlines
from toolkit.corpus.builder import build
from toolkit.corpus.sources import MARKUPS, TABLES, Settings, Source
from toolkit.errors import DataError, RecipeError, UsageError, nearest

_EXAMPLES = """examples:
  python -m toolkit.corpus build pmc articles/ -o corpus/pmc --workers 16
  python -m toolkit.corpus build guidelines fetched/ -o corpus/guidelines --licences open,unknown
  python -m toolkit.corpus build jsonl notes.jsonl.gz -o corpus/notes -p text_field=body
  python -m toolkit.corpus build recipe=gap_replay corpus.sources.papers.path=articles ... -o corpus/gap
  python -m toolkit.corpus build world -o corpus/world --questions corpus/questions -p seed=1
  python -m toolkit.corpus report corpus/pmc
"""


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m toolkit.corpus",
        description="Sources to clean documents.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    _build_arguments(verbs)
    verb = verbs.add_parser("report", help="what became of every document of a corpus")
    verb.add_argument("corpus", help="folder of a corpus")
    verb.add_argument("--json", action="store_true", help="print report.json")
    verb = verbs.add_parser("show", help="one document of a corpus")
    verb.add_argument("corpus", help="folder of a corpus")
    verb.add_argument("id", help="its id, such as PMC3148967")
    verb.add_argument("--json", action="store_true", help="print it as JSON")
    verb = verbs.add_parser("downloads", help="where the sources come from, and commands that fetch them")
    verb.add_argument("names", nargs="*", help="some of them (default: all)")
    verb.add_argument("--json", action="store_true", help="print them as JSON")
    fetch.add_arguments(verbs.add_parser("fetch", help="fetch a source that allows it; shows what it would do first"))
    args = parser.parse_args(argv)
    if args.verb == "build":
        return _build(args)
    if args.verb == "report":
        return _report(args)
    if args.verb == "show":
        return _show(args)
    if args.verb == "fetch":
        return fetch.main(args)
    downloads.show(args.names, as_json=args.json)
    return 0


def _build_arguments(verbs: Any) -> None:
    kinds = "\n".join(f"  {kind:<11} {what}" for kind, (_, what) in readers.KINDS.items())
    verb = verbs.add_parser(
        "build",
        help="build a corpus folder",
        epilog=f"kinds:\n{kinds}\n\n{_EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = verb.add_argument
    add("what", metavar="KIND|recipe=NAME", help="the kind of the source, or a recipe whose section `corpus` is built")
    add("input", nargs="*", help="files or folders (none for world); after a recipe key=value")
    add("-o", "--out", help="output folder, replaced as a whole")
    add("--workers", type=int, default=0, help="processes (default 1, or the recipe's)")
    add("--work", metavar="FOLDER", help="where finished work is kept until the corpus stands (default OUT.work)")
    add("--list-downloads", action="store_true", help="print where such sources come from, and build nothing")
    add("--json", action="store_true", help="print the counts as JSON")
    add = verb.add_argument_group("for a KIND; a recipe states all of it").add_argument
    add("--seed", type=int, help="of the split and of all draws (default 0)")
    add("--valid-fraction", type=float, help="share of documents for validation (default: the kind's, mostly 0.03)")
    add("--subset", help="name of these documents in the corpus (default: the kind)")
    add("--max-bad-fraction", type=float, help="share of unreadable rows that is accepted (default 0.01)")
    add("--licences", metavar="A,B", help="groups or ids of licences that are kept (default open,unknown)")
    add("--license", metavar="ID", help="the licence of documents that state none")
    add("--language", metavar="A,B", help="languages that are kept, such as en (default: all)")
    add("--cutoff", metavar="DATE", help="nothing that was published later")
    add("--markup", choices=MARKUPS, help="tags: the paper's tokens around citations, figures, ... (default plain)")
    add("--tables", choices=TABLES, help="of tables, the caption (default) or the text as well")
    add("--keep-duplicates", action="store_true", help="leave documents in that are others over again")
    add("--benchmark", action="append", metavar="NAME=FILE", help="remove what holds its questions; repeatable")
    add("-p", "--option", action="append", metavar="KEY=VALUE", help="option of the reader; repeatable")
    add("--questions", metavar="FOLDER", help="world only: write its questions there")


_OF_A_KIND = (
    *("seed", "valid_fraction", "subset", "max_bad_fraction", "licences", "license", "language", "cutoff"),
    *("markup", "tables", "keep_duplicates", "benchmark", "option", "questions"),
)


def _build(args: argparse.Namespace) -> int:
    key, sign, name = args.what.partition("=")
    if sign and key == "recipe":
        sources, settings, workers = _of_recipe(name, args)
    elif args.what in readers.KINDS:
        sources, settings, workers = _of_kind(args)
    else:
        raise UsageError(
            f"unknown kind of source '{args.what}'", do=nearest(args.what, [*readers.KINDS, "recipe=NAME"])
        )
    if args.list_downloads:
        kinds = {"pmc" if source.kind == "jats" else source.kind for source in sources}
        downloads.show([one.name for one in downloads.choose([]) if one.kind in kinds], as_json=args.json)
        return 0
    if not args.out:
        raise UsageError("where to?", do="give -o FOLDER")
    for source in sources:
        if not source.paths and source.kind not in readers.WITHOUT_INPUT:
            path = f"corpus.sources.{source.name}.path=PATH" if sign else "PATH"
            raise UsageError(f"{source.name} needs at least one file or folder", do=f"add {path}; see --list-downloads")
    if args.workers < 0:
        raise UsageError("--workers cannot be negative")
    report = build(sources=sources, out=args.out, settings=settings, workers=args.workers or workers, work=args.work)
    shown = dataclasses.asdict(report)
    if args.questions:
        from toolkit.corpus import world

        shown["questions"] = world.make(sources[0].options).write_tasks(args.questions)
    if args.json:
        cli.print_json(shown)
        return 0
    _print_table(files.read_json(Path(args.out) / "report.json"))
    print(f"\n{report.out}: report.html has examples")
    return 0


def _of_recipe(name: str, args: argparse.Namespace) -> tuple[list[Source], Settings, int]:
    from toolkit.recipe import absolute, compose
    from toolkit.stages.corpus import settings_of, sources_of

    for option in _OF_A_KIND:
        if getattr(args, option):
            raise UsageError(f"--{option.replace('_', '-')} does not go with a recipe", do="give key=value instead")
    for word in args.input:
        if "=" not in word and not word.startswith("~"):
            raise UsageError(f"'{word}' is not key=value", do="a recipe's files: corpus.sources.NAME.path=PATH")
    recipe = absolute(compose(name, args.input).recipe)
    if not recipe.corpus.sources:
        raise RecipeError("this recipe has no sources", where=name, do="add corpus=gap_replay, for example")
    return sources_of(recipe), settings_of(recipe), recipe.corpus.workers


def _of_kind(args: argparse.Namespace) -> tuple[list[Source], Settings, int]:
    if args.what in readers.WITHOUT_INPUT:
        if args.input:
            raise UsageError("world takes no input")
    elif args.questions:
        raise UsageError("--questions belongs to world")
    source = Source(
        kind=args.what,
        paths=tuple(args.input),
        subset=args.subset or "",
        options=dict(_pair(text, number=True) for text in args.option or []),
        valid_fraction=args.valid_fraction,
        license=args.license or "",
    )
    filters = Filters(
        licences=_list(args.licences) or Filters().licences,
        cutoff=args.cutoff or "",
        language=Language(keep=_list(args.language)),
    )
    benchmarks = dict(_pair(text) for text in args.benchmark or [])
    off = args.keep_duplicates or args.what in readers.WITHOUT_INPUT  # the world repeats itself as it is meant to
    given = {
        "seed": args.seed,
        "max_bad_fraction": args.max_bad_fraction,
        "markup": args.markup,
        "tables": args.tables,
    }
    settings = Settings(
        **{key: value for key, value in given.items() if value is not None},
        filters=filters,
        duplicates=Duplicates(ids=False, exact=False, near=False) if off else Duplicates(),
        decontamination=Decontamination(mode="remove" if benchmarks else "off"),
        benchmarks={name: str(path) for name, path in benchmarks.items()},
    )
    return [source], settings, 1


def _list(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def _pair(text: str, *, number: bool = False) -> tuple[str, Any]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise UsageError(f"'{text}' is no option", do="write KEY=VALUE")
    if not number:
        return key, value
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _report(args: argparse.Namespace) -> int:
    path = Path(args.corpus) / "report.json"
    try:
        found = files.read_json(path)
    except (OSError, ValueError) as err:
        raise DataError("is no corpus", where=args.corpus, why=f"its report.json cannot be read ({err})") from err
    if args.json:
        cli.print_json(found)
    else:
        _print_table(found)
    return 0


def _print_table(found: dict[str, Any]) -> None:
    """One line a subset, then one a rule that removed something."""
    columns = ("in", "out", "train", "valid")
    rows = [("subset", *columns), *((n, *(f"{s[c]:,}" for c in columns)) for n, s in found["subsets"].items())]
    if len(rows) > 2:
        rows.append(("all", *(f"{found[c]:,}" for c in columns)))
    _print_columns(rows)
    removed = {rule: count for rule, count in found["removed"].items() if count}
    if removed:
        print()
        _print_columns([("removed", "documents"), *((rule, f"{count:,}") for rule, count in removed.items())])
    for warning in found.get("warnings", ()):
        print(f"\nwarning: {warning}")
    print(f"\nabout {found['tokens_estimated']:,} tokens ({found['bytes_per_token']} bytes each)")


def _print_columns(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print(
            "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        )


def _show(args: argparse.Namespace) -> int:
    corpus = Path(args.corpus)
    parts = [path for part in (gather.TRAIN, gather.VALID) for path in sorted((corpus / part).glob("*.jsonl.zst"))]
    if not parts:
        raise DataError("is no corpus", where=corpus, why="it has no train/*.jsonl.zst")
    wanted = json.dumps(args.id, ensure_ascii=False).encode()
    for path in parts:
        for line in zlines.lines(path):
            if wanted in line and (row := zlines.loads(line))["id"] == args.id:
                if args.json:
                    cli.print_json({"part": path.parent.name, **row})
                else:
                    about = {key: value for key, value in row.items() if key not in ("text", "meta") and value}
                    print("\n".join(f"{key}: {value}" for key, value in {"part": path.parent.name, **about}.items()))
                    print(f"meta: {json.dumps(row['meta'], ensure_ascii=False)}\n\n{row['text']}")
                return 0
    raise DataError(f"no document has the id {args.id!r}", where=corpus, do="a removed one is counted in the report")


if __name__ == "__main__":
    sys.exit(cli.run(main))
