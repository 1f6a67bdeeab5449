"""Makes env/*.lock from env/versions.yaml, and says where a lock no longer agrees with the table.

Decides what goes into which lock; leaves resolving to `uv pip compile` and installing to `env/setup`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
CPU_GROUPS = ("core", "train", "score", "data", "dev")
WHEELS_GROUPS = ("core", "train", "data")
# What the table pins for jobs and vLLM pins differently: the image's own section, or vLLM's metadata, decides.
SCORE_LEAVES = ("torch", "numpy")
# PyPI's transformer-engine is an empty meta package that fails on import, and its apex is an unrelated project.
NEVER = ("transformer-engine", "transformer-engine-torch", "transformer-engine-cu12", "transformer-engine-cu13",
         "flash-attn", "apex")  # fmt: skip

Lock = dict[str, str]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def read_table(path: Path = HERE / "versions.yaml") -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def digest(table: dict[str, Any]) -> str:
    """Of everything in the table that decides a lock; comments and reasons do not."""
    pins = {name: {k: v for k, v in pin.items() if k != "why"} for name, pin in table["packages"].items()}
    decisive = [table["python"], table["torch_cpu"], pins, sorted(table["leave_out"]), table["gpu_image"]["python"]]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def image_digest(table: dict[str, Any], section: str) -> str:
    """Like `digest`, with the section of an image that has a lock of its own."""
    packages = {name: pin["version"] for name, pin in table[section]["packages"].items()}
    decisive = [digest(table), table[section]["python"], packages]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def image_pins(table: dict[str, Any], section: str) -> Lock:
    """Canonical name -> version of what pip installs in an image of its own; what is built from source is not in it."""
    own = {canonical(n): str(p["version"]) for n, p in table[section]["packages"].items() if canonical(n) not in NEVER}
    if section == "wheels_image":
        return {**pins(table, WHEELS_GROUPS, cpu=False), **own}
    shared = {n: v for n, v in pins(table, ["core", "score"], cpu=False).items() if n not in SCORE_LEAVES}
    return {**shared, **own}


def pins(table: dict[str, Any], groups: Iterable[str], cpu: bool = True) -> Lock:
    """Canonical name -> version of the direct packages of `groups`; torch is the CPU build when `cpu`."""
    wanted = set(groups)
    found = {canonical(n): str(p["version"]) for n, p in table["packages"].items() if wanted & set(p["groups"])}
    if cpu and "torch" in found:
        found["torch"] = table["torch_cpu"]["version"]
    return found


def parse_lock(text: str) -> Lock:
    """Canonical name -> version of every pinned line; hashes, markers and comments are passed over."""
    lines = re.finditer(r"^([A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?==([^\s;\\]+)", text, re.MULTILINE)
    return {canonical(m[1]): m[2] for m in lines}


def expected(table: dict[str, Any]) -> dict[str, Lock]:
    return {
        "host.lock": pins(table, ["core"]),
        "cpu.lock": pins(table, CPU_GROUPS),
        "gpu.lock": pins(table, ["gpu-image"], cpu=False),
        "wheels.lock": image_pins(table, "wheels_image"),
        "score.lock": image_pins(table, "score_image"),
    }


def stamp(table: dict[str, Any], name: str) -> str:
    """What the head of a lock says about the table that it was made from."""
    section = {"wheels.lock": "wheels_image", "score.lock": "score_image"}.get(name)
    return f"table {image_digest(table, section) if section else digest(table)}"


def problems(folder: Path = HERE) -> list[str]:
    """What is wrong with the locks in `folder`, one line each; empty when they agree with its versions.yaml."""
    table, found = read_table(folder / "versions.yaml"), []
    for name, want in expected(table).items():
        path = folder / name
        if not path.is_file():
            found.append(f"{name}: missing; run `make lock`")
            continue
        text = path.read_text(encoding="utf-8")
        have = parse_lock(text)
        for package, version in want.items():
            if have.get(package) != version:
                found.append(f"{name}: {package} is {have.get(package)}, versions.yaml says {version}")
        found += [f"{name}: {bad} must never be in a lock" for bad in NEVER if bad in have]
        found += [f"{name}: {out} is left out in versions.yaml" for out in table["leave_out"] if canonical(out) in have]
        found += [f"{name}: names an index or folder: {line}" for line in text.splitlines()
                  if re.match(r"\s*(-i|-f|--(extra-)?index-url|--find-links|[^#]*\S+ @ )", line)]  # fmt: skip
        if stamp(table, name) not in text:
            found.append(f"{name}: made from another versions.yaml; run `make lock`")
    return found


def compile_lock(requirements: Lock, *, python: str, universal: bool = False, hashes: bool = False,
                 constraints: Lock | None = None, leave_out: Iterable[str] = (), cpu: bool = True) -> str:  # fmt: skip
    """The full set that `requirements` need, as `uv pip compile` resolves it; exits with its code when it cannot.

    torch is its CPU build, with `cpu`; else the one on PyPI.
    """
    command = ["uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python-version", python]
    command += ["--universal"] if universal else ["--python-platform", "x86_64-manylinux_2_31"]
    command += ["--generate-hashes"] if hashes else []
    wheels = os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS")
    if cpu:
        command += ["--find-links", wheels] if wheels else ["--torch-backend", "cpu"]
    with tempfile.TemporaryDirectory() as work:
        for option, lines in (
            ("--constraint", [f"{n}=={v}" for n, v in (constraints or {}).items()]),
            ("--override", [f"{n}; python_version < '3'" for n in leave_out]),  # a marker that never holds
            ("", [f"{n}=={v}" for n, v in requirements.items()]),
        ):
            path = Path(work, f"{option.strip('-') or 'requirements'}.in")
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
            command += [option, str(path)] if option else [str(path)]
        environment = {**os.environ, "UV_PYTHON_DOWNLOADS": "never"}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


def make(folder: Path = HERE, only: Iterable[str] = ()) -> None:
    """Write the locks, or those named in `only`."""
    table = read_table(folder / "versions.yaml")
    want, python, out = expected(table), table["python"], table["leave_out"]
    no_deps = {canonical(n) for n, p in table["packages"].items() if p.get("no_deps")}

    def body(name: str) -> str:
        bare = "".join(f"{n}=={v}\n" for n, v in want[name].items() if n in no_deps)
        resolved = {n: v for n, v in want[name].items() if n not in no_deps}
        match name:
            case "host.lock":
                # Only PyPI's files are in it, so its hashes hold for everybody.
                everything = pins(table, CPU_GROUPS, cpu=False)
                oldest = python["host"][0]
                return compile_lock(resolved, python=oldest, universal=True, hashes=True, constraints=everything)
            case "cpu.lock":
                return compile_lock(resolved, python=python["cpu"], leave_out=out) + bare
            case "gpu.lock":
                return "".join(f"{n}=={v}\n" for n, v in sorted(want[name].items()))
            case _:
                image = table[name.replace(".lock", "_image")]
                return compile_lock(resolved, python=image["python"], leave_out=out, cpu=False) + bare

    notes = {
        "host.lock": f"The light core, Python {python['host'][0]} to {python['host'][-1]}.",
        "cpu.lock": f"Everything for demo and test: Python {python['cpu']}, Linux x86_64, glibc 2.31 or newer.\n"
        "# It is complete: install it with --no-deps, as env/setup does.\n"
        "# No hashes: torch's +cpu wheel may be built anew.",
        "gpu.lock": f"What is added to {table['gpu_image']['base']}, with --no-deps: the container has the rest.",
        "wheels.lock": "What containers/train-from-wheels.def installs, with --no-deps; kernels it builds itself.",
        "score.lock": "What containers/score.def installs, with --no-deps.",
    }
    for name in only or want:
        made = f"# Made by `make lock` from env/versions.yaml ({stamp(table, name)}); do not edit."
        text = body(name)
        part = folder / f".{name}.part"
        part.write_text(f"{made}\n# {notes[name]}\n{text}", encoding="utf-8")
        os.replace(part, folder / name)
        print(f"{name}: {len(parse_lock(text))} packages")


def main(arguments: list[str]) -> int:
    known = expected(read_table())
    if arguments != ["--check"] and not set(arguments) <= set(known):
        print(f"usage: python env/lock.py [--check | {' '.join(known)} ...]", file=sys.stderr)
        return 2
    if arguments != ["--check"]:
        if not shutil.which("uv"):
            print("env/lock.py: uv, which resolves the locks, is not on PATH: pip install uv", file=sys.stderr)
            return 1
        make(only=arguments)
    found = problems()
    print("\n".join(found), file=sys.stderr, end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
