"""A folder of definitions with a base that takes a second to build on, and a SIF made by hand where none is built."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.containers.conftest import apptainer  # noqa: F401
from toolkit import images

_PROGRAMS = ("dash", "cat", "ls", "sleep", "mkdir")
DEFINITION = """Bootstrap: {{ BOOTSTRAP }}
From: {{ BASE }}

# room: 0.02 GiB while building, 0.01 GiB when built
# mksquashfs: -comp gzip -Xcompression-level 1
%arguments
    BOOTSTRAP=localimage
    BASE=BASE_FOLDER
    GREETING=hello
    COMMIT=unknown
    INPUTS=unknown

%files
    words.txt /opt/words.txt

%post
    echo "STEP greeting"
    echo {{ GREETING }} >/opt/greeting.txt

%labels
    meditron.commit {{ COMMIT }}
    meditron.inputs {{ INPUTS }}

%test
    cat /opt/greeting.txt /opt/words.txt
"""


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system with a shell and little else, copied from this machine."""
    root = tmp_path_factory.mktemp("base")
    for name in ("dev", "etc", "home", "mnt", "opt", "proc", "root", "run", "sys", "tmp", "usr/bin", "var/tmp"):
        (root / name).mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    for name in ("hosts", "resolv.conf"):
        (root / "etc" / name).touch()
    for name in _PROGRAMS:
        program = shutil.which(name)
        if program is None:
            pytest.skip(f"no {name} here to make a base of")
        shutil.copy(program, root / "usr/bin" / name)
        needs = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        for library in re.findall(r"(/\S+) \(0x", needs):
            place = root / library.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.exists():
                shutil.copy(library, place)
    (root / "usr/bin/sh").symlink_to("dash")
    return root


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with containers/ and a file that definitions copy; its own cache, and no program named from outside."""
    (tmp_path / "containers").mkdir()
    (tmp_path / "words.txt").write_text("first\n")
    monkeypatch.setenv("MEDITRON_IMAGE_CACHE", str(tmp_path / "cache"))
    for name in ("MEDITRON_APPTAINER", "APPTAINER_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


Maker = Callable[..., images.Built]


@pytest.fixture
def make(site: Path, base: Path, apptainer: str) -> Maker:  # noqa: F811
    """`make(text, name="one", **options)`: write a definition and build it for real, in a second or two."""

    def built(text: str = DEFINITION, name: str = "one", output: Path | None = None, **options: object) -> images.Built:
        (site / "containers" / f"{name}.def").write_text(text.replace("BASE_FOLDER", str(base)))
        chosen = images.Options(apptainer=apptainer, tmp=site, **options)  # type: ignore[arg-type]
        return images.build(name, folder=site / "containers", output=output, options=chosen)

    return built


def a_sif(path: Path, *, size: int = 5000, labels: dict[str, str] | None = None, fill: bytes = b"x") -> Path:
    """A file with the header and table of a SIF, a file system that is none, and its labels."""
    metadata = json.dumps({"data": {"attributes": {"labels": labels or {}}}}).encode()
    rows = [(0x4006, 4096, len(metadata), b"inspect-metadata.json"), (0x4004, 8192, size, b"")]
    free, table = 46, b""
    for kind, offset, length, name in rows:
        table += struct.pack("<i?3I7q128s384s", kind, True, 1, 1, 0, offset, length, length, 0, 0, 0, 0, name, b"")
    table += bytes(585 * free)
    head = struct.pack(
        "<32s10s3s3s16s8q", b"#!/usr/bin/env run-singularity\n", b"SIF_MAGIC", b"01", b"02", b"u" * 16,
        0, 0, free, 48, 32768, len(table), 4096, 4096 + size,
    )  # fmt: skip
    body = bytearray(max(32768 + len(table), 8192 + size))
    body[: len(head)] = head
    body[4096 : 4096 + len(metadata)] = metadata
    body[8192 : 8192 + size] = fill * (size // len(fill)) + fill[: size % len(fill)]
    body[32768 : 32768 + len(table)] = table
    path.write_bytes(bytes(body))
    return path
