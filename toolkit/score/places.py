"""Which benchmarks a command line names, and where their files are: `--benchmark`, `--path`, `--train` and `--hub`.

The same for every verb of `python -m toolkit.score` that reads benchmarks.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from toolkit.errors import UsageError, nearest
from toolkit.scoring import benchmarks
from toolkit.scoring.benchmarks import Benchmark


def add(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """The options; without `required`, benchmarks may be named by their paths alone (see `asked`)."""
    default = "" if required else " (default: those that --path names)"
    parser.add_argument("--benchmark", required=required, help=f"names or YAML files, separated by commas{default}")
    parser.add_argument("--path", action="append", default=[], help="file or folder, or NAME=PATH for each benchmark")
    parser.add_argument(
        "--train", action="append", default=[], help="where demonstrations come from, as --path (default: beside it)"
    )
    parser.add_argument(
        "--hub", action="store_true", help="fetch what --path does not name from huggingface.co (or HF_ENDPOINT)"
    )


def specs(text: str | None) -> list[Benchmark]:
    """The benchmarks that `--benchmark` names. Raises UsageError and DataError."""
    found = [benchmarks.get(name.strip()) for name in (text or "").split(",") if name.strip()]
    if not found:
        raise UsageError("--benchmark names none", do=nearest("", benchmarks.names()))
    names = [spec.name for spec in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"--benchmark names '{twice[0]}' twice")
    return found


def asked(args: argparse.Namespace) -> list[Benchmark]:
    """The benchmarks of `--benchmark`, or without it those of `--path NAME=PATH`. Raises UsageError and DataError."""
    if args.benchmark is None and (
        named := [name for name, equals, _ in (p.partition("=") for p in args.path) if equals]
    ):
        return specs(",".join(named))
    return specs(args.benchmark)


def paths(given: Sequence[str], names: Sequence[str], option: str = "--path") -> dict[str, str]:
    """PATH for a single benchmark, NAME=PATH for each of several. Raises UsageError."""
    found: dict[str, str] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if equals and name in names and name not in found:
            found[name] = path
        elif len(names) == 1 and not found:
            found[names[0]] = text
        else:
            do = f"write NAME=PATH; {nearest(name, names)}" if len(names) > 1 else f"give {option} once"
            raise UsageError(f"{option} {text} belongs to no benchmark", do=do)
    return found


def located(
    args: argparse.Namespace, found: Sequence[Benchmark], *, shots: bool
) -> dict[str, tuple[str | None, str | None]]:
    """By benchmark, the paths of what is scored and of what demonstrations come from (None: as the benchmark says).

    With `--hub`, what no option names is fetched; of the demonstrations only where there are `shots`.
    """
    names = [spec.name for spec in found]
    scored, train = paths(args.path, names), paths(args.train, names, "--train")
    if args.hub:
        from toolkit.scoring import hub

        for spec in found:
            fetched = spec.name not in scored
            if fetched:
                scored[spec.name] = str(hub.fetch(spec))
            if shots and fetched and spec.name not in train:
                train[spec.name] = str(hub.fetch(spec, "demonstrations"))
    return {name: (scored.get(name), train.get(name)) for name in names}
