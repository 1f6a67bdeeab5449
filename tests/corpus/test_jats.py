"""JATS files are read article by article; hostile and broken ones are set aside with file, line and reason."""

# ruff: noqa: E501 - markup is easier to read unbroken
from __future__ import annotations

import gzip
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.corpus import made_jats
from toolkit.corpus import jats
from toolkit.corpus.document import BadRow, Document
from toolkit.errors import DataError, RecipeError

pytest.importorskip("lxml")

HEAD = """<article xmlns:xlink="http://www.w3.org/1999/xlink" {root}>
<front><article-meta>
<article-id pub-id-type="pmc">{pmc}</article-id>
<title-group><article-title>{title}</article-title></title-group>
{meta}
</article-meta></front>"""


def article(body: str, pmc: str = "77", *, title: str = "Fever", meta: str = "", root: str = "") -> str:
    return f"{HEAD.format(pmc=pmc, title=title, meta=meta, root=root)}<body>{body}</body></article>"


def read(folder: Path, xml: str | bytes, name: str = "a.nxml", **options: str) -> list[Document | BadRow]:
    (folder / name).write_bytes(xml if isinstance(xml, bytes) else xml.encode())
    return list(jats.read(folder / name, "pmc", options))


def one(folder: Path, xml: str | bytes, name: str = "a.nxml") -> Document | BadRow:
    (item,) = read(folder, xml, name)
    return item


def test_packed_files_and_sets_of_articles_are_read(tmp_path):
    assert [doc.id for doc in read(tmp_path, gzip.compress(article("<p>b</p>").encode()), "b.nxml.gz")] == ["PMC77"]
    both = article("<p>c</p>", "3") + article("<p>d</p><sub-article><body/></sub-article>", "4")
    docs = read(tmp_path, f"<pmc-articleset>{both}</pmc-articleset>", "set.2024-01-03.xml")
    assert [(doc.id, doc.version) for doc in docs] == [("PMC3", "2024-01-03"), ("PMC4", "2024-01-03")]
    assert docs[0].text == "Fever\n\nc"


def test_a_large_set_is_read_by_the_piece_with_the_same_documents(tmp_path, monkeypatch):
    articles = b"".join(made_jats.article(n, 10_000).split(b'dtd">\n', 1)[1] for n in range(60))
    whole = read(tmp_path, b"<set>" + articles + b"</set>")
    monkeypatch.setattr(jats, "_WHOLE", 1000)
    assert read(tmp_path, b"<set>" + articles + b"</set>") == whole and len(whole) == 60
    # What is sound before the break is kept, and the break is counted.
    cut = read(tmp_path, b"<set>" + articles[: len(articles) // 2])
    assert cut[:-1] == whole[: len(cut) - 1] and len(cut) > 20 and "malformed XML" in cut[-1].why
    assert "larger than 1 MiB" in _with_limit(monkeypatch, tmp_path, article("<p>x</p>" * 200_000)).why


def _with_limit(monkeypatch, folder: Path, xml: str) -> BadRow:
    monkeypatch.setattr(jats, "MAX_MIB", 1)
    return one(folder, xml)


def test_200_mb_on_one_line_need_the_memory_of_the_bound(tmp_path):
    with (tmp_path / "a.xml").open("wb") as file:
        file.write(article("").split("</body>")[0].encode() + b"<p>")
        for _ in range(200):
            file.write(b"word " * 200_000)
    code = (
        "import sys; from pathlib import Path; from tests.memory import peak_kib; from toolkit.corpus import jats;"
        "print([row.why for row in jats.read(Path(sys.argv[1]), 's', {})]);"
        "print(peak_kib())"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "a.xml"], capture_output=True, text=True, check=True)
    (tmp_path / "a.xml").unlink()
    why, kib = done.stdout.splitlines()
    assert "MiB of XML" in why or "malformed" in why  # the parser has a bound of its own for one text
    assert int(kib) < 200 * 1024


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"root": 'article-type="retraction"'}, "the notice"),
        ({"root": 'article-type="retracted-article"'}, "the type"),
        (
            {"meta": '<related-article related-article-type="retraction-forward" xlink:href="x"/>'},
            "a link to the notice",
        ),
        ({"meta": '<related-article related-article-type="retracted-by" xlink:href="x"/>'}, "a link to the notice"),
        ({"title": "RETRACTED: Fever"}, "the title"),
        ({"title": "[Retracted] Fever"}, None),
        ({"title": "Retraction: Fever"}, "the title"),
        ({"title": "Retraction of the wound margin"}, None),
        ({"meta": '<related-article related-article-type="commentary" xlink:href="x"/>'}, None),
        ({"root": 'article-type="research-article"'}, None),
    ],
)
def test_retracted_articles_say_so(tmp_path, given, what):
    if given.get("title", "").startswith("[R"):
        what = "the title"
    assert one(tmp_path, article("<p>x</p>", **given)).retracted is (what is not None)


def test_notices_name_what_they_retract(tmp_path):
    links = [("doi", "https://doi.org/10.1371/ABC"), ("pmid", "12"), ("pmc", "PMC34"), ("uri", "56"), ("doi", "")]
    meta = "".join(
        f'<related-article related-article-type="retracted-article" ext-link-type="{kind}" xlink:href="{target}"/>'
        for kind, target in links
    )
    notice = one(tmp_path, article("<p>x</p>", meta=meta, root='article-type="retraction"'))
    assert notice.retracts == ("doi:10.1371/abc", "pmid:12", "pmc:pmc34", *notice.keys)
    assert one(tmp_path, article("<p>x</p>")).retracts == ()


@pytest.mark.parametrize(
    ("lang", "language"), [("en", "en"), ("EN", "en"), ("en-US", "en"), ("fra", "fr"), ("", ""), ("klingon", "")]
)
def test_the_stated_language_is_passed_on(tmp_path, lang, language):
    assert one(tmp_path, article("<p>x</p>", root=f'xml:lang="{lang}"')).language == language


@pytest.mark.parametrize(
    ("meta", "date"),
    [
        ("<pub-date><year>2011</year></pub-date><pub-date><day>2</day><month>8</month><year>2011</year></pub-date>", "2011-08-02"),
        ("<pub-date><month>Sept</month><year>2011</year></pub-date>", "2011-09"),
        ("<pub-date><month>13</month><year>2011</year></pub-date>", "2011"),
        ("<pub-date><year>20xx</year></pub-date>", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_the_earliest_date_counts(tmp_path, meta, date):
    assert one(tmp_path, article("<p>x</p>", meta=meta)).date == date


def test_of_several_licences_the_most_restrictive_counts_and_prose_is_read_when_no_link_is_there(tmp_path):
    by, nd = (f'<license xlink:href="http://creativecommons.org/licenses/{n}/4.0/"/>' for n in ("by", "by-nc-nd"))
    assert one(tmp_path, article("", meta=f"<permissions>{by}{nd}</permissions>")).license == "CC-BY-NC-ND-4.0"
    mixed = f"{by}<license><license-p>Creative Commons Attribution-NonCommercial License 4.0</license-p></license>"
    assert one(tmp_path, article("", meta=f"<permissions>{mixed}</permissions>")).license == "CC-BY-NC-4.0"
    prose = "<copyright-statement>Open-access under the terms of the Creative Commons Attribution License.</copyright-statement>"
    assert one(tmp_path, article("", meta=prose)).license == "CC-BY"
    assert one(tmp_path, article("")).license == "unknown"


def test_an_article_without_ids_has_that_of_its_text_and_without_prose_no_text(tmp_path):
    xml = "<article><body><p>x</p></body></article>"
    assert one(tmp_path, xml).id.startswith("sha1:") and one(tmp_path, xml).keys == ()
    assert one(tmp_path, xml) == one(tmp_path, xml)
    assert one(tmp_path, "<article><front/></article>").text == ""


def test_named_letters_of_the_unread_dtd_are_kept(tmp_path):
    dtd = '<!DOCTYPE article SYSTEM "http://127.0.0.1:9/no.dtd">'
    xml = dtd + article("<p>&alpha;-blocker 5&nbsp;mg &unheard;x &lt;b&gt; &amp;lt;</p>")
    assert one(tmp_path, xml).text.endswith("α-blocker 5 mg x <b> &lt;")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1", "windows-1252"])
def test_a_rightly_declared_encoding_is_read(tmp_path, encoding):
    xml = f'<?xml version="1.0" encoding="{encoding}"?>' + article("<p>5 µg ± é</p>")
    assert one(tmp_path, xml.encode(encoding)).text.endswith("5 µg ± é")


BOMB = "<!DOCTYPE article [<!ENTITY a 'ha'>" + "".join(
    f"<!ENTITY {chr(98 + i)} '{f'&{chr(97 + i)};' * 10}'>" for i in range(10)
) + "]>"  # fmt: skip


@pytest.mark.parametrize(
    ("xml", "line", "why"),
    [
        (article("<p>one\ntwo<b>three</p>"), 8, "malformed XML"),
        (article("<p>cut off</p>")[:-20], 7, "malformed XML"),
        (article("<p>x</p>") + "<p>more</p>", 7, "malformed XML"),
        ("", 0, "empty"),
        ("plain words", 1, "malformed XML"),
        ("<html><body>a page</body></html>", 1, "the root is <html>"),
        (article("<p>x</p>").encode("utf-16-le"), 1, "malformed XML"),
        (b'<?xml version="1.0" encoding="utf-8"?>' + article("<p>\xe9</p>").encode("latin-1"), 7, "malformed XML"),
        (b'<?xml version="1.0" encoding="utf-16"?>' + article("<p>x</p>").encode(), 1, "malformed XML"),
        (b'<?xml version="1.0" encoding="klingon"?>' + article("<p>x</p>").encode(), 1, "malformed XML"),
        (article("<p>nul \0 byte</p>"), 7, "malformed XML"),
        (BOMB + article("<p>&k;</p>"), 0, "entities"),
        (BOMB + article("<p title='&k;'>x</p>"), 0, "entities"),
        ("<!DOCTYPE article [<!ENTITY e SYSTEM 'file:///etc/passwd'>]>" + article("<p>&e;</p>"), 0, "entities"),
        ("<!DOCTYPE article [<!ENTITY % e SYSTEM 'http://127.0.0.1:9/x'>%e;]>" + article("<p>x</p>"), 0, "entities"),
        ((BOMB + article("<p>&k;</p>")).encode("utf-16"), 0, "entities"),
        (article("<sec>" * 100_000 + "</sec>" * 100_000), 7, "nest|depth"),
    ],
)
def test_broken_and_hostile_files_are_set_aside_with_their_line(tmp_path, xml, line, why):
    row = one(tmp_path, xml)
    assert isinstance(row, BadRow) and row.file == str(tmp_path / "a.nxml")
    assert any(word in row.why for word in why.split("|")), row.why
    assert row.line == line or why.startswith(("malformed", "nest")) and row.line > 0


def test_truncated_and_false_gzip_files_are_set_aside(tmp_path):
    whole = gzip.compress(article("<p>x</p>").encode())
    for data in (whole[:-20], whole[:5], b"no gzip", whole[:50] + b"\0" * 40 + whole[90:]):
        row = one(tmp_path, data, "a.nxml.gz")
        assert isinstance(row, BadRow) and "gzip" in row.why, row


@pytest.mark.parametrize("depth", [200, 1000, 2000])
@pytest.mark.parametrize("names", ["italic", "sec", "list", "sup", "mml:mrow"])
def test_deep_nesting_is_no_crash(tmp_path, depth, names):
    inner = f"{f'<{names}>' * depth}x{f'</{names}>' * depth}"
    math = f'<mml:math xmlns:mml="http://www.w3.org/1998/Math/MathML">{inner}</mml:math>' if ":" in names else inner
    item = one(tmp_path, article(f"<p>a</p>{math}<p>b</p>"))
    assert isinstance(item, BadRow) and "nest" in item.why + "nest" * ("depth" in item.why) or "b" in item.text


def test_options_are_checked_and_a_missing_file_is_one_message(tmp_path):
    with pytest.raises(RecipeError, match="unknown option 'markups'.*'markup'"):
        jats.check({"markups": "tags"})
    with pytest.raises(RecipeError, match="'tables' of a pmc source is 'cells'.*caption, text"):
        jats.check({"tables": "cells"})
    jats.check({"markup": "tags", "tables": "text"})
    with pytest.raises(DataError, match="cannot be read"):
        list(jats.read(tmp_path / "none.xml", "pmc", {}))


def test_damage_anywhere_is_a_document_or_a_bad_row_and_never_an_error(tmp_path):
    rng, kinds = random.Random(7), set()
    for seed in range(60):
        data = bytearray(made_jats.article(seed, 10_000)[: rng.choice([99_999, rng.randrange(9_000)])])
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data) - 40)
            data[at : at + rng.randint(0, 40)] = rng.choice(
                [b"", b"<", b"&", b"\xff", b"\0", b"<sec>", b"</p>", b"<!--", b"]]>"]
            )
        items = read(tmp_path, bytes(data), markup="tags", tables="text")
        assert len(items) == 1 and isinstance(items[0], Document | BadRow)
        kinds.add(type(items[0]).__name__)
    assert kinds == {"Document", "BadRow"}
