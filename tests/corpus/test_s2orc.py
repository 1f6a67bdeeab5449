"""Full texts of Semantic Scholar: what a reader of the article would wish to find, and records that are damaged."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.corpus import made_pubmed, made_s2orc
from toolkit.corpus import papers, s2orc
from toolkit.corpus.document import BadRow, Document, Left
from toolkit.errors import DataError, DiskFull, RecipeError

GOLDEN = """\
# Abstract

Serum ferritin <18 ng/ml was treated. Dose was 5 mg/kg.

# Introduction

Anaemia is common in children. \
[bib_ref] Iron deficiency in children of low income countries and what is known, Kimani [/bib_ref] HIV infection \
[bib_ref] HIV and anaemia, Glick [/bib_ref] worsens it [bib_ref] A third work, Smith [/bib_ref], \
with a prevalence of 40% [95% CI 36-44].

# Methods and HIV tests

## Statistics

We computed the rate as a ratio of counts ([fig_ref] Figure 1: Gross section of the kidney [/fig_ref] \
and [fig_ref] Table 1: Rates by age group [/fig_ref]).

[formula] r = a / b, [/formula]

of which p<0.05 was taken as significant.

[fig] Figure 2. Fascicles of spindle shaped cells are seen (left) beside ovoid cells. [/fig]

Mitotic figures were 5/10 high-power fields.

[fig] Figure 1: Gross section of the kidney; the tumour is grey. Scale bar 1 cm. [/fig]

# Discussion

What follows the first figure is kept.

[table] Table 1: Rates by age group [/table]"""


def _read(path, **options):
    s2orc.check(options)
    return list(s2orc.read(path, "papers", options))


def _one(path, **options):
    (item,) = _read(path, **options)
    return item


def test_an_article_with_the_papers_tokens(jsonl):
    doc = _one(jsonl(made_s2orc.article(pubmedcentral="98", doi="10.1/AbC").first()), markup="tags")
    assert isinstance(doc, Document)
    assert doc.text == f"{doc.title}\n\n{GOLDEN}"
    assert (doc.id, doc.rank, doc.version, doc.license) == ("s2:7", 0, "2023-06-02", "CC-BY")
    assert doc.keys == ("pmid:111", "pmc:pmc98", "doi:10.1/abc", "s2:7")


def test_plain_text_has_no_citations_and_can_have_tables(jsonl):
    doc = _one(jsonl(made_s2orc.article().first()), markup="plain", tables="text")
    assert "common in children. HIV infection worsens it, with a prevalence of 40% [95% CI 36-44]." in doc.text
    assert "ratio of counts (Figure 1 and Table 1).\n\nr = a / b,\n\nof which p<0.05" in doc.text
    assert doc.text.endswith("Table 1: Rates by age group\nAge Rate\n<5 0.2\n5-9 0.3")
    for gone in ("Ada", "Testville", "Received", "thank", "declare", "Kimani", "example.org"):
        assert gone not in doc.text


def test_the_second_layout_gives_the_same_text(jsonl):
    body = made_s2orc.Record(9, pubmed=None, pubmedcentral="77")
    body.add("Methods", "sectionheader", n="2.", after="\n").add("Iron was given [1]. ", "paragraph")
    body.over("bibref", "[1]", ref_id=101)
    works = made_s2orc.reference(made_s2orc.Record(), 101, "Iron in anaemia", "Kimani")
    row = body.second(works, title="Iron for all", licence="cc-by-nc")
    doc = _one(jsonl(row), markup="tags")
    assert doc.text == "Iron for all\n\n# Methods\n\nIron was given [bib_ref] Iron in anaemia, Kimani [/bib_ref]."
    assert doc.keys == ("pmc:pmc77", "s2:9") and doc.license == "CC-BY-NC"
    assert _one(jsonl(row | {"abstract": "In  short."})).text.startswith("Iron for all\n\n# Abstract\n\nIn short.\n\n#")


def test_spans_that_do_not_fit_are_left_aside_and_counted(jsonl):
    record = made_s2orc.article()
    good = _one(jsonl(record.first()), markup="tags").text
    spans = json.loads(record.annotations()["paragraph"])
    spans = [{**span, "start": str(span["start"]), "end": str(span["end"])} for span in spans]  # as older files have it
    spans += spans  # every span twice, as some records have it
    spans += [{"start": 5, "end": 10**9}, {"start": 9, "end": 3}, {"start": -4, "end": 3}, {"start": None}, 7, None]
    spans += [{"start": True, "end": 4}, {"start": "1e3", "end": 9}, {"start": 2.5, "end": 9}]
    row = record.first()
    row["content"]["annotations"]["paragraph"] = spans  # a list instead of a string
    row["content"]["annotations"]["table"] = "[[[" * 9000
    doc = _one(jsonl(row), markup="tags")
    assert doc.text == good
    assert doc.meta["ignored_spans"] == 9 and doc.meta["unread_annotations"] == ["table"]


@pytest.mark.parametrize("absent", [None, "", " ", "null", "[]"])
def test_an_annotation_that_is_not_there_is_no_damage(jsonl, absent):
    row = made_s2orc.Record(1, pubmed="2").add("Iron helps.", "figureref").first()
    row["content"]["annotations"]["paragraph"] = absent
    doc = _one(jsonl(row))
    assert doc.text == "Iron helps." and "unread_annotations" not in doc.meta


def test_overlapping_paragraphs_repeat_no_letter(jsonl):
    record = made_s2orc.Record()
    record.text = "One two three four five six."
    record.mark("paragraph", 0, 13).mark("paragraph", 4, 18).mark("paragraph", 8, 13).mark("paragraph", 18, 28)
    doc = _one(jsonl(record.first()))
    assert "".join(doc.text.split()) == "".join(record.text.split())


def test_offsets_count_code_points(jsonl):
    record = made_s2orc.Record().add("😀 β-blockers 𝛼 first", "venue", after="\n").add("Kept: 🩸 <5 g/dl.", "paragraph")
    assert _one(jsonl(record.first())).text == "Kept: 🩸 <5 g/dl."


def test_without_paragraphs_the_rest_of_the_text_is_taken(jsonl):
    record = made_s2orc.article()
    del record.spans["paragraph"]
    doc = _one(jsonl(record.first()), markup="plain")
    assert "HIV infection worsens it" in doc.text and "What follows the first figure is kept." in doc.text
    for gone in ("Ada", "Testville", "Received", "Kimani", "We thank", "10.1/b0"):
        assert gone not in doc.text
    row = record.first()
    row["content"]["annotations"] = None
    assert "Anaemia is common in children. 1 HIV" in _one(jsonl(row)).text
    row["content"]["annotations"] = {"paragraph": "{broken"}
    assert _one(jsonl(row)).why == "annotation 'paragraph' is not a list of spans"


def test_an_abstract_at_the_end_does_not_swallow_the_article(jsonl):
    record = made_s2orc.Record().add("Introduction", "sectionheader", after="\n")
    record.add("The first half of the article.", "paragraph", after="\n").add(
        "And more of it.", "paragraph", after="\n"
    )
    record.add("Résumé en français.", "abstract")
    assert "The first half" in _one(jsonl(record.first())).text


def test_what_is_left_out_and_what_cannot_be_read(jsonl):
    other = made_s2orc.article(8, pubmed=None).first()
    empty = made_s2orc.Record(9).first()
    null = made_s2orc.Record(10).first() | {"content": None}
    rows = [other, empty, null, {"corpusid": 1}, {"title": "x"}, [1], b"{", b'{"corpusid": "\xff"}']
    rows += [{"corpusid": 3, "externalids": {"pubmed": 5}, "content": {"text": 5}}]
    rows += [{"corpusid": 3, "content": {"text": "a", "annotations": "b"}}]
    items = _read(jsonl(*rows))
    assert [item.rule for item in items[:3]] == ["not_pubmed", "no_full_text", "no_full_text"]
    assert all(isinstance(item, BadRow) for item in items[3:]) and [item.line for item in items[3:]] == [*range(4, 11)]
    assert [item.why.split(";")[0] for item in items[3:]] == [
        "neither `content` nor `body`",
        "no `corpusid`, so it is no record of Semantic Scholar",
        "a JSON object was expected, not list",
        "not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        "not UTF-8 (byte 15 of the line)",
        "`content.text` holds int, not text",
        "`content.annotations` holds str, not an object",
    ]
    assert isinstance(_one(jsonl(other), require="any"), Document)


def test_hostile_spans_end_in_time(jsonl):
    """Tens of thousands of nested and overlapping spans of every kind, and long runs of marks."""
    record = made_s2orc.Record()
    record.text = "\n" + "." * 10_000 + "([" * 5_000 + " , " * 5_000 + "a b. " * 5_000
    size = len(record.text)
    for at in range(0, 12_000, 2):
        for kind in ("bibref", "figure", "table", "formula", "bibentry", "figurecaption", "sectionheader"):
            record.mark(kind, at, size - at % 977, id=f"b{at}", ref_id="b0")
        record.mark("bibref", at, at + 1, ref_id="b0").mark("paragraph", at, at + 20_000)
    assert isinstance(_one(jsonl(record.first()), markup="tags"), Document | Left)


_KINDS = ("abstract", "paragraph", "sectionheader", "figure", "figurecaption", "table", "formula", "bibref", "bibentry")
_SPANS = st.tuples(st.sampled_from(_KINDS), st.integers(-3, 70), st.integers(-3, 70), st.sampled_from(("b0", "f0", "")))


@settings(max_examples=200, deadline=None)
@given(text=st.text("abcß(1)[.;\n \ue000\ue001𝛼", max_size=60), spans=st.lists(_SPANS, max_size=12), tags=st.booleans())
def test_any_spans_over_any_text_give_letters_of_that_text(text, spans, tags):
    record = made_s2orc.Record()
    record.text = text
    for kind, start, end, id in spans:
        record.mark(kind, start, end, id=id, ref_id=id)
    item = s2orc._record(record.first(), Path("a"), "a", {"markup": "tags" if tags else "plain", "tables": "text"})
    assert isinstance(item, Document | Left)
    if isinstance(item, Document):
        words = re.sub(r"\[/?(?:fig_ref|fig|table|formula)\]|Abstract|^#+ ", "", item.text, flags=re.M)
        assert set(words.lower()) <= {*text.lower(), " ", "\n", ":"}


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(("start", "end", "text", "annotations", "paragraph")), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    row=st.dictionaries(st.sampled_from(("corpusid", "externalids", "content", "body", "bibliography", "title")), _JSON)
)
def test_any_json_is_a_document_or_has_a_reason(row):
    row = {"corpusid": 3, **row}
    try:
        assert isinstance(s2orc._record(row, Path("a"), "a", {"require": "any"}), Document | Left)
    except (s2orc._Bad, s2orc.s2orc_text.Unreadable) as err:
        assert str(err)


def _paper(number, **more):
    row = {
        "corpusid": number,
        "externalids": {"PubMed": None, "DOI": "10.1/X"},
        "title": f"Paper {number}",
        "year": 2019,
    }
    return {**row, "venue": "", "publicationtypes": None, "publicationdate": None, "citationcount": 3} | more


def test_papers_are_joined_from_disk(jsonl, tmp_path):
    folder = tmp_path / "papers"
    folder.mkdir()
    ids = {"PubMed": "55", "PubMedCentral": "66", "DOI": "10.1/X"}
    rows = [_paper(1), _paper("7", title="Old", externalids=ids)]
    (folder / "papers.piece.001.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    more = {"publicationdate": "2020-03-04", "publicationtypes": ["Review", "JournalArticle"], "citationcount": 40}
    row = _paper(7, title="New", externalids=ids, journal={"name": "J. of  Tests"}, **more)
    (folder / "papers.piece.002.jsonl").write_text(json.dumps(row))
    (tmp_path / "list.txt").write_text("# ours\nJ of Tests\n")
    options = {"papers": str(folder), "journals": str(tmp_path / "list.txt")}
    made = s2orc.prepare([], options, tmp_path / "work")
    doc = _one(jsonl(made_s2orc.article(pubmed=None).first()), **options, **made)
    assert (doc.title, doc.date, doc.meta["journal"], doc.meta["citations"]) == ("New", "2020-03-04", "J. of Tests", 40)
    assert doc.text.startswith("New\n\n# Abstract") and {"pmid:55", "pmc:pmc66", "doi:10.1/x", "s2:7"} == set(doc.keys)
    assert doc.weight == (1.5, 1228.0, 10.0)
    # What PubMed says of the same article counts for more.
    xml = made_pubmed.record(55, types=("Clinical Trial, Phase III", "Retracted Publication"), mesh=("Animals",))
    (folder / "pubmed24n0001.xml.gz").write_bytes(gzip.compress(made_pubmed.file(xml)))
    more = s2orc.prepare([], options, tmp_path / "more")
    with_pubmed = _one(jsonl(made_s2orc.article(pubmed=None).first()), **options, **more)
    assert with_pubmed.retracted and with_pubmed.weight[0] == -1 and with_pubmed.meta["mesh"] == ["Animals"]
    (folder / "pubmed24n0001.xml.gz").unlink()
    # The same table again, and another one once the input has changed.
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "work").iterdir()}
    assert s2orc.prepare([], options, tmp_path / "work") == made
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "work").iterdir()}
    (folder / "papers.piece.002.jsonl").write_text(json.dumps(row | {"title": "Newest"}))
    assert s2orc.prepare([], options, tmp_path / "work") != made


def test_the_second_layout_gets_its_abstract_from_the_joined_files(jsonl, tmp_path):
    folder = tmp_path / "joined"
    folder.mkdir()
    access = {"openaccessinfo": {"externalids": {}}}
    rows = [{"corpusid": n, **access, "abstract": f"Short, of {n}."} for n in (8, 9)] + [
        {"corpusid": 9, "abstract": None}
    ]
    (folder / "abstracts.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    (folder / "papers.jsonl").write_text(json.dumps(_paper(9, externalids={"PubMed": "5"})))
    made = s2orc.prepare([], {"papers": str(folder)}, tmp_path / "work")

    def text(body: str) -> str:
        record = made_s2orc.Record(9).add("Methods", "sectionheader", after="\n").add(body, "paragraph")
        return _one(jsonl(record.second(made_s2orc.Record(), title="Iron")), **made).text

    assert text("Iron was given.") == "Paper 9\n\n# Abstract\n\nShort, of 9.\n\n# Methods\n\nIron was given."
    assert text("Here Short, of  9.") == "Paper 9\n\n# Methods\n\nHere Short, of 9."
    assert papers.abstract_of(made["_papers"], 8) == ""  # no paper that is known


def test_papers_that_cannot_be_joined(tmp_path, monkeypatch):
    path = tmp_path / "papers.gz"
    for data, why in (
        (gzip.compress(json.dumps(_paper(1)).encode() * 400, mtime=0)[:-9], "cannot be read"),
        (b"not packed", "cannot be read"),
        (gzip.compress(b'{"id": 3}\n', mtime=0), "no `corpusid`"),
        (gzip.compress(made_pubmed.file(made_pubmed.record(1))[:-300], mtime=0), "malformed XML"),
    ):
        path.write_bytes(data)
        with pytest.raises(DataError, match=why):
            s2orc.prepare([], {"papers": str(path)}, tmp_path / "work")
        assert list((tmp_path / "work").iterdir()) == []
    with pytest.raises(DataError, match="no such file"):
        s2orc.prepare([], {"papers": str(tmp_path / "absent")}, tmp_path / "work")
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(DataError, match="empty"):
        s2orc.prepare([], {"journals": str(tmp_path / "empty.txt")}, tmp_path / "work")


def test_a_table_on_a_full_disk_leaves_nothing(tmp_path):
    import resource

    path = tmp_path / "papers.jsonl"
    path.write_text("".join(json.dumps(_paper(n, externalids={"PubMed": str(n)})) + "\n" for n in range(20_000)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
    try:
        with pytest.raises(DiskFull):
            s2orc.prepare([], {"papers": str(path)}, tmp_path / "work")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"paper": "x"}, "Did you mean .papers."),
        ({"require": "pmc"}, "one of pubmed, any"),
        ({"max_line_mib": 0}, "a number over 0"),
        ({"max_line_mib": True}, "a number over 0"),
        ({"papers": 3}, "It is a path"),
        ({"papers": [3]}, "It is a path"),
        ({"journals": ["a"]}, "It is a path"),
    ],
)
def test_impossible_options(options, why):
    with pytest.raises(RecipeError, match=why):
        s2orc.check(options)
    s2orc.check({"markup": "tags", "tables": "text", "_papers": "x", "papers": ["a", "b"], "require": "any"})
