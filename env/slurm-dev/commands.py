"""The verbs up, down, status and run: arguments, words for the user, exit codes.

Decides when an `up` repairs, starts anew or refuses; leaves the work to cluster.py.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import cluster
import packages
import settings as files
from refusal import Refused
from settings import Settings

DESCRIPTION = """\
A real Slurm on this machine alone: munge, slurmctld and one slurmd per node, each node with its own hostname where the
machine allows, GPUs that exist for Slurm only. For tests and for trying the launcher; no root needed.
Everything lies in one folder; /etc/slurm and /etc/munge are not used."""
EXAMPLES = """\
examples:
  slurm-dev up                                  16 nodes x 8 GPUs, in a second or two
  slurm-dev up --nodes 4 --gpus 2 --accounting  smaller, with slurmdbd, so that sacct works
  sudo slurm-dev up --install                   with the packages, on Debian or Ubuntu
  slurm-dev run sbatch --nodes=2 --wrap 'srun hostname'
  slurm-dev run bash                            a shell whose Slurm commands go there
  slurm-dev status; slurm-dev down

partitions: normal, and urgent, whose jobs may requeue those of normal.
exit codes: 0 done (run: the command's own) · 1 it did not work, or status: not up · 2 usage · 4 packages are missing"""


def main(argv: list[str] | None = None) -> int:
    signal.signal(signal.SIGTERM, _terminated)
    arguments = _parser().parse_args(argv)
    try:
        return arguments.verb(arguments)
    except Refused as refused:
        print(f"slurm-dev: {refused}", file=sys.stderr)
        return refused.exit_code
    except KeyboardInterrupt:
        print("slurm-dev: interrupted; `slurm-dev status` says what is up", file=sys.stderr)
        return 130
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            print(f"slurm-dev: no room left on the disk ({error}); what it had started was ended", file=sys.stderr)
        else:
            print(f"slurm-dev: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="slurm-dev", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=raw)
    verbs = parser.add_subparsers(metavar="up | down | status | run", required=True)

    def verb(name: str, function: object, text: str) -> argparse.ArgumentParser:
        words = {"help": text, "description": text, "epilog": EXAMPLES}
        one = verbs.add_parser(name, **words, formatter_class=raw, allow_abbrev=False)
        one.set_defaults(verb=function)
        one.add_argument("--state", metavar="DIR", help=f"folder of this cluster (default: {files.default_state()})")
        return one

    up = verb("up", _up, "bring it up; when it is up, say so; after a crash, clean up first")
    up.add_argument("--nodes", type=_number(1, files.MOST_NODES), metavar="N", help="default: 16")
    up.add_argument("--gpus", type=_number(0, files.MOST_GPUS), metavar="N", help="per node, default: 8")
    up.add_argument("--accounting", action="store_true", default=None, help="with slurmdbd and MariaDB, for sacct")
    up.add_argument("--sys", metavar="DIR", help="DIR/node07/class is what node07 sees as /sys/class, and so on")
    up.add_argument("--install", action="store_true", help="install missing packages with apt-get; needs root")
    verb("down", _down, "cancel its jobs, end its processes, and those only; logs stay")
    status = verb("status", _status, "what is up, with processes, nodes and jobs; exit code 0 when all of it is")
    status.add_argument("--json", action="store_true")
    run = verb("run", _run, "run a command with SLURM_CONF set to this cluster")
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND ...")
    return parser


def _up(arguments: argparse.Namespace) -> int:
    state = files.checked_state(arguments.state)
    own_sys = os.path.realpath(arguments.sys) if arguments.sys else None
    if own_sys and not os.path.isdir(own_sys):
        raise Refused(f"--sys {arguments.sys}: is no folder", 2)
    packages.require(accounting=bool(arguments.accounting), install=arguments.install)
    state.mkdir(mode=0o755, parents=True, exist_ok=True)
    files.check_file_system(state)
    asked = {"nodes": arguments.nodes, "gpus": arguments.gpus, "accounting": arguments.accounting, "sys": own_sys}
    began = time.monotonic()
    _mark(state)
    with cluster.locked(state):
        held = files.load(state)
        if held and cluster.answers(state):
            dead = [name for name, process in cluster.daemons(state, held).items() if process is None]
            if not cluster.same_settings(held, asked):
                raise Refused(f"another cluster is up in {state}: {_size(held)}. Do: slurm-dev down; or --state DIR")
            if not dead:
                return _said(f"is up already: {_size(held)}", state)
            if set(dead) <= set(held.names):
                cluster.start_missing(state, held)
                return _said(f"started again: slurmd of {', '.join(dead)}; the other nodes were not touched", state)
        if ended := cluster.end_all(state):
            print(f"slurm-dev: ended {ended} processes that a crash had left", flush=True)
        shutil.rmtree(state / "log", ignore_errors=True)
        given = {"nodes": 16, "gpus": 8, "accounting": False, "sys": ""}
        given |= {name: value for name, value in asked.items() if value is not None}
        settings = Settings(**given, port=files.free_ports(given["nodes"] + 3))
        remarks = cluster.bring_up(state, settings)
    for remark in remarks:
        print(f"slurm-dev: {remark}")
    return _said(f"is up after {time.monotonic() - began:.1f} s: {_size(settings)}", state)


def _down(arguments: argparse.Namespace) -> int:
    state = files.checked_state(arguments.state)
    if not (state / files.MARKER).exists():
        print(f"slurm-dev: nothing is up in {state}")
        return 0
    with cluster.locked(state):
        ended = cluster.end_all(state)
    print(f"slurm-dev: down, {ended} processes ended; logs are in {state / 'log'}" if ended
          else f"slurm-dev: nothing is up in {state}")  # fmt: skip
    return 0


def _status(arguments: argparse.Namespace) -> int:
    state = files.checked_state(arguments.state)
    held = files.load(state)
    found = cluster.daemons(state, held) if held else {}
    alive = {name: process.pid for name, process in found.items() if process}
    answering = bool(alive) and cluster.answers(state)
    word = "up" if answering and len(alive) == len(found) else "damaged" if alive else "down"
    nodes = cluster.node_states(state) if answering else {}
    jobs = cluster.jobs(state) if answering else []
    if arguments.json:
        print(json.dumps({
            "status": word, "state": str(state), "slurm_conf": str(state / "etc" / "slurm.conf"), "pids": alive,
            "dead": [name for name in found if name not in alive] if alive else [], "nodes": nodes, "jobs": jobs,
        }, indent=2))  # fmt: skip
    else:
        print(f"slurm-dev: {word}{': ' + _size(held) if held and alive else ''} in {state}")
        if word == "damaged":
            print(f"  not alive: {', '.join(name for name in found if name not in alive)}; `slurm-dev up` mends it")
        if answering:
            words = sorted(set(nodes.values()))
            print("  nodes: " + ", ".join(f"{sum(one == w for one in nodes.values())} {w}" for w in words))
            print(f"  jobs: {len(jobs)}\n  processes: {len(alive)} daemons, logs in {state / 'log'}")
    return 0 if word == "up" else 1


def _run(arguments: argparse.Namespace) -> int:
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        raise Refused("run: no command given, as in: slurm-dev run squeue", 2)
    state = files.checked_state(arguments.state)
    if not cluster.answers(state):
        raise Refused(f"nothing is up in {state}; `slurm-dev up` brings it up")
    environment = {**os.environ, "SLURM_CONF": str(state / "etc" / "slurm.conf")}
    try:
        os.execvpe(command[0], command, environment)
    except OSError as error:
        print(f"slurm-dev: {command[0]}: {error.strerror}", file=sys.stderr)
        return 127 if isinstance(error, FileNotFoundError) else 126


def _mark(state: Path) -> None:
    """The folder is slurm-dev's from here on, whatever happens next."""
    if not (state / files.MARKER).exists():
        (state / files.MARKER).touch()


def _said(what: str, state: Path) -> int:
    print(f"slurm-dev: {what}\n  export SLURM_CONF={state / 'etc' / 'slurm.conf'}   or: slurm-dev run COMMAND")
    return 0


def _size(settings: Settings) -> str:
    with_sacct = "with" if settings.accounting else "without"
    return f"{settings.nodes} nodes ({settings.range}) x {settings.gpus} GPUs, {with_sacct} accounting"


def _number(least: int, most: int):  # noqa: ANN202
    def number(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"'{text}' is no number from {least} to {most}")
        return int(text)

    return number


def _terminated(*_: object) -> None:
    raise KeyboardInterrupt
