"""Articles are read out of tar packages as they stream by; hostile members are counted, none is put on disk."""

from __future__ import annotations

import gzip
import io
import os
import random
import tarfile
from pathlib import Path

import pytest

from tests.corpus import made_jats
from toolkit.corpus import jats, jats_packages
from toolkit.corpus.document import BadRow, Document

pytest.importorskip("lxml")

XML = b"<article><body><p>Words of %d.</p></body></article>"


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields: str) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def package(path: Path, *members: tuple[tarfile.TarInfo, bytes], style: int = tarfile.GNU_FORMAT) -> Path:
    mode = "w:gz" if path.name.endswith("gz") else "w"
    with tarfile.open(path, mode, format=style) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return path


def read(path: Path) -> list[Document | BadRow]:
    before = sorted(os.walk(path.parent))
    items = list(jats.read(path, "pmc", {}))
    assert sorted(os.walk(path.parent)) == before
    return items


@pytest.mark.parametrize("style", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("name", ["p.tar.gz", "p.tgz", "p.tar"])
def test_articles_of_a_package_and_nothing_else(tmp_path, name, style):
    long = "PMC000/" + "n" * (90 if style == tarfile.USTAR_FORMAT else 300) + "é.nxml"
    path = package(
        tmp_path / name,
        member("PMC000", kind=tarfile.DIRTYPE),
        member("PMC000/a.xml", XML % 1),
        member("PMC000/fig.jpg", b"\xff" * 3000),
        member("PMC000/a.pdf", b"%PDF"),
        member("PMC000/._a.xml", b"\0\5"),
        member("PMC000/b.NXML.gz", gzip.compress(XML % 2)),
        member(long, XML % 3),
        member("PMC000/license.txt", b""),
        style=style,
    )
    assert [doc.text for doc in read(path)] == ["Words of 1.", "Words of 2.", "Words of 3."]


def test_hostile_members_are_counted_and_the_rest_is_read(tmp_path):
    path = package(
        tmp_path / "p.tar.gz",
        member("../out.xml", XML % 1),
        member("/abs.xml", XML % 1),
        member("a/../../out.xml", XML % 1),
        member("..\\out.xml", XML % 1),
        member("link.xml", kind=tarfile.SYMTYPE, linkname="/etc/passwd"),
        member("hard.jpg", kind=tarfile.LNKTYPE, linkname="a.xml"),
        member("tty.xml", kind=tarfile.CHRTYPE),
        member("pipe.xml", kind=tarfile.FIFOTYPE),
        member("cut.xml", (XML % 1)[:-10]),
        member("cut.xml.gz", gzip.compress(XML % 1)[:-9]),
        member("bell\x07.xml", b"<article><!ENTITY e 'x'>"),
        member("good.xml", XML % 2),
    )
    rows = read(path)
    assert [doc.text for doc in rows if isinstance(doc, Document)] == ["Words of 2."]
    bad = [(row.file.removeprefix(f"{path}:"), row.why.split(",")[0]) for row in rows if isinstance(row, BadRow)]
    assert bad[:8] == [
        ("../out.xml", "a name that leads out of its folder"),
        ("/abs.xml", "a name that leads out of its folder"),
        ("a/../../out.xml", "a name that leads out of its folder"),
        ("..\\out.xml", "a name that leads out of its folder"),
        ("link.xml", "a link"),
        ("hard.jpg", "a link"),
        ("tty.xml", "a device or another thing that is no file"),
        ("pipe.xml", "a device or another thing that is no file"),
    ]
    assert [name for name, _ in bad[8:]] == ["cut.xml", "cut.xml.gz", "bell?.xml"]
    assert "malformed XML" in bad[8][1] and "gzip" in bad[9][1]


def test_a_broken_stream_is_one_bad_row_after_what_could_be_read(tmp_path):
    whole = package(
        tmp_path / "p.tar", *(member(f"{n}.xml", made_jats.article(n, 150_000)) for n in range(9))
    ).read_bytes()
    end = -(-len(whole.rstrip(b"\0")) // 512) * 512
    zipped = gzip.compress(whole)
    flipped = bytearray(zipped)
    flipped[len(zipped) * 3 // 4] ^= 0xFF
    cases = {
        "cut.tar": whole[: len(whole) // 2],
        "cut.tar.gz": zipped[: len(zipped) // 2],
        "flipped.tar.gz": bytes(flipped),
        "header.tar": whole[:end] + b"garbage" * 1000,
    }
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        rows = read(tmp_path / name)
        sound = [row for row in rows if isinstance(row, Document)]
        assert 2 <= len(sound) <= 9 and [doc.id for doc in sound] == [f"PMC{10_000_000 + n}" for n in range(len(sound))]
        assert len(rows) >= len(sound) + 1 and isinstance(rows[-1], BadRow), name
        assert any(word in rows[-1].why for word in ("tar", "gzip")), rows[-1]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "empty"),
        (b"no tar", "ends early"),
        (b"x" * 2048, "not a tar"),
        (gzip.compress(b"<article/>" * 99, mtime=0), "not a tar"),
    ],
)
def test_what_is_no_package_is_one_bad_row(tmp_path, data, why):
    for name in ("p.tar", "p.tar.gz"):
        (tmp_path / name).write_bytes(data if name.endswith("gz") == (data[:2] == b"\x1f\x8b") else data)
        (row,) = read(tmp_path / name)
        assert isinstance(row, BadRow) and (why in row.why or "gzip" in row.why or "tar" in row.why), row


def test_a_member_beyond_the_bound_and_a_header_that_promises_much_hold_no_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(jats, "MAX_MIB", 1)
    path = package(tmp_path / "p.tgz", member("big.xml", bytes(3 * 2**20)), member("good.xml", XML % 1))
    rows = read(path)
    assert "larger than 1 MiB" in rows[0].why and rows[1].text == "Words of 1."
    info = tarfile.TarInfo("x.xml")
    info.type, info.size = tarfile.XHDTYPE, 2**33
    (tmp_path / "q.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT))
    (row,) = read(tmp_path / "q.tar")
    assert "header of 8589934592 bytes" in row.why
    assert list(jats_packages.members(path, (".jpg",), 10)) == []


def test_damage_anywhere_in_a_package_never_is_an_error(tmp_path):
    whole = package(
        tmp_path / "p.tar", *(member(f"{n}.xml", XML % n) for n in range(20)), style=tarfile.PAX_FORMAT
    ).read_bytes()
    rng = random.Random(3)
    for _ in range(200):
        data = bytearray(whole)
        for _ in range(3):
            data[rng.randrange(len(data))] = rng.randrange(256)
        (tmp_path / "q.tar").write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
        assert all(isinstance(item, Document | BadRow) for item in read(tmp_path / "q.tar"))
