"""JATS articles come out as a reader would wish; hostile and broken ones are set aside with file and line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from toolkit.corpus import BadRow, Document, Source, build, jats
from toolkit.errors import DataError

pytest.importorskip("lxml")

HEAD = """<article xmlns:xlink="http://www.w3.org/1999/xlink" xmlns:mml="http://www.w3.org/1998/Math/MathML">
<front><journal-meta><journal-title-group><journal-title>Annals of Nowhere</journal-title></journal-title-group>
</journal-meta><article-meta>
<article-id pub-id-type="pmc">{pmc}</article-id><article-id pub-id-type="doi">10.1/{pmc}</article-id>
<title-group><article-title>Fever in <italic>Testus</italic> patients<xref ref-type="fn" rid="n">*</xref>
</article-title></title-group><contrib-group><contrib><name><surname>Secret</surname></name><email>a@b.c</email></contrib></contrib-group>
<pub-date><year>2020</year></pub-date><pub-date><month>Feb</month><day>3</day><year>2020</year></pub-date>
<permissions><license xlink:href="https://creativecommons.org/licenses/by/4.0/"><license-p>Free.</license-p></license>
</permissions><abstract><p>Short.</p></abstract><abstract abstract-type="graphical"><p>Picture</p></abstract>
</article-meta></front>"""
BACK = """<back><ack><p>Thanks to all</p></ack>
<ref-list><ref><mixed-citation>Cited Work</mixed-citation></ref></ref-list></back>"""


def article(body: str, pmc: str = "77") -> str:
    return f"{HEAD.format(pmc=pmc)}<body>{body}</body>{BACK}</article>"


def read_text(folder: Path, xml: str | bytes, name: str = "a.nxml") -> Document | BadRow:
    (folder / name).write_bytes(xml if isinstance(xml, bytes) else xml.encode())
    (item,) = jats.read(folder / name, "pmc", {})
    return item


def body_text(folder: Path, body: str) -> str:
    doc = read_text(folder, article(f"<sec><title>S</title>{body}</sec>"))
    assert isinstance(doc, Document), doc
    return doc.text.split("# S\n\n", 1)[1]


def test_title_abstract_headings_and_nothing_of_the_rest(tmp_path):
    doc = read_text(
        tmp_path,
        article(
            "<sec><title>Methods</title><p>We looked.</p><sec><label>1.1</label><title>Patients</title><p>Ten.</p>"
            "<sec><title>Ages</title><p>Old.</p></sec></sec></sec>"
            "<sec><title>Competing interests</title><p>None of it</p></sec>"
            "<sec sec-type='supplementary-material'><title>Files</title><p>Table S1</p></sec>"
        ),
    )
    assert doc.text == (
        "Fever in Testus patients\n\n# Abstract\n\nShort.\n\n# Methods\n\nWe looked."
        "\n\n## Patients\n\nTen.\n\n## Ages\n\nOld."
    )
    assert (doc.id, doc.title) == ("PMC77", "Fever in Testus patients")
    assert (doc.license, doc.date) == ("CC-BY-4.0", "2020-02-03")
    assert doc.url.endswith("/PMC77/") and doc.meta["doi"] == "10.1/77" and doc.meta["journal"] == "Annals of Nowhere"


CITE = '<xref ref-type="bibr" rid="b1">1</xref>'


@pytest.mark.parametrize(
    ("inside", "text"),
    [
        (f"Known [{CITE},{CITE}-{CITE}], new.", "Known, new."),
        (f"Known <sup>{CITE},{CITE}</sup>.", "Known."),
        (f"Known.<sup>{CITE}</sup> Next", "Known. Next"),
        (f"Known ({CITE}; {CITE}).", "Known."),
        (f"Known (see {CITE}) it", "Known it"),
        (f"Smith et al. [{CITE}] examined", "Smith et al. examined"),
        (f"a range [95% CI 1.2–3.4] {CITE}.", "a range [95% CI 1.2–3.4]."),
        (f"rate (12%, n = 3) [{CITE}]", "rate (12%, n = 3)"),
        (f"rate (12%; {CITE})", "rate (12%)"),
        (f"rate (12%; [{CITE},{CITE}]) is", "rate (12%) is"),
        (f"shape [{CITE}, their figure five].", "shape [their figure five]."),
        ("glucose &lt;18 mg/dl or &gt; 30, p &lt; 0.05", "glucose <18 mg/dl or > 30, p < 0.05"),
        ("HR 0.71 [0.55, 0.92] and [Ca]", "HR 0.71 [0.55, 0.92] and [Ca]"),
        ("10<sup>-3</sup> kg/m<sup>2</sup> H<sub>2</sub>O Ca<sup>2+</sup>", "10^-3 kg/m^2 H2O Ca^2+"),
        ("the 1<sup>st</sup> trial", "the 1st trial"),
        ("&#955; &#x3b1;-blocker 5&#160;µg ± 2", "λ α-blocker 5 µg ± 2"),
        ('as in Table <xref ref-type="table" rid="t">1</xref>', "as in Table 1"),
        ("a<!-- hidden --> b<?pi x?> c<break/>d", "a b c d"),
        ("mail <email>x@y.z</email> us", "mail us"),
        ('<ext-link xlink:href="http://a.b">the site</ext-link>', "the site"),
        (
            "<inline-formula><mml:math><mml:mfrac><mml:mi>a</mml:mi><mml:mi>b</mml:mi></mml:mfrac><mml:mo>=</mml:mo>"
            "<mml:msup><mml:mi>x</mml:mi><mml:mn>2</mml:mn></mml:msup></mml:math></inline-formula> holds",
            "(a)/(b)=x^2 holds",
        ),
        (
            "so <inline-formula><tex-math>\\documentclass{x}\\begin{document}$$x &lt; 1$$\\end{document}</tex-math>"
            "</inline-formula>",
            "so x < 1",
        ),
    ],
)
def test_inline_markup(tmp_path, inside, text):
    assert body_text(tmp_path, f"<p>{inside}</p>") == text


def test_captions_stay_cells_go_and_lists_are_lists(tmp_path):
    text = body_text(
        tmp_path,
        "<p>Before <table-wrap><label>Table 1</label><caption><title>Doses</title><p>In mg.</p></caption>"
        "<table><tr><td>CELL</td></tr></table><table-wrap-foot><p>FOOT</p></table-wrap-foot></table-wrap> after.</p>"
        "<fig><label>Figure 2.</label><caption><p>A curve [95% CI].</p></caption><graphic/></fig>"
        "<list><list-item><p>one</p></list-item><list-item><p>two</p></list-item></list>"
        "<def-list><def-item><term>MI</term><def><p>infarction</p></def></def-item></def-list>"
        "<boxed-text><caption><title>Key points</title></caption><p>Rest.</p></boxed-text>"
        "<disp-formula><mml:math><mml:mi>E</mml:mi></mml:math></disp-formula>",
    )
    assert text.split("\n\n") == [
        "Before", "Table 1. Doses In mg.", "after.", "Figure 2. A curve [95% CI].", "- one\n- two", "- MI: infarction",
        "Key points", "Rest.", "E",
    ]  # fmt: skip


def test_real_articles_read_as_they_should(pmc):
    docs = {doc.id: doc for doc in jats.read(pmc, "pmc", {})}
    assert set(docs) == {"PMC3166277", "PMC2329613", "PMC3574550", "PMC1790863"}
    assert {doc.license for doc in docs.values()} == {"CC-BY-2.0", "CC-BY-NC-3.0", "CC-BY"}
    for doc in docs.values():
        assert doc.text.startswith(f"{doc.title}\n\n# Abstract\n\n") and len(doc.text) > 20_000
        assert not [bit for bit in ("[]", "()", "[,", "  ", " .", " ,", "[-") if bit in doc.text.replace("...", "")]
        assert "\n# " in doc.text and "\n## " in doc.text
        assert "@" not in doc.text and "\ue000" not in doc.text
    text = docs["PMC3166277"].text
    assert "bacteriophage (phage) λ, Escherichia coli" in text
    assert "Authors' contributions" not in text and "Supplementary Material" not in text
    assert "Reisine et al. examined" in docs["PMC2329613"].text
    assert docs["PMC2329613"].date == "2008-04-11"


def test_folders_packed_files_and_sets_of_articles_are_read(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "a.xml").write_text(article("<p>a</p>", "1"))
    (tmp_path / "b.nxml.gz").write_bytes(gzip.compress(article("<p>b</p>", "2").encode()))
    both = article("<p>c</p>", "3") + article("<p>d</p><sub-article/>", "4")
    (tmp_path / "c.xml").write_text(f"<pmc-articleset>{both}</pmc-articleset>")
    (tmp_path / "notes.txt").write_text("not read")
    assert sorted(doc.id for doc in jats.read(tmp_path, "pmc", {})) == ["PMC1", "PMC2", "PMC3", "PMC4"]


def test_named_letters_of_the_unread_dtd_are_kept(tmp_path):
    dtd = '<!DOCTYPE article SYSTEM "http://127.0.0.1:9/no.dtd">'
    xml = dtd + article("<p>&alpha;-blocker 5&nbsp;mg &unheard;x</p>")
    assert read_text(tmp_path, xml).text.endswith("α-blocker 5 mg x")


BOMB = "<!DOCTYPE article [<!ENTITY a 'ha'>" + "".join(
    f"<!ENTITY {chr(98 + i)} '{f'&{chr(97 + i)};' * 10}'>" for i in range(10)
) + "]>"  # fmt: skip


@pytest.mark.parametrize(
    ("xml", "line", "why"),
    [
        (article("<p>one\ntwo<b>three</p>"), 11, "malformed XML"),
        (article("<p>cut off</p>")[:-60], 10, "malformed XML"),
        ("", 0, "empty"),
        ("plain words", 1, "malformed XML"),
        ("<html><body>a page</body></html>", 1, "the root is <html>"),
        (article("<p>x</p>").encode("utf-16-le"), 1, "malformed XML"),
        (b'<?xml version="1.0" encoding="utf-8"?>' + article("<p>\xe9</p>").encode("latin-1"), 10, "malformed XML"),
        (article("<p>nul \0 byte</p>"), 10, "malformed XML"),
        (BOMB + article("<p>&k;</p>"), 0, "entities"),
        (BOMB + article("<p title='&k;'>x</p>"), 0, "entities"),
        ("<!DOCTYPE article [<!ENTITY e SYSTEM 'file:///etc/passwd'>]>" + article("<p>&e;</p>"), 0, "entities"),
        ("<!DOCTYPE article [<!ENTITY % e SYSTEM 'http://127.0.0.1:9/x'>%e;]>" + article("<p>x</p>"), 0, "entities"),
        ((BOMB + article("<p>&k;</p>")).encode("utf-16"), 0, "entities"),
        (article("<sec>" * 100_000 + "</sec>" * 100_000), 10, "nest|depth"),
    ],
)
def test_broken_and_hostile_files_are_set_aside_with_their_line(tmp_path, xml, line, why):
    row = read_text(tmp_path, xml)
    assert isinstance(row, BadRow) and row.file == str(tmp_path / "a.nxml")
    assert any(word in row.why for word in why.split("|")), row.why
    assert row.line == line or why.startswith(("malformed", "nest")) and row.line > 0


def test_truncated_and_false_gzip_files_are_set_aside(tmp_path):
    whole = gzip.compress(article("<p>x</p>").encode())
    for data in (whole[:-20], whole[:5], b"no gzip", whole[:50] + b"\0" * 40 + whole[90:]):
        row = read_text(tmp_path, data, "a.nxml.gz")
        assert isinstance(row, BadRow) and ("gzip" in row.why), row


def test_an_article_nested_deeply_but_within_the_parser_is_no_crash(tmp_path):
    item = read_text(tmp_path, article("<p>" + "<italic>" * 200 + "x" + "</italic>" * 200 + "</p>"))
    assert isinstance(item, BadRow) or item.text.endswith("x")


def test_an_article_without_prose_is_counted_as_empty(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.xml").write_text("<article><front/></article>")
    (tmp_path / "in" / "b.xml").write_text(article("<p>x</p>"))
    source = Source(kind="jats", path=tmp_path / "in")
    report = build(sources=[source], out=tmp_path / "out", seed=0, valid_fraction=0)
    assert report.removed == {"empty": 1} and report.documents_out == 1


def test_malformed_files_are_counted_and_too_many_stop_the_build(tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(9):
        (tmp_path / "in" / f"{i}.xml").write_text(article("<p>x</p>", str(i)))
    (tmp_path / "in" / "bad.xml").write_text("<article>\n<front>\n</article>")
    settings = {"sources": [Source(kind="jats", path=tmp_path / "in")], "seed": 0, "valid_fraction": 0.1}
    with pytest.raises(DataError, match=r"1 of 10 rows.*bad\.xml:3"):
        build(out=tmp_path / "out", **settings)
    assert build(out=tmp_path / "out", max_bad_fraction=0.1, **settings).set_aside == 1
    rows = json.loads((tmp_path / "out" / "report.json").read_text())["set_aside_rows"]
    assert [(Path(row["file"]).name, row["line"]) for row in rows] == [("bad.xml", 3)]
