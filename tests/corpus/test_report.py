"""Counts that are the same in any order, and a page that says them and loads nothing."""

from __future__ import annotations

import errno
import json
import os
import random
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.report import test_browser
from toolkit.corpus import filters, mend, report, report_page, tally
from toolkit.corpus.document import BadRow, Document, Left
from toolkit.corpus.tally import Tally
from toolkit.errors import DiskFull

browser = test_browser.browser  # the fixture that finds one
HOSTILE = "<script>alert(1)</script>\u202e\x1b[31m &amp; \"'"


def doc(number: int, subset: str = "pmc", **more) -> Document:
    given = {"title": f"Title {number}", "text": f"text {number} " * (1 + number % 50), "license": "CC-BY-4.0"}
    return Document(**{"id": f"PMC{number}", "source": "pmc", "subset": subset, "date": "2020-05-01", **given, **more})


def event(number: int) -> Tally:
    """One of everything that can become of an item, chosen by the number."""
    one, subset = Tally(), ("pmc", "abstracts", "guidelines")[number % 3]
    kind, item = number % 7, doc(number, subset)
    if kind == 1:
        one.read(subset)
        one.bad(
            BadRow(file=f"f{number}.xml", line=number, why=f"malformed XML: tag '{number}'", sample=HOSTILE), subset
        )
    elif kind == 2:
        one.read(subset, 3)
        one.leave(Left(rule="not_sampled", id=f"r{number}", sample="row", count=3), subset)
    elif kind == 3:
        one.read(subset)
        language = f"l{number}"
        one.remove(filters.Removed(rule="language", why=language, sample=item.text, detail=language), item)
    elif kind == 4:
        one.read(subset)
        one.remove(filters.Removed(rule="contaminated", why="item 3", sample=HOSTILE, detail="medqa"), item)
    else:
        one.read(subset)
        one.changed(item, [mend.Change(rule="mail", sample="write to j.doe@unibas.ch")])
        one.keep(item, "valid" if number % 10 == 0 else "train", copies=1 + number % 2)
    if kind == 5:
        one.marked("pubmedqa", item, "item 9", HOSTILE)
        one.withdrawal(subset)
    return one


def together(numbers) -> Tally:
    whole = Tally()
    for number in numbers:
        whole.merge(event(number))
    return whole


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3000), max_size=120, unique=True), st.randoms())
def test_the_order_of_counting_changes_nothing(numbers, shuffle):
    whole = together(numbers)
    other = list(numbers)
    shuffle.shuffle(other)
    cut = len(other) // 3
    parts = [together(other[:cut]), together(other[cut:])]
    parts = [Tally.from_dict(json.loads(json.dumps(part.as_dict()))) for part in parts]
    parts[1].merge(parts[0])
    assert parts[1].as_dict() == whole.as_dict()
    assert whole.lost == 0 and report.summary(parts[1]) == report.summary(whole)


def test_details_beyond_the_bound_become_others_the_same_in_any_order():
    numbers = [7 * i + 3 for i in range(3 * tally.DETAILS)]
    whole = together(numbers)
    random.Random(1).shuffle(numbers)
    assert together(numbers).as_dict() == whole.as_dict()
    counts = whole.details["language"]
    assert len(counts) == tally.DETAILS + 1 and counts["(others)"] == 2 * tally.DETAILS
    assert counts.total() == whole.counted("removed")["language"] == 3 * tally.DETAILS


def test_what_was_not_counted_is_lost_and_said():
    one = Tally()
    one.read("pmc")
    assert one.lost == 1
    one.keep(doc(1), "train")
    assert one.lost == 0


def test_memory_is_bounded_by_the_number_of_rules():
    whole = together(range(4000))
    assert all(len(examples) == tally.EXAMPLES for examples in whole.examples.values())
    assert len(json.dumps(whole.as_dict())) < 60_000


def test_reasons_are_counted_without_what_is_of_one_row_alone():
    assert tally.reason("malformed XML: Opening tag mismatch, line 12") == "malformed XML"
    assert tally.reason("not UTF-8 (byte 17 of the line)") == "not UTF-8 (byte N of the line)"
    assert tally.reason("field 'text' holds list") == tally.reason("field 'body' holds list")


def test_the_summary_adds_up():
    found = report.summary(together(range(700)), settings={"seed": 1}, extra={"moved": ""})
    assert found["in"] == found["out"] + sum(found["removed"].values()) == 700 + 2 * 100
    assert found["out"] == found["train"] + found["valid"] == sum(found["licences"].values())
    for each in found["subsets"].values():
        assert each["in"] == each["out"] + sum(each["removed"].values())
        assert each["out"] == sum(each["years"].values()) == sum(each["lengths"].values())
    assert found["decontamination"] == {
        "medqa": {"removed": 100, "marked": 0},
        "pubmedqa": {"removed": 0, "marked": 100},
    }
    assert found["warnings"] == []
    rules = {"decontamination": {"mode": "mark"}, "benchmarks": {"medqa": "a", "mmlu": "b"}}
    assert report.summary(Tally(), settings=rules)["decontamination"]["mmlu"] == {"removed": 0, "marked": 0}
    without = report.summary(Tally(), settings={**rules, "benchmarks": {}})
    assert "no benchmark is given" in without["warnings"][0] and without["warnings"][0] in report.page(without)
    assert found["bad_rows"] == {"rows": 100, "reasons": {"malformed XML": 100}}
    assert [rule["rule"] for rule in found["rules"]] == ["bad_row", "not_sampled", "language", "contaminated"]
    assert all(rule["meaning"] and rule["examples"] for rule in found["rules"])
    assert found["tokens_estimated"] == round(found["bytes"] / report.BYTES_PER_TOKEN)
    assert found["copies"] > found["out"] and found["withdrawals"] == 100
    assert "j.doe" not in json.dumps(found), "what was taken out of the texts is not in the report either"


def test_years_and_lengths_are_sorted_as_numbers():
    whole = Tally()
    for number, (date, length) in enumerate([("1998", 5), ("2004-05", 900), ("", 70_000), ("May 1901", 1)]):
        whole.read("pmc")
        whole.keep(doc(number, text="x" * length, date=date), "train")
    found = report.summary(whole)
    assert list(found["years"]) == ["1901", "1998", "2004", "unknown"]
    assert found["lengths"] == {"1": 1, "4": 1, "512": 1, "65536": 1}
    page = report.page(found)
    assert "1900 to 1909" in page and "1 documents bear no year" in page


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.open, self.shown, self.links = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "action", "data")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.shown.append(data)


def test_the_page_is_whole_loads_nothing_and_escapes_what_it_shows():
    found = report.summary(together(range(700)), settings={"filters": {"language": {"keep": ["en"]}}, "note": HOSTILE})
    page = Page(report.page(found))
    assert not page.open and "script" not in page.tags and all(link.startswith("#") for link in page.links)
    shown = " ".join(page.shown)
    assert "<script>alert(1)</script>\\u202e\\u001b" in shown and "\u202e" not in shown and "\x1b" not in shown
    for wanted in (
        "not sampled",
        "medqa",
        "filters.language.keep",
        "CC-BY-4.0",
        f"{found['out']:,} of {found['in']:,}",
    ):
        assert wanted in shown
    assert "url(" not in report.page(found) and "@import" not in report.page(found)


def test_a_page_of_nothing_and_of_sound_documents_alone_can_be_made():
    assert "0 of 0 documents" in report.page(report.summary(Tally()))
    whole = Tally()
    whole.read("pmc")
    whole.keep(doc(1), "train")
    assert "Nothing was removed" in report.page(report.summary(whole))


def test_shares_and_sizes_read_well():
    shown = [report_page.short(n) for n in (0, 999, 1000, 12_345, 999_960, 46.7e9)]
    assert shown == ["0", "999", "1.00 k", "12.3 k", "1.00 M", "46.7 B"]
    assert report_page.share(1, 100_000) == "< 0.1 %" and report_page.share(99_999, 100_000) == "> 99.9 %"
    assert report_page.share(0, 0) == "–" and report_page.share(1, 3) == "33.3 %"


def test_both_files_are_written_the_same_every_time(tmp_path):
    found = report.summary(together(range(100)))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        report.write(tmp_path / name, found)
    for name in ("report.json", "report.html"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert json.loads((tmp_path / "a" / "report.json").read_text()) == found


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    def full(*_args, **_more):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DiskFull):
        report.write(tmp_path, report.summary(Tally()))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_nothing_sticks_out_in_a_browser_and_both_schemes_can_be_read(browser, tmp_path):
    found = report.summary(together(range(700)), settings={"a": {"long": "x" * 500}, "b": [{"c": 1}]})
    report.write(tmp_path, found)
    light, dark = (test_browser.look(browser, tmp_path / "report.html", tmp_path, dark=dark) for dark in (False, True))
    for frame in light + dark:
        assert frame["scroll"] <= frame["width"] and frame["out"] == [] and frame["loaded"] == [], frame
        assert frame["title"] == "Corpus report"
    assert [frame["width"] for frame in light] == list(test_browser.WIDTHS)
    assert light[0]["background"] != dark[0]["background"] and light[0]["ink"] != dark[0]["ink"]
