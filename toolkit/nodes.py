"""`python -m toolkit.nodes RUN STAGE`: what one node of a job says of itself before its ranks begin; and the asking.

Decides which jobs ask, what each node tells (its copy of the image, its fabric, for a preflight its host), and how long
is too long; what follows from the answers is `alike`'s and the job's. Runs on the host, never in the image.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import getpass
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit import cli, fabric, files, images, pinned_image, preflight
from toolkit.cluster import srun
from toolkit.cluster.srun import Asked
from toolkit.errors import ImageError, ToolkitError
from toolkit.plan import Step, step_named
from toolkit.recipe import Recipe
from toolkit.recipe.layout_rules import TRAINING_STAGES
from toolkit.runs import Run, find

FOLDER = "nodes"
SYSFS = "MEDITRON_SYSFS"  # another root than /sys, for trees that are made up
# An answer travels as lines of the step's output: a shared folder may show a new file to other nodes late. srun keeps a
# line together up to 1,024 bytes.
_LINE = re.compile(r"^meditron-node (\S{1,255}) (\d{1,4})/(\d{1,4}) ([A-Za-z0-9+/=]{1,700})$", re.MULTILINE)
_PIECE = 700
_LARGEST = 8 << 20
_AT_LEAST_S = 60.0
_EPILOG = """examples (inside a job; python -m toolkit.job starts it on every node):
  python -m toolkit.nodes runs/pretrain_70b-20260101-120000-ab12 pretrain
"""


def asked_of(recipe: Recipe, step: Step) -> bool:
    """Whether this stage's nodes are asked at all: where there is neither a fabric to find nor an image to copy, a
    training has nothing to learn from them.
    """
    if step.stage == "preflight":
        return True
    return step.stage in TRAINING_STAGES and (recipe.cluster.fabric != "none" or copied(recipe))


def copied(recipe: Recipe) -> bool:
    """Whether each node starts a copy of its own of the image. A sandbox is never copied."""
    box = recipe.container
    staged = box.runtime == "apptainer" and box.image is not None and recipe.cluster.apptainer.local is not None
    return staged and not Path(str(box.image)).expanduser().is_dir()


def look(run: Run, step: Step) -> dict[str, Any]:
    """What this node says: {"node", "job", "image", "fabric", "host", "error", "cause"}. Never raises for what is wrong
    with the node: `error` says it in words, `cause` is the first one's class, place and remedy.
    """
    recipe, errors = run.recipe, list[ToolkitError]()

    def attempt(part: Callable[[], Any]) -> Any:
        try:
            return part()
        except ToolkitError as err:
            errors.append(err)
        except Exception as err:  # a node that looks odd in a way that nobody thought of is still named
            errors.append(ToolkitError(f"{type(err).__name__}: {err}"))
        return None

    in_preflight = step.stage == "preflight"
    told: dict[str, Any] = {"node": node(), "job": os.environ.get("SLURM_JOB_ID", "")}
    told["image"] = attempt(lambda: image(run, full=in_preflight))
    told["fabric"] = attempt(lambda: _fabric(told["node"])) if recipe.cluster.fabric != "none" or in_preflight else None
    told["host"] = attempt(lambda: preflight.host_facts(recipe)) if in_preflight else None
    told["error"] = "; ".join(map(str, errors)) or None
    told["cause"] = errors[0].as_dict() if errors else None
    return told


def image(run: Run, *, full: bool = False) -> str | None:
    """The image that this node is to start: the run's own, or this node's copy of it; None where there is none.
    Raises `ImageError` for another than the run was launched with.
    """
    box = run.recipe.container
    if box.runtime != "apptainer" or box.image is None:
        return None
    pinned_image.check(run, full=full)
    path = Path(box.image).expanduser().absolute()
    if not copied(run.recipe):
        return str(path)
    try:
        local = str(run.recipe.cluster.apptainer.local).replace("$USER", getpass.getuser())
        return str(images.stage(path, local))
    except OSError as err:
        raise ImageError(
            f"the image cannot be copied to this node: {err.strerror}", where=run.recipe.cluster.apptainer.local
        ) from None


def ask(run: Run, step: Step, hosts: Sequence[str], asked: Asked | None = None) -> dict[str, dict[str, Any]]:
    """What each of `hosts`, this job's nodes, says; written to `stages/STAGE/nodes/`. A node that says nothing within
    `cluster.alive.look_s` (or long after most have) has an answer that says so. Stops early when `asked` to.
    """
    folder, log = run.stage(step.id) / FOLDER, run.stage(step.id) / "nodes.log"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "toolkit.nodes", str(run.path), step.id]
    began, limit_s = time.monotonic(), run.recipe.cluster.alive.look_s
    if step.stage == "preflight":  # a diagnosis by DCGM takes its time
        limit_s = max(limit_s, preflight.host_limit_s(run.recipe))
    last, count = began, 0

    def over() -> bool:
        """Waiting for few makes no sense when most were quick."""
        nonlocal last, count
        now, here = time.monotonic(), len(_heard(log))
        if here != count:
            last, count = now, here
        alike = 2 * count > len(hosts) and not copied(run.recipe)  # most may have had their copy from before
        enough = max(_AT_LEAST_S, 3 * (last - began)) if alike else limit_s
        return bool(asked) or now - began > min(limit_s, (last - began) + enough)

    if len(hosts) > 1:
        srun.on_each_node(command, nodes=len(hosts), log=log, over=over)
    else:
        _here(command, log, over)
    answers = _heard(log)
    for name in hosts:
        if name not in answers:
            why = f"it did not say what it is like within {time.monotonic() - began:.0f} s{_last_words(log, name)}"
            answers[name] = _silent(name, why)
        files.write_json(folder / f"{name}.json", answers[name])
    return {name: answers[name] for name in hosts}


def node() -> str:
    """As Slurm calls it, else the host's name."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def speak(told: Mapping[str, Any]) -> str:
    """An answer as lines that the output of a whole step may be mixed from."""
    packed = base64.b64encode(zlib.compress(json.dumps(told, default=str).encode())).decode("ascii")
    pieces = [packed[i : i + _PIECE] for i in range(0, len(packed), _PIECE)]
    return "".join(f"meditron-node {told['node']} {i}/{len(pieces)} {p}\n" for i, p in enumerate(pieces, 1))


def hear(text: str) -> dict[str, dict[str, Any]]:
    """The whole answers in a step's output, by node; what is cut off or no answer is passed over."""
    pieces: dict[str, dict[int, str]] = {}
    sizes: dict[str, int] = {}
    for name, number, of, piece in _LINE.findall(text):
        pieces.setdefault(name, {})[int(number)] = piece
        sizes[name] = int(of)
    found = {}
    for name, parts in pieces.items():
        if sorted(parts) == list(range(1, sizes[name] + 1)):
            with contextlib.suppress(ValueError, zlib.error, RecursionError):
                unpacked = zlib.decompressobj().decompress(
                    base64.b64decode("".join(parts[i] for i in sorted(parts)), validate=True), _LARGEST
                )
                told = json.loads(unpacked)
                if isinstance(told, dict) and told.get("node") == name:
                    found[name] = told
    return found


def _fabric(name: str) -> dict[str, Any]:
    root = os.environ.get(SYSFS)
    return fabric.detect(Path(root) if root else Path("/sys"), node=name).as_dict()


def _here(command: Sequence[str], log: Path, over: Callable[[], bool]) -> None:
    """One node: a process beside this one, for even that may hang."""
    with open(log, "wb") as told:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=told, stderr=told, start_new_session=True
        )  # fmt: skip
    try:
        while process.poll() is None and not over():
            time.sleep(0.05)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _heard(log: Path) -> dict[str, dict[str, Any]]:
    try:
        return hear(log.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return {}


def _silent(name: str, why: str) -> dict[str, Any]:
    told: dict[str, Any] = dict.fromkeys(("image", "fabric", "host", "cause"))
    return {"node": name, "job": os.environ.get("SLURM_JOB_ID", ""), **told, "error": why}


def _last_words(log: Path, name: str) -> str:
    """What srun said of that node, if it did."""
    with contextlib.suppress(OSError):
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            if "error:" in line and re.search(rf"\b{re.escape(name)}\b", line):
                return f" ({line.strip()[:200]})"
    return ""


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m toolkit.nodes",
        description="Say what this node is like, for the job that it is part of.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", help="the run's folder")
    parser.add_argument("stage", metavar="STAGE", help="a stage of this run")
    parser.add_argument("--json", action="store_true", help="as JSON instead of lines for the job")
    args = parser.parse_args(argv)
    run = find(args.run)
    step = step_named(run.recipe, args.stage, where=run.path)
    with contextlib.redirect_stdout(sys.stderr):  # progress of a copy and the like
        told = look(run, step)
    if args.json:
        cli.print_json(told)
    else:
        sys.stdout.write(speak(told))
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
