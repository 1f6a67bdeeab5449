"""Abstracts of PubMed and of Semantic Scholar: what comes out of sound records, and what of damaged ones."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys

import pytest

from tests.corpus import made_pubmed as made
from tests.corpus.conftest import SHARED
from toolkit.corpus import abstracts
from toolkit.corpus.document import BadRow, Document, Left, Withdrawal
from toolkit.errors import RecipeError


def _read(path, **options):
    abstracts.check(options)
    return list(abstracts.read(path, "abstracts", options))


@pytest.fixture
def xml(tmp_path):
    def write(*parts: str, name: str = "pubmed24n0007.xml"):
        path = tmp_path / name
        data = made.file(*parts)
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return write


def test_the_real_record():
    path = SHARED / "pubmed" / "pubmed-29768149.xml"
    if not path.exists():
        pytest.skip("../shared/data/pubmed is absent")
    (doc,) = _read(path)
    lines = doc.text.splitlines()
    assert lines[0] == doc.title == "Inhaled Combined Budesonide-Formoterol as Needed in Mild Asthma."
    assert [line.split(":")[0] for line in lines[1:]] == ["BACKGROUND", "METHODS", "RESULTS", "CONCLUSIONS"]
    assert "a fast-acting β2-agonist may be an alternative" in doc.text
    assert (
        "(34.4% vs. 31.1% of weeks; odds ratio, 1.14; 95% confidence interval [CI], 1.00 to 1.30; P=0.046)" in doc.text
    )
    assert "McMaster" not in doc.text and doc.license == "unknown" and doc.date == "2018-05-17"
    assert doc.keys == ("pmid:29768149", "doi:10.1056/nejmoa1715274", "pubmed:29768149") and doc.version == "2022-04-10"
    assert "Asthma" in doc.meta["mesh"] and "Randomized Controlled Trial" in doc.meta["types"]


def test_a_record_in_full(xml):
    abstract = (
        '<Abstract><AbstractText Label="AIM" NlmCategory="OBJECTIVE">Ca<sup>2+</sup> &lt; 10<sup>-3</sup> mol/l, '
        "H<sub>2</sub>O,\n\t\t<i>BRCA1</i> and <b>β\n  <sub>2</sub></b>.</AbstractText>\n"
        '<AbstractText Label="UNLABELLED">p&lt;0.05 [95% CI 1.2-3.4]</AbstractText><AbstractText/>'
        '<AbstractText NlmCategory="RESULTS">o of x<math xmlns="http://www.w3.org/1998/Math/MathML"><msup><mi>m</mi>'
        "<mn>2</mn></msup><mfrac><mi>a</mi><mi>b</mi></mfrac></math>.</AbstractText>"
        "<CopyrightInformation>© 2020 The Authors. This is an open access article under the CC BY 4.0 license."
        "</CopyrightInformation></Abstract>"
    )
    more = (
        '<OtherAbstract Type="Publisher" Language="fre"><AbstractText>Le fer.</AbstractText></OtherAbstract>'
        '<OtherAbstract Type="plain-language-summary" Language="eng"><AbstractText>Iron is good.</AbstractText>'
        "</OtherAbstract>"
    )
    ids = '<ArticleId IdType="doi">10.1/AbC</ArticleId><ArticleId IdType="pmc">PMC42</ArticleId>'
    path = xml(made.record(5, abstract, more=more, ids=ids, version=2), name="pubmed24n1220.xml.gz")
    (doc,) = _read(path)
    assert doc.text == (
        "Iron in anaemia.\nAIM: Ca^2+ < 10^-3 mol/l, H2O, BRCA1 and β2.\np<0.05 [95% CI 1.2-3.4]\n"
        "o of xm^2(a)/(b).\nPLAIN LANGUAGE SUMMARY: Iron is good."
    )
    assert (
        doc.keys == ("pmid:5", "doi:10.1/abc", "pmc:pmc42", "pubmed:5") and doc.rank == 1 and doc.license == "CC-BY-4.0"
    )
    assert doc.version == "24n01220 2022-04-10.02" and doc.date == "2018-05-07"
    assert doc.url == "https://pubmed.ncbi.nlm.nih.gov/5/" and doc.language == "en"
    assert "Testville" not in json.dumps(doc.as_dict())


def test_titles_languages_and_records_without_an_english_abstract(xml):
    french = '<OtherAbstract Language="fre"><AbstractText>Le fer.</AbstractText></OtherAbstract>'
    english = '<OtherAbstract Type="NASA" Language="eng"><AbstractText>Iron.</AbstractText></OtherAbstract>'
    book = (
        "<PubmedBookArticle><BookDocument><PMID>9</PMID><Book><PubDate><Year>2009</Year></PubDate></Book><ArticleTitle>"
        "Gene</ArticleTitle><Abstract><AbstractText>Of genes.</AbstractText></Abstract><PublicationType>Review"
        "</PublicationType></BookDocument></PubmedBookArticle>"
    )
    items = _read(
        xml(
            made.record(1, title="[Iron in &lt;18 year-olds]."),
            made.record(2, title="[Does iron help?]", language="fre"),
            made.record(3, title="[Not Available].", more=""),
            made.record(4, "", more=french),
            made.record(5, "", more=french + english),
            made.record(6, ""),
            made.record(7, "<Abstract><AbstractText> \n </AbstractText></Abstract>"),
            book,
        )
    )
    assert [item.title for item in items if isinstance(item, Document)] == [
        "Iron in <18 year-olds.", "Does iron help?", "", "Iron in anaemia.", "Gene",
    ]  # fmt: skip
    assert [item.rule for item in items if isinstance(item, Left)] == [
        "no_english_abstract",
        "no_abstract",
        "no_abstract",
    ]
    assert [items[0].language, items[1].language] == ["en", ""]
    assert items[2].text == "Iron helps." and items[4].text.endswith("\nIron.")
    assert items[-1].date == "2009" and items[-1].meta["types"] == ["Review"]


def test_versions_withdrawals_and_retractions_are_told(xml):
    note = '<CommentsCorrectionsList><CommentsCorrections RefType="RetractionIn"/></CommentsCorrectionsList>'
    of = 'RefType="RetractionOf"><PMID>55</PMID></CommentsCorrections>'
    of = f"<CommentsCorrectionsList><CommentsCorrections {of}</CommentsCorrectionsList>"
    path = xml(
        made.record(1, revised="2023-01-02"),
        made.record(2, types=("Journal Article", "Retracted Publication")),
        made.record(3, more=note),
        made.record(4, more=of),
        made.deletion(1, 77),
    )
    *docs, first, second = _read(path)
    assert [doc.retracted for doc in docs] == [False, True, True, False]
    assert [doc.retracts for doc in docs] == [(), ("pmid:2",), ("pmid:3",), ("pmid:55",)]
    notice = _read(xml(made.record(5, "", more=of, types=("Retracted Publication",)), name="notice.xml"))[0]
    assert (notice.rule, notice.retracts) == ("no_abstract", ("pmid:5", "pmid:55"))
    assert (first, second.key) == (Withdrawal(key="pubmed:1", version="24n00007 9999-12-31"), "pubmed:77")
    later = _read(xml(made.record(1, revised="2021-01-01"), name="pubmed24n0008.xml"))
    plain = _read(xml(made.record(1, revised="2022-01-01"), made.deletion(1), name="other.xml"))
    # The later file stands whatever its dates say, and a deletion takes what came up to its own file.
    assert later[0].version > first.version > docs[0].version > plain[0].version
    assert plain[1].version > plain[0].version


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("<Year>2018</Year><Month>05</Month><Day>17</Day>", "2018-05-17"),
        ("<Year>2018</Year><Month>Dec</Month>", "2018-12"),
        ("<Year>2018</Year><Season>Spring</Season>", "2018"),
        ("<MedlineDate>1998 Dec-1999 Jan</MedlineDate>", "1998"),
        ("<MedlineDate>undated</MedlineDate>", ""),
    ],
)
def test_dates(xml, date, expected):
    (doc,) = _read(xml(made.record(1, date=date)))
    assert doc.date == expected


BOMB = (
    '<!DOCTYPE PubmedArticleSet [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    "<PubmedArticleSet>" + made.record(1, "<Abstract><AbstractText>&b;</AbstractText></Abstract>") + made.TAIL
)
OUTSIDE = (
    '<!DOCTYPE PubmedArticleSet [<!ENTITY x SYSTEM "file:///etc/passwd">]><PubmedArticleSet>'
    + made.record(1, "<Abstract><AbstractText>&x;</AbstractText></Abstract>") + made.TAIL
)  # fmt: skip


@pytest.mark.parametrize(
    ("data", "docs", "why"),
    [
        (b"", 0, "the file is empty"),
        (b" \n", 0, "the file is empty"),
        (b"<?xml version='1.0'?><article/>", 0, "no PubMed records inside (the root is <article>)"),
        (BOMB.encode(), 0, "declares entities of its own"),
        (OUTSIDE.encode(), 0, "declares entities of its own"),
        (OUTSIDE.encode("utf-16"), 0, "declares entities of its own"),
        (made.file(made.record(1), made.record(2))[:-900], 1, "malformed XML"),
        (made.file(made.record(1), "<PubmedArticle>\0</PubmedArticle>"), 1, "malformed XML"),
        (b"<PubmedArticleSet>\xff", 0, "malformed XML"),
        (made.file("<PubmedArticle>" + "<a>" * 400 + "</a>" * 400 + "</PubmedArticle>"), 0, "malformed XML"),
        (made.file("<PubmedArticle/>", made.record(2)), 1, "a record without a PubMed id"),
        (made.file(made.record(1))[:40], 0, "no XML element inside"),
    ],
)  # fmt: skip
def test_damaged_and_hostile_xml(tmp_path, data, docs, why):
    path = tmp_path / "a.xml"
    path.write_bytes(data)
    items = _read(path)
    assert sum(isinstance(item, Document) for item in items) == docs
    (bad,) = [item for item in items if isinstance(item, BadRow)]
    assert why in bad.why and bad.file == str(path)
    assert "root:" not in str(items)


def test_one_text_without_an_end_is_refused(tmp_path):
    """200 MB on one line, as one text or as text that never stops inside a tag."""
    for start, piece in ((b"<AbstractText>", b"x"), (b'<AbstractText Label="', b"x"), (b"<!--", b"-x"), (b"", b" ")):
        path = tmp_path / "a.xml.gz"
        head = gzip.compress(made.HEAD.replace("\n", " ").encode() + b"<PubmedArticle>" + start)
        path.write_bytes(head + gzip.compress(piece * (1 << 20)) * (200 >> (len(piece) - 1)))
        (bad,) = _read(path)
        assert "malformed XML" in bad.why or "no record ends within 16 MiB" in bad.why


def test_damaged_packing(tmp_path):
    path = tmp_path / "pubmed24n0001.xml.gz"
    data = gzip.compress(made.file(*(made.record(n, title=f"Title {n * 7919 % 1009}.") for n in range(1, 400))))
    path.write_bytes(data[:-2_000])
    *docs, bad = _read(path)
    assert len(docs) > 50 and all(isinstance(doc, Document) for doc in docs) and "ends early" in bad.why
    path.write_bytes(b"\x1f\x8b not packed at all")
    (bad,) = _read(path)
    assert "not gzip or is damaged" in bad.why


@pytest.mark.parametrize("packed", [False, True])
def test_flipped_bytes_never_stop_a_build(tmp_path, packed):
    """One byte in a thousand is another: some records are lost, and no reading fails without saying so."""
    import random

    rng = random.Random(5)
    sound = made.file(*(made.record(n, title=f"Title {n}.") for n in range(1, 9)), made.deletion(3))
    sound = gzip.compress(sound) if packed else sound
    path = tmp_path / ("a.xml.gz" if packed else "a.xml")
    faults = 0
    for _ in range(150):
        data = bytearray(sound)
        for _ in range(len(data) // 1000 + 1):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        items = _read(path)
        faults += any(isinstance(item, BadRow) for item in items)
        assert items and all(isinstance(item, Document | Left | BadRow | Withdrawal) for item in items)
    assert faults > 50


def test_utf_16_is_read(tmp_path):
    path = tmp_path / "a.xml"
    path.write_bytes(made.file(made.record(1, title="Größe β.")).decode().replace("utf-8", "utf-16").encode("utf-16"))
    (doc,) = _read(path)
    assert doc.title == "Größe β."


def test_the_form_of_files_before_2017(tmp_path):
    path = tmp_path / "medline16n0001.xml"
    body = made.record(1).split("<PubmedArticle>")[1].split("<PubmedData>")[0]
    path.write_bytes(f"<MedlineCitationSet>{body}{made.deletion(2)}</MedlineCitationSet>".encode())
    doc, gone = _read(path)
    assert doc.id == "pmid:1" and gone.key == "pubmed:2"


@pytest.mark.slow
def test_memory_is_flat(tmp_path):
    """200 MB of records, and one element that never ends."""
    many, one = tmp_path / "many.xml.gz", tmp_path / "one.xml.gz"
    text = "<Abstract><AbstractText>" + "Iron helps in anaemia. " * 300 + "</AbstractText></Abstract>"
    piece = gzip.compress("".join(made.record(n, text) for n in range(1, 131)).encode())
    many.write_bytes(gzip.compress(made.HEAD.encode()) + piece * 200 + gzip.compress(made.TAIL.encode()))
    start = gzip.compress(made.HEAD.encode() + b"<PubmedArticle>")
    one.write_bytes(start + gzip.compress(b"<a>xxxxxxxxx</a>" * (1 << 16)) * 40)
    code = (
        "import sys; from pathlib import Path; from tests.memory import peak_kib\n"
        "from toolkit.corpus import abstracts; import lxml.etree\n"
        "base = peak_kib()\n"
        "for name in sys.argv[1:]:\n"
        "    items = 0\n"
        "    for item in abstracts.read(Path(name), 'a', {}): items += 1; last = item\n"
        "    print(items, getattr(last, 'why', ''))\n"
        "    print(peak_kib() - base)"
    )
    run = [sys.executable, "-c", code, str(many), str(one)]
    rows = subprocess.run(run, capture_output=True, text=True, check=True).stdout.splitlines()
    assert rows[0].split()[0] == "26000" and int(rows[1]) < 64 * 1024  # KiB
    assert rows[2] == "1 no record ends within 16 MiB of XML" and int(rows[3]) < 400 * 1024


def _row(number, **more):
    ids = {"MAG": "1", "ACL": None, "DOI": None, "PubMedCentral": None, "ArXiv": None}
    access = {"externalids": ids, "license": None, "url": None, "status": None}
    return {"corpusid": number, "openaccessinfo": access, "abstract": f"Iron <18 ng/ml of {number}."} | more


def test_abstracts_of_semantic_scholar(jsonl, tmp_path):
    paper = {"corpusid": 1, "externalids": {"PubMed": "55", "DOI": "10.1/X"}, "title": "RETRACTED: Iron", "year": 2020}
    table = jsonl(paper, {**paper, "corpusid": 2, "externalids": {}}, name="papers.jsonl")
    pmc = _row(3)
    pmc["openaccessinfo"] = {"externalids": {"PubMedCentral": "42"}, "license": "CCBYNCND"}
    path = jsonl(
        _row(1), _row(2), pmc, _row(1, abstract=None), {"corpusid": 4}, _row(1, abstract=5), name="abstracts.jsonl"
    )
    options = {"papers": str(table)}
    made = abstracts.prepare([path], options, tmp_path / "work")
    items = _read(path, **options, **made)
    assert [type(item).__name__ for item in items] == ["Document", "Left", "Document", "Left", "BadRow", "BadRow"]
    assert [item.rule for item in items if isinstance(item, Left)] == ["not_pubmed", "no_abstract"]
    first, third = items[0], items[2]
    assert first.text == "RETRACTED: Iron\nIron <18 ng/ml of 1." and first.retracted and first.date == "2020"
    assert first.keys == ("pmid:55", "doi:10.1/x", "s2:1") and first.rank == 1
    assert third.license == "CC-BY-NC-ND" and third.text == "Iron <18 ng/ml of 3." and third.weight is None


def test_abstracts_that_nothing_ties_to_pubmed_are_refused_before_the_work(jsonl, xml, tmp_path):
    path = jsonl(_row(1))
    with pytest.raises(RecipeError, match="carry no PubMed ids"):
        abstracts.prepare([xml(made.record(1)), path], {}, tmp_path)
    assert abstracts.prepare([xml(made.record(1))], {}, tmp_path) == {}
    assert abstracts.prepare([path], {"require": "any"}, tmp_path) == {}
    (doc,) = _read(path, require="any")
    assert doc.keys == ("s2:1",)
