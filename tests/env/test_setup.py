"""What env/setup refuses, what it leaves behind when it is stopped, and that the light core lives on each Python."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
# Enough of a system for the script itself, and no Python.
TOOLS = ("bash", "cat", "dirname", "env", "flock", "grep", "id", "ls", "mkdir", "mv", "printf", "rm", "sed",
         "sha256sum", "tail", "tr", "uname")  # fmt: skip


def interpreter(version: str) -> str | None:
    """A working interpreter of exactly this minor version: on PATH, or one of pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for candidate in (f"python{version}", *map(str, sorted(pyenv.glob(f"{version}.*/bin/python")))):
        code = "import sys; print('%d.%d' % sys.version_info[:2], sys.executable)"
        try:
            done = subprocess.run([candidate, "-c", code], capture_output=True, text=True)
        except OSError:
            continue
        if done.returncode == 0 and done.stdout.split()[0] == version:
            return done.stdout.split(maxsplit=1)[1].strip()
    return None


def setup(root: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(root / "env" / "setup"), *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )  # fmt: skip


@pytest.fixture
def no_python(tmp_path: Path) -> dict[str, str]:
    """An environment whose PATH has the tools of the script and no Python, pyenv or uv."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        (folder / tool).symlink_to(shutil.which(tool) or pytest.skip(f"no {tool} here"))
    home = tmp_path / "home"
    home.mkdir()
    return {"PATH": str(folder), "HOME": str(home), "PYENV_ROOT": str(home / ".pyenv")}


@pytest.fixture(scope="module")
def package_index(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips where no package index answers; every other failure of an install is a failure of the test."""
    command = [shutil.which("uv") or "", "pip", "install", "--dry-run", "--target", str(tmp_path_factory.mktemp("t"))]
    if not command[0]:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "-d", str(tmp_path_factory.mktemp("d"))]
    if subprocess.run([*command, "--quiet", "mdurl==0.1.2"], capture_output=True).returncode:
        pytest.skip("no package index can be reached")


@pytest.fixture
def clone(repo_root: Path, tmp_path: Path) -> Path:
    """A copy of the source tree without its environment."""
    target = tmp_path / "clone"
    target.mkdir()
    for name in ("pyproject.toml", "Makefile"):
        shutil.copy(repo_root / name, target)
    for name in ("env", "toolkit", "recipes"):
        if (repo_root / name).is_dir():
            shutil.copytree(repo_root / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def test_no_python_is_said_with_what_to_do(repo_root: Path, tmp_path: Path, no_python: dict[str, str]) -> None:
    done = setup(repo_root, "--venv", str(tmp_path / "venv"), PYTHON="", **no_python)
    assert done.returncode == 1
    assert "no Python 3.11 found" in done.stderr and "python3.11-venv" in done.stderr and "PYTHON=" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "venv").exists()


def test_a_wrong_python_is_refused_by_version(repo_root: Path, tmp_path: Path) -> None:
    other = next((found for version in ("3.12", "3.13", "3.10", "3.9") if (found := interpreter(version))), None)
    if other is None:
        pytest.skip("no other Python than 3.11 here")
    done = setup(repo_root, "--venv", str(tmp_path / "venv"), PYTHON=other)
    assert done.returncode == 1
    assert other in done.stderr and "the cpu group needs one of: 3.11" in done.stderr
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize("given", ["/no/such/python", "/bin/false"])
def test_a_python_that_does_not_run_is_refused(repo_root: Path, tmp_path: Path, given: str) -> None:
    done = setup(repo_root, "--venv", str(tmp_path / "venv"), PYTHON=given)
    assert done.returncode == 1
    assert f"PYTHON={given} is no Python that runs" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--group", "gpu"], "unknown group 'gpu'; valid: host, cpu"),
        (["--group"], "--group needs a value"),
        (["--grup", "cpu"], "unknown argument '--grup'"),
    ],
)
def test_a_wrong_command_line_is_refused(repo_root: Path, arguments: list[str], said: str) -> None:
    done = setup(repo_root, *arguments)
    assert done.returncode == 2 and said in done.stderr


def test_a_folder_that_is_no_environment_is_left_alone(repo_root: Path, tmp_path: Path) -> None:
    precious = tmp_path / "results" / "scores.json"
    precious.parent.mkdir()
    precious.write_text("{}")
    done = setup(repo_root, "--venv", str(precious.parent))
    assert done.returncode == 1 and "is no virtual environment" in done.stderr
    assert precious.read_text() == "{}"


def test_system_packages_are_listed_for_who_is_not_root(repo_root: Path, no_python: dict[str, str]) -> None:
    # Without apt-get on PATH root gets the same answer.
    done = setup(repo_root, "--system", **no_python)
    assert done.returncode == 1
    assert "sudo apt-get install" in done.stderr and "chromium" in done.stderr


def test_make_help_lists_the_targets(repo_root: Path) -> None:
    done = subprocess.run(["make", "help"], cwd=repo_root, capture_output=True, text=True)
    assert done.returncode == 0
    for target in ("demo", "test", "quick", "bench", "lint", "lock", "clean"):
        assert f"make {target} " in done.stdout
    assert subprocess.run(["make"], cwd=repo_root, capture_output=True, text=True).stdout == done.stdout


def test_ci_passes_the_exit_code_on(repo_root: Path, tmp_path: Path) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(repo_root / ".ci" / "run", tmp_path / ".ci" / "run")
    (tmp_path / "Makefile").write_text("test:\n\t@cat; exit 7\n")
    done = subprocess.run([str(tmp_path / ".ci" / "run")], cwd="/", capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "Error 7" in done.stderr  # make's own code for a target that failed


def test_shell_scripts_are_clean(repo_root: Path) -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(["shellcheck", "env/setup", ".ci/run"], cwd=repo_root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("with_uv", [True, False], ids=["uv", "pip"])
def test_second_call_does_nothing_and_a_change_is_noticed(clone: Path, package_index: None, with_uv: bool) -> None:
    # pip alone: a PATH without uv, and the interpreter named.
    uv = shutil.which("uv")
    if with_uv and not uv:
        pytest.skip("uv is not installed")
    path = os.environ["PATH"] if with_uv else "/usr/bin:/bin"
    if not with_uv and shutil.which("uv", path=path):
        pytest.skip("uv is a system program here and cannot be hidden")
    base = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    environment = {"PATH": path, "PYTHON": base, "PYTHONDONTWRITEBYTECODE": "1"}
    first = setup(clone, "--group", "host", **environment)
    assert first.returncode == 0, first.stderr
    assert f"with {'uv' if with_uv else 'pip'} " in first.stdout
    venv = clone / ".venv"
    site = next(venv.glob("lib/python*/site-packages"))
    assert list(site.glob("hydra/__pycache__/*.pyc")), "not byte-compiled"
    before = {path: path.stat().st_mtime_ns for path in venv.rglob("*")}
    second = setup(clone, "--group", "host", **environment)
    assert second.returncode == 0 and second.stdout == f"env/setup: {venv} is up to date\n"
    assert before == {path: path.stat().st_mtime_ns for path in venv.rglob("*")}

    with (clone / "env" / "host.lock").open("a") as handle:
        handle.write("# changed\n")
    # As from a shell in which the environment that is to be replaced is activated.
    third = setup(clone, "--group", "host", **environment | {"PYTHON": str(venv / "bin" / "python")})
    assert third.returncode == 0 and "up to date" not in third.stdout, third.stderr


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill"])
def test_an_interrupted_install_is_never_taken_for_done(clone: Path, package_index: None, how: signal.Signals) -> None:
    venv = clone / ".venv"
    with (clone / "out.log").open("w") as log:
        process = subprocess.Popen(
            [str(clone / "env" / "setup"), "--group", "host"], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            start_new_session=True,
            # A shell cannot trap what was ignored when it started, as SIGINT is under nohup or a CI's `&`.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while not (venv / "pyvenv.cfg").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        assert process.poll() is None, (clone / "out.log").read_text()
        os.killpg(process.pid, how)
        process.wait(60)
    assert process.returncode != 0
    assert not (venv / ".meditron-toolkit").exists()
    if how == signal.SIGINT:
        assert not venv.exists()
        assert "nothing half installed" in (clone / "out.log").read_text()
    again = setup(clone, "--group", "host")
    assert again.returncode == 0 and "is ready" in again.stdout, again.stderr


@pytest.mark.slow
def test_two_calls_at_once_make_one_environment(clone: Path, package_index: None) -> None:
    command = [str(clone / "env" / "setup"), "--group", "host"]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("is ready" in text for text in said) == 1
    assert sum("is up to date" in text for text in said) == 1


@pytest.mark.slow
@pytest.mark.parametrize("version", PYTHONS)
def test_light_core_lives_on(clone: Path, package_index: None, version: str) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} here")
    done = setup(clone, "--group", "host", PYTHON=python)
    assert done.returncode == 0, done.stderr
    floor = ["errors", "files", "progress", "cli", "models", "hardware", "units", "recipe", "plan", "cluster", "runs",
             "fabric", "images", "launch", "submit", "watch", "score", "flops", "energy"]  # fmt: skip
    package = clone / "toolkit"
    here = [name for name in floor if (package / f"{name}.py").exists() or (package / name).is_dir()]
    code = f"import sys; import {', '.join(f'toolkit.{name}' for name in here)}; print('%d.%d' % sys.version_info[:2])"
    loaded = subprocess.run([str(clone / ".venv/bin/python"), "-c", code], capture_output=True, text=True, cwd="/")
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.strip() == version
    if "launch" in here:
        listed = subprocess.run(
            [str(clone / ".venv/bin/python"), "-m", "toolkit.launch"], capture_output=True, text=True, cwd=clone
        )
        assert listed.returncode == 0, listed.stderr
        assert "demo" in listed.stdout
