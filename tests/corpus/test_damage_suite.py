"""Clinical strings that a clean-up easily breaks, through every reader, mending and filters: all come out letter by
letter, in paragraphs, at the beginning of lines, in lists and in cells of tables.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import Any

import pytest

from tests.corpus import made_pdf, made_pubmed, made_s2orc
from toolkit.cleaning import Filters, Language, Length, Repetition
from toolkit.corpus import filters, mend, readers
from toolkit.corpus.document import Document

# Inside sentences.
STRINGS = [
    # inequalities, which the released pipeline took for tags
    "glucose <18 mg/dl or >30 mg/dl", "age < 18 years and > 65 years", "p<0.05", "P < 0.001", "p=0.05", "CD4 <200/µl",
    "eGFR ≥60 ml/min/1.73 m²", "SpO₂ ≤ 92%", "5 < x < 10", "a<b and c>d", "BMI >=30 kg/m2", "INR <=1.5",
    "SBP≥140 mm Hg",
    # intervals and brackets, which it took for citations and links
    "[95% CI 1.2-3.4]", "OR 2.3 [95 % CI, 1.1 to 4.8]", "(HR 0.82; 95% CI 0.71–0.95; p = 0.01)", "[IQR 3–9]", "n [%]",
    "[18F]FDG PET", "[Na+] 135–145 mmol/l", "(1→3)-β-D-glucan", "{0, 1, 2}", "range [0, 1)", "Fe[II] and Fe[III]",
    # doses and units
    "5 mg/kg/day", "0.5 µg/kg/min", "0.5 μg/kg/min", "10 mg q8h", "5 mg @ 8h", "1,000 IU", "1 000 000 U",
    "2.5 × 10^9/l",
    "10^-3 mol/l", "37.5 °C", "98.6°F", "120/80 mmHg", "½ tablet", "1/2 tablet", "3 × 500 mg", "50% dextrose", "±2 SD",
    "12±3 years", "~5 ml", "≈ 70 kg", "5–10 mg", "5-10 mg", "−5 °C", "+2 dioptres", "1:1000 adrenaline", "0·05",
    "µmol·l⁻¹",
    # chemical names, genes and cells
    "1,25-dihydroxyvitamin D₃", "N-acetyl-p-aminophenol", "(S)-(−)-warfarin", "α-tocopherol", "Δ9-THC", "5-HT₂A",
    "trans-Δ⁹-tetrahydrocannabinol", "2-[4-(2-methylpropyl)phenyl]propanoic acid", "CO2 and H2O", "Ca²⁺/Mg²⁺", "HCO3-",
    "HLA-B*57:01", "CYP2D6*4", "BRCA1 c.68_69delAG", "p.Val600Glu", "HOXA@ locus", "TNF-α", "IL-1β", "IFN-γ",
    "CD4+CD25+",
    "99mTc-MIBI", "t(9;22)(q34;q11)", "46,XX,del(5)(q13q33)", "NF-κB", "β₂-agonist", "E. coli O157:H7", "SARS-CoV-2",
    # signs, arrows, words that look like markup, names
    "→ refer to surgery", "A ↔ B", "↑ ALT, ↓ albumin", "≠ 0", "≡", "∑x²", "√2", "∞", "ΔG = −RT ln K", "χ² = 4.2",
    "λ = 0.5",
    "AT&T; R&D", "A&E department", "5′-AMP", "3″", "“quoted” text", "patient’s", "naïve", "Sjögren’s", "Guillain–Barré",
    "grade I/II", "yes/no", "and/or", "§ 4.2", "† deceased", "50 €", "#1 cause", "T4 N1 M0 (stage III)", "G1P0",
    "a.m./p.m.",
    "Step 1: stop; Step 2: call", "v2.0", "C:D ratio", "mg%", "ECOG 0–1", "ß-thalassaemia", "Ménière",
]  # fmt: skip
# At the beginning of a line, where the released pipeline took an o for a bullet, and < or [ for a tag.
OPENINGS = [
    "of the 120 patients, 18 were lost to follow-up", "or on day 3 whichever came first",
    "o blood group donors were 45%", "on admission the pulse was 120/min", "oxygen was given at 2 l/min",
    "once daily dosing was preferred to twice", "<18 years of age were excluded from the trial",
    "≥3 drugs were needed in 12 of them", "p<0.05 was held significant", "5 mg of the drug was given at once",
    "± 2 SD is where the limits lie", "α-blockers were stopped the day before",
    "95% CI 1.2-3.4 was the interval found", "(a) fever, (b) rash and (c) pain were asked for",
]  # fmt: skip
CARRIER = "The finding of {} was noted in group {}."


def test_the_suite_is_large_and_its_strings_differ():
    assert len(STRINGS) >= 100 and len(set(STRINGS + OPENINGS)) == len(STRINGS) + len(OPENINGS)


def sentence(index: int, text: str) -> str:
    return CARRIER.format(text, index)


SENTENCES = [sentence(index, text) for index, text in enumerate(STRINGS)]
Made = tuple[str, str, bytes, dict[str, Any]]  # kind of reader, name of the file, its bytes, options


def _jats(markup: str, tables: str) -> Made:
    paragraphs = "".join(f"<p>{escape(text)}</p>" for text in SENTENCES + OPENINGS)
    items = "".join(f"<list-item><p>{escape(text)}</p></list-item>" for text in SENTENCES)
    rows = "".join(f"<tr><td>{escape(text)}</td><td>{index}</td></tr>" for index, text in enumerate(STRINGS))
    captions = "".join(
        f'<fig id="f{i}"><label>Figure {i}</label><caption><p>{escape(text)}</p></caption></fig>'
        for i, text in enumerate(SENTENCES)
    )
    body = (
        '<article xml:lang="en"><front><article-meta><article-id pub-id-type="pmc">1</article-id><title-group>'
        f"<article-title>{escape(STRINGS[0])}</article-title></title-group>"
        f"<abstract><p>{escape(SENTENCES[1])}</p></abstract></article-meta>"
        f"</front><body><sec><title>Results</title>{paragraphs}<list>{items}</list>{captions}"
        f"<table-wrap><label>Table 1</label><caption><p>{escape(SENTENCES[0])}</p></caption><table><tbody>{rows}"
        "</tbody></table></table-wrap></sec></body></article>"
    )
    return "pmc", "a.nxml", body.encode(), {"markup": markup, "tables": tables}


def _s2orc(markup: str) -> Made:
    record = made_s2orc.Record()
    record.add("A study of findings", "title", after="\n\n").add("Findings were noted.", "abstract", after="\n\n")
    record.add("Results", "sectionheader", after="\n")
    for text in SENTENCES + OPENINGS:
        record.add(text, "paragraph", after="\n")
    return "s2orc", "a.jsonl", json.dumps(record.first()).encode(), {"markup": markup, "require": "any"}


def _pubmed() -> Made:
    parts = "".join(
        f'<AbstractText Label="PART {index}">{escape(text)}</AbstractText>'
        for index, text in enumerate([" ".join(SENTENCES), *OPENINGS])
    )
    file = made_pubmed.file(made_pubmed.record(1, f"<Abstract>{parts}</Abstract>", title=escape(STRINGS[0])))
    return "abstracts", "a.xml.gz", gzip.compress(file), {}


def _s2_abstract() -> Made:
    row = {"corpusid": 1, "externalids": {"PubMed": "1"}, "title": "T", "abstract": "\n".join(SENTENCES + OPENINGS)}
    return "abstracts", "a.jsonl", json.dumps(row).encode(), {"require": "any"}


def _html(tables: str) -> Made:
    paragraphs = "".join(f"<p>{escape(text)}</p>\n" for text in SENTENCES + OPENINGS)
    items = "".join(f"<li>{escape(text)}</li>" for text in SENTENCES)
    rows = "".join(f"<tr><td>{escape(text)}</td><td>{index}</td></tr>" for index, text in enumerate(STRINGS))
    page = (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Care</title></head><body><main>"
        "<h1>Care</h1>"
        f"{paragraphs}<ul>{items}</ul><table>{rows}</table></main></body></html>"
    )
    return "guidelines", "who/a.html", page.encode(), {"tables": tables, "license": "guideline-open"}


def _markdown() -> Made:
    text = "# Care\n\n" + "\n\n".join(SENTENCES + OPENINGS) + "\n\n" + "\n".join(f"- {text}" for text in SENTENCES)
    return "guidelines", "who/a.md", text.encode(), {"license": "guideline-open"}


def _pdf() -> Made:
    lines = SENTENCES + OPENINGS
    pages = [made_pdf.lines_of(*lines[i : i + 40]) for i in range(0, len(lines), 40)]
    return "guidelines", "who/a.pdf", made_pdf.pdf(pages, title="Care"), {"license": "guideline-open"}


def _published_guidelines() -> Made:
    row = {"id": "1", "source": "who", "title": "T", "clean_text": "\n".join(SENTENCES + OPENINGS), "url": ""}
    return "guidelines", "guidelines.jsonl", json.dumps({**row, "raw_text": ""}).encode(), {}


def _rows(kind: str, field: str = "text", ascii: bool = True) -> Made:
    row = {"id": "1", field: "\n".join(SENTENCES + OPENINGS)}
    return kind, "a.jsonl", json.dumps(row, ensure_ascii=ascii).encode(), {}


def _parquet(folder: Path) -> Made:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"text": ["\n".join(SENTENCES + OPENINGS)], "id": ["1"]}), folder / "rows.parquet")
    return "replay", "a.parquet", (folder / "rows.parquet").read_bytes(), {}


PATHS: dict[str, Callable[[], Made]] = {
    "JATS, tags, captions": lambda: _jats("tags", "caption"),
    "JATS, tags, tables": lambda: _jats("tags", "text"),
    "JATS, plain, captions": lambda: _jats("plain", "caption"),
    "JATS, plain, tables": lambda: _jats("plain", "text"),
    "S2ORC, tags": lambda: _s2orc("tags"),
    "S2ORC, plain": lambda: _s2orc("plain"),
    "PubMed XML": _pubmed,
    "Semantic Scholar abstract": _s2_abstract,
    "HTML, captions": lambda: _html("caption"),
    "HTML, tables": lambda: _html("text"),
    "Markdown": _markdown,
    "PDF": _pdf,
    "published guidelines": _published_guidelines,
    "JSON lines": lambda: _rows("jsonl"),
    "JSON lines, not escaped": lambda: _rows("jsonl", ascii=False),
    "replay": lambda: _rows("replay", "content"),
}
ON = Filters(
    licences=("open", "unknown"),
    cutoff="2024",
    length=Length(min_words=20),
    repetition=Repetition(
        **{"enabled": True, "lines": 1.0, "line_characters": 1.0, "paragraphs": 1.0, "paragraph_characters": 1.0},
        **{f"again_{n}": 1.0 for n in range(5, 11)},
        **{f"top_{n}": 0.5 for n in range(2, 5)},
    ),
    language=Language(keep=("en",)),
)


def _through(made: Made, folder: Path) -> Iterator[Document]:
    """What comes out of reader, mending and filters; each string stands in the file several times, so that what only
    some of its places keep would show in the counts.
    """
    kind, name, data, options = made
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(data)
    reader = readers.module(kind)
    shared = {"markup": "plain", "tables": "caption", "license": "", "seed": 0}
    reader.check({key: value for key, value in options.items() if key not in shared})
    given = {**shared, **options}
    if hasattr(reader, "prepare"):
        given.update(reader.prepare([folder], given, folder / "prepared"))
    for item in reader.read(file, "s", given):
        assert isinstance(item, Document), item
        doc, _ = mend.document(item)
        removed = filters.check(doc, ON)
        assert removed is None, removed
        yield doc


@pytest.mark.parametrize("path", [*PATHS, "Parquet"])
def test_clinical_strings_survive(path, tmp_path):
    made = _parquet(tmp_path) if path == "Parquet" else PATHS[path]()
    (doc,) = _through(made, tmp_path)
    lines = doc.text if path not in ("PDF",) else " ".join(doc.text.split())
    lost = [text for text in SENTENCES if text not in lines]
    assert not lost, [_nearest(text, doc.text) for text in lost[:12]]
    lost = [text for text in OPENINGS if text not in lines]
    assert not lost, [_nearest(text, doc.text) for text in lost]
    if path.startswith("JATS") or path == "PubMed XML":
        assert STRINGS[0] in doc.title


@pytest.mark.parametrize("path", ["JATS, tags, captions", "JATS, plain, captions", "HTML, captions", "Markdown"])
def test_strings_in_lists_survive_too(path, tmp_path):
    """Each is there as a paragraph, as an item, and in JATS in a figure's caption."""
    (doc,) = _through(PATHS[path](), tmp_path)
    wanted = 3 if path == "JATS, plain, captions" else 2
    lost = [text for text in SENTENCES[2:] if doc.text.count(text) < wanted]
    assert not lost, [_nearest(text, doc.text) for text in lost[:12]]


@pytest.mark.parametrize("path", ["JATS, tags, tables", "JATS, plain, tables", "HTML, tables"])
def test_strings_in_cells_survive_when_tables_are_asked_for(path, tmp_path):
    (doc,) = _through(PATHS[path](), tmp_path)
    cells = {cell.strip() for line in doc.text.split("\n") if "|" in line for cell in line.strip("| ").split(" | ")}
    lost = [text for text in STRINGS if text not in cells]
    assert not lost, [_nearest(text, doc.text) for text in lost[:12]]


# Written with markup and references: (as HTML writes it, as it is to be read). JATS has names of its own for the tags.
MARKED = [
    ("CO<sub>2</sub> was given", "CO2 was given"),
    ("10<sup>-3</sup> mol", "10^-3 mol"),
    ("2.5 &#215; 10<sup>9</sup>/l", "2.5 × 10^9/l"),
    ("1.73 m<sup>2</sup> of skin", "1.73 m^2 of skin"),
    ("Na<sup>+</sup> fell to 120", "Na^+ fell to 120"),
    ("<i>p</i>&#160;&lt;&#8201;0.05 held", "p < 0.05 held"),
    ("&lt;18 mg/dl or &gt;30", "<18 mg/dl or >30"),
    ("&#8805;5&#160;mg or 10&#8239;000 IU", "≥5 mg or 10 000 IU"),
    ("<i>E.&#160;coli</i> O157", "E. coli O157"),
    ("<b>5</b>&#8211;<b>10</b> mg", "5–10 mg"),
    ("&#8722;5 to &#177;2", "−5 to ±2"),
    ("TNF-<i>&#945;</i> rose", "TNF-α rose"),
    ("A&amp;E and R&amp;D", "A&E and R&D"),
    ("co&#173;operation", "cooperation"),
    ("<sup>99m</sup>Tc scan", "99mTc scan"),
    ("HbA<sub>1c</sub> &#8804;7%", "HbA1c ≤7%"),
]


def _marked(path: str) -> Made:
    texts = [sentence(index, text) for index, (text, _) in enumerate(MARKED)]
    if path == "HTML":
        page = "".join(f"<p>{text}</p>" for text in texts)
        page = f"<html><head><meta charset='utf-8'><title>Care</title></head><body><h1>Care</h1>{page}</body></html>"
        return "guidelines", "who/a.html", page.encode(), {"license": "guideline-open"}
    if path == "PubMed XML":
        parts = f"<Abstract><AbstractText>{' '.join(texts)}</AbstractText></Abstract>"
        return "abstracts", "a.xml", made_pubmed.file(made_pubmed.record(1, parts)), {}
    body = "".join(f"<p>{text}</p>" for text in texts)
    for name, jats in (("i", "italic"), ("b", "bold")):
        body = body.replace(f"<{name}>", f"<{jats}>").replace(f"</{name}>", f"</{jats}>")
    body = f"<article><front/><body><sec><title>Results</title>{body}</sec></body></article>"
    return "pmc", "a.xml", body.encode(), {"markup": path.removeprefix("JATS, ")}


@pytest.mark.parametrize("path", ["JATS, tags", "JATS, plain", "PubMed XML", "HTML"])
def test_markup_and_references_become_what_they_mean(path, tmp_path):
    (doc,) = _through(_marked(path), tmp_path)
    # A raised charge may stand raised or not; a raised number may not: 10-3 is not 10^-3.
    body = doc.text.replace("Na+", "Na^+")
    lost = [wanted for index, (_, wanted) in enumerate(MARKED) if sentence(index, wanted) not in body]
    assert not lost, (lost, doc.text)


def test_strings_stay_what_they_are_in_mending_alone():
    for text in STRINGS + OPENINGS:
        doc = Document(id="a", source="s", subset="s", title=text, text=f"Title\n{text}\n{sentence(1, text)}")
        assert mend.document(doc) == (doc, ()), text


def _nearest(text: str, body: str) -> tuple[str, str]:
    """What was wanted, and what stands where it should be."""
    number = text.rpartition(" group ")[2]
    found = next((line for line in body.split("\n") if number and f"group {number}" in line), "")
    at = found.find(f"group {number}")
    return text, found[max(0, at - len(text)) : at + 12] if found else "nowhere"
