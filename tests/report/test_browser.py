"""The page in a real browser: nothing sticks out sideways, nothing is loaded, nothing runs."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.report import sample
from toolkit.report import build

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDTHS = (1280, 760, 390)

# The window of a headless browser is never narrower than 500 px, so each width is a frame of its own.
FRAMES = """<!doctype html><meta charset="utf-8"><title>waiting</title>%s
<script>
function look(frame) {
  const page = frame.contentDocument, width = frame.clientWidth, out = [];
  page.querySelectorAll("details").forEach(d => { d.open = true; });
  for (const item of page.body.querySelectorAll("*")) {
    const box = item.getBoundingClientRect();
    if (box.width && box.right > width + 1 && !item.closest(".scroll, pre, svg")) out.push(item.outerHTML.slice(0, 80));
  }
  const shown = item => getComputedStyle(item).display !== "none";
  const seen = name => [...page.querySelectorAll("svg." + name)].filter(shown).length;
  return {
    width, scroll: page.documentElement.scrollWidth, out: out.slice(0, 5), wide: seen("wide"), narrow: seen("narrow"),
    loaded: frame.contentWindow.performance.getEntriesByType("resource").map(r => r.name), title: page.title,
    background: getComputedStyle(page.body).backgroundColor, ink: getComputedStyle(page.body).color,
  };
}
onload = () => { document.title = JSON.stringify([...document.querySelectorAll("iframe")].map(look)); };
</script>"""


@pytest.fixture(scope="module")
def browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium on this machine: the page is not looked at")
    return found


def look(browser: str, page: Path, folder: Path, dark: bool = False) -> list[dict]:
    frames = "".join(
        f'<iframe src="{page.as_uri()}" style="width:{w}px;height:900px;border:0"></iframe>' for w in WIDTHS
    )
    (folder / "frames.html").write_text(FRAMES % frames, encoding="utf-8")
    return ask(browser, folder / "frames.html", folder, dark)


def ask(browser: str, page: Path, folder: Path, dark: bool = False) -> list:
    """What the page leaves in its title, as JSON."""
    line = [
        browser, "--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--allow-file-access-from-files", "--disable-dev-shm-usage",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}", f"--user-data-dir={folder / 'profile'}",
        "--virtual-time-budget=5000", "--window-size=1400,1000", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    if os.geteuid() == 0:
        line.insert(1, "--no-sandbox")
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.S)
    assert title, done.stderr[-2000:]
    return json.loads(html.unescape(title.group(1)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["finished", "hostile", "unfinished"])
def test_nothing_sticks_out_and_nothing_is_loaded(browser: str, tmp_path: Path, kind: str) -> None:
    run = tmp_path / "run"
    if kind == "unfinished":
        run.mkdir()
        (run / "recipe.yaml").write_text(sample.RECIPE)
    else:
        (sample.make if kind == "finished" else sample.hostile)(run)
    seen = look(browser, build(run), tmp_path)
    assert [frame["width"] for frame in seen] == list(WIDTHS)
    for frame in seen:
        assert frame["scroll"] <= frame["width"], frame
        assert frame["out"] == [] and frame["loaded"] == []
        assert "report of run" in frame["title"]
        charts = {"finished": 10, "hostile": 3, "unfinished": 0}[kind]
        shown, hidden = ("wide", "narrow") if frame["width"] > 700 else ("narrow", "wide")
        assert frame[hidden] == 0
        assert frame[shown] >= charts if kind == "hostile" else frame[shown] == charts


RELOADS = """<!doctype html><title>waiting</title><iframe src="%s" style="width:390px;height:600px;border:0"></iframe>
<script>
const frame = document.querySelector("iframe");
let loads = 0;
frame.onload = () => {
  loads += 1;
  if (loads == 1) frame.contentWindow.scrollTo(0, 1500);
  if (loads == 3) setTimeout(() => { document.title = JSON.stringify([frame.contentWindow.scrollY]); }, 200);
};
</script>"""


@pytest.mark.slow
def test_a_page_that_reloads_itself_stays_where_it_was_scrolled_to(browser: str, tmp_path: Path) -> None:
    run = sample.make(tmp_path / "run")
    (run / "stages/score/done.json").unlink()
    attempt = {"job_id": "1", "started": "2026-03-14T09:27:00Z", "ended": None, "state": "running"}
    sample.put(run / "jobs.json", {"stages": [{"id": "score", "stage": "score", "attempts": [attempt]}]})
    text = build(run).read_text(encoding="utf-8")
    quick = tmp_path / "quick.html"
    quick.write_text(text.replace('http-equiv="refresh" content="15"', 'http-equiv="refresh" content="1"'))
    assert 'content="1"' in quick.read_text()
    (tmp_path / "frame.html").write_text(RELOADS % quick.as_uri(), encoding="utf-8")
    assert ask(browser, tmp_path / "frame.html", tmp_path) == [1500]


@pytest.mark.slow
def test_light_and_dark(browser: str, tmp_path: Path) -> None:
    page = build(sample.make(tmp_path / "run"))
    light, dark = (look(browser, page, tmp_path, dark)[0] for dark in (False, True))

    def brightness(colour: str) -> float:
        return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3

    assert brightness(light["background"]) > 200 > 80 > brightness(light["ink"])
    assert brightness(dark["background"]) < 60 < 180 < brightness(dark["ink"])
