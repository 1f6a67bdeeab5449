"""The corpus folder: whole or absent, every loss counted, the split the same whatever the order."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit import corpus
from toolkit.corpus import Source, build
from toolkit.corpus.split import position
from toolkit.errors import DataError, DiskFull, RecipeError

FIELDS = ["id", "source", "subset", "title", "text", "url", "license", "date", "meta"]


def make(path: Path | None, out: Path, **more):
    settings = {"seed": 7, "valid_fraction": 0.2, **more}
    return build(sources=[Source(kind="jsonl", path=path, subset="s")], out=out, **settings)


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def nothing_left(out: Path) -> bool:
    return not out.exists() and not list(out.parent.glob(f".{out.name}*"))


def test_documents_keep_their_fields_and_every_loss_is_counted(jsonl, tmp_path):
    path = jsonl(
        {"id": "a", "text": "Give 5 mg if glucose < 18 mg/dl [95% CI 1.2-3.4].", "title": "T", "year": 2020},
        {"id": "b", "text": "free", "license": "creativecommons.org/licenses/by/4.0/", "source": "who", "date": "2020"},
        {"id": "c", "text": "bound", "license": "CC BY-NC-ND 4.0"},
        {"id": "d", "text": " \n "},
        b"{not json",
        *({"id": f"x{i}", "text": f"text {i}"} for i in range(20)),
    )
    report = make(path, tmp_path / "out", max_bad_fraction=0.1)
    rows = {row["id"]: row for part in ("train", "valid") for row in rows_of(tmp_path / "out" / f"{part}.jsonl")}
    assert len(rows) == report.documents_out == report.train + report.valid == 22
    assert report.documents_in == 25 == report.documents_out + sum(report.removed.values())
    assert report.removed == {"licence": 1, "empty": 1, "bad_row": 1} and report.set_aside == 1
    assert report.unknown_licence == 21
    assert all(list(row) == FIELDS for row in rows.values())
    assert rows["a"]["text"] == "Give 5 mg if glucose < 18 mg/dl [95% CI 1.2-3.4]."
    assert rows["a"]["meta"] == {"file": "in.jsonl", "year": 2020} and rows["a"]["license"] == "unknown"
    assert rows["b"]["license"] == "CC-BY-4.0" and rows["b"]["source"] == "who" and rows["b"]["date"] == "2020"
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (written["in"], written["out"], written["set_aside"], written["unknown_licence"]) == (25, 22, 1, 21)
    assert written["set_aside_rows"] == [{"file": str(path), "line": 5, "why": written["set_aside_rows"][0]["why"]}]
    assert "not JSON" in written["set_aside_rows"][0]["why"]
    removed = {rule["rule"]: rule for rule in written["rules"]}
    assert removed["licence"]["removed"] == 1 and removed["licence"]["examples"][0]["id"] == "c"
    counts = written["subsets"]["s"]
    assert counts["in"] == counts["out"] + sum(counts[rule] for rule in removed) == 25
    assert counts["characters"] == written["characters"] == sum(len(row["text"]) for row in rows.values())


def test_noncommercial_texts_enter_when_allowed(jsonl, tmp_path):
    path = jsonl({"text": "a", "license": "cc-by-nc-4.0"}, {"text": "b"})
    assert make(path, tmp_path / "out").removed == {"licence": 1}
    assert make(path, tmp_path / "out", allow_noncommercial=True).documents_out == 2


def test_real_articles_lose_the_noncommercial_one(pmc, tmp_path):
    settings = {"sources": [Source(kind="jats", path=pmc)], "seed": 0, "valid_fraction": 0.03}
    report = build(out=tmp_path / "out", **settings)
    assert (report.documents_in, report.documents_out, report.removed) == (4, 3, {"licence": 1})
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    lost = next(rule for rule in written["rules"] if rule["rule"] == "licence")["examples"]
    assert [(row["file"], row["license"]) for row in lost] == [("mds526.nxml", "CC-BY-NC-3.0")]
    assert build(out=tmp_path / "out", allow_noncommercial=True, **settings).documents_out == 4


def test_the_world_is_a_source_like_any_other(tmp_path):
    options = {"documents_per_entity": 2}
    sources = [Source(kind="world", subset="demo", options=options)]
    report = build(sources=sources, out=tmp_path / "out", seed=0, valid_fraction=0.1)
    assert report.documents_out == 2 * 120 + 80 and not report.removed
    assert {row["subset"] for row in rows_of(tmp_path / "out" / "train.jsonl")} == {"demo"}


def test_the_split_is_the_same_whatever_the_order_or_the_company(jsonl, tmp_path):
    rows = [{"id": f"d{i}", "text": f"text {i}"} for i in range(200)]

    def valid(some, **more) -> set[str]:
        make(jsonl(*some), tmp_path / "out", **more)
        return {row["id"] for row in rows_of(tmp_path / "out" / "valid.jsonl")}

    whole = valid(rows)
    assert valid(rows[::-1]) == whole
    assert valid(rows[:100]) == whole & {row["id"] for row in rows[:100]}
    assert valid(rows, seed=8) != whole
    assert valid(rows, valid_fraction=0.1) < whole
    assert 20 <= len(whole) <= 60


@given(st.integers(), st.text(), st.floats(0, 1))
def test_positions_lie_between_zero_and_one_and_fractions_nest(seed, name, fraction):
    at = position(seed, name)
    assert 0 <= at < 1 and at == position(seed, name)
    assert not (at < fraction / 2) or at < fraction


def test_positions_are_spread_evenly():
    share = sum(position(3, f"id{i}") < 0.03 for i in range(20000)) / 20000
    assert 0.026 < share < 0.034


def test_neither_part_of_a_small_corpus_is_empty(jsonl, tmp_path):
    path = jsonl(*({"id": f"d{i}", "text": "t"} for i in range(3)))
    for fraction in (1e-9, 0.999999):
        report = make(path, tmp_path / "out", valid_fraction=fraction)
        assert sorted((report.train, report.valid)) == [1, 2]
        assert len(rows_of(tmp_path / "out" / "train.jsonl")) == report.train
        assert len(rows_of(tmp_path / "out" / "valid.jsonl")) == report.valid
        assert "moved" in json.loads((tmp_path / "out" / "report.json").read_text())["moved"]
        assert {p.name for p in (tmp_path / "out").iterdir()} == {"train.jsonl", "valid.jsonl", "report.json"}
    only = jsonl({"id": "d", "text": "t"}, name="one.jsonl")
    for fraction in (0.0, 0.5, 0.999999):
        assert make(only, tmp_path / "out", valid_fraction=fraction).train == 1
    assert make(path, tmp_path / "out", valid_fraction=0.0).valid == 0


def test_a_second_build_gives_the_same_bytes_and_replaces_the_first(jsonl, tmp_path):
    path = jsonl(*({"text": f"text {i}"} for i in range(50)))
    make(path, tmp_path / "a")
    (tmp_path / "a" / "stale").write_text("")
    make(path, tmp_path / "a")
    make(path, tmp_path / "b")
    assert not (tmp_path / "a" / "stale").exists()
    for name in ("train.jsonl", "valid.jsonl", "report.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_nothing_but_a_corpus_is_ever_replaced(jsonl, tmp_path):
    path = jsonl({"text": "t"})
    precious = tmp_path / "home"
    precious.mkdir()
    (precious / "thesis.tex").write_text("years")
    with pytest.raises(DataError, match="no corpus"):
        make(path, precious)
    with pytest.raises(DataError, match="no corpus"):
        make(path, path)
    assert (precious / "thesis.tex").read_text() == "years" and path.exists()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "report.json").write_text("{}")
    inside = tmp_path / "old" / "in.jsonl"
    inside.write_bytes(path.read_bytes())
    with pytest.raises(DataError, match="lies in the output folder"):
        make(inside, tmp_path / "old")
    assert inside.exists()


def test_missing_and_empty_input_is_named_and_leaves_nothing(jsonl, tmp_path):
    (tmp_path / "folder").mkdir()
    empty = tmp_path / "empty.jsonl"
    empty.write_bytes(b"")
    out = tmp_path / "out"
    for path, said in [
        (tmp_path / "gone.jsonl", "no such file"),
        (tmp_path / "folder", "holds no JSON lines"),
        (empty, "empty.jsonl"),
        (jsonl(b"", b"  "), "in.jsonl"),
        (None, "needs a path"),
        (jsonl({"text": ""}, name="blank.jsonl"), "no documents are left"),
        (jsonl({"text": "t", "license": "cc-by-nc-4.0"}, name="nc.jsonl"), "non-commercial"),
    ]:
        with pytest.raises(DataError) as caught:
            make(path, out)
        assert said in str(caught.value)
        assert nothing_left(out)


def test_too_many_bad_rows_stop_the_build_and_name_the_first(jsonl, tmp_path):
    good = [{"id": f"d{i}", "text": "t"} for i in range(98)]
    path = jsonl(*good[:40], b"\xff\xfe", *good[40:], b"[1, 2]")
    with pytest.raises(DataError) as caught:
        make(path, tmp_path / "out")
    assert "2 of 100 rows" in str(caught.value) and f"{path}:41" in str(caught.value)
    assert nothing_left(tmp_path / "out")
    report = make(path, tmp_path / "out", max_bad_fraction=0.02)
    assert report.set_aside == 2 and report.documents_out == 98


def test_a_broken_source_is_not_hidden_by_a_large_sound_one(jsonl, tmp_path):
    large = jsonl(*({"id": f"d{i}", "text": "t"} for i in range(500)), name="large.jsonl")
    broken = jsonl(b"x", name="broken.jsonl")
    with pytest.raises(DataError, match=r"broken\.jsonl"):
        build(
            sources=[Source(kind="jsonl", path=large), Source(kind="jsonl", path=broken)],
            out=tmp_path / "out", seed=0, valid_fraction=0.1,
        )  # fmt: skip


def test_impossible_settings_are_refused(jsonl, tmp_path):
    path = jsonl({"text": "t"})
    for more in ({"valid_fraction": 1}, {"valid_fraction": -0.1}, {"valid_fraction": "0.1"}, {"max_bad_fraction": 2}):
        with pytest.raises(RecipeError):
            make(path, tmp_path / "out", **more)
    with pytest.raises(RecipeError, match="at least one source"):
        build(sources=[], out=tmp_path / "out", seed=0, valid_fraction=0.1)
    with pytest.raises(RecipeError, match="unknown kind of source 'jast'.*'jats'"):
        Source(kind="jast")
    with pytest.raises(RecipeError, match="text_feld.*text_field"):
        build(
            sources=[Source(kind="jsonl", path=path, options={"text_feld": "a"})],
            out=tmp_path / "out", seed=0, valid_fraction=0.1,
        )  # fmt: skip


def test_memory_does_not_grow_with_the_input(tmp_path):
    def peak(rows: int) -> int:
        path = tmp_path / f"{rows}.jsonl"
        with path.open("w") as handle:
            for i in range(rows):
                handle.write(json.dumps({"id": f"d{i}", "text": f"{i} " * 300}) + "\n")
            handle.write("bad\n" * (rows // 10))
        tracemalloc.start()
        make(path, tmp_path / "out", max_bad_fraction=1)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(10)
    assert peak(2000) < peak(200) + 2**20  # against 3 MB more of input


def test_a_full_disk_is_said_and_leaves_the_old_corpus_alone(jsonl, tmp_path, monkeypatch):
    make(jsonl({"text": "old"}), tmp_path / "out")
    before = (tmp_path / "out" / "train.jsonl").read_bytes()
    real_open = open

    class Full:
        def __init__(self, handle):
            self.handle = handle

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.handle.close()

        def write(self, text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def open_full(path, mode="r", **more):
        handle = real_open(path, mode, **more)
        return Full(handle) if "w" in mode else handle

    monkeypatch.setattr("toolkit.corpus.builder.open", open_full, raising=False)
    with pytest.raises(DiskFull):
        make(jsonl({"text": "new"}), tmp_path / "out")
    assert (tmp_path / "out" / "train.jsonl").read_bytes() == before
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.skipif(not Path("/dev/shm").is_dir() or os.name != "posix", reason="needs a small file system to fill")
def test_a_really_full_file_system_is_said(jsonl, tmp_path):
    mount = tmp_path / "small"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", mount], capture_output=True).returncode:
        pytest.skip("no right to mount a small file system")
    try:
        path = jsonl(*({"text": "t" * 1000} for _ in range(200)))
        with pytest.raises(DiskFull, match="no space left"):
            make(path, mount / "out")
        assert list(mount.iterdir()) == []
    finally:
        subprocess.run(["umount", mount], check=True)


def test_ctrl_c_in_the_middle_leaves_nothing(tmp_path):
    pipe, out = tmp_path / "pipe.jsonl", tmp_path / "out"
    os.mkfifo(pipe)
    command = [sys.executable, "-m", "toolkit.corpus", "build", "jsonl", str(pipe), "-o", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=Path(corpus.__file__).parents[2])
    with contextlib.suppress(BrokenPipeError), open(pipe, "wb") as feed:
        feed.write(b'{"text": "one"}\n' * 1000)
        feed.flush()
        while not list(tmp_path.glob(".out.*.part/train.jsonl")):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        while process.poll() is None:  # input without end: only the interrupt can stop this
            feed.write(b'{"text": "more"}\n' * 1000)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in said
    assert nothing_left(out)


def test_a_name_for_the_package_costs_nothing_heavy():
    code = (
        "import sys, toolkit.corpus, toolkit.corpus.world, toolkit.corpus.jats, toolkit.corpus.jsonl;"
        "print(sorted({'torch', 'numpy', 'lxml', 'zstandard', 'sentencepiece'} & set(sys.modules)))"
    )
    root = Path(corpus.__file__).parents[2]
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=root).strip() == "[]"
