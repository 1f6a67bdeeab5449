"""Files appear whole or not at all: with a full disk, a limit, an error, Ctrl-C or SIGKILL in the middle."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolkit import files
from toolkit.errors import DiskFull


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB: a tmpfs where one can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except OSError as err:
        pytest.skip(f"no tmpfs can be mounted: {err}")
    if done.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def file_limit() -> Iterator[int]:
    """No file of this process may grow beyond 64 KiB: a write past it fails with EFBIG."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, before[1]))
    try:
        yield 65536
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@given(content=st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_text_comes_back(tmp_path: Path, content: str) -> None:
    path = tmp_path / "new" / "file"
    with files.atomic_write(path, "wb") as handle:
        handle.write(content.encode())
    assert path.read_bytes().decode() == content
    assert names(path.parent) == ["file"]


@given(value=st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_json_comes_back(tmp_path: Path, value: object) -> None:
    try:
        files.write_json(tmp_path / "x.json", value)
    except UnicodeEncodeError:  # a lone surrogate is no text
        assert not (tmp_path / "x.json").exists()
        return
    assert files.read_json(tmp_path / "x.json") == value
    (tmp_path / "x.json").unlink()


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(1), OSError(errno.EIO, "x")])
def test_an_error_leaves_what_was_there(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    with pytest.raises(type(error)), files.atomic_write(path) as handle:
        handle.write("half")
        handle.flush()
        raise error
    assert path.read_text() == "before" and names(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(1)])
def test_an_error_leaves_the_folder_that_was_there(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "kept").write_text("before")
    with pytest.raises(type(error)), files.atomic_folder(path) as part:
        (part / "half").write_text("x")
        raise error
    assert names(path) == ["kept"] and names(tmp_path) == ["folder"]


def test_a_folder_replaces_the_one_before_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "folder"
    for content in ("first", "second"):
        with files.atomic_folder(path) as part:
            assert part.parent == path.parent and not list(part.iterdir())
            (part / content).write_text(content)
        assert names(path) == [content] and names(path.parent) == ["folder"]


def test_a_folder_stopped_between_its_two_renames_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "kept").write_text("before")
    real, calls = os.replace, []

    def stopped(source: str | Path, target: str | Path) -> None:
        calls.append(source)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", stopped)
    with pytest.raises(KeyboardInterrupt), files.atomic_folder(path) as part:
        (part / "new").write_text("x")
    assert names(path) == ["kept"] and names(tmp_path) == ["folder"]


def test_a_full_disk_leaves_the_file_before(small_disk: Path) -> None:
    path = small_disk / "file.json"
    files.write_json(path, {"kept": True})
    with pytest.raises(DiskFull) as caught:
        files.write_text(path, "x" * 200_000)
    assert caught.value.where == str(path) and "no space left" in str(caught.value)
    assert files.read_json(path) == {"kept": True} and names(small_disk) == ["file.json"]
    files.write_text(path, "x" * 20_000)  # the room is free again
    assert path.stat().st_size == 20_000


def test_a_full_disk_leaves_the_folder_before(small_disk: Path) -> None:
    path = small_disk / "folder"
    with files.atomic_folder(path) as part:
        (part / "kept").write_text("before")
    with pytest.raises(DiskFull), files.atomic_folder(path) as part:
        (part / "big").write_bytes(bytes(200_000))
    assert names(path) == ["kept"] and names(small_disk) == ["folder"]


def test_a_file_beyond_a_limit_is_told_as_one(tmp_path: Path, file_limit: int) -> None:
    path = tmp_path / "file"
    files.write_text(path, "before")
    with pytest.raises(DiskFull, match="larger than a limit allows"):
        files.write_text(path, "x" * (file_limit + 1))
    assert path.read_text() == "before" and names(tmp_path) == ["file"]


def test_other_errors_of_the_system_pass(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        (tmp_path / "folder").mkdir()
        files.write_text(tmp_path / "folder", "x")
    with pytest.raises(FileExistsError):
        (tmp_path / "file").touch()
        files.write_text(tmp_path / "file" / "x", "x")
    assert names(tmp_path) == ["file", "folder"]


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_process_stopped_while_writing(tmp_path: Path, repo_root: Path, signum: int, code: int) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    program = (
        "import sys, time; from toolkit import cli, files\n"
        "def main(argv):\n"
        "    with files.atomic_write(argv[0]) as f, files.atomic_folder(argv[0] + '.d') as d:\n"
        "        f.write('half'); f.flush(); (d / 'half').touch(); print('writing', flush=True); time.sleep(60)\n"
        "sys.exit(cli.run(main))"
    )
    environment = {**os.environ, "PYTHONPATH": str(repo_root)}
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        process.send_signal(signum)
        assert process.wait(30) == code
    assert path.read_text() == "before" and not (tmp_path / "file.d").exists()
    if signum == signal.SIGINT:
        assert names(tmp_path) == ["file"]


def test_two_writers_of_one_file_leave_one_of_the_two(tmp_path: Path, repo_root: Path) -> None:
    path = tmp_path / "file"
    program = (
        "import sys; from toolkit import files\nfor _ in range(40): files.write_text(sys.argv[1], sys.argv[2] * 9999)"
    )
    environment = {**os.environ, "PYTHONPATH": str(repo_root)}
    writers = [subprocess.Popen([sys.executable, "-c", program, str(path), word], env=environment) for word in "ab"]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            seen.add(path.read_text())
        time.sleep(0.001)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert {*seen, path.read_text()} <= {"a" * 9999, "b" * 9999} and names(tmp_path) == ["file"]


def test_a_fingerprint_sees_content_and_names(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a").write_text("1")
    (folder / "b").write_text("2")
    first = files.fingerprint(folder)
    os.utime(folder / "b", (1, 1))
    assert files.fingerprint(folder) == first
    (folder / "b").write_text("3")
    assert files.fingerprint(folder) != first
    (folder / "b").write_text("2")
    assert files.fingerprint(folder) == first
    (folder / "b").rename(folder / "c")
    assert files.fingerprint(folder) != first
    assert files.fingerprint(folder / "c") == files.sha256_file(folder / "c")
    # printf 2 | sha256sum
    assert files.sha256_file(folder / "c") == "d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35"


def test_a_cheap_fingerprint_sees_sizes_and_times(tmp_path: Path) -> None:
    assert files.stat_fingerprint(tmp_path / "none") == "absent"
    path = tmp_path / "file"
    path.write_text("1")
    first = files.stat_fingerprint(path)
    assert files.stat_fingerprint(path) == first
    os.utime(path, ns=(1, 1))
    assert files.stat_fingerprint(path) != first
    folder = files.stat_fingerprint(tmp_path)
    (tmp_path / "other").touch()
    assert files.stat_fingerprint(tmp_path) != folder


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".hf.123.part").mkdir()
    (tmp_path / ".hf.123.part" / "config.json").write_text("{}")
    (tmp_path / ".done.json.7.part").write_text("half")
    (tmp_path / ".hf.9.old").mkdir()
    kept = [tmp_path / ".hidden.json", tmp_path / "log.part", tmp_path / "hf"]
    for path in kept:
        path.write_text("kept")
    files.remove_parts(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_files_are_walked_in_the_order_of_their_names_and_links_that_lead_back_are_not_followed(tmp_path):
    for name in ("b.txt", "a/z", "a/.hidden", "a.txt", "c/d/e"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "c" / "up").symlink_to(tmp_path)
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")

    def names(**more) -> list[str]:
        return [os.path.relpath(entry.path, tmp_path) for entry in files.walk(tmp_path, **more)]

    assert names() == ["a/.hidden", "a/z", "a.txt", "b.txt", "c/d/e"]
    assert names(hidden=False) == ["a/z", "a.txt", "b.txt", "c/d/e"]
    before = files.stat_fingerprint(tmp_path)
    (tmp_path / "c" / "d" / "e").write_text("longer than it was")
    assert files.stat_fingerprint(tmp_path) != before
