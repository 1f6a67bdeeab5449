"""Units of a corpus: the same bytes however many processes or jobs work on them, and whatever kills them on the way."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.corpus.corpora import OFF, bytes_of, documents, trouble
from toolkit.cleaning import Filters, Length
from toolkit.corpus import Settings, Source, build, build_units, jsonl, prepare, units, zlines
from toolkit.errors import DataError, RunBusy

ROOT = Path(__file__).parents[2]
SETTINGS = Settings(seed=7, valid_fraction=0.2, max_bad_fraction=0.4, filters=Filters(length=Length(min_words=3)))


@pytest.fixture(autouse=True)
def small_units(monkeypatch):
    """So that a few files are many units."""
    monkeypatch.setattr(units, "_LEAST", 4000)
    monkeypatch.setattr(units, "_MOST", 4000)


@pytest.fixture
def sources(tmp_path) -> list[Source]:
    return trouble(tmp_path / "input")


@pytest.fixture
def whole(sources, tmp_path) -> dict[str, bytes]:
    build(sources=sources, out=tmp_path / "whole", settings=SETTINGS)
    return bytes_of(tmp_path / "whole")


def test_any_number_of_processes_gives_the_same_bytes(sources, whole, tmp_path):
    assert len([name for name in whole if name.startswith("train/")]) >= 6
    for workers in (2, 4):
        report = build(sources=sources, out=tmp_path / "out", settings=SETTINGS, workers=workers)
        assert bytes_of(tmp_path / "out") == whole
    assert report.documents_in == report.documents_out + sum(report.removed.values())
    assert {"bad_row", "licence", "exact_duplicate"} <= set(report.removed)


@pytest.mark.parametrize("jobs", [2, 8])
def test_any_number_of_jobs_gives_the_same_bytes(sources, whole, tmp_path, jobs):
    shared = tmp_path / "prepared"
    prepare(sources, shared, SETTINGS)
    shares = [tmp_path / f"share{k}" for k in range(jobs)]
    made = [
        build_units(sources=sources, folder=folder, settings=SETTINGS, share=(k, jobs), prepared=shared)
        for k, folder in reversed(list(enumerate(shares)))
    ]
    assert sum(made) == len(list(tmp_path.glob("share*/units/*")))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("share*/units/*")}
    build(sources=sources, out=tmp_path / "out", settings=SETTINGS, finished=shares, prepared=shared)
    assert bytes_of(tmp_path / "out") == whole
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("share*/units/*")} == before
    assert not list(tmp_path.glob("out.work*"))


SLOW = """
import os, signal, sys, time
from tests.corpus.corpora import trouble
from tests.corpus.test_parts import SETTINGS
from pathlib import Path
from toolkit.corpus import build, gather, sift, units
units._LEAST = units._MOST = 4000
fill, write = sift.Sifter._fill, gather.Gatherer.gather
def slowly(self, *rest):
    fill(self, *rest)
    time.sleep(0.05)
def slowly_too(self, *rest):
    time.sleep(0.1)
    return write(self, *rest)
sift.Sifter._fill, gather.Gatherer.gather = slowly, slowly_too
folder = Path(sys.argv[1])
try:
    build(sources=trouble(folder / "input"), out=folder / "out", settings=SETTINGS, workers=2)
except KeyboardInterrupt:
    sys.exit(130)
"""


def start(tmp_path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SLOW, str(tmp_path)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def wait_for(tmp_path: Path, pattern: str, number: int, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while len(list(tmp_path.glob(pattern))) < number:
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.005)


MOMENTS = [
    ("out.work/inputs.jsonl", 1),
    ("out.work/units/.*.part", 1),
    ("out.work/units/[!.]*/done.json", 2),
    ("out.work/units/[!.]*/done.json", 5),
    (".out.*.part/train/*", 2),
]


def test_killed_anywhere_and_run_again_the_bytes_are_the_same(whole, tmp_path):
    for pattern, number in MOMENTS:
        process = start(tmp_path)
        wait_for(tmp_path, pattern, number, process)
        process.kill()
        process.communicate()
        assert not (tmp_path / "out").exists()
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out.work" / "units").glob("[!.]*")}
    # Of several deaths on the way something has always been gone on with.
    assert len(before) >= 5
    report = build(sources=trouble(tmp_path / "input"), out=tmp_path / "out", settings=SETTINGS)
    assert bytes_of(tmp_path / "out") == whole and report.documents_out > 0
    assert not list(tmp_path.glob(".out*")) and not (tmp_path / "out.work").exists()


def test_ctrl_c_leaves_nothing_half_written_and_says_how_to_go_on(whole, tmp_path):
    process = start(tmp_path)
    wait_for(tmp_path, "out.work/units/[!.]*/done.json", 3, process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in said
    assert re.search(r"stopped; \d+ of \d+ units are done, the same command goes on", said)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))
    kept = list((tmp_path / "out.work" / "units").iterdir())
    assert len(kept) >= 3 and all((unit / "done.json").exists() for unit in kept)
    build(sources=trouble(tmp_path / "input"), out=tmp_path / "out", settings=SETTINGS)
    assert bytes_of(tmp_path / "out") == whole


def test_one_build_at_a_time_and_nothing_but_its_own_is_removed(sources, whole, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    (work / "thesis.tex").write_text("years")
    (tmp_path / ".out.notes.part").mkdir()
    with open(work / "lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(RunBusy, match="another build works here"):
            build(sources=sources, out=tmp_path / "out", settings=SETTINGS, work=work)
    build(sources=sources, out=tmp_path / "out", settings=SETTINGS, work=work)
    assert bytes_of(tmp_path / "out") == whole
    assert [path.name for path in work.iterdir()] == ["thesis.tex"] and (tmp_path / ".out.notes.part").is_dir()


def times(work: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (work / "units").iterdir()}


def test_only_what_depends_on_a_change_is_made_anew(sources, tmp_path):
    def units_of(settings: Settings = SETTINGS) -> dict[str, int]:
        build_units(sources=sources, folder=tmp_path / "work", settings=settings, share=(0, 1))
        return times(tmp_path / "work")

    first = units_of()
    assert len(first) >= 6 and units_of() == first
    changed = tmp_path / "input" / "notes" / "b.jsonl"
    changed.write_bytes(changed.read_bytes().replace(b"note 1 of b", b"note 2 of b"))
    second = units_of()
    assert len([name for name in first if second[name] != first[name]]) == 1
    os.utime(changed)  # the same bytes at another time
    assert units_of() == second
    later = Settings(**{**vars(SETTINGS), "valid_fraction": 0.5, "max_bad_fraction": 0.3})
    assert units_of(later) == second
    stricter = Settings(**{**vars(SETTINGS), "filters": Filters(length=Length(min_words=4))})
    assert not set(units_of(stricter).items()) & set(second.items())


def test_a_damaged_unit_is_made_anew(sources, whole, tmp_path):
    shares = [tmp_path / "share"]
    build_units(sources=sources, folder=shares[0], settings=SETTINGS, share=(0, 1))
    found = sorted((shares[0] / "units").iterdir())
    written = found[0] / "documents.jsonl.zst"
    written.write_bytes(written.read_bytes()[:-9] + b"\0" * 9)
    (found[1] / "done.json").write_text("{")
    (found[2] / "tally.json").unlink()
    build(sources=sources, out=tmp_path / "out", settings=SETTINGS, finished=shares)
    assert bytes_of(tmp_path / "out") == whole


def test_a_file_that_comes_moves_no_border_far_from_it(tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(400):
        (folder / f"{i:04d}.jsonl").write_bytes(b"x" * 300)
    source = [Source(kind="jsonl", paths=(str(folder),))]

    def keys() -> list[str]:
        found = units.make(source, tmp_path / "list")
        listed = [file.name for unit in found.units for file in found.files(unit)]
        assert listed == sorted(path.name for path in folder.iterdir())
        assert found.bytes == sum(unit.bytes for unit in found.units)
        return [unit.key for unit in found.units]

    before = keys()
    (folder / "0100a.jsonl").write_bytes(b"x" * 1700)
    after = keys()
    assert len(before) > 30 and len(set(after) - set(before)) <= 4


def crash(how):
    real = jsonl.read

    def read(file, subset, options):
        for number, item in enumerate(real(file, subset, options)):
            if file.name == "c.jsonl" and number == 10:
                how()
            yield item

    return read


def test_a_file_that_kills_its_reader_is_set_aside_and_named(sources, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(jsonl, "read", crash(lambda: os.kill(os.getpid(), signal.SIGSEGV)))
    report = build(sources=sources, out=tmp_path / "out", settings=SETTINGS, workers=2)
    assert "c.jsonl is set aside: the process that read it ended by SIGSEGV" in capfd.readouterr().err
    aside = [zlines.loads(line) for line in zlines.lines(tmp_path / "out" / "set_aside.jsonl.zst")]
    assert ("c.jsonl", "the process that read it ended by SIGSEGV") in {(row["file"], row["why"]) for row in aside}
    ids = {row["id"] for part in ("train", "valid") for row in documents(tmp_path / "out", part)}
    assert "c1" not in ids and {"a8", "b8", "d8"} <= ids and report.removed["bad_row"] == 3


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "ended by SIGKILL. Give it more memory"),
        (lambda: os._exit(3), "ended with code 3"),
        (lambda: [].append(b"x" * 2**60), "not enough memory"),
    ],
    ids=["killed", "exit", "memory"],
)
def test_another_death_ends_the_build_and_names_the_file(sources, tmp_path, monkeypatch, how, said):
    monkeypatch.setattr(jsonl, "read", crash(how))
    with pytest.raises(DataError, match=re.escape(said)) as caught:
        build(sources=sources, out=tmp_path / "out", settings=SETTINGS, workers=2)
    assert "c.jsonl" in str(caught.value) and not (tmp_path / "out").exists()
    assert not list((tmp_path / "out.work" / "units").glob(".*"))


def test_a_reader_that_fails_loses_the_rest_of_its_file_alone(sources, tmp_path, monkeypatch):
    def fail():
        raise ValueError("unforeseen")

    monkeypatch.setattr(jsonl, "read", crash(fail))
    report = build(sources=sources, out=tmp_path / "out", settings=SETTINGS)
    aside = [zlines.loads(line)["why"] for line in zlines.lines(tmp_path / "out" / "set_aside.jsonl.zst")]
    assert any("ValueError: unforeseen" in why for why in aside) and report.removed["bad_row"] == 3
    assert report.documents_in == report.documents_out + sum(report.removed.values())


def test_a_file_that_changes_while_it_is_read_stops_the_build(sources, tmp_path, monkeypatch):
    path = tmp_path / "input" / "notes" / "c.jsonl"
    monkeypatch.setattr(jsonl, "read", crash(lambda: path.write_bytes(b"{}\n")))
    with pytest.raises(DataError, match=r"c\.jsonl: changed while it was read"):
        build(sources=sources, out=tmp_path / "out", settings=SETTINGS)


def test_the_document_that_changes_sides_is_the_same(tmp_path, jsonl):
    paths = [jsonl(*({"id": f"{k}{i}", "text": "t"} for i in range(5)), name=f"{k}.jsonl") for k in "abc"]
    sources = [Source(kind="jsonl", paths=(str(path),), subset=path.stem) for path in paths]
    for fraction, side in ((0.999999, "valid"), (0.000001, "train")):
        settings = Settings(seed=3, valid_fraction=fraction, duplicates=OFF)
        found = []
        for workers in (1, 3):
            report = build(sources=sources, out=tmp_path / "out", settings=settings, workers=workers)
            assert getattr(report, side) == 14
            found.append(bytes_of(tmp_path / "out"))
        assert found[0] == found[1]
