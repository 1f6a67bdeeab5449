"""The house's two rules: imports go downwards only, and what a login node runs loads nothing heavy."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Every module of the toolkit stands on one floor; a package's name covers what is in it. A new module needs a line.
FLOORS: dict[str, int] = {
    **dict.fromkeys(
        ["errors", "files", "progress", "cli", "units", "stats", "pins", "cells", "cleaning", "mixture"], 0
    ),
    **dict.fromkeys(["models", "hardware", "flops", "energy"], 0),
    "recipe": 1,
    **dict.fromkeys(["plan", "cluster", "runs", "fabric", "images", "preflight"], 2),
    **dict.fromkeys(["tokenizer", "hf_folder"], 3),
    **dict.fromkeys(["corpus", "shards", "train", "checkpoint", "scoring", "report"], 3),
    "stages": 4,
    **dict.fromkeys(["launch", "submit", "watch", "score", "doctor"], 5),
    **dict.fromkeys(["chain", "injob", "waiting", "job", "keepalive", "nodes", "alike", "pinned_image"], 5),
    "night": 3,
    "tonight": 5,
}
VERBS = 5  # and every __main__
BASE = 0  # the modules of this floor alone may all use one another
CAPABILITIES = 3
# Elsewhere, who may use its neighbour on the same floor.
NEIGHBOURS = {
    ("launch", "submit"),
    *(("launch", name) for name in ("chain", "injob", "waiting")),
    *((name, "chain") for name in ("injob", "waiting")),
    *((name, "submit") for name in ("chain", "injob")),
    ("waiting", "submit"),
    ("job", "keepalive"),
    *((name, "tonight") for name in ("night", "job", "launch")),
    *(("tonight", name) for name in ("chain", "submit", "waiting", "pinned_image")),
    *(("keepalive", name) for name in ("nodes", "alike", "pinned_image")),
    *((name, "pinned_image") for name in ("launch", "injob", "nodes")),
    *(("submit", name) for name in ("nodes", "pinned_image")),
    ("cluster", "plan"),  # a job is for a step
    ("cluster", "images"),  # which command starts them, and with which rights
    ("preflight", "fabric"),
    ("submit", "watch"),
    ("runs", "launch"),  # python -m toolkit.runs retry
    ("runs", "cluster"),  # what Slurm says of their jobs
    ("runs", "submit"),  # what going on with a run would do
    *((name, "tokenizer") for name in ("corpus", "shards", "train", "checkpoint", "scoring", "report")),
    ("checkpoint", "hf_folder"),
    ("scoring", "hf_folder"),
}
# Training takes the recipe's typed sections as they are; every other capability works without a recipe.
SECTIONS = {("train", "toolkit.recipe.schema")}
HEAVY = {"torch", "nemo", "nemo_run", "megatron", "lightning", "transformers", "pandas", "numpy"}
ENGINE = {"nemo", "nemo_run", "megatron"}


def modules(root: Path) -> dict[str, Path]:
    """Dotted name -> file of every module under `root`/toolkit."""
    found = {}
    for path in sorted((root / "toolkit").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def part_of(module: str) -> str:
    """`toolkit.corpus.jats` -> `corpus`; the package itself -> ''."""
    return (module.split(".") + [""])[1]


def floor_of(module: str) -> int:
    if module == "toolkit":
        return -1  # imports nothing of its own
    return VERBS if module.endswith(".__main__") else FLOORS[part_of(module)]


def imports(path: Path, module: str, known: dict[str, Path]) -> Iterator[tuple[str, int]]:
    """(absolute name, line) of everything that the file imports, inside functions too, or names to import_module."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from ((name.name, node.lineno) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*up, base] if base else up)
            for name in node.names:
                whole = f"{base}.{name.name}"
                yield (whole if whole in known else base), node.lineno
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in {"import_module", "__import__", "find_spec"} and isinstance(node.args[0].value, str):
                yield node.args[0].value, node.lineno


def faults(root: Path) -> list[str]:
    """Every import under `root`/toolkit that breaks a rule, as `file:line: what`."""
    known, found = modules(root), []
    for module, path in known.items():
        here = part_of(module)
        if module != "toolkit" and here not in FLOORS:
            found.append(f"{path.relative_to(root)}: '{here}' stands on no floor; give it one in FLOORS")
            continue
        for name, line in sorted(set(imports(path, module, known))):
            where = f"{path.relative_to(root)}:{line}"
            if name.split(".")[0] in ENGINE and here != "train":
                found.append(f"{where}: imports {name}; NeMo and Megatron belong to toolkit/train/ alone")
            there = part_of(name)
            if name.split(".")[0] != "toolkit" or name == "toolkit":
                continue
            if there == here and not name.endswith(".__main__"):
                continue
            if there not in FLOORS:
                if there and name != "toolkit.__version__":
                    found.append(f"{where}: imports {name}, which stands on no floor")
                continue
            mine, theirs = floor_of(module), floor_of(name)
            beside = mine == theirs == BASE or (mine == theirs and (here, there) in NEIGHBOURS)
            if theirs >= mine and not beside:
                found.append(f"{where}: {module} (floor {mine}) imports {name} (floor {theirs})")
            elif mine == CAPABILITIES and BASE < theirs < CAPABILITIES and (here, name) not in SECTIONS:
                found.append(f"{where}: the capability '{here}' imports {name}; only stages know recipes and runs")
    return found


def light_modules() -> list[str]:
    """What a login node imports: everything but the insides of tokenizer, capabilities and stages."""
    names = []
    for module, path in modules(ROOT).items():
        if module != "toolkit" and part_of(module) not in FLOORS:
            continue  # reported by the test of the import direction
        entrance = path.name == "__init__.py" and module.count(".") == 1
        if floor_of(module) not in (CAPABILITIES, CAPABILITIES + 1) or entrance:
            names.append(module)
    return names


def test_imports_go_downwards_only() -> None:
    assert modules(ROOT), "no module found: the test looks at the wrong place"
    assert faults(ROOT) == []


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("errors.py", "from toolkit import recipe\n", "floor 0"),
        ("errors.py", "def f():\n    import toolkit.stages.score\n", "floor 4"),
        ("recipe/rules.py", "from ..runs import folder\n", "toolkit.recipe.rules (floor 1)"),
        ("plan/memory.py", "from toolkit.runs import folder\n", "floor 2"),
        ("shards/build.py", "import toolkit.corpus\n", "toolkit.corpus"),
        ("shards/build.py", "from toolkit.recipe import compose\n", "only stages know recipes"),
        ("shards/build.py", "from toolkit import stages\n", "floor 4"),
        ("scoring/run.py", "import nemo.lightning\n", "toolkit/train/ alone"),
        ("scoring/run.py", "import importlib\nimportlib.import_module('megatron.core')\n", "toolkit/train/ alone"),
        ("stages/score.py", "from toolkit import launch\n", "floor 5"),
        ("corpus/read.py", "from toolkit.corpus.__main__ import main\n", "__main__"),
        ("cellar.py", "", "'cellar' stands on no floor"),
    ],
)
def test_each_rule_is_seen_when_broken(tmp_path: Path, file: str, text: str, said: str) -> None:
    (tmp_path / "toolkit").mkdir()
    for name in ("recipe", "runs", "corpus", "stages", "launch"):
        package = tmp_path / "toolkit" / name
        package.mkdir()
        (package / "__init__.py").touch()
    assert faults(tmp_path) == []
    target = tmp_path / "toolkit" / file
    target.parent.mkdir(exist_ok=True)
    target.write_text(text)
    found = faults(tmp_path)
    assert len(found) == 1 and said in found[0], found


def test_what_is_allowed_is_not_a_fault(tmp_path: Path) -> None:
    for name, text in {
        "errors.py": "",
        "files.py": "from toolkit.errors import DiskFull\n",
        "tokenizer.py": "from toolkit import __version__, files\n",
        "corpus/a.py": "from . import b\nfrom toolkit import tokenizer\n",
        "corpus/b.py": "import json\n",
        "corpus/__main__.py": "from toolkit.corpus import a\nfrom toolkit.recipe import x\n",
        "train/engine.py": "import nemo\nfrom megatron import core\n",
        "stages/all.py": "from toolkit.corpus import a\nfrom toolkit.recipe import x\n",
        "recipe/__init__.py": "x = 1\n",
    }.items():
        path = tmp_path / "toolkit" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert faults(tmp_path) == []


@pytest.mark.parametrize("module", light_modules())
def test_a_login_node_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [], f"importing {module} loads {done.stdout.strip()}"
