"""Who wins in an image: what its %environment sets, what the caller's environment has, what --env-file gives. With the
real Apptainer and an image of a shell and its libraries.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.containers.conftest import apptainer  # noqa: F401
from tests.fabric import trees
from tests.fabric.conftest import Seen
from toolkit import fabric
from toolkit.fabric import Value

DEFINITION = """Bootstrap: localimage
From: {base}
%environment
    export NCCL_IB_TC=${{NCCL_IB_TC:-5}}
    export NCCL_IB_HCA=mlx5_9
"""
Inside = Callable[..., dict[str, str]]


@pytest.fixture(scope="module")
def inside(apptainer: str, tmp_path_factory: pytest.TempPathFactory) -> Inside:  # noqa: F811
    """`inside({"NCCL_IB_TC": "106"}, env_file)`: the environment of a process in the image."""
    folder = tmp_path_factory.mktemp("image")
    base, image = folder / "base", folder / "image"
    for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "root", "home", "var/tmp", "usr"):
        (base / name).mkdir(parents=True)
    for name in ("sh", "env", "cat", "mkdir", "rm", "chmod", "grep", "true"):
        program = Path(os.path.realpath(shutil.which(name) or name))
        shutil.copy(program, base / "bin" / name)
        linked = subprocess.run(["ldd", str(program)], capture_output=True, text=True).stdout
        for library in re.findall(r"/\S+\.so[.\d]*", linked):
            (base / library.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, base / library.lstrip("/"))
    definition = folder / "image.def"
    definition.write_text(DEFINITION.format(base=base))
    command = [apptainer, "build", "--fakeroot", "--sandbox", str(image), str(definition)]
    built = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=folder, timeout=300)
    if built.returncode:
        pytest.skip(f"Apptainer cannot build here: {built.stderr.strip()[-300:]}")
    # As root without all capabilities, as in many a container, only without any of them; see apptainer exec --help.
    own = ["--no-privs"] if os.geteuid() == 0 else []

    def run(caller: dict[str, str], env_file: Path | None = None) -> dict[str, str]:
        given = ["--env-file", str(env_file)] if env_file else []
        plain = {name: text for name, text in os.environ.items() if not name.startswith(("NCCL_", "UCX_", "GLOO_"))}
        words = [apptainer, "exec", *own, *given, str(image), "env"]
        done = subprocess.run(words, capture_output=True, text=True, env={**plain, **caller}, cwd=folder, timeout=120)
        assert done.returncode == 0, done.stderr
        return dict(line.partition("=")[::2] for line in done.stdout.splitlines())

    return run


@pytest.mark.slow
def test_the_file_beats_the_image_and_the_image_the_caller(inside: Inside, tmp_path: Path, seen: Seen) -> None:
    # The trap: what an image's %environment sets hides the caller's value, even where it is written as a default only.
    caller = {"NCCL_IB_TC": "106", "NCCL_IB_HCA": "=mlx5_3:1", "NCCL_DEBUG": "INFO"}
    trapped = inside(caller)
    assert (trapped["NCCL_IB_TC"], trapped["NCCL_IB_HCA"], trapped["NCCL_DEBUG"]) == ("5", "mlx5_9", "INFO")

    # What is found on the node comes by the file, and the image does not hide it.
    found = fabric.values(seen(trees.meditron), kind="roce")
    path = tmp_path / "nccl.env"
    path.write_text(fabric.text(found))
    given = inside({}, path)
    assert {name: given[name] for name in fabric.parse(path.read_text())} == fabric.parse(path.read_text())
    assert given["NCCL_IB_HCA"] == "=mlx5_0:1" and given["NCCL_IB_TC"] == "5"

    # The file would hide the caller's values as well; so they are written into it, and win.
    assert inside(caller, path)["NCCL_IB_HCA"] == "=mlx5_0:1"
    path.write_text(fabric.text(fabric.with_caller(found, caller)))
    won = inside(caller, path)
    assert {name: won[name] for name in caller} == caller and won["NCCL_NET"] == "IB"


@pytest.mark.slow
def test_every_character_that_a_file_takes_arrives(inside: Inside, tmp_path: Path) -> None:
    printed = [chr(code) for code in range(32, 127)] + ["é", "☃"]
    taken = [c for c in printed if c not in "'\"$`\\"]
    values = {f"V{number}": f"a{c}b{c}{c}z{c}" for number, c in enumerate(taken)} | {"EMPTY": "", "LEAD": "=x, y"}
    path = tmp_path / "nccl.env"
    why = "x ' \" $(y) `z`"
    path.write_text(fabric.text([Value(name=n, value=v, why=why, source="policy") for n, v in values.items()]))
    read = inside({}, path)
    assert {name: read.get(name) for name in values} == values
    # Why the others are refused: each arrives as something else, or not at all.
    changed = []
    for c in "'$`\\":
        path.write_text("V='" + f"a{c}b{c}{c}z".replace("'", "'\\''") + "'\n")
        try:
            arrived = inside({}, path).get("V")
        except AssertionError:
            arrived = None
        changed.append(arrived != f"a{c}b{c}{c}z")
    assert changed == [True] * 4
