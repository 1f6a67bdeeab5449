"""`python -m toolkit.fabric detect | env | compare`: what this node's fabric is, what NCCL is told of it, how nodes
differ. Thin: it names options and prints.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolkit import cli, files
from toolkit.errors import DataError, PreflightFailed, UsageError
from toolkit.fabric import choose, compare, envfile, model, settings, show
from toolkit.fabric.node import detect
from toolkit.recipe import compose
from toolkit.recipe.schema import Nccl

_MOST_BYTES = 1 << 26
_EPILOG = """examples:
  python -m toolkit.fabric detect                        this node's ports, interfaces and GPUs
  python -m toolkit.fabric env --cluster a100_roce       its nccl.env, with the reason for each value
  srun -N16 python -m toolkit.fabric detect --json -o nodes/   a file for each node, and then
  python -m toolkit.fabric compare nodes/                how they differ; exit code 4 if any has a fault

A caller's own NCCL_*, UCX_* and GLOO_* win over what is found; `env --clean` looks away from them.
"""


def main(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    kind, policy = _site(args)
    if args.verb == "compare":
        return _compare(args, kind, policy)
    for name in ("sysfs", "proc"):
        if not getattr(args, name).is_dir():
            raise UsageError(f"--{name}={getattr(args, name)} is no folder", do="give the root of such a tree")
    found = detect(args.sysfs, proc=args.proc, node=args.node or "")
    kind = kind or choose.kind_of(found)
    if args.verb == "detect":
        value = {**found.as_dict(), **_judged(found, kind, policy)}
        if args.out is not None:
            path = args.out / f"{found.node}.json" if args.out.is_dir() or str(args.out).endswith("/") else args.out
            _save(path, json.dumps(value, indent=2) + "\n")
        elif args.json:
            cli.print_json(value)
        else:
            print(show.fabric(found, kind, policy.hca))
        return 0
    made = settings.values(found, kind=kind, policy=policy)
    if not args.clean:
        made = settings.with_caller(made, os.environ)
    written = envfile.text(made, f"What NCCL and its like are told on {found.node or 'this node'}.")
    if args.out is not None:
        _save(args.out, written)
    if args.json:
        cli.print_json({"node": found.node, "kind": kind, "values": [vars(value) for value in made]})
    elif args.out is None:
        print(written, end="")
    return 0


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--cluster", metavar="NAME", help="a site of recipes/cluster/, for its fabric and its policy")
    common.add_argument("--kind", choices=("roce", "infiniband", "none"), help="the fabric, whatever the site says")
    common.add_argument("--json", action="store_true", help="print one JSON document")
    tree = argparse.ArgumentParser(add_help=False)
    tree.add_argument("--sysfs", metavar="ROOT", type=Path, default=Path("/sys"), help="another root than /sys")
    tree.add_argument("--proc", metavar="ROOT", type=Path, default=Path("/proc"), help="another root than /proc")
    tree.add_argument("--node", metavar="NAME", help="what to call the node (default: its own name)")
    tree.add_argument("-o", "--out", metavar="FILE", type=_path, help="write it there; FOLDER/ for FOLDER/NODE.json")
    look: dict[str, Any] = {"epilog": _EPILOG, "formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser(
        prog="python -m toolkit.fabric", description="What the fabric is, found in /sys and /proc.", **look
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="detect|env|compare")
    verbs.add_parser("detect", help="ports, interfaces, GPUs of this node", parents=[common, tree], **look)
    env = verbs.add_parser("env", help="what NCCL is told, as a file for --env-file", parents=[common, tree], **look)
    env.add_argument("--clean", action="store_true", help="look away from what the environment has set")
    several = verbs.add_parser("compare", help="how nodes differ", parents=[common], **look)
    several.add_argument(
        "files", metavar="FILE", nargs="+", type=Path, help="what `detect --json` printed, or a folder"
    )
    return parser


def _path(word: str) -> Path:
    """A folder keeps its mark: `nodes/` may not be there yet."""
    path = Path(word)
    if word.endswith("/"):
        path.mkdir(parents=True, exist_ok=True)
    return path


def _site(args: argparse.Namespace) -> tuple[str | None, Nccl]:
    if args.cluster is None:
        return args.kind, Nccl()
    # One process on one node, so that no rule about sizes is in the way.
    small = ["cluster.nodes=1", "cluster.devices_per_node=1", "container=none"]
    site = compose("preflight", [f"cluster={args.cluster}", *small]).recipe.cluster
    return args.kind or site.fabric, site.nccl


def _judged(found: model.Fabric, kind: str, policy: Nccl) -> dict[str, Any]:
    selection = choose.select(found, kind, policy.hca)
    sockets = choose.sockets(found)
    return {
        "kind": kind,
        "fabric_ports": list(selection.names),
        "left_out": dict(selection.left_out),
        "sockets": None if sockets is None else sockets.name,
        "ceiling_gb_s": choose.ceiling_gb_s(found, kind, policy.hca),
        "nearest": {gpu: list(names) for gpu, names in choose.nearest(found, selection.ports).items()},
    }


def _compare(args: argparse.Namespace, kind: str | None, policy: Nccl) -> int:
    fabrics: dict[str, model.Fabric] = {}
    for path in args.files:
        for file in sorted(path.glob("*.json")) if path.is_dir() else [path]:
            for found in _read(file):
                if found.node in fabrics:
                    raise DataError(f"node {found.node!r} is told of twice", where=file, do="give one file for each")
                fabrics[found.node] = found
    if len(fabrics) < 2:
        raise UsageError(f"{len(fabrics)} nodes cannot be compared", do="give the files of two or more")
    kind = kind or max((choose.kind_of(found) for found in fabrics.values()), key=("none", "roce", "infiniband").index)
    found = compare.differences(fabrics, kind, policy.hca, pinned=settings.pinned(policy))
    if args.json:
        cli.print_json({"kind": kind, "nodes": sorted(fabrics), "differences": [vars(one) for one in found]})
    elif found:
        print(show.differences(found))
    else:
        print(f"{len(fabrics)} nodes, all alike")
    return PreflightFailed.exit_code if any(one.level == "fault" for one in found) else 0


def _read(file: Path) -> list[model.Fabric]:
    """The nodes of a file: one, as `detect` wrote it, or several by name."""
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise DataError("is too large to be what `detect --json` printed", where=file)
        value = files.read_json(file)
    except (OSError, ValueError, RecursionError) as err:
        reason = err.strerror if isinstance(err, OSError) else "it is no JSON, or cut off"
        raise DataError("cannot be read", where=file, why=str(reason), do="run `detect --json -o` again") from None
    given = [value]
    if isinstance(value, dict) and value.get("fabric", value) is None:
        print(f"note: {file} tells nothing of a fabric; it is left out", file=sys.stderr)
        return []
    if isinstance(value, dict) and isinstance(value.get("fabric"), dict):  # a node's answer in a run
        given = [value["fabric"]]
    elif isinstance(value, dict) and isinstance(value.get("nodes"), dict):  # fabric.json of a run
        given = list(value["nodes"].values())
    found = [model.from_dict(one) if isinstance(one, dict) and "ports" in one else None for one in given]
    if not found or None in found:
        raise DataError("is not what `detect --json` printed", where=file, do="run it again on that node")
    return [one for one in found if one is not None]


def _save(path: Path, text: str) -> None:
    try:
        files.write_text(path, text)
    except OSError as err:
        raise UsageError(f"cannot be written: {err.strerror}", where=path, do="give another -o") from None
    print(path, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(cli.run(main))
