"""`python -m toolkit.images build | verify | list | stage`. Thin: it names options and prints; the
package does the work.
"""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import toolkit
from toolkit import cli, images
from toolkit.errors import UsageError
from toolkit.images import cache, definition

_EXAMPLES = """examples:
  python -m toolkit.images build cpu                  containers/cpu.def becomes containers/cpu.sif, unless it is that
  python -m toolkit.images build train --tmp /scratch/me --build-arg CUDA_ARCHS=9.0
  python -m toolkit.images build score --bootstrap localimage --base base.sif --sandbox --build-arg CUDA=no
  python -m toolkit.images build cpu -- --disable-cache      what follows -- goes to apptainer build
  python -m toolkit.images verify cpu                 read all of it: the file that was built? from what is there now?
  python -m toolkit.images list
  python -m toolkit.images stage containers/train.sif --to /local/images

NAME is a definition of containers/, or a path that ends in .def. Apptainer is the one named by --apptainer or
MEDITRON_APPTAINER, else that on PATH, else that of env/apptainer/install.
"""


def main(argv: Sequence[str]) -> int:
    words = list(argv)
    extra = words[words.index("--") + 1 :] if "--" in words else []
    args = _parser().parse_args(words[: words.index("--")] if "--" in words else words)
    folder = Path(toolkit.__file__).parents[1].absolute() / "containers"
    output = Path(args.output) if getattr(args, "output", None) else None
    if args.verb == "build":
        return _build(args, folder, output, extra)
    if extra:
        raise UsageError("only build takes options for apptainer build after --", where=" ".join(extra))
    if args.verb == "verify":
        path = _image(args.image, folder, output)
        beside = path.absolute().parent
        home = beside if path.name.removesuffix(".sif") in definition.names(beside) else folder
        entry = images.verify(path, home, apptainer=args.apptainer)
        cli.print_json(_plain(entry)) if args.json else print(_verified(entry))
    elif args.verb == "list":
        entries = images.listing(folder, output)
        cli.print_json({"images": [_plain(entry) for entry in entries]}) if args.json else _table(entries)
    else:
        path = images.stage(_image(args.image, folder, output), args.to)
        cli.print_json({"path": path}) if args.json else print(path)
    return 0


def _build(args: argparse.Namespace, folder: Path, output: Path | None, extra: Sequence[str]) -> int:
    arguments = dict(_pair(word) for word in args.build_arg)
    arguments |= {"BOOTSTRAP": args.bootstrap} if args.bootstrap else {}
    arguments |= {"BASE": args.base} if args.base else {}
    if arguments.get("BOOTSTRAP") == "localimage" and args.base:
        arguments["BASE"] = str(Path(args.base).expanduser().absolute())
    options = images.Options(
        fakeroot=True if args.fakeroot else None, sandbox=args.sandbox, arguments=arguments, mirror=args.mirror,
        force=args.force, test=not args.no_test, cache=args.cache, tmp=Path(args.tmp) if args.tmp else None,
        apptainer=args.apptainer, extra=tuple(extra), quiet=False,
    )  # fmt: skip
    names = args.name or definition.names(folder)
    if not names:
        raise UsageError("no definition to build", where=folder)
    for name in names:  # all of them before the first build, which may take an hour
        definition.find(name, folder)
    signal.signal(signal.SIGTERM, _interrupt)  # as Ctrl-C does: what was begun is removed
    made = []
    for name in names:
        done = images.build(name, folder=folder, output=output, options=options)
        made.append(done)
        if not args.json:
            size = f", {done.bytes / 2**20:,.0f} MiB" if done.bytes else ""
            print(f"{done.path}: {done.state} ({done.why}){size}, {done.seconds:.0f} s", flush=True)
    if args.json:
        cli.print_json(
            {"images": [{**_plain(one), "cache": str(cache.place(one.inputs, one.path.name))} for one in made]}
        )
    return 0


def _interrupt(number: int, _: object) -> None:
    raise KeyboardInterrupt


def _image(word: str, folder: Path, output: Path | None) -> Path:
    """A path, or the image of a definition's name."""
    if "/" in word or Path(word).exists():
        return Path(word)
    short = word.removesuffix(".sif")
    if short not in definition.names(folder) and not ((output or folder) / f"{short}.sif").exists():
        definition.find(short, folder)
    return (output or folder) / f"{short}.sif"


def _pair(word: str) -> tuple[str, str]:
    name, given, value = word.partition("=")
    if not given or not name.isidentifier():
        raise UsageError(f"--build-arg takes NAME=VALUE, not '{word}'")
    return name, value


def _plain(value: Any) -> dict[str, Any]:
    return {**dataclasses.asdict(value), "path": str(value.path)}


def _verified(entry: images.Entry) -> str:
    what = f"{entry.path}: whole, SHA-256 {entry.sha256}" if entry.sha256 else f"{entry.path}: a sandbox"
    return f"{what}; {entry.state}{f' ({entry.why})' if entry.why else ''}{'; signed' if entry.signed else ''}"


def _table(entries: Sequence[images.Entry]) -> None:
    rows = [("IMAGE", "STATE", "SIZE", "SHA-256", "BUILT", "")]
    for entry in entries:
        size = f"{entry.bytes / 2**20:,.0f} MiB" if entry.bytes else "-"
        rows.append((entry.path.name, entry.state, size, (entry.sha256 or "-")[:16], entry.built or "-", entry.why))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]]).rstrip())


def _parser() -> argparse.ArgumentParser:
    look: dict[str, Any] = {"epilog": _EXAMPLES, "formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser(
        prog="python -m toolkit.images", description="Apptainer images from containers/*.def.", **look
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="build|verify|list|stage")

    def verb(name: str, summary: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=summary, description=summary, **look)
        sub.add_argument("--json", action="store_true", help="print one JSON document")
        if name != "stage":
            sub.add_argument("-o", "--output", metavar="DIR", help="folder of the images (default: containers/)")
        return sub

    build = verb("build", "build images whose inputs changed; each is whole and tested before it replaces the last")
    option = build.add_argument
    option("name", nargs="*", metavar="NAME", help="definitions (default: all of containers/)")
    option("--apptainer", metavar="CMD", help="the Apptainer to use")
    option("--fakeroot", action="store_true", help="always; without it, where this user needs it")
    option("--sandbox", action="store_true", help="a folder NAME.sandbox instead of NAME.sif")
    option("--build-arg", action="append", default=[], metavar="K=V", help="a value of {{ K }} in the definition")
    option("--bootstrap", metavar="WHAT", help="--build-arg BOOTSTRAP=WHAT, such as localimage")
    option("--base", metavar="BASE", help="--build-arg BASE=BASE: a reference, or a local image with localimage")
    option("--mirror", metavar="URL", help="Debian mirror to bootstrap from (default: this machine's own)")
    option("--force", action="store_true", help="build although nothing changed")
    option("--no-test", action="store_true", help="do not run the image's %%test")
    option("--cache", action="store_true", help="take it from, or put it into, ~/.cache/meditron-toolkit/images")
    option("--tmp", metavar="DIR", help="where to unpack (default: APPTAINER_TMPDIR, TMPDIR, /tmp)")
    verify = verb("verify", "read a whole image: the file that was built, and from what its definition says now?")
    verify.add_argument("image", metavar="NAME|FILE")
    verify.add_argument("--apptainer", metavar="CMD", help="the Apptainer that checks signatures")
    verb("list", "every definition and image, and their state")
    stage = verb("stage", "copy a SIF to a node's own disk, once")
    stage.add_argument("image", metavar="NAME|FILE")
    stage.add_argument("--to", required=True, metavar="DIR", help="folder on the node's own disk")
    return parser


if __name__ == "__main__":
    sys.exit(cli.run(main))
