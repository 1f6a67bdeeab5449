"""The header of a SIF: what is one, what is a truncated one, and that no bytes bring the reader down."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.images.conftest import a_sif
from toolkit.errors import ImageError
from toolkit.images import sif


def test_a_sif_says_what_it_is(tmp_path: Path) -> None:
    found = sif.read(a_sif(tmp_path / "one.sif", labels={"meditron.commit": "abc"}))
    assert found.arch == "amd64" and not found.signed
    assert [entry.kind for entry in found.objects] == [0x4006, 0x4004]
    assert found.labels == {"meditron.commit": "abc"}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "the image is empty"),
        (b"#!/bin/sh\necho hello\n" * 20, "this is no SIF"),
        (b"hsqs" + bytes(500), "it looks like a bare squashfs"),
        (gzip.compress(b"x" * 500, mtime=0), "it looks like a gzip archive"),
        (b"<!DOCTYPE html><html>login</html>", "it looks like a page of HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a pointer of git-lfs"),
        (bytes(5000), "this is no SIF"),
    ],
)
def test_what_is_no_sif_is_said(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "one.sif"
    path.write_bytes(data)
    with pytest.raises(ImageError, match="one.sif") as caught:
        sif.read(path)
    assert said in str(caught.value).replace("It looks", "it looks") and caught.value.exit_code == 3


def test_every_truncation_is_seen(tmp_path: Path) -> None:
    whole = a_sif(tmp_path / "one.sif").read_bytes()
    short = tmp_path / "short.sif"
    for size in (1, 30, 41, 42, 60, 127, 128, 4096, 8192, 33000, len(whole) - 1):
        short.write_bytes(whole[:size])
        with pytest.raises(ImageError, match="truncated") as caught:
            sif.read(short)
        assert f"{size:,} bytes" in caught.value.what
    short.write_bytes(whole)
    assert sif.read(short).objects


def test_a_table_out_of_bounds_is_damage(tmp_path: Path) -> None:
    whole = bytearray(a_sif(tmp_path / "one.sif").read_bytes())
    for place, value in ((80, 2**60), (88, 2**40), (88, -1), (96, -5), (96, 2**62)):
        bad = bytearray(whole)
        bad[place : place + 8] = value.to_bytes(8, "little", signed=True)
        (tmp_path / "bad.sif").write_bytes(bad)
        with pytest.raises(ImageError, match="damaged|truncated"):
            sif.read(tmp_path / "bad.sif")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.integers(0, 1400), st.integers(0, 255)), max_size=12), cut=st.integers(0, 70000))
def test_no_bytes_bring_the_reader_down(tmp_path: Path, flips: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(a_sif(tmp_path / "one.sif", labels={"a": "b"}).read_bytes())
    for place, value in flips:  # the header, and the table's first rows
        data[place if place < 128 else 32768 + place - 128] = value
    (tmp_path / "other.sif").write_bytes(data[: cut or None])
    try:
        found = sif.read(tmp_path / "other.sif")
    except ImageError:
        return
    assert all(entry.offset + entry.size <= cut or not cut for entry in found.objects)
    assert all(isinstance(value, str) for value in found.labels.values())


@pytest.mark.parametrize("text", ["", "null", "[]", '{"data": 5}', '{"data": {"attributes": []}}', "[" * 20000, "\x00"])
def test_labels_that_are_none(text: str) -> None:
    assert all(isinstance(value, str) for value in sif.labels_in(text).values())
