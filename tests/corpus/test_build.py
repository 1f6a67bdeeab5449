"""The corpus folder: whole or absent, every loss counted, the split the same whatever the order."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.corpus.corpora import OFF, bytes_of, documents
from toolkit import corpus
from toolkit.cleaning import Duplicates, Filters
from toolkit.corpus import Settings, Source, build, readers, zlines
from toolkit.corpus.split import position
from toolkit.errors import DataError, DiskFull, RecipeError

FIELDS = ["id", "source", "subset", "title", "text", "url", "license", "date", "meta"]
ALL_LICENCES = Filters(licences=("open", "noncommercial", "no-derivatives", "unknown"))


def make(*paths: Path, out: Path, **more):
    """Every document stays, for many here have the same text."""
    settings = Settings(**{"seed": 7, "valid_fraction": 0.2, "duplicates": OFF, **more})
    return build(sources=[Source(kind="jsonl", paths=tuple(map(str, paths)), subset="s")], out=out, settings=settings)


def nothing_left(out: Path) -> bool:
    return not out.exists() and not list(out.parent.glob(f"*{out.name}*"))


@pytest.mark.parametrize("place", ["out", "work"])
def test_a_place_that_cannot_be_written_is_said_before_the_work(jsonl, tmp_path, place):
    path = jsonl({"text": "a text"})
    source = Source(kind="jsonl", paths=(str(path),), subset="s")
    folders = {"out": tmp_path / "out", "work": tmp_path / "work", place: path / "in a file" / "x"}
    with pytest.raises(DataError, match="cannot be written. Not a directory"):
        build(sources=[source], **folders)
    assert not list((tmp_path / "work").glob("*")) and not (tmp_path / "out").exists()


def test_lists_that_a_killed_build_was_writing_go_with_its_work(jsonl, tmp_path):
    work = tmp_path / "out.work"
    work.mkdir()
    for name in (".inputs.jsonl.1.part", ".inputs.jsonl.names.1.part", "inputs.jsonl.names"):
        (work / name).write_text("[")
    make(jsonl({"text": "a text"}, {"text": "another"}), out=tmp_path / "out")
    assert not work.exists()


def test_documents_keep_their_fields_and_every_loss_is_counted(jsonl, tmp_path):
    path = jsonl(
        {"id": "a", "text": "Give 5 mg if glucose < 18 mg/dl [95% CI 1.2-3.4].", "title": "T", "year": 2020},
        {"id": "b", "text": "free", "license": "creativecommons.org/licenses/by/4.0/", "source": "who", "date": "2020"},
        {"id": "c", "text": "bound", "license": "CC BY-NC-ND 4.0"},
        {"id": "d", "text": " \n "},
        b"{not json",
        *({"id": f"x{i}", "text": f"text {i}"} for i in range(20)),
        {"id": "again", "text": "Text, 7!"},
    )
    out = tmp_path / "out"
    report = make(path, out=out, max_bad_fraction=0.1, duplicates=Duplicates())
    rows = {row["id"]: row for part in ("train", "valid") for row in documents(out, part)}
    assert len(rows) == report.documents_out == report.train + report.valid == report.written == 22
    assert report.documents_in == 26 == report.documents_out + sum(report.removed.values())
    assert report.removed == {"bad_row": 1, "empty": 1, "exact_duplicate": 1, "licence": 1}
    assert report.set_aside == 1 and report.unknown_licence == 21
    assert all(list(row) == FIELDS for row in rows.values())
    assert rows["a"]["text"] == "Give 5 mg if glucose < 18 mg/dl [95% CI 1.2-3.4]."
    assert rows["a"]["meta"] == {"file": "in.jsonl", "year": 2020} and rows["a"]["license"] == "unknown"
    assert rows["b"]["license"] == "CC-BY-4.0" and rows["b"]["source"] == "who" and rows["b"]["date"] == "2020"
    assert "x7" in rows and "again" not in rows
    written = json.loads((out / "report.json").read_text())
    assert (written["in"], written["out"], written["unknown_licence"]) == (26, 22, 21)
    (aside,) = (zlines.loads(line) for line in zlines.lines(out / "set_aside.jsonl.zst"))
    assert (aside["subset"], aside["file"], aside["line"]) == ("s", "in.jsonl", 5) and "not JSON" in aside["why"]
    assert written["characters"] == report.characters == sum(len(row["text"]) for row in rows.values())
    assert str(tmp_path) not in (out / "report.html").read_text().replace(str(path), "")


def test_real_articles_lose_the_noncommercial_one(pmc, tmp_path):
    sources = [Source(kind="pmc", paths=(str(pmc),))]
    report = build(sources=sources, out=tmp_path / "out", settings=Settings())
    assert (report.documents_in, report.documents_out, report.removed) == (4, 3, {"licence": 1})
    assert build(sources=sources, out=tmp_path / "out", settings=Settings(filters=ALL_LICENCES)).documents_out == 4


def test_the_world_is_a_source_like_any_other(jsonl, tmp_path):
    world = Source(kind="world", subset="demo", options={"documents_per_entity": 2})
    other = Source(kind="jsonl", paths=(str(jsonl({"id": "n", "text": "one"})),), subset="notes", valid_fraction=0.0)
    settings = Settings(valid_fraction=0.1, duplicates=OFF)
    report = build(sources=[world, other], out=tmp_path / "out", settings=settings)
    assert report.documents_out == 2 * 120 + 80 + 1 and not report.removed
    names = sorted(path.name for path in (tmp_path / "out" / "train").iterdir())
    assert names == ["demo-00000.jsonl.zst", "notes-00000.jsonl.zst"]
    assert {row["subset"] for row in documents(tmp_path / "out", "valid")} == {"demo"}


def test_papers_that_weigh_more_stand_several_times_and_some_not_at_all(jsonl, tmp_path, monkeypatch):
    weights = {"d0": [-1.0, 10.0, 1.0], "d1": [2.0, 99999.0, 0.0], "d2": None, "d3": [0.0, 10.0, 9.0]}
    real = readers.module("jsonl").read

    def weighed(*given):
        for doc in real(*given):
            yield dataclasses.replace(doc, weight=weights.get(doc.id))

    monkeypatch.setattr(readers.module("jsonl"), "read", weighed)
    path = jsonl(*({"id": f"d{i}", "text": f"text {i}"} for i in range(6)))
    report = make(path, out=tmp_path / "out", upsample=True, valid_fraction=0.0)
    assert [row["id"] for row in documents(tmp_path / "out", "train")] == ["d1", "d1", "d1", "d2", "d3", "d4", "d5"]
    assert report.removed == {"upsample_dropped": 1} and (report.documents_out, report.written) == (5, 7)
    assert json.loads((tmp_path / "out" / "report.json").read_text())["upsampling_limits"] == [0.0, 1.0]
    assert make(path, out=tmp_path / "out", valid_fraction=0.0).written == 6


def test_the_split_is_the_same_whatever_the_order_or_the_company(jsonl, tmp_path):
    rows = [{"id": f"d{i}", "text": f"text {i}"} for i in range(200)]

    def valid(some, **more) -> set[str]:
        make(jsonl(*some), out=tmp_path / "out", **more)
        return {row["id"] for row in documents(tmp_path / "out", "valid")}

    whole = valid(rows)
    assert valid(rows[::-1]) == whole
    assert valid(rows[:100]) == whole & {row["id"] for row in rows[:100]}
    assert valid(rows, seed=8) != whole
    assert valid(rows, valid_fraction=0.1) < whole
    assert 20 <= len(whole) <= 60


@pytest.mark.parametrize(("kind", "share"), [("guidelines", 0.05), ("replay", 0.0), ("jsonl", 0.2)])
def test_each_kind_has_its_own_split(kind, share):
    settings = Settings(valid_fraction=0.2)
    assert settings.share(Source(kind=kind, paths=("x",))) == share
    assert settings.share(Source(kind=kind, paths=("x",), valid_fraction=0.5)) == 0.5


@given(st.integers(), st.text(), st.floats(0, 1))
def test_positions_lie_between_zero_and_one_and_fractions_nest(seed, name, fraction):
    at = position(seed, name)
    assert 0 <= at < 1 and at == position(seed, name)
    assert not (at < fraction / 2) or at < fraction


def test_positions_are_spread_evenly():
    share = sum(position(3, f"id{i}") < 0.03 for i in range(20000)) / 20000
    assert 0.026 < share < 0.034


def test_neither_part_of_a_small_corpus_is_empty(jsonl, tmp_path):
    path, out = jsonl(*({"id": f"d{i}", "text": "t"} for i in range(3))), tmp_path / "out"
    for fraction in (1e-9, 0.999999):
        report = make(path, out=out, valid_fraction=fraction)
        assert sorted((report.train, report.valid)) == [1, 2]
        assert len(documents(out, "train")) == report.train and len(documents(out, "valid")) == report.valid
        assert "moved" in json.loads((out / "report.json").read_text())["moved"]
        assert {p.name for p in out.iterdir()} == {
            "train",
            "valid",
            "report.json",
            "report.html",
            "set_aside.jsonl.zst",
        }
        assert len(list(out.rglob("*.zst"))) == 3
    only = jsonl({"id": "d", "text": "t"}, name="one.jsonl")
    for fraction in (0.0, 0.5, 0.999999):
        assert make(only, out=out, valid_fraction=fraction).train == 1
    assert make(path, out=out, valid_fraction=0.0).valid == 0


def test_a_second_build_gives_the_same_bytes_and_replaces_the_first(jsonl, tmp_path):
    path = jsonl(*({"text": f"text {i}"} for i in range(50)))
    make(path, out=tmp_path / "a")
    (tmp_path / "a" / "stale").write_text("")
    make(path, out=tmp_path / "a")
    make(path, out=tmp_path / "b")
    assert not (tmp_path / "a" / "stale").exists()
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "in.jsonl"]


def test_nothing_but_a_corpus_is_ever_replaced(jsonl, tmp_path):
    path = jsonl({"text": "t"})
    precious = tmp_path / "home"
    precious.mkdir()
    (precious / "thesis.tex").write_text("years")
    with pytest.raises(DataError, match="no corpus"):
        make(path, out=precious)
    with pytest.raises(DataError, match="no corpus"):
        make(path, out=path)
    assert (precious / "thesis.tex").read_text() == "years" and path.exists()
    for folder in ("old", "old.work"):
        (tmp_path / folder).mkdir()
        inside = tmp_path / folder / "in.jsonl"
        inside.write_bytes(path.read_bytes())
        (tmp_path / folder / "report.json").write_text("{}")
        with pytest.raises(DataError, match="lies in the output folder"):
            make(inside, out=tmp_path / "old")
        assert inside.exists()


def test_missing_and_empty_input_is_named_and_leaves_nothing(jsonl, tmp_path):
    (tmp_path / "folder").mkdir()
    empty, pipe = tmp_path / "empty.jsonl", tmp_path / "pipe.jsonl"
    empty.write_bytes(b"")
    os.mkfifo(pipe)
    out = tmp_path / "out"
    for path, said in [
        (tmp_path / "gone.jsonl", "no such file"),
        (tmp_path / "folder", "holds no file for jsonl"),
        (empty, "the file is empty"),
        (pipe, "no regular file"),
        (jsonl(b"", b"  "), "in.jsonl"),
        (jsonl({"text": ""}, name="blank.jsonl"), "no documents are left"),
        (jsonl({"text": "t", "license": "cc-by-nc-4.0"}, name="nc.jsonl"), "further licences"),
    ]:
        with pytest.raises(DataError) as caught:
            make(path, out=out)
        assert said in str(caught.value)
        assert not out.exists() and not list(tmp_path.glob(".*"))
    assert not (tmp_path / "out.work" / "units").exists() or list((tmp_path / "out.work" / "units").iterdir())
    with pytest.raises(DataError, match="needs a path"):
        make(out=out)
    with pytest.raises(DataError, match=r"Kinds that do: s2orc, .*jsonl"):
        build(sources=[Source(kind="pmc", paths=(str(jsonl({"text": "t"})),))], out=out)


def test_too_many_bad_rows_stop_the_build_and_name_the_first(jsonl, tmp_path):
    good = [{"id": f"d{i}", "text": "t"} for i in range(98)]
    path = jsonl(*good[:40], b"\xff\xfe", *good[40:], b"[1, 2]")
    with pytest.raises(DataError) as caught:
        make(path, out=tmp_path / "out")
    assert "2 of 100 rows" in str(caught.value) and "in.jsonl:41" in str(caught.value)
    assert not (tmp_path / "out").exists()
    report = make(path, out=tmp_path / "out", max_bad_fraction=0.02)
    assert report.set_aside == 2 and report.documents_out == 98 and not (tmp_path / "out.work").exists()


def test_a_broken_source_is_not_hidden_by_a_large_sound_one(jsonl, tmp_path):
    large = jsonl(*({"id": f"d{i}", "text": "t"} for i in range(500)), name="large.jsonl")
    broken = jsonl(b"x", name="broken.jsonl")
    sources = [Source(kind="jsonl", paths=(str(path),), subset=path.stem) for path in (large, broken)]
    with pytest.raises(DataError, match=r"broken\.jsonl"):
        build(sources=sources, out=tmp_path / "out")


def test_impossible_settings_are_refused(jsonl, tmp_path):
    path = jsonl({"text": "t"})
    for more in (
        *({"valid_fraction": 1}, {"valid_fraction": -0.1}, {"valid_fraction": "0.1"}, {"max_bad_fraction": 2}),
        *({"markup": "tag"}, {"tables": "none"}),
    ):
        with pytest.raises(RecipeError):
            make(path, out=tmp_path / "out", **more)
    with pytest.raises(RecipeError, match="at least one source"):
        build(sources=[], out=tmp_path / "out")
    with pytest.raises(RecipeError, match="unknown kind of source 'jast'.*'jats'"):
        Source(kind="jast")
    with pytest.raises(RecipeError, match="cannot name a file"):
        Source(kind="jsonl", subset="../x")
    for options, said in (({"text_feld": "a"}, "text_feld.*text_field"),):
        with pytest.raises(RecipeError, match=said):
            build(sources=[Source(kind="jsonl", paths=(str(path),), options=options)], out=tmp_path / "out")
    twice = [Source(kind="jsonl", paths=(str(path),)), Source(kind="jsonl", paths=(str(path),))]
    with pytest.raises(RecipeError, match="two sources are named 'jsonl'"):
        build(sources=twice, out=tmp_path / "out")
    assert nothing_left(tmp_path / "out")


def test_a_full_disk_is_said_and_the_old_corpus_stays(jsonl, tmp_path):
    disk = tmp_path / "small"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", disk], capture_output=True).returncode:
        pytest.skip("no right to mount a small file system")
    try:
        make(jsonl({"text": "old"}), out=disk / "out")
        before = bytes_of(disk / "out")
        noise = [{"text": os.urandom(3000).hex()} for _ in range(200)]
        with pytest.raises(DiskFull, match=r"may take .* GB"):
            make(jsonl(*noise), out=disk / "out")
        (tmp_path / "work").mkdir()
        with pytest.raises(DiskFull, match="no space left"):  # the unit has room elsewhere, the corpus has none
            build(
                sources=[Source(kind="jsonl", paths=(str(jsonl(*noise)),), subset="s")],
                out=disk / "out",
                settings=Settings(duplicates=OFF),
                work=tmp_path / "work",
            )
        assert bytes_of(disk / "out") == before
        assert [path.name for path in disk.iterdir()] == ["out"]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_file_larger_than_a_limit_is_said(jsonl, tmp_path):
    noise = jsonl(*({"text": os.urandom(3000).hex()} for _ in range(200)))
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000));"
        "from toolkit import cli; from toolkit.corpus.__main__ import main; sys.exit(cli.run(main))"
    )
    command = [sys.executable, "-c", code, "build", "jsonl", str(noise), "-o", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(corpus.__file__).parents[2])
    assert done.returncode == 1 and "larger than a limit allows" in done.stderr and "Traceback" not in done.stderr
    assert nothing_left(tmp_path / "out")


def test_a_name_for_the_package_costs_nothing_heavy():
    code = (
        "import sys, toolkit.corpus, toolkit.corpus.__main__, toolkit.corpus.world, toolkit.corpus.jats;"
        "print(sorted({'torch', 'numpy', 'lxml', 'zstandard', 'sentencepiece', 'pyarrow'} & set(sys.modules)))"
    )
    root = Path(corpus.__file__).parents[2]
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=root).strip() == "[]"
