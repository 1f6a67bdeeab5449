"""Images by what they were made from: taken when whole, and not kept for ever."""

from __future__ import annotations

import os
from pathlib import Path

from tests.images.conftest import a_sif
from toolkit import files
from toolkit.images import cache, sidecar


def made(site: Path, number: int) -> Path:
    """An image with inputs of its own."""
    path = a_sif(site / "one.sif.new", fill=bytes([number]))
    path = path.replace(site / "one.sif")
    sidecar.write(path, {"sha256": files.sha256_file(path), "inputs": f"inputs{number}", "commit": "c"})
    return path


def test_what_was_put_is_taken(site: Path) -> None:
    image = made(site, 1)
    kept = cache.put("inputs1", image)
    assert kept == site / "cache" / "inputs1" / "one.sif" and os.path.samefile(kept, image)
    assert cache.put("inputs1", image) == kept  # again: no harm
    target = site / "two" / "one.sif"
    target.parent.mkdir()
    assert cache.take("inputs1", target) and sidecar.load(target)["commit"] == "c"
    assert not cache.take("inputs2", target) and os.path.samefile(kept, target)
    assert sorted(path.name for path in target.parent.iterdir()) == ["one.json", "one.sif"]


def test_one_that_is_damaged_is_not_taken(site: Path) -> None:
    for spoil in ("cut", "other", "sidecar", "foreign"):
        kept = cache.put("inputs1", made(site, 1))
        if spoil == "cut":
            kept.write_bytes(kept.read_bytes()[:9000])
        elif spoil == "other":
            stat = kept.stat()
            a_sif(kept, fill=b"z")
            os.utime(kept, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        elif spoil == "sidecar":
            sidecar.beside(kept).write_text("{")
        else:
            sidecar.write(kept, {**sidecar.load(kept), "inputs": "another"})
        assert not cache.take("inputs1", site / "one.sif"), spoil
        assert not kept.exists(), spoil


def test_the_oldest_go(site: Path) -> None:
    other = site / "cache" / "inputs0" / "other.sif"
    other.parent.mkdir(parents=True)
    a_sif(other)
    for number in range(1, 6):
        kept = cache.put(f"inputs{number}", made(site, number))
        os.utime(kept.parent, ns=(number, number))
    assert sorted(path.name for path in (site / "cache").iterdir()) == ["inputs0", "inputs3", "inputs4", "inputs5"]
