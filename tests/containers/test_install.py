"""env/apptainer/install: what it refuses, that a second call does nothing, and that a killed one is no install."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.conftest import INSTALL, ROOT

TOOLS = (
    "bash",
    "awk",
    "cat",
    "dirname",
    "env",
    "grep",
    "id",
    "ls",
    "mkdir",
    "mktemp",
    "realpath",
    "rm",
    "sed",
    "uname",
)


def install(*arguments: object, script: Path = INSTALL, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(script), *map(str, arguments)], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300,
        env={**os.environ, **environment},
    )  # fmt: skip


@pytest.fixture
def few(tmp_path: Path) -> str:
    """A PATH with the script's own tools: no apptainer, no apt-get."""
    folder = tmp_path / "few"
    folder.mkdir()
    for tool in TOOLS:
        (folder / tool).symlink_to(shutil.which(tool) or pytest.skip(f"no {tool} here"))
    return str(folder)


@pytest.fixture
def without(tmp_path: Path) -> str:
    """This machine's PATH without any apptainer."""
    kept = [part for part in os.environ["PATH"].split(os.pathsep) if not (Path(part) / "apptainer").exists()]
    return os.pathsep.join(kept)


@pytest.fixture
def can_install() -> None:
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        pytest.skip("needs root and apt-get")


@pytest.mark.parametrize(
    ("arguments", "said"), [(["--prefix"], "--prefix needs a folder"), (["--sid"], "unknown argument '--sid'")]
)
def test_a_wrong_command_line_is_refused(arguments: list[str], said: str) -> None:
    done = install(*arguments)
    assert done.returncode == 2 and said in done.stderr


def test_one_on_the_path_is_taken_as_it_is(tmp_path: Path, few: str) -> None:
    other = Path(few) / "apptainer"
    other.write_text("#!/bin/sh\necho 1.2.3\n")
    other.chmod(0o755)
    done = install("--prefix", tmp_path / "new", PATH=few)
    assert done.returncode == 0 and f"there is {other} (1.2.3); nothing to do" in done.stdout
    assert not (tmp_path / "new").exists()
    assert install("--path", PATH=few).stdout == f"{other}\n"


def test_without_apt_get_it_says_where_to_look(tmp_path: Path, few: str) -> None:
    done = install("--prefix", tmp_path / "new", PATH=few)
    assert done.returncode == 1 and "no apt-get here" in done.stderr and "apptainer.org" in done.stderr
    assert install("--prefix", tmp_path / "new", "--path", PATH=few).stdout == ""


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A copy of the script that every user may read; pytest's own folders are root's."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "env").mkdir()
        shutil.copytree(ROOT / "env" / "apptainer", folder / "env" / "apptainer")
        shutil.copy(ROOT / "env" / "versions.yaml", folder / "env")
        yield folder


def test_who_is_not_root_is_told(elsewhere: Path, without: str) -> None:
    script = elsewhere / "env" / "apptainer" / "install"
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("no setpriv here to become another user with")
        words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", str(script)]
    else:
        words = [str(script)]
    if not shutil.which("apt-get"):
        pytest.skip("no apt-get here")
    words += ["--prefix", f"{elsewhere}/new"]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PATH": without})
    assert done.returncode == 1 and "needs root" in done.stderr and "sudo env/apptainer/install" in done.stderr


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, without: str, can_install: None) -> None:
    precious = tmp_path / "results" / "scores.json"
    precious.parent.mkdir()
    precious.write_text("{}")
    done = install("--prefix", precious.parent, PATH=without)
    assert done.returncode == 1 and "is a folder of something else" in done.stderr
    assert precious.read_text() == "{}"


@pytest.mark.slow
def test_a_mirror_that_does_not_answer_leaves_nothing(tmp_path: Path, without: str, can_install: None) -> None:
    done = install("--prefix", tmp_path / "new", PATH=without, DEBIAN_MIRROR="http://127.0.0.1:9/debian")
    assert done.returncode == 1 and "no package apptainer could be found at http://127.0.0.1:9/debian" in done.stderr
    assert "DEBIAN_MIRROR" in done.stderr and [path.name for path in tmp_path.iterdir()] == ["new.lock"]


@pytest.mark.slow
def test_a_killed_one_is_no_install_and_the_next_makes_it_whole(
    tmp_path: Path, without: str, apptainer: str, can_install: None
) -> None:
    """`apptainer`: where it could not be installed for the other tests, for want of a network, it cannot be here."""
    prefix = tmp_path / "new"
    environment = {**os.environ, "PATH": without}
    process = subprocess.Popen(
        [str(INSTALL), "--prefix", str(prefix)], env=environment, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (tmp_path / "new.part").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(60)
    assert not (prefix / "bin" / "apptainer").exists()

    done = install("--prefix", prefix, PATH=without)
    command = prefix / "bin" / "apptainer"
    assert done.returncode == 0 and f"{command} is ready" in done.stdout, done.stdout + done.stderr
    assert not (tmp_path / "new.part").exists()
    said = subprocess.run([str(command), "version"], capture_output=True, text=True)
    assert said.returncode == 0 and said.stdout.strip() in done.stdout

    before = {path: path.lstat().st_mtime_ns for path in prefix.rglob("*")}
    again = install("--prefix", prefix, PATH=without)
    assert (
        again.returncode == 0 and again.stdout == f"env/apptainer/install: {command} is there ({said.stdout.strip()})\n"
    )
    assert before == {path: path.lstat().st_mtime_ns for path in prefix.rglob("*")}
    assert install("--prefix", prefix, "--path", PATH=without).stdout == f"{command}\n"
    for file in ("/etc/subuid", "/etc/subgid"):  # one line for whoever builds, however often it is called
        lines = [line for line in Path(file).read_text().splitlines() if line.startswith(("root:", "0:"))]
        assert len(lines) == 1
