"""PDFs as guidelines come: words broken at line ends, running heads, columns, raised powers; and PDFs that are none."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from tests.corpus.made_pdf import lines_of, pdf
from toolkit.corpus import guidelines, guidelines_pdf
from toolkit.corpus.document import BadRow, Left
from toolkit.corpus.guidelines_pdf import Line, compose, without_edges

pytest.importorskip("pypdfium2")
WORDS = "The infant with bronchiolitis needs oxygen when the saturation stays low and feeding fails for a whole day"


def read(path, **options):
    guidelines.check(options)
    return list(guidelines.read(path, "guidelines", options))


def written(tmp_path, *pages, name="a.pdf", **how):
    path = tmp_path / name
    path.write_bytes(pdf(pages, **how))
    return path


def test_paragraphs_headings_lists_and_clinical_text_come_out_whole(tmp_path):
    page = [
        (72, 740, 20, "Bronchiolitis in infants"),
        (72, 700, 14, "1 Treatment"),
        *lines_of(
            "Give oxygen if SpO2 <92% or pCO2 >6.5 kPa [95% CI 1.2–3.4], p<0.05; stop at",
            "µg doses ≥ 5 µg/kg. α₂-agonists are not used.",
            "of the children most recover at home with oral fluids and rest for a few days more",
            top=680,
        ),
        *lines_of("A new paragraph stands apart from the last one by more than a line of space here.", top=620),
        *lines_of("• first 5 mg twice daily", "• second <18 mg/dl", "o third", top=590),
    ]
    (doc,) = read(written(tmp_path, page, title="Bronchiolitis in infants"))
    assert doc.title == "Bronchiolitis in infants"
    assert doc.text.split("\n\n") == [
        "# Bronchiolitis in infants",
        "## 1 Treatment",
        "Give oxygen if SpO2 <92% or pCO2 >6.5 kPa [95% CI 1.2–3.4], p<0.05; stop at µg doses ≥ 5 µg/kg. α₂-agonists "
        "are not used. of the children most recover at home with oral fluids and rest for a few days more",
        "A new paragraph stands apart from the last one by more than a line of space here.",
        "- first 5 mg twice daily\n- second <18 mg/dl",
        "o third",
    ]


def test_powers_of_ten_keep_their_mark(tmp_path):
    page = [*lines_of(WORDS[:60], top=700), (72, 680, 11, "WBC 10"), (72 + 6 * 6.6, 684, 7, "9"),
            (72 + 6 * 6.6 + 4.3, 680, 11, "/L and 10 mg")]  # fmt: skip
    (doc,) = read(written(tmp_path, page))
    assert "10^9/L and 10 mg" in doc.text


def test_broken_words_are_mended_with_care(tmp_path):
    page = lines_of(
        "The patient was given anti-",
        "biotics, which are antibiotics for long-",
        "term use; long-term care and hydro-",
        "cortisone at 5-",
        "10 mg, non-",
        "HDL low. In pneumo-",
        "nia give it. So the ward-",
        "round of the ward in the ward asks a round of questions.",
    )
    (doc,) = read(written(tmp_path, page))
    for right in (
        "given antibiotics,",
        "for long-term use",
        "hydrocortisone at 5-10 mg, non-HDL low",
        "pneumonia give",
    ):
        assert right in doc.text, doc.text
    assert "\ufffe" not in doc.text and "\x02" not in doc.text


def test_running_heads_and_page_numbers_go_and_nothing_else(tmp_path):
    pages = [
        [
            (72, 770, 9, "Guideline on asthma 2023" if n % 2 else f"{n + 4}   Society of lungs"),
            *lines_of(*textwrap.wrap(f"On page {n} it says: {WORDS}. Dose {n + 1} mg.", 60), top=700),
            (300, 30, 9, f"Page {n + 4} of 9"),
        ]
        for n in range(6)
    ]
    (doc,) = read(written(tmp_path, *pages))
    assert "Society" not in doc.text and "asthma 2023" not in doc.text and "Page" not in doc.text
    assert [int(n) for n in re.findall(r"Dose (\d+) mg", doc.text)] == [1, 2, 3, 4, 5, 6]
    two = read(written(tmp_path, *pages[:2], name="two.pdf"))[0].text
    assert "Society" in two  # two pages prove nothing


def test_columns_are_read_one_after_the_other(tmp_path):
    left = textwrap.wrap("left " * 40 + "the left ends.", 34)
    right = textwrap.wrap("right " * 40 + "the right ends.", 34)
    (doc,) = read(written(tmp_path, [*lines_of(*left, left=60), *lines_of(*right, left=330)]))
    assert doc.text.index("the left ends.") < doc.text.index("right right")
    assert doc.text.count("left") == 41 and doc.text.count("right") == 41


def test_text_set_in_the_letters_of_the_body_can_end_in_references(tmp_path):
    page = (
        lines_of(*textwrap.wrap(WORDS + ".", 50), top=700)
        + lines_of("References", top=600)
        + lines_of("1. Smith J. Lancet 2001; 1: 2-3.", top=570)
    )
    assert "Smith" not in read(written(tmp_path, page))[0].text
    assert "Smith" in read(tmp_path / "a.pdf", clean=False)[0].text


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "the file is empty"),
        (b"%PDF-1.5\nnothing follows", "damaged"),
        (pdf([lines_of(WORDS)])[:200], "damaged"),
        (b"\x00\xff" * 500, "is no PDF"),
        (b"<!DOCTYPE html><p>404</p>", "an HTML page and no PDF"),
        (pdf([lines_of(WORDS)], password=True), "encrypted"),
        (pdf([]), "damaged, or no PDF"),
    ],
    ids=["empty", "head", "cut", "noise", "page", "locked", "none"],
)
def test_what_is_no_readable_pdf_is_a_bad_row(tmp_path, data, why):
    path = tmp_path / "bad.pdf"
    path.write_bytes(data)
    (row,) = read(path)
    assert isinstance(row, BadRow) and why in row.why and row.file == str(path)


def test_pages_without_text_are_left_out_and_said(tmp_path):
    (row,) = read(written(tmp_path, [(72, 700, 11, "Scan 7")], [], []))
    assert isinstance(row, Left) and row.rule == "no_text" and "3 pages" in row.sample


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("while True: pass", "CPU time"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashed on it (SIGSEGV)"),
        ("x = bytearray(4 << 30)", "more than the 1024 MiB"),
        ("raise SystemExit(3)", "failed"),
        ("print('half')", "before it had answered"),
    ],
    ids=["hangs", "crashes", "memory", "fails", "silent"],
)
def test_a_library_that_fails_does_not_take_the_build_down(tmp_path, monkeypatch, code, why):
    child = tmp_path / "child.py"
    limits = (
        Path(guidelines_pdf._CHILD).read_text().split("    import pypdfium2")[0].split("def main")[1].split('"""')[2]
    )
    child.write_text(f"import resource, sys\nargv = sys.argv[1:]\n{textwrap.dedent(limits)}\n{code}\n")
    assert "RLIMIT_CPU" in child.read_text()
    monkeypatch.setattr(guidelines_pdf, "_CHILD", child)
    (row,) = read(written(tmp_path, lines_of(WORDS)), pdf_seconds=1)
    assert isinstance(row, BadRow) and why in row.why


def test_too_many_pages_are_refused_before_they_are_read(tmp_path):
    with pytest.raises(guidelines_pdf.NotAPdf, match="has 3 pages, more than the 2"):
        guidelines_pdf.read(written(tmp_path, *[lines_of(WORDS)] * 3), pages=2)


def test_the_same_words_on_tables_that_go_on_are_no_running_heads():
    rows = [
        [Line(text=f"drug {i} {page + 3}", size=10, x=72, y=700 - 12 * i, page=page) for i in range(9)]
        for page in range(4)
    ]
    assert without_edges(rows) == rows  # they end with the number of their page, and stand in the text


def test_a_table_of_contents_goes():
    texts = ("1 Doses . . . . . . . . . . 4", "2 Harms.................. 12", "Doses are low. They may rise.")
    lines = [Line(text=text, size=10, x=72, y=700 - 12 * i, page=0) for i, text in enumerate(texts)]
    assert compose([lines])[1] == "Doses are low. They may rise."


def test_the_child_needs_nothing_of_the_toolkit():
    text = Path(guidelines_pdf._CHILD).read_text()
    assert "toolkit" not in text.split('"""')[2]
