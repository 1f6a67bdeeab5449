"""The copy of an image on a node: once, whole, the right one, and not more of them than needed."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.images.conftest import a_sif
from toolkit import files, images
from toolkit.errors import ImageError
from toolkit.images import sidecar

ROOT = Path(__file__).resolve().parents[2]


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".sif")


def test_a_copy_is_made_once(tmp_path: Path) -> None:
    source = a_sif(tmp_path / "one.sif", size=20_000_000)
    wanted = images.identity(source)
    copy = images.stage(source, tmp_path / "node")
    assert copy.name == f"one-{wanted['sha256'][:16]}.sif" and copy.read_bytes() == source.read_bytes()
    images.check(copy, wanted)
    made = copy.stat()
    assert images.stage(source, tmp_path / "node") == copy
    assert copy.stat().st_ino == made.st_ino and made.st_mode & 0o077 == 0


def test_many_at_once_make_one(tmp_path: Path) -> None:
    source = a_sif(tmp_path / "one.sif", size=30_000_000)
    words = [sys.executable, "-c", "import sys; from toolkit import images; print(images.stage(*sys.argv[1:]))"]

    def one(_: int) -> str:
        done = subprocess.run([*words, str(source), str(tmp_path / "node")], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    with ThreadPoolExecutor(4) as pool:
        (copy,) = set(pool.map(one, range(4)))
    assert Path(copy).read_bytes() == source.read_bytes()
    assert sorted(path.name for path in (tmp_path / "node").iterdir()) == [".one.lock", Path(copy).name]


def test_older_ones_go(tmp_path: Path) -> None:
    source, node, made = tmp_path / "one.sif", tmp_path / "node", []
    node.mkdir()
    for name in ("one-of-mine.sif", "two-0123456789abcdef.sif"):
        (node / name).write_text("not of this name")
    for fill in (b"a", b"b", b"c"):
        made.append(images.stage(a_sif(source, fill=fill), node).name)
    assert kept(node) == sorted([*made[1:], "one-of-mine.sif", "two-0123456789abcdef.sif"])
    (node / f".{made[2]}.77.part").write_text("left by one that was killed")
    images.stage(a_sif(source, fill=b"d"), node)
    assert not list(node.glob("*.part"))


def test_a_damaged_copy_is_made_again(tmp_path: Path) -> None:
    source = a_sif(tmp_path / "one.sif")
    copy = images.stage(source, tmp_path / "node")
    copy.write_bytes(b"short")
    assert images.stage(source, tmp_path / "node").read_bytes() == source.read_bytes()
    copy.unlink()
    copy.symlink_to(source)  # another user's doing, where others may write
    assert not images.stage(source, tmp_path / "node").is_symlink()


def test_an_image_that_is_not_what_its_sidecar_says(tmp_path: Path) -> None:
    source = a_sif(tmp_path / "one.sif")
    sidecar.write(source, {"sha256": "0" * 64})
    with pytest.raises(ImageError, match="not the one that its digest says"):
        images.stage(source, tmp_path / "node")
    assert kept(tmp_path / "node") == [] and not list((tmp_path / "node").glob(".*.part"))


def test_what_cannot_be_staged(tmp_path: Path) -> None:
    source = a_sif(tmp_path / "one.sif")
    (tmp_path / "file").write_text("")
    with pytest.raises(ImageError, match="not usable"):
        images.stage(source, tmp_path / "file" / "node")
    with pytest.raises(ImageError, match="not there"):
        images.stage(tmp_path / "two.sif", tmp_path / "node")
    source.write_bytes(source.read_bytes()[:9000])
    with pytest.raises(ImageError, match="truncated"):
        images.stage(source, tmp_path / "node")
    (tmp_path / "box" / ".singularity.d").mkdir(parents=True)
    with pytest.raises(ImageError, match="a sandbox is not copied"):
        images.stage(tmp_path / "box", tmp_path / "node")


def in_small_disk(source: Path, node: Path, size: str, script: str) -> subprocess.CompletedProcess[str]:
    """`script` with a node's disk of `size`, in namespaces of its own."""
    if subprocess.run(["unshare", "-Urm", "true"], capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    node.mkdir(exist_ok=True)
    mount = f'mount -t tmpfs -o size={size} tmpfs "$1"; shift; exec "$@"'
    code = "import sys; from pathlib import Path; from toolkit import images\n"
    code += f"source, node = map(Path, sys.argv[1:])\n{script}"
    words = [sys.executable, "-c", code, str(source), str(node)]
    return subprocess.run(
        ["unshare", "-Urm", "sh", "-ec", mount, "sh", str(node), *words], capture_output=True, text=True, cwd=ROOT
    )


def test_no_room(tmp_path: Path) -> None:
    source = a_sif(tmp_path / "one.sif", size=3_000_000)
    done = in_small_disk(source, tmp_path / "node", "2m", "print(images.stage(source, node))")
    assert "ImageError: " in done.stderr and "no room for the image" in done.stderr

    # Room for one image only: the older one goes, although it would be kept.
    script = """from tests.images.conftest import a_sif
for fill in (b"a", b"b"):
    copy = images.stage(a_sif(source, size=3_000_000, fill=fill), node)
print([path.name for path in node.glob("*.sif")] == [copy.name])
"""
    done = in_small_disk(source, tmp_path / "node", "5m", script)
    assert done.stdout == "True\n", done.stderr


def test_the_disk_is_full_on_the_way(tmp_path: Path) -> None:
    """What statvfs promised is gone when it is written: here a limit on the size of files."""
    source = a_sif(tmp_path / "one.sif", size=3_000_000)
    script = """import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
from toolkit.errors import DiskFull
try:
    images.stage(source, node)
except DiskFull as err:
    print("full", sorted(path.name for path in node.iterdir()))
"""
    done = in_small_disk(source, tmp_path / "node", "20m", script)
    assert done.stdout == "full ['.one.lock']\n", done.stderr


def test_a_link_in_the_place_of_the_lock_is_refused(tmp_path: Path) -> None:
    source = a_sif(tmp_path / "one.sif")
    (tmp_path / "node").mkdir()
    victim = tmp_path / "victim"
    victim.write_text("mine")
    os.symlink(victim, tmp_path / "node" / ".one.lock")
    with pytest.raises(ImageError, match="not usable"):
        images.stage(source, tmp_path / "node")
    assert victim.read_text() == "mine" and files.sha256_file(source)
