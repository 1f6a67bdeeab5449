"""Guidelines as people have fetched them: what is guidance comes out letter by letter, what is the site's does not."""

from __future__ import annotations

import gzip
import random
import re

import pytest

from toolkit.corpus import guidelines, guidelines_clean, guidelines_html, guidelines_sources
from toolkit.corpus.document import BadRow, Document, Left
from toolkit.errors import RecipeError

CLINICAL = (
    "Give 5 µg/kg if Na < 135 mmol/l or glucose <18 mg/dl … >30; HR 0.71 [95% CI 0.62-0.81], p<0.05 (n=12) [see below]."
)
PAGE = f"""<!DOCTYPE html><html lang="en-GB"><head><meta charset="utf-8"><title>Croup | Example Trust</title>
<link rel="canonical" href="https://example.org/croup"><meta property="article:modified_time" content="2022-03-04">
<style>p {{ color: red }}</style><script>document.write("<p>tracked</p>")</script></head><body class="page">
<a class="skip-link" href="#c">Skip to content</a>
<div id="onetrust-banner"><p>We use cookies to make this site work.</p><button>Accept</button></div>
<header><h1>Example Trust</h1></header><nav><ul><li><a href="/">Home</a></li></ul></nav>
<div role="navigation">You are here: Home</div><main id="c">
<header><h1>Croup in children</h1></header>
<p>{CLINICAL.replace("<", "&lt;").replace(">", "&gt;")}</p>
<p>Count 10<sup>9</sup>/L<sup><a href="#r1">[1]</a></sup>, CO<sub>2</sub> and Ca<sup>2+</sup>;
a raw p<0.01 and 3 < 5.<br>of these<br>o one</p>
<h2>Treatment<a href="#t">¶</a></h2>
<ul><li>Dexamethasone <b>0.15 mg/kg</b><ul><li>oral</li></ul></li><li><p>Oxygen</p></li></ul>
<ol start="3"><li>Third</li><li>Fourth</li></ol>
<aside><p>Key point: keep calm.</p></aside>
<table><caption>Table 1. Doses by age</caption><tr><th>Age</th><th>Dose</th></tr>
<tr><td>&lt;1 y</td><td>0.6 mg/kg (≤ 12 mg)</td></tr></table>
<table role="presentation"><tr><td><p>Laid out by a table.</p></td></tr></table>
<p hidden>Hidden.</p><p style="display: none">Not shown.</p><div class="social-share">Share on X</div>
<dl><dt>Stridor</dt><dd>A harsh sound.</dd></dl>
<h2>References</h2><ol><li id="r1">Smith J. 2001.</li></ol><h3>More of them</h3><p>Doe J.</p>
<h2>Follow-up</h2><p>See the child after 24 h.</p></main>
<div class="sidebar-nav">Other pages</div><footer><p>© 2024 Example Trust</p></footer></body></html>"""


def read(path, **options):
    given = {key: value for key, value in options.items() if key not in ("tables", "markup") and key[0] != "_"}
    guidelines.check(given)
    return list(guidelines.read(path, "guidelines", options))


def rooted(root, path, **options):
    return read(path, **options, **guidelines.prepare([root], options, root))


def put(root, name, data):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def test_a_page_comes_out_as_a_reader_would_wish(tmp_path):
    path = put(tmp_path, "who/croup.html", PAGE)
    (doc,) = rooted(tmp_path, path, tables="text")
    assert doc.text.split("\n\n") == [
        "# Croup in children",
        CLINICAL,
        "Count 10^9/L, CO2 and Ca^2+; a raw p<0.01 and 3 < 5.\nof these\no one",
        "## Treatment",
        "- Dexamethasone 0.15 mg/kg\n  - oral\n- Oxygen\n3. Third\n4. Fourth",
        "Key point: keep calm.",
        "Table 1. Doses by age",
        "Age | Dose\n<1 y | 0.6 mg/kg (≤ 12 mg)",
        "Laid out by a table.",
        "Stridor",
        "A harsh sound.",
        "## Follow-up",
        "See the child after 24 h.",
    ]
    assert (doc.id, doc.source, doc.title) == ("who:who/croup.html", "who", "Croup in children")
    assert (doc.url, doc.date, doc.language) == ("https://example.org/croup", "2022-03-04", "en")
    assert doc.license == "guideline-open" and doc.meta["audience"] == "Both" and doc.meta["file"] == "croup.html"
    (plain,) = rooted(tmp_path, path)
    assert "0.6 mg/kg" not in plain.text and "Table 1. Doses by age" in plain.text
    assert "Smith J" in rooted(tmp_path, path, clean=False)[0].text
    packed = put(tmp_path, "who/croup2.html.gz", gzip.compress(PAGE.encode()))
    assert rooted(tmp_path, packed, tables="text")[0].text == doc.text


def test_the_frame_of_a_site_does_not_take_the_page_with_it(tmp_path):
    """A form around everything, a class that sounds like a frame, no main element."""
    body = "<h1>Sepsis</h1>" + "<p>Give antibiotics within one hour of recognition, and fluids.</p>" * 9
    for around in (
        "<form>{}</form>",
        '<div class="menu-page-content">{}</div>',
        "<div>{}</div>",
        "<table><tr><td>{}</table>",
    ):
        page = f"<html><body><div class=footer>Imprint</div>{around.format(body)}</body></html>"
        (doc,) = read(put(tmp_path, "a.html", page))
        assert doc.text.count("antibiotics") == 9 and "Imprint" not in doc.text, around


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("<p>5 µg – “yes”</p>".encode(), "5 µg – “yes”"),
        ("<p>5 µg – “yes”</p>".encode("cp1252"), "5 µg – “yes”"),
        ('<meta charset="iso-8859-1"><p>5 µg – “yes”</p>'.encode("cp1252"), "5 µg – “yes”"),
        ('<meta charset="windows-1251"><p>доза 5</p>'.encode("cp1251"), "доза 5"),
        ("\ufeff<p>5 µg</p>".encode("utf-16"), "5 µg"),
        ("\ufeff<p>5 µg</p>".encode(), "5 µg"),
        (b'<?xml version="1.0" encoding="utf-8"?><html><body><p>x &lt; 5</p></body></html>', "x < 5"),
        (b'<meta charset="rot13"><p>plain</p>', "plain"),
        (b'<meta charset="unicode_escape"><p>C:\\new \\ud800</p>', "C:\\new \\ud800"),
        ("<p>5 µg – “yes” – “no” – “so” – µ</p>".encode() + b"<p>\xe9</p>", "5 µg – “yes” – “no” – “so” – µ\n\n\ufffd"),
        (b"<p>&#1;on<i hidden>\x02</i>\x03e</p><nav>x</nav>\x0b", "one"),
        (b"<p>never closed <b>bold <i>both</b> words", "never closed bold both words"),
    ],
)
def test_encodings_and_bad_markup(tmp_path, data, text):
    assert read(put(tmp_path, "a.html", data))[0].text == text


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("a.html", b"", "empty"),
        ("a.html", b"  \n ", "empty"),
        ("a.html", b"<p>nul\0</p>", "NUL byte (byte 7)"),
        ("a.html", b"just words", "no HTML element"),
        ("a.html", b"%PDF-1.4 ...", "is a PDF under another name"),
        ("a.html", b"<p>\x81\x8d\x8f</p>", "no encoding that can be told"),
        ("a.html", b"\xff\xfe<\x00p\x00>\x00\x00", "begins as UTF-16-LE"),
        ("a.html", b"<div>" * 50_000 + b"x", "nested too deeply"),
        ("a.html", b"<p>" + b"x" * (2 << 20), "larger than 1 MiB"),
        ("a.md", b"x" * (2 << 20), "larger than 1 MiB"),
        ("a.txt", b"a\0b", "NUL byte"),
        ("a.html.gz", gzip.compress(b"<p>" + b"many words " * 999, mtime=0)[:-9], "truncated"),
        ("a.md.gz", b"# plain", "not gzip"),
        ("a.html.gz", gzip.compress(b"<p>" + b"x" * (9 << 20), mtime=0), "larger than 1 MiB"),
    ],
)
def test_what_is_no_page_is_a_bad_row(tmp_path, name, data, why):
    path = put(tmp_path, name, data)
    (row,) = read(path, max_mib=1)
    assert isinstance(row, BadRow) and why in row.why and row.file == str(path), row


def test_hostile_markup_is_text_at_most(tmp_path):
    bomb = '<!DOCTYPE h [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY e SYSTEM "file:///etc/passwd">]>'
    (doc,) = read(put(tmp_path, "a.html", f"{bomb}<p>x &b; &e; y</p>{'<sup>' * 450}deep"))
    assert "root:" not in doc.text and "aaaaaaaaaa" not in doc.text.replace(bomb, "") and doc.text.endswith("deep")


def test_markdown_and_text(tmp_path):
    front = "---\ntitle: 'Fever in travellers'\nurl: https://example.org/f\ndate: 2021\nlicense: CC BY 4.0\n---\r\n"
    body = f"# Fever in travellers\r\n\r\n{CLINICAL}\n\nSee [the table](https://a.b/c_(d)) ![x](i.png)\n\n"
    path = put(
        tmp_path,
        "nice/f.md",
        front + body + "- one\n* two\n\n## 7. Acknowledgements\n\nWe thank all.\n\n# Annex\n\nof it\n",
    )
    (doc,) = rooted(tmp_path, path)
    assert doc.text == (
        f"# Fever in travellers\n\n{CLINICAL}\n\nSee the table ![x](i.png)\n\n- one\n* two\n\n# Annex\n\nof it"
    )
    assert (doc.source, doc.license, doc.date, doc.url) == ("nice", "CC-BY-4.0", "2021", "https://example.org/f")
    (text,) = rooted(tmp_path, put(tmp_path, "x.txt", "Plain title\n===========\nof words\no dot\n"))
    assert (text.title, text.source, text.license) == ("Plain title", "guidelines", "unknown")
    assert text.text == "# Plain title\n\nof words\no dot"


def test_the_source_is_the_first_folder_the_option_or_the_row(tmp_path):
    page = put(tmp_path, "in/WHO/deep/er/a.md", "# A\n\nText.")
    assert rooted(tmp_path / "in", page)[0].source == "who"
    assert rooted(tmp_path / "in" / "WHO", page)[0].source == "deep"  # an unknown source keeps its name
    assert rooted(tmp_path / "in", page)[0].license == "guideline-open"
    other = rooted(tmp_path / "in", put(tmp_path, "in/mayo/a.md", "Text."))[0]
    assert (other.license, other.meta["country"]) == ("guideline-restricted", "USA")
    assert rooted(tmp_path / "in", page, source="drugs.com")[0].source == "drugs"
    unknown = rooted(tmp_path / "in", put(tmp_path, "in/ward7/a.md", "Text."), license="CC0")[0]
    assert (unknown.source, unknown.license) == ("ward7", "CC0-1.0")
    (left,) = rooted(tmp_path / "in", page, exclude=["who"])
    assert left == Left(rule="excluded_source", id="WHO/deep/er/a.md")
    below = put(tmp_path, "in/html/nice/a.md", "Text.")
    assert rooted(tmp_path / "in", below)[0].source == "nice"
    stated = put(tmp_path, "in/html/b.md", "---\nsource: CDC\n---\nText.")
    assert rooted(tmp_path / "in", stated)[0].source == "cdc"
    assert rooted(tmp_path / "in", stated, exclude="cdc")[0].rule == "excluded_source"
    two = guidelines.prepare([tmp_path / "in/WHO", tmp_path / "in/mayo"], {}, tmp_path)
    assert read(tmp_path / "in/mayo/a.md", **two)[0].id == "mayo:mayo/a.md"


def test_the_published_rows(jsonl):
    long = "Anaemia is common in pregnancy. " * 30
    path = jsonl(
        {"id": "a1", "source": "who", "title": "Anaemia", "clean_text": long, "raw_text": "raw", "url": "https://w.int/1",
         "overview": "short"},
        {"id": "a2", "source": "wikidoc", "title": "W", "clean_text": CLINICAL, "overview": None},
        {"id": "a3", "source": "who", "title": "Anaemia", "clean_text": long + "and more"},
        {"id": "a4", "source": "cdc", "title": "Anaemia", "clean_text": long},
        {"id": "a5", "source": "who", "raw_text": "no clean text"},
        {"id": "a6", "source": "who", "clean_text": 7},
        b'{"id": "a7", "clean_text": "cut',
        name="open_guidelines.jsonl",
    )  # fmt: skip
    first, second, same, other, *bad = read(path)
    assert (first.id, first.source, first.url, first.meta["overview"]) == ("who:a1", "who", "https://w.int/1", "short")
    assert first.text == long.strip() and second.text == f"# W\n\n{CLINICAL}"  # "Anaemia" stands there already
    assert (same.rule, same.id) == ("same_beginning", "who:a3") and other.id == "cdc:a4"
    assert [type(row) for row in bad] == [BadRow] * 3 and [row.line for row in bad] == [5, 6, 7]
    assert [row.rule for row in read(path, exclude="wikidoc") if isinstance(row, Left)] == [
        "excluded_source",
        "same_beginning",
    ]
    assert read(path, text_field="raw_text")[0].text.endswith("raw")


@pytest.mark.parametrize(
    ("source", "text", "rule"),
    [
        (
            "aafp",
            "This guideline was developed by the CDC and was endorsed by the AAFP in 2019.",
            "only_endorses_others",
        ),
        ("aafp", "The AAFP recommends screening.", ""),
        ("who", "This guideline was developed by the CDC and was endorsed by the AAFP in 2019.", ""),
        ("idsa", "Status: In Development\n\nProjected publication, fall 2024", "in_development"),
        ("idsa", "Cancer in development of children is rare.", ""),
        ("wikidoc", "Redirect to: Asthma", "redirect"),
    ],
)
def test_pages_that_are_no_guideline_are_left_out(tmp_path, source, text, rule):
    (item,) = read(put(tmp_path, f"{source}/a.md", text), source=source)
    assert item.rule == rule if rule else isinstance(item, Document)


@pytest.mark.parametrize("line", [
    "Print", "Back to top", "https://example.org/a?b=c", "[edit]", "![](logo.png)", "Download PDF",
    "This site uses cookies to improve it", "**Share this page**", "Skip to main content", "Template:Foo",
    "© 2020 The Trust. All rights reserved.",
])  # fmt: skip
def test_lines_of_a_site_go(line):
    assert guidelines_clean.clean(f"Before.\n{line}\nAfter.") == "Before.\nAfter."


@pytest.mark.parametrize("line", [
    "of the patients", "o one dose", "on day 3", "or less", "<18 mg/dl", "[95% CI 1.2–3.4]", "[Grade A]", "> 30 %",
    "• bullet", "1. first", "p<0.05", "Print the label and search the bag", "© the dose is 5 mg", "- 5 mg",
    "β-blocker [see 3.2](b)", "Na+ | K+", "http is a protocol", "References are given to patients", "Home oxygen",
    "α > β < γ", "(≥ 65 y)",
])  # fmt: skip
def test_lines_of_guidance_stay_letter_by_letter(line):
    assert guidelines_clean.clean(f"Before.\n{line}\nAfter.\n\nEnd.", "nice") == f"Before.\n{line}\nAfter.\n\nEnd."


def test_sections_go_with_what_is_below_them_and_come_back(tmp_path):
    text = "# A\n\na\n\n## 4.1 REFERENCES:\n\n1. x\n\n### Web\n\ny\n\n## Doses\n\nd\n\n"
    text += "# Conflicts of Interest\n\nnone\n\n# Empty\n\n"
    assert guidelines_clean.clean(text) == "# A\n\na\n\n## Doses\n\nd"
    assert "committee" in guidelines_clean.clean("# A\n\n## Implementation\n\nBy the committee.", "who")
    assert guidelines_clean.clean("# A\n\nx\n\n## Implementation\n\nBy the committee.", "nice") == "# A\n\nx"


def test_the_table_of_sources_is_the_papers():
    table = guidelines_sources.SOURCES
    assert len(table) == 16 and sum(one.articles for one in table.values()) == 45_606  # Table 9's rows
    open_ = {tag for tag, one in table.items() if one.redistributable}
    assert open_ == {"cco", "cdc", "cma", "icrc", "nice", "spor", "who", "wikidoc"}
    names = {"WHO": "who", "www.nice.org.uk": "nice", "Mayo Clinic": "mayo", "cancer-care-ontario": "cco", "who2": None,
             "drugs.com": "drugs", "world health organization": "who", "": None}  # fmt: skip
    for name, tag in names.items():
        assert (found := guidelines_sources.find(name)) is (table[tag] if tag else None), (name, found)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sorce": "who"}, "'sorce'.*source"),
        ({"exclude": ["wikidocs"]}, "wikidocs.*wikidoc"),
        ({"exclude": 5}, "exclude.*5"),
        ({"pdf_seconds": 0}, "pdf_seconds"),
        ({"max_mib": "much"}, "max_mib"),
        ({"clean": "yes"}, "clean"),
    ],
)
def test_options_that_are_none_are_refused(options, words):
    with pytest.raises(RecipeError, match=words):
        guidelines.check(options)


def test_nothing_of_a_text_is_lost_by_the_walk_over_a_page():
    """Every word of a body without frames comes out once, in its order, whatever it is nested in."""
    draw = random.Random(3)
    around = ("<p>{}</p>", "{}", "<div>{}</div>", "<ul><li>{}</li></ul>", "<b>{}</b> ", "<h3>{}</h3>", "<pre>{}</pre>",
              "<blockquote><p>{}</p></blockquote>", "<span>{}<i></i></span>", "<section><div><p>{}</p></div></section>",
              "<table><tr><td>{}</td></tr></table>", "<dl><dt>{}</dt></dl>", "<p>{}<!-- note --><br></p>")  # fmt: skip
    for _ in range(60):
        words = [f"w{i}" for i in range(60)]
        page, at = "", 0
        while at < len(words):
            many = draw.randint(1, 5)
            taken = " ".join(words[at : at + many])
            page += draw.choice(around).format(draw.choice(around).format(taken) if draw.random() < 0.3 else taken)
            at += many
        found = guidelines_html.extract(page.encode()).text
        assert "".join(re.findall(r"\w+", found)) == "".join(words), page
