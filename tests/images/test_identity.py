"""Which image a file is, and whether it is the one that was asked for."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.images.conftest import a_sif
from toolkit import files, images
from toolkit.errors import ImageError
from toolkit.images import sidecar


def noted(path: Path, **more: Any) -> Path:
    sidecar.write(
        path, {"sha256": files.sha256_file(path), "inputs": "made-of", "commit": "c1", "built": "today", **more}
    )
    return path


def test_an_image_without_a_sidecar_is_read(tmp_path: Path) -> None:
    path = a_sif(tmp_path / "one.sif", labels={"meditron.commit": "abc", "meditron.inputs": "def"})
    stat = path.stat()
    assert images.identity(path) == {
        "path": str(path), "kind": "sif", "sha256": files.sha256_file(path), "bytes": stat.st_size,
        "mtime_ns": stat.st_mtime_ns, "inputs": "def", "commit": "abc", "built": None,
    }  # fmt: skip


def test_a_sidecar_is_believed_while_it_fits(tmp_path: Path) -> None:
    path = noted(a_sif(tmp_path / "one.sif"))
    facts = json.loads(sidecar.beside(path).read_text())
    sidecar.beside(path).write_text(json.dumps({**facts, "sha256": "f" * 64}))
    assert images.identity(path)["sha256"] == "f" * 64  # not read: that is the point of it
    assert images.identity(path, fresh=True)["sha256"] == facts["sha256"]
    os.utime(path, ns=(1, 1))
    assert images.identity(path)["sha256"] == facts["sha256"] and images.identity(path)["inputs"] is None


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{", '{"sha256": 5, "bytes": null}', '{"sha256": ' + "[" * 9999, "\xff"]
)
def test_a_damaged_sidecar_is_none(tmp_path: Path, text: str) -> None:
    path = a_sif(tmp_path / "one.sif")
    sidecar.beside(path).write_text(text, encoding="latin-1")
    assert images.identity(path)["sha256"] == files.sha256_file(path)


def test_the_same_image_passes_wherever_it_lies(tmp_path: Path) -> None:
    path = noted(a_sif(tmp_path / "one.sif"))
    wanted = images.identity(path)
    images.check(path, wanted)
    images.check(path, wanted, full=True)
    copy = tmp_path / "copy.sif"
    copy.write_bytes(path.read_bytes())
    images.check(copy, wanted)  # another time: the digest tells
    images.check(path, json.loads(json.dumps(wanted)))
    images.check(path, {})  # nothing known to compare with


def test_another_image_is_refused(tmp_path: Path) -> None:
    path = noted(a_sif(tmp_path / "one.sif"))
    wanted = images.identity(path)
    a_sif(path, fill=b"y")  # a new build: other content, another time
    with pytest.raises(ImageError, match="another image than the one the run was launched with") as caught:
        images.check(path, wanted)
    assert wanted["sha256"][:16] in caught.value.why and caught.value.exit_code == 3

    a_sif(path, fill=b"z")
    os.utime(path, ns=(wanted["mtime_ns"], wanted["mtime_ns"]))  # swapped by somebody who hides it
    images.check(path, wanted)
    with pytest.raises(ImageError, match="another image"):
        images.check(path, wanted, full=True)

    noted(path, sha256=wanted["sha256"])  # and who forged the sidecar too
    with pytest.raises(ImageError, match="another image"):
        images.check(path, wanted, full=True)


def test_what_is_gone_or_cut_is_said(tmp_path: Path) -> None:
    path = noted(a_sif(tmp_path / "one.sif"))
    wanted = images.identity(path)
    data = path.read_bytes()
    path.write_bytes(data[:20000])
    os.utime(path, ns=(wanted["mtime_ns"], wanted["mtime_ns"]))
    with pytest.raises(ImageError, match="truncated"):
        images.check(path, wanted)
    path.unlink()
    with pytest.raises(ImageError, match="one.sif: the image is not there"):
        images.check(path, wanted)
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ImageError, match="a link that leads nowhere"):
        images.check(path, wanted)
    path.unlink()
    path.mkdir()
    with pytest.raises(ImageError, match="no sandbox"):
        images.identity(path)
    (path / ".singularity.d").mkdir()
    with pytest.raises(ImageError, match="a sandbox now, and was a sif"):
        images.check(path, wanted)
    path.joinpath(".singularity.d").rmdir()
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(ImageError, match="neither a file nor a folder"):
        images.identity(path)


def test_a_sandbox_is_known_by_what_it_was_made_from(tmp_path: Path) -> None:
    box = tmp_path / "one.sandbox"
    (box / ".singularity.d").mkdir(parents=True)
    (box / sidecar.LABELS).write_text(json.dumps({"meditron.inputs": "aaa", "meditron.commit": "c"}))
    known = images.identity(box)
    assert (known["kind"], known["sha256"], known["bytes"], known["inputs"]) == ("sandbox", None, None, "aaa")
    images.check(box, known)
    (box / sidecar.LABELS).write_text(json.dumps({"meditron.inputs": "bbb"}))
    with pytest.raises(ImageError, match="made from bbb"):
        images.check(box, known)
    (box / sidecar.LABELS).write_text("[")
    with pytest.raises(ImageError, match="something unknown"):
        images.check(box, known)
