"""Fixtures that several packages' tests share: where the repository, the real data and a place for runs are."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import settings

# A commit passes or fails, whenever it is tested. New examples are for looking: --hypothesis-profile=default
settings.register_profile("same", derandomize=True)
settings.load_profile("same")


def pytest_configure() -> None:
    """A shell that starts the tests in the background has Ctrl-C ignored, which every child would inherit."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# Files that take minutes, longest first. Two files run at a time, and the last must not be one of these.
LONGEST = (
    *("tests/test_demo.py", "tests/train/test_slurm.py", "tests/containers/test_builds.py"),
    *("tests/slurm/test_in_image.py", "tests/containers/test_install.py"),
    *("tests/train/test_slurm_chain.py", "tests/train/test_stop.py", "tests/train/test_faults.py"),
    *("tests/train/test_parity.py", "tests/train/test_engine.py", "tests/checkpoint/test_core.py"),
    *("tests/slurm/test_runs.py", "tests/slurm/test_keepalive.py", "tests/slurm/test_scripts.py"),
    *("tests/slurm/test_submit.py", "tests/slurm/test_slurm_dev.py", "tests/stages/test_parts.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.nodeid.partition("::")[0], len(place)))


@pytest.fixture(scope="session")
def repo_root() -> Path:
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data(repo_root: Path) -> Path:
    """The folder of real benchmark and article files beside the repository; a test that wants it is skipped without."""
    path = repo_root.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("no ../shared/data beside the repository")
    return path


@pytest.fixture
def runs_root(tmp_path: Path) -> Path:
    path = tmp_path / "runs"
    path.mkdir()
    return path
