"""What the page says, and that nothing in a run folder can do more than be shown on it."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.report import sample
from toolkit import files
from toolkit.errors import DiskFull, RunError
from toolkit.report import build
from toolkit.report.charts import smooth, thin, ticks
from toolkit.report.values import clock, duration, moment, text

TAGS = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "section", "article", "nav", "footer", "div"),
    *("span", "p", "a", "h1", "h2", "h3", "strong", "small", "ul", "li", "dl", "dt", "dd", "pre", "details", "summary"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td", "figure", "figcaption"),
    *("svg", "desc", "line", "text", "rect", "polyline", "circle"),
}
NUMBERS = {"x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "width", "height", "rx"}


class Page(HTMLParser):
    """Tags, attributes and visible text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += f"{data} "


def page(run: Path) -> tuple[str, Page]:
    html = build(run).read_text(encoding="utf-8")
    return html, Page(html)


def told(parsed: Page) -> str:
    return " ".join(parsed.words.replace("\u00a0", " ").split())


def test_a_finished_run(tmp_path: Path) -> None:
    html, parsed = page(sample.make(tmp_path / "demo-1"))
    words = told(parsed)
    verdict = "accuracy 24.6 % \u2192 91.4 % after continued pretraining, 89.1 % after finetuning; chance is 25 %"
    assert verdict in words
    assert "a rise beyond sampling error (256 questions)" in words
    assert "not for clinical use" in words
    assert "19.7 to 30.2 %" in words and "234 / 256" in words
    assert "Resumed at step 176" in words
    assert "export-finetune" in words and "2 attempts: failed, done" in words
    assert "git checkout 3f5c1e9a" in words
    assert "python -m toolkit.launch recipe=demo 'score.benchmarks=[demo_cloze,pubmedqa]'" in words
    assert "this commit alone is not exactly what ran" in words
    assert "1.23 M" in words and "2 \u00d7 2 \u00d7 1" in words
    assert "Not everything could be read" not in words
    charts = [attributes for tag, attributes in parsed.tags if tag == "svg" and attributes.get("role") == "img"]
    assert len(charts) == 2 * (4 + 4 + 2)
    ids = [attributes["id"] for _, attributes in parsed.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    for chart in charts:
        assert {f"{chart['id']}-t", f"{chart['id']}-d"} <= set(ids)
        assert re.search(rf'id="{chart["id"]}-d">[^<]+\d', html), "a chart's description names numbers"


def test_the_papers_numbers_stand_beside_a_benchmark_of_the_paper(tmp_path: Path) -> None:
    words = told(page(sample.make(tmp_path / "run"))[1])
    for cell in ("49.1 % \u00b1 51.1", "79.8 % \u00b1 0.46", "61.8 %", "81.6 %"):
        assert cell in words
    assert "Table 4 in-context, 3-shot (7B) or 5-shot (70B)" in words
    assert "Paper, Table 5: finetuned, top-token" in words
    assert "89 % was its ceiling" in words
    assert "high school biology 310" in words and "Table 12, SC-CoT" in words


def test_a_benchmark_that_the_paper_lacks_has_no_landmarks(tmp_path: Path) -> None:
    row = sample.score("base", "bioasq", "BioASQ", "letter", 5, 10, 0.5, paper="BioASQ")
    sample.put(tmp_path / "stages/score/scores.json", [row])
    words = told(page(tmp_path)[1])
    assert "no column 'BioASQ'" in words and "Llama-2-7B" not in words


def test_what_is_not_there_yet_is_said(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(sample.RECIPE)
    words = told(page(tmp_path)[1])
    assert "Nothing has been trained or scored yet" in words and "not started" in words
    for stage in ("score", "pretrain", "finetune"):
        assert f"The {stage} stage has not run yet" in words
    assert "holds no manifest.json" in words and "none to repeat" in words
    (tmp_path / "recipe.yaml").write_text("name: x\nstages: [pretrain]\n")
    words = told(page(tmp_path)[1])
    assert "This recipe has no finetune stage" in words and "This recipe has no score stage" in words


def test_a_run_in_the_middle_of_training(tmp_path: Path) -> None:
    run = sample.make(tmp_path / "run")
    for name in ("pretrain", "export", "finetune", "export-finetune", "score"):
        (run / f"stages/{name}/done.json").unlink()
    (run / "stages/score/scores.json").unlink()
    attempt = {"job_id": "1", "started": "2026-03-14T09:27:00Z", "ended": None, "state": "running"}
    sample.put(run / "jobs.json", {"stages": [{"id": "pretrain", "stage": "pretrain", "attempts": [attempt]}]})
    (run / "stages/finetune/metrics.jsonl").unlink()
    words = told(page(run)[1])
    assert "running, in pretrain (4 of 9 stages done)" in words
    assert re.search(r"Loss of pretraining 7\.\d+ \u2192 1\.\d+ over 300 steps", words)


@pytest.mark.parametrize("name", ["recipe.yaml", "manifest.json", "jobs.json", "stages"])
def test_any_one_thing_of_a_run_makes_a_page(tmp_path: Path, name: str) -> None:
    whole, part = sample.make(tmp_path / "whole"), tmp_path / "part"
    part.mkdir()
    os.rename(whole / name, part / name)
    assert told(page(part)[1]).count("Run report") == 1
    assert told(page(whole)[1]).count("Run report") == 1


def test_the_70b_stands_beside_the_papers_loss(tmp_path: Path) -> None:
    recipe = "name: p\nstages: [pretrain]\nmodel: {layers: 80, hidden: 8192}\n"
    recipe += "train: {global_batch: 512, seq_length: 4096}\nparallel: {tp: 8, pp: 8}\n"
    recipe += "cluster: {nodes: 16, devices_per_node: 8}\n"
    (tmp_path / "recipe.yaml").write_text(recipe)
    rows = [{"step": step, "loss": 1.3, "valid_loss": 1.25 + step / 1e6} for step in range(500, 23001, 500)]
    sample.lines(tmp_path / "stages/pretrain/metrics.jsonl", rows)
    words = told(page(tmp_path)[1])
    assert "48 B 1.247 1.273 at 48.2 B" in words and "40,200 tokens/s on 128 A100-80GB" in words
    assert "8 \u00d7 8 \u00d7 2" in words
    (tmp_path / "recipe.yaml").write_text(recipe.replace("80", "32"))
    assert "40,200" not in told(page(tmp_path)[1])


def test_a_long_training_makes_a_page_of_moderate_size_that_keeps_its_spikes(tmp_path: Path) -> None:
    rows = sample.curve(23_000, 1.43, 1.24, 1.5e-4, 1, 40_200, 500)
    rows[9_000]["loss"] = 7.5
    sample.lines(tmp_path / "stages/pretrain/metrics.jsonl", rows)
    html, _ = page(tmp_path)
    assert len(html) < 1_000_000
    # Only with the spike drawn does the axis reach 7.
    assert re.search(r'class="tick"[^>]*>[67]\.0<', html)


def test_hostile_text_is_inert(tmp_path: Path) -> None:
    html, parsed = page(sample.hostile(tmp_path / "run"))
    assert {tag for tag, _ in parsed.tags} <= TAGS
    for tag, attributes in parsed.tags:
        assert not [
            name for name in attributes if name.startswith("on") or name in ("src", "srcdoc", "style", "xlink:href")
        ]
        if "href" in attributes:
            assert attributes["href"].startswith("#") or attributes["href"].startswith("https://arxiv.org/")
        for name in NUMBERS & set(attributes):
            assert re.fullmatch(r"-?\d+(\.\d+)?", attributes[name]), (tag, name, attributes[name])
        if "points" in attributes:
            assert re.fullmatch(r"[-\d., ]+", attributes["points"])
    assert "<script>document.title" in parsed.words and "{{ 7 * 7 }}" in parsed.words
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x08\x0b-\x1f]", html)
    assert "W" * 500 not in re.sub(r"<pre>.*?</pre>", "", html, flags=re.S)
    assert not re.search(r"\b(nan|inf|infinity)\b", html.split('id="settings"')[0], re.I)


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    html, parsed = page(sample.make(tmp_path / "run"))
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in parsed.tags}
    assert not re.search(r"@import|url\(|src=|javascript:", html)
    links = {attributes["href"] for tag, attributes in parsed.tags if tag == "a"}
    assert {link for link in links if not link.startswith("#")} == {"https://arxiv.org/abs/2311.16079"}
    (policy,) = [a["content"] for tag, a in parsed.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    anchors = {attributes.get("id") for _, attributes in parsed.tags}
    assert {link[1:] for link in links if link.startswith("#")} <= anchors


def test_the_same_folder_gives_the_same_page(tmp_path: Path) -> None:
    run = sample.make(tmp_path / "run")
    assert build(run, tmp_path / "a.html").read_bytes() == build(run, tmp_path / "deep/b.html").read_bytes()


def test_nowhere_to_write(tmp_path: Path) -> None:
    run = sample.make(tmp_path / "run")
    with pytest.raises(RunError, match="over a folder"):
        build(run, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        build(run, tmp_path / "file/report.html")


def test_a_full_disk_leaves_the_page_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, small = sample.make(tmp_path / "run"), tmp_path / "small"
    small.mkdir()
    mounted = (
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], capture_output=True).returncode == 0
    )
    try:
        (small / "report.html").write_text("old")
        if not mounted:  # no right to mount: the write call itself says that the disk is full

            def full(_: int) -> None:
                raise OSError(errno.ENOSPC, "No space left on device")

            monkeypatch.setattr(files.os, "fsync", full)
        with pytest.raises(DiskFull):
            build(run, small / "report.html")
        assert [path.name for path in small.iterdir()] == ["report.html"]
        assert (small / "report.html").read_text() == "old"
    finally:
        if mounted:
            subprocess.run(["umount", small], check=True)


def test_an_interruption_leaves_the_page_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = sample.make(tmp_path / "run")
    before = build(run).read_bytes()
    (run / "recipe.yaml").unlink()

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build(run)
    assert (run / "report.html").read_bytes() == before
    assert not [path for path in run.iterdir() if path.name.endswith(".part")]


def command(*arguments: object) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "toolkit.report", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, cwd=Path(__file__).parents[2])


def test_the_command(tmp_path: Path) -> None:
    run = sample.make(tmp_path / "demo-1")
    done = command(run, "-o", tmp_path / "out.html", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["report"] == str(tmp_path / "out.html") and (tmp_path / "out.html").is_file()
    assert answer["run"] == "demo-1" and answer["state"] == "done" and answer["notes"] == []
    assert "24.6 % \u2192 91.4 %" in answer["verdict"]
    (run / "jobs.json").write_text("{")
    done = command(run)
    assert done.stdout.splitlines()[-1] == str(run / "report.html")
    assert done.stderr.startswith("note: jobs.json is damaged (line 1")


def test_the_command_refuses_a_folder_that_is_no_run(tmp_path: Path) -> None:
    done = command(tmp_path, "--json")
    assert done.returncode == 1 and json.loads(done.stdout)["error"] == "RunError"
    assert done.stderr.count("\n") == 1 and "this folder is no run" in done.stderr
    assert command().returncode == 2


def test_the_package_is_cheap_to_import() -> None:
    code = "import sys, toolkit.report; print({'torch', 'numpy', 'yaml', 'jinja2', 'hydra'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == "set()", done.stderr


@pytest.mark.parametrize(("low", "high"), [(0, 1), (1.24, 1.43), (0, 3e-4), (-5, 1e9), (1, 2), (0, 40_200)])
@pytest.mark.parametrize("about", [3, 5, 10])
def test_ticks_are_round_and_inside(low: float, high: float, about: int) -> None:
    found = ticks(low, high, about)
    assert 2 <= len(found) <= 2 * about + 1
    assert all(low - 1e-9 * (high - low) <= tick <= high + 1e-9 * (high - low) for tick in found)


def test_thinning_keeps_the_ends_and_every_extreme() -> None:
    points = [(step, float(step % 97)) for step in range(20_000)]
    points[12_345] = (12_345, -50.0)
    kept = thin(points, 300)
    assert len(kept) <= 600 and (12_345, -50.0) in kept and set(kept) <= set(points)
    assert kept == sorted(kept)


def test_smoothing_leaves_gaps_out_of_the_mean() -> None:
    points = [(step, float("nan") if step == 5 else 2.0) for step in range(20)]
    assert [value for _, value in smooth(points, 5)] == [2.0] * 20


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (3.42, "3.4 s"),
        (59.6, "60 s"),
        (125, "2 min 5 s"),
        (49_800, "13 h 50 min"),
        (1_195_200, "13 d 20 h"),
        (None, "\u2013"),
    ],
)
def test_durations(seconds: float | None, shown: str) -> None:
    assert duration(seconds) == shown


def test_text_is_bounded_and_visible() -> None:
    assert text("a\u202eb\x1bc") == "a\\u202eb\\u001bc"
    assert text("x" * 1000, 10) == "x" * 10 + "\u2026"
    assert len(text("Z" + "\u0351" * 300)) <= 6
    assert text("\ud800").encode() == b"\\ud800"
    assert (
        text("m\u00e9decine \u533b\u5b66 \u0639\u0631\u0628\u064a")
        == "m\u00e9decine \u533b\u5b66 \u0639\u0631\u0628\u064a"
    )


@pytest.mark.parametrize(
    "value",
    [
        "2026-03-14T09:26:53Z",
        "2026-03-14T10:26:53+0100",
        "2026-03-14T09:26:53+00:00",
        "2026-03-14 09:26:53",
        1773480413.2,
    ],
)
def test_moments(value: object) -> None:
    assert clock(moment(value)) == "2026-03-14 09:26 UTC"


@pytest.mark.parametrize("value", ["never", "", None, True, float("nan"), -1, 1e300, [2026]])
def test_what_is_no_moment(value: object) -> None:
    assert moment(value) is None
